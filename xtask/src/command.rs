//! Runs another program as one step: its output goes to a log under `target/xtask/` and to the moving line, and only
//! a failure shows it. Also makes the environment clean for a second cargo: the outer cargo's variables would otherwise
//! choose its compiler, flags and target directory.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{BufRead as _, BufReader, Read, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

use anyhow::Context as _;

use crate::progress::{self, Live, Mark};
use crate::tree::Tree;

/// A program to run as one step.
#[derive(Debug)]
pub(crate) struct Task {
    label: String,
    command: Command,
    deadline: Duration,
    hint: Option<String>,
    echo: bool,
}

/// What a program said, and how it ended.
#[derive(Debug)]
pub(crate) struct Transcript {
    /// Standard output.
    pub(crate) stdout: String,
    /// Both streams, in the order in which lines arrived.
    pub(crate) all: String,
    /// `None` when it was stopped at its deadline.
    pub(crate) status: Option<ExitStatus>,
    /// How long it ran.
    pub(crate) took: Duration,
    /// Where the output is kept.
    pub(crate) log: PathBuf,
}

impl Transcript {
    /// Whether it ended well.
    pub(crate) fn success(&self) -> bool {
        self.status.is_some_and(|status| status.success())
    }

    /// "exit status: 1", or that it was stopped.
    pub(crate) fn ending(&self) -> String {
        self.status.map_or_else(|| format!("stopped after {} s", self.took.as_secs()), |status| status.to_string())
    }

    fn add(&mut self, line: &str, stdout: bool) {
        for text in [Some(&mut self.all), stdout.then_some(&mut self.stdout)].into_iter().flatten() {
            text.push_str(line);
            text.push('\n');
        }
    }

    /// The last lines of what it said to people.
    pub(crate) fn tail(&self, lines: usize) -> String {
        let all: Vec<&str> = self.all.lines().filter(|line| is_for_people(line)).collect();
        all.get(all.len().saturating_sub(lines)..).unwrap_or_default().join("\n")
    }
}

const DEFAULT_DEADLINE: Duration = Duration::from_mins(30);
/// How often the line is drawn and the child looked at.
pub(crate) const REDRAW: Duration = Duration::from_millis(250);
/// A child of the program may keep the pipe open after the program has ended; it is not waited for longer than this.
const AFTER_EXIT: Duration = Duration::from_secs(2);

impl Task {
    /// A step with a label for people.
    pub(crate) fn new(label: &str, command: Command) -> Self {
        Self { label: label.to_owned(), command, deadline: DEFAULT_DEADLINE, hint: None, echo: false }
    }

    /// Stops the program after this long.
    pub(crate) fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// What to do when it fails.
    pub(crate) fn hint(mut self, hint: &str) -> Self {
        self.hint = Some(hint.to_owned());
        self
    }

    /// Shows every line of output as it comes.
    pub(crate) fn echo(mut self, echo: bool) -> Self {
        self.echo = echo;
        self
    }

    /// Runs it, reports the step, and fails with the end of its output when it fails.
    pub(crate) fn run(self, tree: &Tree) -> anyhow::Result<Transcript> {
        let (label, hint) = (self.label.clone(), self.hint.clone());
        let transcript = self.watch(tree)?;
        if transcript.success() {
            progress::step(Mark::Done, &label, "", Some(transcript.took));
            return Ok(transcript);
        }
        progress::step(Mark::Failed, &label, &transcript.ending(), Some(transcript.took));
        progress::note(&transcript.tail(40));
        let hint = hint.map_or_else(String::new, |hint| format!("; {hint}"));
        anyhow::bail!("{label}: {} (whole output: {}){hint}", transcript.ending(), transcript.log.display())
    }

    /// Runs it and shows it while it runs, but leaves the report to the caller.
    pub(crate) fn watch(mut self, tree: &Tree) -> anyhow::Result<Transcript> {
        let log = log_path(tree, &self.label)?;
        let mut live = Live::start(&self.label, self.echo);
        self.command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let program = self.command.get_program().to_string_lossy().into_owned();
        let mut child = self.command.spawn().with_context(|| format!("cannot start {program}"))?;
        let (sender, lines) = mpsc::channel();
        read_lines(child.stdout.take(), true, &sender);
        read_lines(child.stderr.take(), false, &sender);
        drop(sender);
        // Written line by line, so that a long run can be looked into.
        let mut file = File::create(&log).with_context(|| format!("cannot create {}", log.display()))?;
        let mut transcript =
            Transcript { stdout: String::new(), all: String::new(), status: None, took: Duration::ZERO, log };
        let mut heard = |text: &str, stdout: bool| {
            transcript.add(text, stdout);
            writeln!(file, "{text}")
        };
        let status = follow(&mut child, &lines, self.deadline, &mut live, &mut heard)?;
        live.clear();
        (transcript.status, transcript.took) = (status, live.elapsed());
        Ok(transcript)
    }
}

/// Cargo's messages for programs are long and say nothing to people.
fn is_for_people(line: &str) -> bool {
    !line.starts_with("{\"reason\":")
}

struct Line {
    text: String,
    stdout: bool,
}

fn read_lines(stream: Option<impl Read + Send + 'static>, stdout: bool, sender: &Sender<Line>) {
    let Some(stream) = stream else { return };
    let sender = sender.clone();
    std::thread::spawn(move || {
        for line in BufReader::new(stream).split(b'\n').map_while(Result::ok) {
            let text = String::from_utf8_lossy(&line).trim_end_matches('\r').to_owned();
            if sender.send(Line { text, stdout }).is_err() {
                return;
            }
        }
    });
}

/// Passes on what a program says until it ends, or until its deadline: then there is no status.
fn follow(
    child: &mut Child,
    lines: &Receiver<Line>,
    deadline: Duration,
    live: &mut Live,
    heard: &mut dyn FnMut(&str, bool) -> std::io::Result<()>,
) -> anyhow::Result<Option<ExitStatus>> {
    let mut ended: Option<Instant> = None;
    loop {
        match lines.recv_timeout(REDRAW) {
            Ok(Line { text, stdout }) => {
                if is_for_people(&text) {
                    live.line(&text);
                }
                heard(&text, stdout)?;
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => break,
        }
        if !live.draw() {
            continue;
        }
        if ended.is_none() && child.try_wait()?.is_some() {
            ended = Some(Instant::now());
        }
        if ended.is_some_and(|at| at.elapsed() > AFTER_EXIT) {
            break;
        }
        if ended.is_none() && live.elapsed() >= deadline {
            child.kill()?;
            child.wait()?;
            return Ok(None);
        }
    }
    Ok(Some(child.wait()?))
}

fn log_path(tree: &Tree, label: &str) -> anyhow::Result<PathBuf> {
    let directory = tree.target("xtask");
    std::fs::create_dir_all(&directory).with_context(|| format!("cannot create {}", directory.display()))?;
    let name: String = label.chars().map(|c| if c.is_ascii_alphanumeric() || c == '.' { c } else { '-' }).collect();
    Ok(directory.join(format!("{name}.log")))
}

/// Runs a short program and returns its standard output, or `None` when it is absent or fails.
pub(crate) fn ask(program: impl AsRef<OsStr>, arguments: &[&str]) -> Option<String> {
    let output = outside_cargo(program.as_ref()).args(arguments).stdin(Stdio::null()).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Where a program is, looked for in `PATH` and in cargo's own directory of programs.
pub(crate) fn find_program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut directories: Vec<PathBuf> = std::env::split_paths(&path).collect();
    directories.extend(cargo_home().map(|home| home.join("bin")));
    directories.extend(["/usr/sbin", "/sbin"].map(PathBuf::from));
    directories.into_iter().map(|directory| directory.join(name)).find(|candidate| candidate.is_file())
}

/// Cargo's own directory (`CARGO_HOME`, else `~/.cargo`).
pub(crate) fn cargo_home() -> Option<PathBuf> {
    std::env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cargo")))
}

/// Variables of cargo and rustup that are about the machine, not about the build that is running.
const KEPT: &[&str] = &[
    "CARGO_HOME",
    "RUSTUP_",
    "RUST_LOG",
    "RUST_BACKTRACE",
    "CARGO_NET_",
    "CARGO_HTTP_",
    "CARGO_REGISTR",
    "CARGO_TERM_",
    "CARGO_BUILD_JOBS",
    "CARGO_INCREMENTAL",
];

/// A command that does not inherit what the outer cargo and rustup set for their own build.
pub(crate) fn outside_cargo(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(is_about_the_outer_build) {
            command.env_remove(name);
        }
    }
    if let Some(libraries) = std::env::var_os("LD_LIBRARY_PATH") {
        set_or_remove(&mut command, "LD_LIBRARY_PATH", &libraries);
    }
    command
}

fn is_about_the_outer_build(name: &str) -> bool {
    let of_a_build = ["CARGO", "RUST", "CLIPPY"].iter().any(|prefix| name.starts_with(prefix));
    of_a_build && (name.starts_with("RUSTUP_TOOLCHAIN") || !KEPT.iter().any(|kept| name.starts_with(kept)))
}

/// `cargo run` puts its toolchain and target directories first on the library path.
fn set_or_remove(command: &mut Command, name: &str, value: &OsStr) {
    let toolchains = std::env::var_os("RUSTUP_HOME")
        .map(PathBuf::from)
        .or_else(|| std::env::var_os("HOME").map(|home| Path::new(&home).join(".rustup")));
    let own = |path: &PathBuf| {
        path.components().any(|part| part.as_os_str() == "target")
            || toolchains.as_ref().is_some_and(|toolchains| path.starts_with(toolchains))
    };
    let kept: Vec<PathBuf> = std::env::split_paths(value).filter(|path| !own(path)).collect();
    match std::env::join_paths(&kept) {
        Ok(joined) if !kept.is_empty() => command.env(name, joined),
        _ => command.env_remove(name),
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Task {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        Task::new("a shell script of the tests", command)
    }

    #[test]
    fn the_outer_build_leaks_nothing_and_the_machine_settings_stay() {
        for name in ["RUSTC", "RUSTFLAGS", "RUSTUP_TOOLCHAIN", "CARGO", "CARGO_ENCODED_RUSTFLAGS", "CARGO_TARGET_DIR"] {
            assert!(is_about_the_outer_build(name), "{name}");
        }
        for name in [
            "CARGO_HOME",
            "RUSTUP_",
            "RUST_LOG",
            "RUST_BACKTRACE",
            "CARGO_NET_OFFLINE",
            "RUST_LOG",
            "PATH",
            "CARGO_HTTP_CAINFO",
        ] {
            assert!(!is_about_the_outer_build(name), "{name}");
        }
    }

    #[test]
    fn both_streams_are_kept_and_standard_output_is_also_kept_apart() {
        let transcript = shell("echo out; echo err >&2").watch(&Tree::locate().unwrap()).unwrap();
        assert!(transcript.success());
        assert_eq!(transcript.stdout, "out\n");
        assert!(transcript.all.contains("err") && transcript.all.contains("out"));
    }

    #[test]
    fn a_program_that_fails_is_an_error_that_names_its_status() {
        let error = shell("exit 7").hint("do this").run(&Tree::locate().unwrap()).unwrap_err().to_string();
        assert!(error.contains("exit status: 7") && error.contains("do this"), "{error}");
    }

    #[test]
    fn a_program_that_hangs_is_stopped_at_its_deadline() {
        let task = shell("exec sleep 600").deadline(Duration::from_millis(300));
        let transcript = task.watch(&Tree::locate().unwrap()).unwrap();
        assert!(transcript.status.is_none() && !transcript.success());
        assert!(transcript.ending().starts_with("stopped after"));
    }

    #[test]
    fn a_background_child_that_keeps_the_pipe_is_not_waited_for() {
        let transcript = shell("sleep 30 & echo done").watch(&Tree::locate().unwrap()).unwrap();
        assert!(transcript.success());
        assert!(transcript.took < Duration::from_secs(20));
    }
}
