//! `kubectl`, with answers.

use std::io::Write as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

/// How long the cluster may take for anything.
const PATIENCE: Duration = Duration::from_secs(90);

/// What `kubectl` said.
#[derive(Debug)]
pub struct Answer {
    /// Whether it ended well.
    pub success: bool,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Answer {
    /// Fails the test if it did not end well.
    pub fn expect(self, what: &str) -> String {
        assert!(self.success, "{what}: {}{}", self.stdout, self.stderr);
        self.stdout
    }
}

/// Runs `kubectl` with these arguments and this standard input.
pub fn run(arguments: &[&str], input: Option<&str>) -> Answer {
    let mut command = Command::new("kubectl");
    command.args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.stdin(if input.is_some() { Stdio::piped() } else { Stdio::null() });
    let mut child = command.spawn().expect("kubectl");
    if let (Some(mut stdin), Some(input)) = (child.stdin.take(), input) {
        stdin.write_all(input.as_bytes()).expect("kubectl reads");
    }
    let output = child.wait_with_output().expect("kubectl ends");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    Answer { success: output.status.success(), stdout: text(&output.stdout), stderr: text(&output.stderr) }
}

/// `kubectl get … -o json`, or what it complained of.
pub fn ask(arguments: &[&str]) -> Result<Value, String> {
    let answer = run(&[&["get", "-o", "json"], arguments].concat(), None);
    if !answer.success {
        return Err(answer.stderr);
    }
    Ok(serde_json::from_str(&answer.stdout).unwrap_or_else(|error| panic!("{error}: {}", answer.stdout)))
}

/// `kubectl apply -f -`.
pub fn apply(manifest: &str) -> Answer {
    run(&["apply", "-f", "-"], Some(manifest))
}

/// Asks now and then until the answer is yes or patience ends; whether it was yes.
pub fn eventually(mut question: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if question() {
            return true;
        }
        if Instant::now() > deadline {
            return false;
        }
        std::thread::sleep(Duration::from_millis(300));
    }
}
