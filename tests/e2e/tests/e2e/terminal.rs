//! What a person does with `top`, `monitor` and long answers, on a terminal: keys, another size, signals, and the terminal afterwards.

use egress_e2e::{DENIED, Lab, OFFICE, PORT, Terminal, at, document, policy, reaches, reaches_udp, world};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

fn line<'s>(screen: &'s str, start: &str) -> &'s str {
    screen.lines().find(|line| line.starts_with(start)).unwrap_or_else(|| panic!("no line {start} in\n{screen}"))
}

/// The lines of a part of `top`, between its headers and those of the next one.
fn part<'s>(screen: &'s str, header: &str) -> Vec<&'s str> {
    let lines = screen.lines().skip_while(|line| !line.starts_with(header)).skip(1);
    lines.take_while(|line| !line.starts_with('─') && !line.trim().is_empty()).collect()
}

fn numbers(line: &str) -> Vec<&str> {
    let words: Vec<&str> = line.split_whitespace().collect();
    words[words.len() - 3..].to_vec()
}

#[test]
fn top_shows_real_refusals_and_obeys_its_keys_and_leaves_the_terminal_as_it_was() {
    let Some(world) = world(&["default/client", "default/other"]) else {
        return;
    };
    let trial = document("trial", &["mode: Audit", "priority: 1"], &["Deny 1.2.3.0/24"]);
    let mut lab = Lab::new(&world, &(policy(&OFFICE) + &trial));
    let Some(terminal) = Terminal::open(&world, 100, 40) else {
        return;
    };
    let top = format!("egress-agent top --state-dir {}", lab.agent.state("").display());
    terminal.enter(&top);
    let empty = terminal.wait_for("q quit   p pause   s sort (refused)");
    assert!(empty.starts_with("egress on ") && !empty.contains("default/client"), "{empty}");
    let (client, other) = (world.pod("client"), world.pod("other"));
    for remote in DENIED {
        for _ in 0..3 {
            assert!(!reaches(client, at(remote, PORT)));
        }
    }
    assert!(!reaches_udp(other, at(DENIED[0], PORT)) && reaches(other, at("1.2.3.4", PORT)));
    let screen = terminal.wait_until("what was refused", |screen| {
        part(screen, "pods").len() == 2
            && part(screen, "destinations").len() == 4
            && screen.contains("rule 4 of default/office")
    });
    let pods = part(&screen, "pods");
    assert!(pods[0].starts_with("default/client ") && numbers(pods[0])[2] == "6", "{screen}");
    // How many packets the connection that Audit would refuse took is its own affair.
    assert!(
        pods[1].starts_with("default/other ") && numbers(pods[1])[0] != "0" && numbers(pods[1])[1] != "0",
        "{screen}"
    );
    for to in ["5.6.7.8:443/TCP", "[2001:db8:2::8]:443/TCP"] {
        assert_eq!(numbers(line(&screen, to))[2], "3", "{screen}");
    }
    let rules = part(&screen, "rules");
    for (verdict, rule) in [
        ("deny", "rule 3 of default/office"),
        ("deny", "rule 4 of default/office"),
        ("audit-deny", "rule 1 of default/trial"),
    ] {
        assert!(rules.iter().any(|row| row.starts_with(&format!("{verdict:<11} {rule} "))), "{rule}:\n{screen}");
    }
    // Red by either name.
    let colours = terminal.colours();
    let pod = colours.lines().find(|line| line.contains("default/client")).expect("the pod");
    assert!(pod.contains("\u{1b}[31m") || pod.contains("\u{1b}[38;5;1m"), "{pod:?}");

    // Sorted by what Audit would refuse, then in all, then by name.
    terminal.press("s");
    terminal.wait_until("the order of audit", |screen| {
        screen.contains("s sort (audit)")
            && part(screen, "pods").first().is_some_and(|row| row.starts_with("default/other "))
    });
    for (order, first) in [("in all", "default/"), ("name", "default/client "), ("refused", "default/")] {
        terminal.press("s");
        terminal.wait_until(order, |screen| {
            screen.contains(&format!("s sort ({order})"))
                && part(screen, "pods").first().is_some_and(|row| row.starts_with(first))
        });
    }
    // Filtered; q is a letter then.
    terminal.press("/");
    terminal.enter("Other");
    let filtered = terminal.wait_for("only \"other\"");
    assert_eq!(part(&filtered, "pods").len(), 1, "{filtered}");
    terminal.press("/");
    terminal.press("q");
    terminal.wait_for("/otherq_");
    terminal.press("Escape");
    terminal.wait_until("everything again", |screen| part(screen, "pods").len() == 2);

    // Paused nothing changes, but the size does.
    terminal.press("p");
    terminal.wait_for(", paused");
    assert!(!reaches_udp(other, at(DENIED[1], PORT)));
    terminal.resize(60, 20);
    let small = terminal.wait_until("a smaller screen", |screen| {
        let lines: Vec<&str> = screen.lines().collect();
        lines.len() == 20 && lines.last().is_some_and(|last| last.starts_with("q quit   p go on"))
    });
    assert!(
        small.lines().all(|line| line.chars().count() <= 60) && !small.contains("2001:db8:2::8]:443/UDP"),
        "{small}"
    );
    terminal.resize(120, 50);
    terminal
        .wait_until("a larger screen", |screen| screen.lines().last().is_some_and(|last| last.starts_with("q quit")));
    terminal.press("p");
    terminal.wait_for("[2001:db8:2::8]:443/UDP");

    // The agent goes, and another one comes.
    lab.agent.kill();
    terminal.wait_for("no agent listens on");
    lab.agent.start();
    terminal.wait_for("q quit   p pause");
    terminal.press("r");
    terminal.wait_until("a new beginning", |screen| part(screen, "pods").is_empty());
    assert!(!reaches(client, at(DENIED[0], PORT)));
    terminal.wait_for("default/client");
    terminal.press("q");
    terminal.insist_ended(0);

    insist_restored(&terminal, &top);
}

/// Ended by a signal or by Ctrl-C it leaves the terminal as it was, too.
fn insist_restored(terminal: &Terminal, top: &str) {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        terminal.enter(top);
        terminal.wait_for("q quit");
        kill(Pid::from_raw(terminal.running()), signal).expect("top runs");
        terminal.insist_ended(0);
    }
    terminal.enter(top);
    terminal.wait_for("q quit");
    terminal.press("C-c");
    terminal.insist_ended(0);
}

#[test]
fn top_on_no_terminal_and_without_an_agent_says_what_to_do() {
    let Some(world) = world(&["default/client"]) else {
        return;
    };
    let mut lab = Lab::new(&world, &policy(&OFFICE));
    let output = lab.agent.command(&["top"]).output().expect("running the agent");
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("use `egress-agent monitor -o json` in a pipe"));
    let Some(terminal) = Terminal::open(&world, 200, 24) else {
        return;
    };
    lab.agent.kill();
    terminal.enter(&format!("egress-agent top --state-dir {}", lab.agent.state("").display()));
    terminal.wait_for("no agent listens on");
    terminal.insist_ended(3);
}

#[test]
fn monitor_writes_coloured_lines_until_it_is_interrupted() {
    let Some(world) = world(&["default/client"]) else {
        return;
    };
    let lab = Lab::new(&world, &policy(&OFFICE));
    let Some(terminal) = Terminal::open(&world, 180, 24) else {
        return;
    };
    terminal.enter(&format!("egress-agent monitor --state-dir {}", lab.agent.state("").display()));
    for (remote, rule) in DENIED.into_iter().zip(["rule 3 of default/office", "rule 4 of default/office"]) {
        let expected = format!("{:<28}  {rule}: ", format!("{}/TCP", at(remote, PORT)));
        // Whether it listens already is seen only by what it writes.
        let screen = terminal.wait_until(&expected, |screen| {
            assert!(!reaches(world.pod("client"), at(remote, PORT)));
            screen.contains(&expected)
        });
        let row = screen.lines().find(|line| line.contains(&expected)).expect("the line");
        assert!(row.contains("  denied      default/client            "), "{row}");
    }
    assert!(terminal.colours().contains("\u{1b}[31mdenied"), "{}", terminal.colours());
    terminal.press("C-c");
    terminal.insist_ended(130);
}

#[test]
fn a_long_answer_is_paged_and_a_short_one_is_not() {
    let Some(world) = world(&["default/client"]) else {
        return;
    };
    let rules: Vec<String> = (0..300).map(|n| format!("Deny 10.{}.{}.0/24", n / 250, n % 250)).collect();
    let _lab = Lab::new(&world, &policy(&rules.iter().map(String::as_str).collect::<Vec<_>>()));
    let Some(terminal) = Terminal::open(&world, 160, 24) else {
        return;
    };
    let dump = format!("egress-agent dump rules --bpffs {}", world.bpffs().display());
    terminal.enter(&dump);
    let first =
        terminal.wait_until("the first page", |screen| screen.lines().last().is_some_and(|last| last.starts_with(':')));
    assert!(first.contains("rules, in the order of evaluation") && !first.contains("default action"), "{first}");
    // Ctrl-C is the pager's, which goes on.
    terminal.press("C-c");
    terminal.press_until("G", "the last page", |screen| screen.contains("default action"));
    terminal.press_until("q", "the shell", |_| terminal.is_idle());
    terminal.press("C-u");
    terminal.insist_ended(0);

    for (environment, arguments) in [
        ("EGRESS_PAGER=cat", "dump rules"),
        ("PAGER=", "dump rules"),
        ("TERM=dumb", "dump rules"),
        ("", "dump endpoints"),
    ] {
        terminal.enter(&format!("{environment} egress-agent {arguments} --bpffs {}", world.bpffs().display()));
        terminal.wait_for(if arguments == "dump endpoints" { "default/client" } else { "default action" });
        terminal.insist_ended(0);
    }
    terminal.enter(&format!("EGRESS_PAGER='sed s/Deny/Paged/' {dump}"));
    terminal.wait_for("Paged 10.1.49.0/24");
    terminal.insist_ended(0);
}
