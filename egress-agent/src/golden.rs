//! What the commands print, whole, in every format: `golden/NAME.txt`, `.json`, `.yaml`. For tests only.
//!
//! `EGRESS_GOLDEN=write` accepts what comes out now; the difference is then to be read in the commit.

use std::fs;
use std::path::Path;

use crate::cli::Output;
use crate::output::{self, Answer};

/// Insists that the answer is written as it was, for people and for programs, and that JSON and YAML say the same.
pub(crate) fn insist(name: &str, answer: &impl Answer) {
    let written = |format| {
        let mut out = Vec::new();
        output::write(&mut out, answer, format, false).unwrap();
        String::from_utf8(out).unwrap()
    };
    let (json, yaml) = (written(Output::Json), written(Output::Yaml));
    let json_value: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(serde_saphyr::from_str::<serde_json::Value>(&yaml).unwrap(), json_value, "{name}");
    assert!(json_value["version"].is_u64(), "{name} has no version");
    for (ending, text) in [("txt", written(Output::Table)), ("json", json), ("yaml", yaml)] {
        insist_text(&format!("{name}.{ending}"), &text);
    }
}

/// Insists that a text is as it was.
pub(crate) fn insist_text(name: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden").join(name);
    if std::env::var("EGRESS_GOLDEN").is_ok_and(|value| value == "write") {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
    }
    let expected = fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(text, expected, "{} says something else", path.display());
}
