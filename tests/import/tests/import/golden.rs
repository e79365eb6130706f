//! Cases that people meet, from the documentation of each kind in our own words: `golden/KIND/CASE.in` becomes `golden/KIND/CASE.out`.
//!
//! A first line `# from: KIND` or `# namespace: NAME` sets the option. `EGRESS_GOLDEN=write` accepts what comes out now.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use egress_policy::import::{Imported, Options, Source, import, kind};

use crate::imported::read;

/// Every case, by path.
pub(crate) fn cases() -> Vec<(PathBuf, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden");
    let mut cases = Vec::new();
    for folder in fs::read_dir(root).expect("the folder golden") {
        for file in fs::read_dir(folder.expect("a folder").path()).expect("a folder of cases") {
            let path = file.expect("a file").path();
            if path.extension().is_some_and(|extension| extension == "in") {
                let text = fs::read_to_string(&path).expect("a case");
                cases.push((path, text));
            }
        }
    }
    cases.sort();
    cases
}

pub(crate) fn options(text: &str) -> Options {
    let setting = |name: &str| {
        let lines = text.lines().take_while(|line| line.starts_with('#'));
        let mut found = lines.filter_map(|line| line.strip_prefix("# ")?.strip_prefix(name)?.strip_prefix(": "));
        found.next().map(str::to_owned)
    };
    Options {
        from: setting("from").map(|name| kind(&name).unwrap_or_else(|| panic!("{name} is no kind"))),
        namespace: setting("namespace"),
    }
}

#[test]
fn every_case_gives_what_it_shows() {
    let write = std::env::var("EGRESS_GOLDEN").is_ok_and(|value| value == "write");
    let mut different = Vec::new();
    for (path, text) in cases() {
        let imported = import(&[Source { name: "in", text: &text }], &options(&text));
        for object in &imported.objects {
            let object = serde_json::to_value(object).expect("objects serialize");
            if object["apiVersion"] == "egress.rs/v1alpha1" {
                read(&object).unwrap_or_else(|message| panic!("{}: {message}", path.display()));
            }
        }
        let (expected, found) = (path.with_extension("out"), shown(&imported));
        if write {
            fs::write(&expected, &found).expect("the folder can be written");
        } else if fs::read_to_string(&expected).unwrap_or_default() != found {
            different.push(format!("{} gives\n{found}", path.display()));
        }
    }
    assert!(different.is_empty(), "{}", different.join("\n"));
}

/// The report and the objects, as one text.
fn shown(imported: &Imported) -> String {
    let mut text = String::new();
    let report = &imported.report;
    for row in &report.rows {
        let line = row.line.map(|line| format!("line {line}: ")).unwrap_or_default();
        let _ = writeln!(text, "# {line}{}: {} {}: {}", row.outcome.name(), row.object, row.path, row.rule);
        for said in row.into.iter().map(|into| format!("-> {into}")).chain(row.why.iter().cloned()) {
            let _ = writeln!(text, "#   {said}");
        }
    }
    for problem in &report.problems {
        let _ = writeln!(text, "# problem: {}", problem.problem);
    }
    for note in &report.notes {
        let _ = writeln!(text, "# note: {}: {}", note.path, note.message);
    }
    for skipped in &report.skipped {
        let _ = writeln!(text, "# skipped: {}", skipped.object);
    }
    let objects = imported.objects.iter().map(|object| serde_saphyr::to_string(object).expect("objects serialize"));
    text + &objects.collect::<Vec<_>>().join("---\n")
}
