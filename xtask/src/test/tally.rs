//! The counts of a run and its summary.

use std::process::ExitCode;
use std::time::Duration;

use crate::progress;

/// What has been counted so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    passed: usize,
    failed: Vec<(String, String)>,
    skipped: Vec<(String, String)>,
}

impl Tally {
    /// Adds passes.
    pub(crate) fn pass(&mut self, count: usize) {
        self.passed += count;
    }

    /// Adds a failure.
    pub(crate) fn fail(&mut self, name: &str, why: &str) {
        self.failed.push((name.to_owned(), why.to_owned()));
    }

    /// Adds a skip.
    pub(crate) fn skip(&mut self, name: &str, why: &str) {
        self.skipped.push((name.to_owned(), why.to_owned()));
    }

    /// Adds another tally, its names prefixed.
    pub(crate) fn add(&mut self, prefix: &str, other: &Self) {
        self.passed += other.passed;
        let named = |(name, why): &(String, String)| (format!("{prefix}{name}"), why.clone());
        self.failed.extend(other.failed.iter().map(named));
        self.skipped.extend(other.skipped.iter().map(named));
    }

    /// The three counts: passed, failed, skipped.
    pub(crate) fn counts(&self) -> (usize, usize, usize) {
        (self.passed, self.failed.len(), self.skipped.len())
    }

    /// Names and reasons of the skips.
    pub(crate) fn skips(&self) -> &[(String, String)] {
        &self.skipped
    }

    /// Names and reasons of the failures.
    pub(crate) fn failures(&self) -> &[(String, String)] {
        &self.failed
    }

    /// The closing line.
    pub(crate) fn line(&self) -> String {
        let (passed, failed, skipped) = self.counts();
        format!("{passed} passed, {failed} failed, {skipped} skipped")
    }

    /// Prints what was skipped, what failed, and the closing line.
    pub(crate) fn print(&self, took: Duration) {
        progress::heading("summary");
        for (name, why) in &self.skipped {
            progress::step(progress::Mark::Skipped, name, why, None);
        }
        for (name, why) in &self.failed {
            progress::step(progress::Mark::Failed, name, why, None);
        }
        progress::note(&format!("{:.0} s in all", took.as_secs_f64()));
        progress::result(&self.line());
    }

    /// 0 when something passed and nothing failed, else 1.
    pub(crate) fn exit_code(&self) -> ExitCode {
        if self.failed.is_empty() && self.passed > 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_in_which_nothing_passed_is_not_a_success() {
        let mut tally = Tally::default();
        assert_eq!(format!("{:?}", tally.exit_code()), format!("{:?}", ExitCode::FAILURE));
        tally.pass(1);
        assert_eq!(format!("{:?}", tally.exit_code()), format!("{:?}", ExitCode::SUCCESS));
        tally.fail("x", "y");
        assert_eq!(format!("{:?}", tally.exit_code()), format!("{:?}", ExitCode::FAILURE));
    }

    #[test]
    fn the_closing_line_has_the_three_counts() {
        let mut tally = Tally::default();
        tally.pass(3);
        tally.skip("a", "b");
        assert_eq!(tally.line(), "3 passed, 0 failed, 1 skipped");
    }
}
