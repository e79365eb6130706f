//! `egress-agent import` from outside, and the examples of the pages that describe it.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod cli_files;

use std::fs;
use std::path::Path;

use cli_files::Files;

const OPENSHIFT: &str = "\
apiVersion: network.openshift.io/v1
kind: EgressNetworkPolicy
metadata: {name: default}
spec:
  egress:
  - {type: Allow, to: {cidrSelector: 203.0.113.0/24}}
  - {type: Deny, to: {dnsName: -odd.example.com}}
";

/// The text of every code block of a language.
fn blocks<'t>(page: &'t str, language: &str) -> Vec<&'t str> {
    let opening = format!("```{language}\n");
    page.split(opening.as_str()).skip(1).map(|rest| rest.split("```").next().unwrap()).collect()
}

#[test]
fn every_example_of_the_pages_does_what_it_shows() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/import");
    // `EGRESS_GOLDEN=write` puts into the pages what comes out now.
    let write = std::env::var("EGRESS_GOLDEN").is_ok_and(|value| value == "write");
    let mut ran = 0;
    for page in fs::read_dir(folder).unwrap() {
        let path = page.unwrap().path();
        let page = fs::read_to_string(&path).unwrap();
        let mut shown = page.clone();
        let titled = ["yaml", "text"].into_iter().flat_map(|language| blocks(&page, language));
        let named = titled.filter_map(|block| Some((block.lines().next()?.strip_prefix("# ")?, block)));
        let files = Files::new(&named.collect::<Vec<_>>());
        for example in blocks(&page, "console").iter().flat_map(|block| block.split("$ ").skip(1)) {
            let (command, expected) = example.split_once('\n').unwrap();
            let run = files.shell(&format!("( {command} ) 2>&1"));
            if write {
                shown = shown.replacen(&format!("$ {command}\n{expected}"), &format!("$ {command}\n{}", run.out), 1);
            } else {
                assert_eq!(run.out, expected, "{}: {command}", path.display());
            }
            assert!(run.code <= 1, "{command}: {run:?}");
            ran += 1;
        }
        if write {
            fs::write(&path, shown).unwrap();
        }
    }
    assert!(ran >= 3, "{ran}");
}

#[test]
fn objects_go_to_standard_output_and_the_report_to_standard_error() {
    let files = Files::new(&[("old.yaml", OPENSHIFT)]);
    let run = files.agent(&["import", "old.yaml", "--namespace", "shop"]);
    assert_eq!(run.code, 0);
    assert!(run.err.contains("old.yaml:7: wider: "), "{}", run.err);
    let checked = files.agent_reading(&["check", "-"], &run.out);
    assert_eq!((checked.code, checked.out.as_str()), (0, "1 file, 1 valid object: 0 problems, 0 warnings\n"));
    assert_eq!(files.agent(&["import", "old.yaml", "--strict"]).code, 1);
}

#[test]
fn programs_get_objects_and_report_with_a_version() {
    let files = Files::new(&[("old.yaml", OPENSHIFT)]);
    let run = files.agent_reading(&["import", "-", "-o", "json"], OPENSHIFT);
    let json = run.json();
    assert_eq!((run.code, run.err.as_str(), &json["version"]), (0, "", &1.into()));
    assert_eq!(json["objects"][0]["metadata"]["name"], "default");
    assert_eq!(json["objects"][0]["metadata"]["namespace"], serde_json::Value::Null);
    let row = &json["report"]["rows"][1];
    assert_eq!((&row["outcome"], &row["line"], &row["path"]), (&"wider".into(), &7.into(), &"spec.egress[1]".into()));
}

#[test]
fn what_is_written_for_another_firewall_can_be_imported_from_it() {
    let files = Files::new(&[("old.yaml", OPENSHIFT)]);
    let ours = files.agent(&["import", "old.yaml", "--namespace", "shop"]);
    for target in ["openshift", "ovn", "cnp"] {
        let there = files.agent_reading(&["import", "-", "--to", target], &ours.out);
        assert_eq!(there.code, 0, "{there:?}");
        let back = files.agent_reading(&["import", "-", "--from", target], &there.out);
        assert_eq!(back.code, 0, "{target}: {back:?}");
        assert!(back.out.contains("cidrSelector: 203.0.113.0/24"), "{target}: {back:?}");
    }
    assert_eq!(files.agent(&["import", "old.yaml", "--to", "iptables"]).code, 2);
}

#[test]
fn a_missing_file_is_a_wrong_argument_and_a_broken_one_a_negative_answer() {
    let files = Files::new(&[("broken.yaml", "apiVersion: [\n")]);
    assert_eq!(files.agent(&["import", "missing.yaml"]).code, 2);
    let run = files.agent(&["import", "broken.yaml"]);
    assert_eq!(run.code, 1);
    assert!(run.err.contains("broken.yaml:1: error: this is not valid YAML"), "{}", run.err);
    assert_eq!(files.agent(&["import", "--from", "iptables", "broken.yaml"]).code, 2);
}
