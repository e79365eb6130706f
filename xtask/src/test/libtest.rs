//! Reads what a test program of Rust's own harness prints with `--show-output`.
//!
//! A test that lacks something prints `SKIPPED: reason` and returns; the harness calls that a pass, so the captured
//! output of each test is searched for it. A report without its last line, or with fewer results than it announced, is a
//! failure: a test program that dies half-way must not pass.

use std::collections::{BTreeMap, BTreeSet};

use crate::test::tally::Tally;

const SKIPPED: &str = "SKIPPED:";

/// What one test program reported.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Report {
    passed: BTreeSet<String>,
    failed: BTreeSet<String>,
    skipped: BTreeMap<String, String>,
    /// Skips whose test is unknown because the line did not pass through the harness.
    stray: Vec<String>,
    announced: usize,
    results: usize,
    complete: bool,
}

impl Report {
    /// Reads the output of a test program, or of several one after the other.
    pub(crate) fn read(output: &str) -> Self {
        let mut report = Self::default();
        let mut section: Option<String> = None;
        for line in output.lines() {
            if let Some(reason) = skip_reason(line) {
                report.note_skip(section.as_deref(), reason);
            } else if let Some(name) = section_of(line) {
                section = Some(name.to_owned());
            } else if ["successes:", "failures:"].contains(&line) {
                section = None;
            } else if let Some(count) = announced(line) {
                report.announced += count;
                report.complete = false;
            } else if line.starts_with("test result: ") {
                report.complete = true;
                section = None;
            } else if section.is_none() {
                report.result(line);
            }
        }
        for name in report.skipped.keys() {
            report.passed.remove(name);
        }
        report
    }

    fn note_skip(&mut self, section: Option<&str>, reason: &str) {
        match section {
            Some(name) => {
                self.skipped.entry(name.to_owned()).or_insert_with(|| reason.to_owned());
            }
            None => self.stray.push(reason.to_owned()),
        }
    }

    fn result(&mut self, line: &str) {
        let Some((name, outcome)) = line.strip_prefix("test ").and_then(|rest| rest.rsplit_once(" ... ")) else {
            return;
        };
        let name = name.strip_suffix(" - should panic").unwrap_or(name).to_owned();
        let outcome = outcome.trim();
        if outcome == "ok" {
            self.passed.insert(name);
        } else if outcome.starts_with("ignored") {
            let reason = outcome.trim_start_matches("ignored").trim_start_matches([',', ' ']);
            self.skipped.insert(name, if reason.is_empty() { "ignored".to_owned() } else { reason.to_owned() });
        } else {
            self.failed.insert(name);
        }
        self.results += 1;
    }

    /// How many tests it announced.
    pub(crate) fn announced(&self) -> usize {
        self.announced
    }

    /// Adds this report to a tally. `ended_well` is the program's own exit status.
    pub(crate) fn count(&self, program: &str, ended_well: bool) -> Tally {
        let mut tally = Tally::default();
        tally.pass(self.passed.len().saturating_sub(self.stray.len()));
        for name in &self.failed {
            tally.fail(&format!("{program} {name}"), "failed");
        }
        for (name, reason) in &self.skipped {
            tally.skip(&format!("{program} {name}"), reason);
        }
        for reason in &self.stray {
            tally.skip(program, reason);
        }
        if !self.complete || self.results != self.announced {
            let why = format!("ended early: {} results of {} announced", self.results, self.announced);
            tally.fail(program, &why);
        } else if !ended_well && self.failed.is_empty() {
            tally.fail(program, "every test passed, but the program failed");
        }
        tally
    }
}

fn skip_reason(line: &str) -> Option<&str> {
    let line = line.trim_start();
    // Uncaptured output can stand behind the harness's own "test name ... ".
    let at = if line.starts_with(SKIPPED) { Some(0) } else { line.find(&format!("... {SKIPPED}")).map(|at| at + 4) };
    at.and_then(|at| line.get(at + SKIPPED.len()..)).map(str::trim)
}

fn section_of(line: &str) -> Option<&str> {
    let inner = line.strip_prefix("---- ")?;
    inner.strip_suffix(" stdout ----").or_else(|| inner.strip_suffix(" stderr ----"))
}

fn announced(line: &str) -> Option<usize> {
    let count = line.strip_prefix("running ")?;
    count.strip_suffix(" tests").or_else(|| count.strip_suffix(" test"))?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "\nrunning 3 tests\ntest a ... ok\ntest b::c ... ok\ntest d ... ignored, too slow\n\nsuccesses:\n\n\
        ---- b::c stdout ----\nSKIPPED: no nft here\n\n\nsuccesses:\n    a\n    b::c\n\n\
        test result: ok. 2 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s\n";

    #[test]
    fn a_test_that_says_skipped_is_a_skip_and_not_a_pass() {
        let tally = Report::read(GOOD).count("p", true);
        assert_eq!(tally.counts(), (1, 0, 2));
        assert_eq!(tally.skips()[0], ("p b::c".to_owned(), "no nft here".to_owned()));
    }

    #[test]
    fn a_report_that_breaks_off_is_a_failure() {
        let broken = GOOD.split("test result").next().unwrap();
        assert_eq!(Report::read(broken).count("p", false).counts().1, 1);
        assert_eq!(Report::read("").count("p", true).counts(), (0, 1, 0));
        let short = GOOD.replace("test a ... ok\n", "");
        assert_eq!(Report::read(&short).count("p", true).counts().1, 1);
    }

    #[test]
    fn failures_are_counted_by_name_once() {
        let text = "running 2 tests\ntest a ... FAILED\ntest b - should panic ... ok\n\nfailures:\n\n---- a stdout ----\n\
            thread panicked\ntest x ... ok\n\nfailures:\n    a\n\ntest result: FAILED. 1 passed; 1 failed; 0 ignored\n";
        let tally = Report::read(text).count("p", false);
        assert_eq!(tally.counts(), (1, 1, 0));
        assert_eq!(tally.failures()[0].0, "p a");
    }

    #[test]
    fn a_skip_that_went_past_the_harness_is_counted_too() {
        let text = "running 1 test\ntest a ... SKIPPED: no IPv6\nok\ntest a ... ok\ntest result: ok. 1 passed\n";
        let tally = Report::read(text).count("p", true);
        assert_eq!(tally.counts(), (0, 0, 1));
    }

    #[test]
    fn a_program_that_fails_although_its_tests_passed_is_a_failure() {
        let text = "running 1 test\ntest a ... ok\ntest result: ok. 1 passed\n";
        assert_eq!(Report::read(text).count("p", false).counts(), (1, 1, 0));
        assert_eq!(Report::read(text).count("p", true).counts(), (1, 0, 0));
    }
}
