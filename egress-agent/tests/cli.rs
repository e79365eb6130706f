//! The binary from outside: exit codes, messages and help. Only `test --kernel` loads anything into the kernel here.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

fn agent(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_egress-agent")).args(arguments).output().unwrap()
}

fn code(output: &Output) -> i32 {
    output.status.code().unwrap()
}

fn errors(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn help_has_examples_and_ends_well() {
    for (arguments, expected) in [
        (vec!["--help"], "Exit codes: 0 ok"),
        (vec!["run", "--help"], "egress-agent run --cleanup"),
        (vec!["dump", "--help"], "egress-agent dump rules"),
        (vec!["status", "--help"], "egress-agent status -o json"),
        (vec!["monitor", "--help"], "egress-agent monitor --denied --pod shop/web"),
        (vec!["top", "--help"], "egress-agent top --namespace shop"),
        (vec!["suggest", "--help"], "egress-agent suggest --namespace shop --since 1h"),
        (vec!["check", "--help"], "egress-agent check --strict"),
        (vec!["test", "--help"], "egress-agent test policies/ --cases cases.yaml"),
        (vec!["diff", "--help"], "egress-agent diff old/ new/"),
        (vec!["why", "--help"], "egress-agent why shop/web '[2001:db8::1]:53/UDP'"),
        (vec!["completions", "--help"], "egress-agent completions bash"),
    ] {
        let output = agent(&arguments);
        assert_eq!(code(&output), 0);
        let help = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(help.contains(expected), "{help}");
    }
}

#[test]
fn every_command_has_examples_documented_exit_codes_and_a_manual_page() {
    let folder = tempfile::tempdir().unwrap();
    let pages = folder.path().join("man1");
    assert_eq!(code(&agent(&["man", text(&pages)])), 0);
    let command = egress_agent::cli::command();
    let names: Vec<&str> = command.get_subcommands().map(clap::Command::get_name).collect();
    assert!(names.len() >= 14, "{names:?}");
    for name in names {
        let output = agent(&[name, "--help"]);
        let help = String::from_utf8_lossy(&output.stdout).into_owned();
        assert_eq!(code(&output), 0, "{name}");
        assert!(help.contains("Examples:\n  egress-agent ") || help.contains("| egress-agent "), "{name}: {help}");
        assert!(help.contains("Exit codes: 0 "), "{name}: {help}");
        let page = fs::read_to_string(pages.join(format!("egress-agent-{name}.1"))).unwrap();
        assert!(page.contains(".SH NAME") && page.contains("Exit codes: 0"), "{page}");
    }
    let page = fs::read_to_string(pages.join("egress-agent.1")).unwrap();
    assert!(page.contains("egress\\-agent\\-why(1)"), "{page}");
    assert_eq!(code(&agent(&["man", "/dev/null/pages"])), 3);
}

#[test]
fn wrong_arguments_are_usage_errors() {
    for arguments in [
        vec![],
        vec!["run"],
        vec!["run", "--policies", "x"],
        vec!["run", "--cleanup", "--policies", "x"],
        vec!["dump", "nonsense"],
        vec!["dump", "-o", "xml"],
        vec!["why", "default/curl"],
        vec!["why", "curl", "1.2.3.4"],
        vec!["why", "default/curl", "1.2.3.0/24"],
        vec!["monitor", "--limit", "0"],
        vec!["monitor", "--namespace", "a", "--pod", "a/b"],
        vec!["run", "--policies", "p", "--endpoints", "e", "--flow-log-size", "10"],
        vec!["suggest"],
        vec!["suggest", "-n", "shop", "--since", "soon"],
        vec!["suggest", "-n", "Shop: {"],
        vec!["top"],
        vec!["completions", "tcl"],
        vec!["run", "--policies", "p", "--endpoints", "e", "--max-endpoints", "0"],
    ] {
        assert_eq!(code(&agent(&arguments)), 2, "{arguments:?}");
    }
}

#[test]
fn missing_files_are_named_with_what_to_do_about_them() {
    let folder = tempfile::tempdir().unwrap();
    let endpoints = folder.path().join("endpoints.yaml");
    let absent = agent(&["run", "--policies", "/no/such/folder", "--endpoints", text(&endpoints)]);
    assert_eq!(code(&absent), 2);
    assert!(errors(&absent).contains("/no/such/folder"), "{}", errors(&absent));
    let no_endpoints = agent(&["run", "--policies", text(folder.path()), "--endpoints", text(&endpoints)]);
    assert_eq!(code(&no_endpoints), 2);
    assert!(errors(&no_endpoints).contains("endpoints: []"), "{}", errors(&no_endpoints));
    fs::write(&endpoints, "endpoints: []").unwrap();
    let config = folder.path().join("config.yaml");
    let arguments = ["run", "--policies", text(folder.path()), "--endpoints", text(&endpoints), "--config"];
    let no_config = agent(&[arguments.as_slice(), &[text(&config)]].concat());
    assert_eq!(code(&no_config), 2);
    assert!(errors(&no_config).contains("--config"), "{}", errors(&no_config));
}

#[test]
fn a_folder_that_is_no_bpffs_is_a_runtime_error_with_the_command_to_type() {
    let folder = tempfile::tempdir().unwrap();
    let endpoints = folder.path().join("endpoints.yaml");
    fs::write(&endpoints, "endpoints: []").unwrap();
    let pins = folder.path().join("pins");
    let output = agent(&[
        "run",
        "--policies",
        text(folder.path()),
        "--endpoints",
        text(&endpoints),
        "--state-dir",
        text(&folder.path().join("state")),
        "--bpffs",
        text(&pins),
    ]);
    assert_eq!(code(&output), 3);
    let said = errors(&output);
    // Without privileges the earlier check speaks first.
    assert!(said.contains("mount -t bpf bpf") || said.contains("run it as root"), "{said}");
    assert!(!pins.exists());
}

#[test]
fn a_dump_of_nothing_is_a_negative_answer_and_says_so() {
    let output = agent(&["dump", "--bpffs", "/no/such/pins"]);
    let said = errors(&output);
    assert!(output.stdout.is_empty());
    // Without privileges the pins cannot be looked for, so there is no answer.
    let (expected, words) =
        if said.contains("run it as root") { (3, "CAP_") } else { (1, "nothing is pinned in /no/such/pins") };
    assert_eq!(code(&output), expected);
    assert!(said.contains(words), "{said}");
}

#[test]
fn the_kernel_is_asked_only_where_something_is_pinned() {
    let output = agent(&["why", "default/curl", "[2001:db8::1]:443", "--bpffs", "/no/such/pins"]);
    let said = errors(&output);
    assert!(output.stdout.is_empty());
    let (expected, words) =
        if said.contains("run it as root") { (3, "CAP_") } else { (1, "nothing is pinned in /no/such/pins") };
    assert_eq!(code(&output), expected);
    assert!(said.contains(words), "{said}");
}

#[test]
fn where_neither_agent_nor_pins_are_status_and_monitor_say_so() {
    let output = agent(&["status", "--state-dir", "/no/such/state", "--bpffs", "/no/such/pins"]);
    let said = errors(&output);
    let expected = if said.contains("run it as root") { 3 } else { 1 };
    assert_eq!(code(&output), expected, "{said}");
    let output = agent(&["monitor", "--socket", "/no/such/agent.sock"]);
    assert_eq!(code(&output), 3);
    assert!(errors(&output).contains("no agent listens on /no/such/agent.sock"), "{}", errors(&output));
}

#[test]
fn without_root_the_kernel_is_not_asked_and_with_it_nothing_is_left_behind() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("p.yaml");
    let policy = "apiVersion: egress.rs/v1alpha1\nkind: EgressNetworkPolicy\nmetadata: {name: p}\n\
                  spec: {egress: [{type: Deny, to: {cidrSelector: 1.2.3.0/24}, ports: [{protocol: TCP, port: 443}]}]}\n";
    fs::write(&file, policy).unwrap();
    let question = ["--from", "default/a", "--to", "1.2.3.4/TCP", "--to", "[2001:db8::1]:53/UDP", "--kernel"];
    let asked = [&["test", text(&file)], &question[..]].concat();
    let mut command = Command::new(env!("CARGO_BIN_EXE_egress-agent"));
    let child = command.args(asked).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let own = format!("egress-try-{}", child.id());
    let output = child.wait_with_output().unwrap();
    if errors(&output).contains("run it as root") {
        return assert_eq!(code(&output), 3);
    }
    assert_eq!(code(&output), 1, "{}", errors(&output));
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    // TCP before 443, 443 and after it, and one datagram.
    assert!(said.contains("the kernel's programs judged 4 packets, each as the table says"), "{said}");
    for folder in ["/sys/fs/bpf", "/sys/fs/cgroup", "/sys/fs/cgroup/unified"] {
        assert!(!Path::new(folder).join(&own).exists(), "{folder}/{own}");
    }
}

#[test]
fn what_is_killed_while_it_asks_the_kernel_leaves_no_pins() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("p.yaml");
    let policy = "apiVersion: egress.rs/v1alpha1\nkind: EgressNetworkPolicy\nmetadata: {name: p}\n\
                  spec: {egress: [{type: Deny, to: {cidrSelector: 1.2.3.0/24}}]}\n";
    fs::write(&file, policy).unwrap();
    // So many questions that it is still asking.
    let many: Vec<String> = (0..40_000).map(|n| format!("--to=1.2.{}.{}/TCP", n / 256, n % 256)).collect();
    let mut command = Command::new(env!("CARGO_BIN_EXE_egress-agent"));
    command.args(["test", text(&file), "--from", "default/a", "--kernel"]).args(many);
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let own = format!("egress-try-{}", child.id());
    let cgroups = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"].map(|root| Path::new(root).join(&own));
    // As the thread that asks sees it.
    let threads = Path::new("/proc").join(child.id().to_string()).join("task");
    let is_pinned = |thread: fs::DirEntry| thread.path().join("root/sys/fs/bpf").join(&own).exists();
    let is_asking = || fs::read_dir(&threads).is_ok_and(|threads| threads.flatten().any(is_pinned));
    let deadline = Instant::now() + Duration::from_mins(1);
    while !is_asking() && child.try_wait().unwrap().is_none() {
        assert!(Instant::now() < deadline, "nothing is pinned");
        thread::sleep(Duration::from_millis(5));
    }
    child.kill().unwrap();
    let output = child.wait_with_output().unwrap();
    if errors(&output).contains("run it as root") {
        return;
    }
    assert_eq!(output.status.code(), None, "it ended before it was killed: {}", errors(&output));
    assert!(!Path::new("/sys/fs/bpf").join(&own).exists());
    // The empty cgroup goes with the next one that asks.
    assert!(cgroups.iter().any(|path| path.exists()));
    let output = agent(&["test", text(&file), "--from", "default/a", "--to", "1.2.3.4/TCP", "--kernel"]);
    assert_eq!(code(&output), 1, "{}", errors(&output));
    assert!(cgroups.iter().all(|path| !path.exists()));
}

#[test]
fn shells_get_completions_of_every_command() {
    let command = egress_agent::cli::command();
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let output = agent(&["completions", shell]);
        assert_eq!(code(&output), 0);
        let script = String::from_utf8_lossy(&output.stdout).into_owned();
        for name in command.get_subcommands().map(clap::Command::get_name).chain(["service-account"]) {
            assert!(script.contains(name), "{shell}: {name}");
        }
    }
}

#[test]
fn cleaning_up_where_nothing_is_ends_well() {
    let output = agent(&["run", "--cleanup", "--bpffs", "/no/such/pins"]);
    let said = errors(&output);
    assert!(code(&output) == 0 || said.contains("run it as root"), "{said}");
}

/// The arguments of a `run` that has everything but what the tests take away.
fn run_in(folder: &Path) -> Vec<String> {
    let endpoints = folder.join("endpoints.yaml");
    fs::write(&endpoints, "endpoints: []").unwrap();
    let state = folder.join("state");
    let pins = format!("/sys/fs/bpf/egress-cli-{}", std::process::id());
    let arguments = ["run", "--policies", text(folder), "--endpoints", text(&endpoints)];
    let places = ["--state-dir", text(&state), "--bpffs", pins.as_str()];
    arguments.iter().chain(&places).map(ToString::to_string).collect()
}

#[test]
fn a_cgroup_root_that_is_none_is_named_with_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    for root in [text(folder.path()), "/no/such/cgroup"] {
        let run = run_in(folder.path());
        let arguments: Vec<&str> = run.iter().map(String::as_str).chain(["--cgroup-root", root]).collect();
        let output = agent(&arguments);
        let said = errors(&output);
        assert_eq!(code(&output), 3, "{said}");
        let expected = format!("{root} is not in a cgroup v2 hierarchy; correct --cgroup-root, or leave it out");
        assert!(said.contains(&expected) || said.contains("run it as root"), "{said}");
    }
}

/// In a mount namespace of its own, from which every cgroup v2 hierarchy is taken away.
#[test]
fn a_machine_without_cgroup_v2_is_told_how_to_get_it() {
    const TAKE_AWAY: &str = "grep ' - cgroup2 ' /proc/self/mountinfo | cut -d' ' -f5 | sort -r | while read -r at; \
                             do umount -l \"$at\" || exit 9; done; exec \"$@\"";
    if !nix::unistd::Uid::effective().is_root() {
        eprintln!("SKIPPED: only root can take mounts away");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", TAKE_AWAY, "sh", env!("CARGO_BIN_EXE_egress-agent")]);
    let output = command.args(run_in(folder.path())).output().unwrap();
    let said = errors(&output);
    assert_eq!(code(&output), 3, "{said}");
    assert!(said.contains("no cgroup v2 hierarchy is mounted; mount one with `mount -t cgroup2 none"), "{said}");
}
