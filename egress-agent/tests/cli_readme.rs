//! What the README shows is what the binary does, and help does not promise more. The example of `why` needs a kernel and is run end to end.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod cli_files;

use cli_files::Files;

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
