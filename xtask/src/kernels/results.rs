//! What was seen under each kernel, and how it is told: JSON, a table, the page `docs/kernels.md`.

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

use crate::kernels::programs::VERIFIER;
use crate::progress::{self, Mark};
use crate::test::libtest::Report;
use crate::test::tally::Tally;

/// Everything that one run of the command saw.
#[derive(Debug, Serialize)]
pub(crate) struct Results {
    /// Day of the run, UTC.
    pub(crate) date: String,
    /// The command that was run.
    pub(crate) command: String,
    /// This machine's kernel first, then the guests'.
    pub(crate) kernels: Vec<KernelRun>,
}

/// What was seen under one kernel.
#[derive(Debug, Serialize)]
pub(crate) struct KernelRun {
    /// "6.1".
    pub(crate) series: String,
    release: String,
    version: String,
    /// Why it was not run, if it was not.
    unavailable: Option<String>,
    /// What went wrong outside the tests.
    problems: Vec<String>,
    programs: Vec<Program>,
    tests: Vec<TestRun>,
    /// Wall-clock time, boot included.
    pub(crate) seconds: u64,
}

/// The verifier's figures for one program, as `egress-kernels` prints them.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Program {
    name: String,
    instructions: u32,
    machine_code: u32,
    load_micros: u64,
    refusal: Option<String>,
}

/// The counts of one test program.
#[derive(Debug, Serialize)]
struct TestRun {
    name: String,
    passed: usize,
    failed: Vec<(String, String)>,
    skipped: Vec<(String, String)>,
}

impl KernelRun {
    /// A kernel of which nothing is known yet.
    pub(crate) fn new(series: &str, release: &str, version: &str) -> Self {
        Self {
            series: series.to_owned(),
            release: release.to_owned(),
            version: version.to_owned(),
            unavailable: None,
            problems: Vec::new(),
            programs: Vec::new(),
            tests: Vec::new(),
            seconds: 0,
        }
    }

    /// A kernel that this machine cannot have.
    pub(crate) fn unavailable(series: &str, why: &str) -> Self {
        Self { unavailable: Some(why.to_owned()), ..Self::new(series, "", "") }
    }

    /// A kernel that could not be run.
    pub(crate) fn broken(series: &str, why: &str) -> Self {
        Self { problems: vec![why.to_owned()], ..Self::new(series, "", "") }
    }

    /// Whether it was run at all.
    pub(crate) fn ran(&self) -> bool {
        self.unavailable.is_none() && !self.release.is_empty()
    }

    /// Notes something that went wrong outside the tests.
    pub(crate) fn problem(&mut self, what: &str, detail: &str) {
        self.problems.push(format!("{what}\n{detail}"));
    }

    /// Takes in what one job printed.
    pub(crate) fn add_job(&mut self, name: &str, output: &str, ended_well: bool) {
        if name == VERIFIER {
            let line = output.lines().find_map(|line| line.strip_prefix("@@programs "));
            match line.map(serde_json::from_str::<Vec<Program>>) {
                Some(Ok(programs)) if !programs.is_empty() => self.programs = programs,
                Some(Ok(_) | Err(_)) | None => self.problem("the verifier program reported nothing", output),
            }
            return;
        }
        let tally = Report::read(output).count(name, ended_well);
        if !tally.failures().is_empty() {
            let lines: Vec<&str> = output.lines().collect();
            let from = lines.iter().position(|line| *line == "failures:").unwrap_or(lines.len().saturating_sub(40));
            progress::note(&lines.iter().skip(from).take(80).copied().collect::<Vec<_>>().join("\n"));
        }
        let (passed, _, _) = tally.counts();
        let announced = Report::read(output).announced();
        if announced > 0 || !tally.failures().is_empty() {
            let (failed, skipped) = (tally.failures().to_vec(), tally.skips().to_vec());
            self.tests.push(TestRun { name: name.to_owned(), passed, failed, skipped });
        }
    }

    /// One line per program and test program.
    pub(crate) fn report(&self) {
        for program in &self.programs {
            let (mark, detail) = match &program.refusal {
                None => (Mark::Done, format!("{} instructions walked", program.instructions)),
                Some(_) => (Mark::Failed, "refused by the verifier".to_owned()),
            };
            progress::step(mark, &program.name, &detail, None);
            progress::note(program.refusal.as_deref().unwrap_or_default());
        }
        for test in &self.tests {
            let mark = if test.failed.is_empty() { Mark::Done } else { Mark::Failed };
            let counts =
                format!("{} passed, {} failed, {} skipped", test.passed, test.failed.len(), test.skipped.len());
            progress::step(mark, &test.name, &counts, None);
        }
        for problem in &self.problems {
            progress::step(Mark::Failed, &format!("Linux {}", self.series), problem, None);
        }
        progress::note(&format!("{} s", self.seconds));
    }

    /// Programs accepted and tests, counted.
    pub(crate) fn tally(&self) -> Tally {
        let mut tally = Tally::default();
        if let Some(why) = &self.unavailable {
            tally.skip("not run", why);
        }
        for program in &self.programs {
            match &program.refusal {
                None => tally.pass(1),
                Some(_) => tally.fail(&program.name, "refused by the verifier"),
            }
        }
        for test in &self.tests {
            tally.pass(test.passed);
            test.failed.iter().for_each(|(name, why)| tally.fail(name, why));
            test.skipped.iter().for_each(|(name, why)| tally.skip(name, why));
        }
        for problem in &self.problems {
            tally.fail("problem", problem.lines().next().unwrap_or_default());
        }
        tally
    }

    fn instructions(&self, program: &str) -> String {
        match self.programs.iter().find(|candidate| candidate.name == program) {
            Some(Program { refusal: Some(_), .. }) => "refused".to_owned(),
            Some(found) => with_commas(found.instructions),
            None => "–".to_owned(),
        }
    }

    fn tests_of(&self, package: &str) -> String {
        let of_package = |test: &&TestRun| test.name.starts_with(package);
        let tests: Vec<&TestRun> = self.tests.iter().filter(of_package).collect();
        if tests.is_empty() {
            return "–".to_owned();
        }
        let passed: usize = tests.iter().map(|test| test.passed).sum();
        let failed: usize = tests.iter().map(|test| test.failed.len()).sum();
        let skipped: usize = tests.iter().map(|test| test.skipped.len()).sum();
        let mut text = format!("{passed} passed");
        for (count, word) in [(failed, "failed"), (skipped, "skipped")] {
            if count > 0 {
                let _ = write!(text, ", {count} {word}");
            }
        }
        text
    }
}

fn with_commas(number: u32) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

impl Results {
    /// A run that has seen nothing yet.
    pub(crate) fn new(date: &str, command: &str) -> Self {
        Self { date: date.to_owned(), command: command.to_owned(), kernels: Vec::new() }
    }

    fn program_names(&self) -> Vec<&str> {
        let mut names: Vec<&str> =
            self.kernels.iter().flat_map(|kernel| &kernel.programs).map(|program| program.name.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        names
    }

    fn headings(&self) -> Vec<String> {
        let heading = |kernel: &KernelRun| match &kernel.unavailable {
            Some(_) => format!("{} (not run)", kernel.series),
            None => kernel.release.clone(),
        };
        self.kernels.iter().map(heading).collect()
    }

    /// The verifier's instruction counts, for a terminal.
    pub(crate) fn table(&self) -> String {
        let mut text = format!("\n{:<14}", "instructions");
        for heading in self.headings() {
            let _ = write!(text, " {heading:>28}");
        }
        for name in self.program_names() {
            let _ = write!(text, "\n{name:<14}");
            for kernel in &self.kernels {
                let _ = write!(text, " {:>28}", kernel.instructions(name));
            }
        }
        text
    }

    /// The page `docs/kernels.md`.
    pub(crate) fn page(&self) -> String {
        let mut page = format!(
            "<!-- Generated by `{command}`. Do not edit. -->\n\n# Kernels\n\n\
             What was seen on {date} by `{command}`: the kernels are Debian's, run in qemu without hardware help, except the one \
             of the machine itself, whose tests `cargo xtask test` runs. Before 6.6 the programs sit in clsact filters instead of tcx links.\n\n## Tests\n\n\
             | kernel | package | programs accepted | packet tests | end-to-end tests |\n|---|---|---|---|---|\n",
            command = self.command,
            date = self.date
        );
        for kernel in &self.kernels {
            let accepted = kernel.programs.iter().filter(|program| program.refusal.is_none()).count();
            let _ = writeln!(
                page,
                "| {} | {} | {accepted} of {} | {} | {} |",
                kernel.release,
                kernel.version,
                kernel.programs.len(),
                kernel.tests_of("egress-packets"),
                kernel.tests_of("egress-e2e")
            );
        }
        page.push_str(
            "\n## Instructions that the verifier walked\n\nThe kernel's limit is 1,000,000 for each program (Linux 5.2, commit c04c0d2b968a).\n\n",
        );
        let _ = writeln!(
            page,
            "| program | {} |\n|---|{}",
            self.headings().join(" | "),
            "---:|".repeat(self.kernels.len())
        );
        for name in self.program_names() {
            let counts: Vec<String> = self.kernels.iter().map(|kernel| kernel.instructions(name)).collect();
            let _ = writeln!(page, "| `{name}` | {} |", counts.join(" | "));
        }
        self.skips(&mut page);
        page
    }

    fn skips(&self, page: &mut String) {
        let skips: Vec<String> = self
            .kernels
            .iter()
            .flat_map(|kernel| {
                kernel.tests.iter().flat_map(move |test| test.skipped.iter().map(move |skip| (kernel, skip)))
            })
            .map(|(kernel, (name, why))| format!("- {}: {name}: {why}\n", kernel.series))
            .collect();
        if !skips.is_empty() {
            let _ = write!(page, "\n## Skipped\n\n{}", skips.concat());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run() -> KernelRun {
        let mut run = KernelRun::new("6.1", "6.1.0-56", "6.1.192-2");
        let programs = r#"@@programs [{"name":"a","instructions":7,"machine_code":1,"load_micros":1,"refusal":null},
            {"name":"b","instructions":0,"machine_code":0,"load_micros":1,"refusal":"stack"}]"#;
        run.add_job(VERIFIER, &programs.replace('\n', ""), false);
        run.add_job("egress-packets (library)", "running 1 test\ntest x ... ok\ntest result: ok.\n", true);
        run
    }

    #[test]
    fn a_refused_program_is_a_failure_and_an_accepted_one_a_pass() {
        assert_eq!(run().tally().counts(), (2, 1, 0));
    }

    #[test]
    fn a_verifier_program_that_says_nothing_is_a_failure() {
        let mut run = KernelRun::new("6.1", "6.1.0", "1");
        run.add_job(VERIFIER, "Segmentation fault\n", false);
        assert_eq!(run.tally().counts(), (0, 1, 0));
    }

    #[test]
    fn large_counts_are_written_with_commas() {
        assert_eq!([7, 999, 1_000, 1_234_567].map(with_commas), ["7", "999", "1,000", "1,234,567"]);
    }

    #[test]
    fn a_kernel_that_cannot_be_had_is_a_skip() {
        assert_eq!(KernelRun::unavailable("6.12", "not in apt").tally().counts(), (0, 0, 1));
    }

    #[test]
    fn the_page_names_command_date_kernel_and_counts() {
        let mut results = Results::new("2026-01-02", "cargo xtask kernels");
        results.kernels.push(run());
        let page = results.page();
        for part in ["2026-01-02", "cargo xtask kernels", "| `a` | 7 |", "| `b` | refused |", "1 of 2", "1 passed"] {
            assert!(page.contains(part), "{part} is not in\n{page}");
        }
    }
}
