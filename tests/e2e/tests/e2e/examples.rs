//! What docs/asking.md shows is what a running agent answers. In an example `…` stands for anything, and alone on a line for any lines.

use std::process::Stdio;

use egress_e2e::{Lab, at, reaches, world};
use egress_world::eventually;

const PAGE: &str = include_str!("../../../../docs/asking.md");
const README: &str = include_str!("../../../../README.md");
const REFUSED: &str = "5.6.7.8";
const PORT: u16 = 443;

/// The commands of the page with what they answer.
fn examples() -> Vec<(&'static str, &'static str)> {
    let blocks = PAGE.split("```console\n").skip(1).map(|rest| rest.split("```").next().expect("its end"));
    blocks
        .flat_map(|block| block.split("$ ").skip(1))
        .map(|example| example.split_once('\n').expect("an answer"))
        .collect()
}

/// The policy of the README.
fn policy() -> &'static str {
    let mut blocks = README.split("```yaml\n");
    let policy = blocks.find(|block| block.starts_with("kind: EgressNetworkPolicy")).expect("a policy");
    policy.split("```").next().expect("its end")
}

/// Runs an example while the pod tries to reach what is refused, or what would be.
fn run(lab: &Lab<'_>, command: &str, passes: bool) -> String {
    let words: Vec<&str> = command.split(' ').skip(1).collect();
    let mut command = lab.agent.command(&words);
    if ["why", "status", "dump"].contains(&words[0]) {
        command.arg("--bpffs").arg(lab.world.bpffs());
    }
    let mut child = command.stdout(Stdio::piped()).spawn().expect("running the agent");
    let ended = eventually(|| {
        assert_eq!(reaches(lab.world.pod("curl"), at(REFUSED, PORT)), passes);
        matches!(child.try_wait(), Ok(Some(_)))
    });
    assert!(ended, "{words:?} does not end");
    String::from_utf8(child.wait_with_output().expect("its end").stdout).expect("text")
}

fn insist(command: &str, shown: &str, answer: &str) {
    assert!(
        fits_lines(&shown.lines().collect::<Vec<_>>(), &answer.lines().collect::<Vec<_>>()),
        "{command} answers\n{answer}"
    );
}

fn fits_lines(shown: &[&str], answer: &[&str]) -> bool {
    match (shown, answer) {
        ([], []) => true,
        ([only, rest @ ..], _) if only.trim() == "…" => {
            (0..=answer.len()).any(|skip| fits_lines(rest, &answer[skip..]))
        }
        ([first, shown @ ..], [line, answer @ ..]) => fits(first, line) && fits_lines(shown, answer),
        ([], [_, ..]) | ([_, ..], []) => false,
    }
}

/// Whether the line has the parts between the dots, in order.
fn fits(shown: &str, line: &str) -> bool {
    let mut parts = shown.split('…');
    let Some(mut rest) = line.strip_prefix(parts.next().unwrap_or_default()) else { return false };
    let mut open = false;
    for part in parts {
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
        open = part.is_empty();
    }
    open || rest.is_empty()
}

#[test]
fn every_example_of_the_page_answers_as_written() {
    let Some(world) = world(&["default/curl"]) else {
        return;
    };
    let examples = examples();
    assert_eq!(examples.len(), 6);
    let lab = Lab::new(&world, policy());
    for (command, shown) in examples.iter().filter(|(command, _)| !command.contains("suggest")) {
        insist(command, shown, &run(&lab, command, false));
    }
    lab.agent.apply(&policy().replacen("spec:\n", "spec:\n  mode: Audit\n", 1));
    let (command, shown) = examples.iter().find(|(command, _)| command.contains("suggest")).expect("suggest");
    assert!(reaches(world.pod("curl"), at(REFUSED, PORT)));
    let seen = eventually(|| run(&lab, command, true).contains(REFUSED));
    assert!(seen, "nothing was observed");
    insist(command, shown, &run(&lab, command, true));
}

#[test]
fn dots_stand_for_anything_and_nothing_else_does() {
    assert!(fits("a … c", "a b c") && fits("…c", "c") && fits("a…", "a") && fits("a", "a"));
    assert!(!fits("a … c", "a b c d") && !fits("a", "a b") && !fits("…x", "a"));
    assert!(fits_lines(&["a", "  …", "d"], &["a", "b", "c", "d"]) && fits_lines(&["…"], &[]));
    assert!(!fits_lines(&["a", "…", "e"], &["a", "b"]) && !fits_lines(&["a"], &["a", "b"]));
}
