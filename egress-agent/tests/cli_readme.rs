//! What the README shows is what the binary does, and help does not promise more. The example of `why` needs a kernel and is run end to end.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod cli_files;

use std::process::{Command, Stdio};

use cli_files::{Files, WEB};

const README: &str = include_str!("../../README.md");

/// The text of every code block of a language.
fn blocks(language: &str) -> Vec<&'static str> {
    let opening = format!("```{language}\n");
    README.split(opening.as_str()).skip(1).map(|rest| rest.split("```").next().unwrap()).collect()
}

/// The files that the README shows: their name is in the first line, but for the policy.
fn files() -> Files {
    let name = |block: &'static str| match block.lines().next().unwrap().strip_prefix("# ") {
        Some(title) => title.split(':').next().unwrap(),
        None => "policies/default.yaml",
    };
    let files: Vec<(&str, &str)> = blocks("yaml").into_iter().map(|block| (name(block), block)).collect();
    Files::new(&files)
}

#[test]
fn every_example_of_the_readme_does_what_it_shows() {
    let files = files();
    let mut ran = 0;
    for example in blocks("console").iter().flat_map(|block| block.split("$ ").skip(1)) {
        let (command, expected) = example.split_once('\n').unwrap();
        if command.starts_with("egress-agent why") {
            continue;
        }
        let run = files.shell(command);
        assert_eq!((run.out.as_str(), run.err.as_str()), (expected, ""), "{command}");
        assert!(run.code <= 1, "{command}: {run:?}");
        ran += 1;
    }
    assert_eq!(ran, 5);
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    let rules: Vec<String> = (0..4000)
        .map(|n: u32| format!("  - {{type: Deny, to: {{cidrSelector: 10.{}.{}.0/24}}}}\n", n / 250, n % 250))
        .collect();
    let policy = WEB.split("  - ").next().unwrap().to_owned() + &rules.concat();
    let files = Files::new(&[("web.yaml", &policy)]);
    for format in ["table", "json", "yaml"] {
        let question =
            ["test", "web.yaml", "--from", "shop/web", "--labels", "app=web", "--to", "1.2.3.4:443", "--explain"];
        let mut command = Command::new(env!("CARGO_BIN_EXE_egress-agent"));
        command.args(question).args(["-o", format]).current_dir(files.path());
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        drop(child.stdout.take());
        let output = child.wait_with_output().unwrap();
        assert_eq!((output.status.code(), String::from_utf8_lossy(&output.stderr).as_ref()), (Some(0), ""), "{format}");
    }
}
