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

/// Somebody else than who runs the tests, known by a token alone.
#[derive(Debug)]
pub struct Token {
    kubeconfig: tempfile::NamedTempFile,
}

impl Token {
    /// Whom this token belongs to.
    pub(crate) fn new(token: &str) -> Self {
        let config = run(&["config", "view", "--raw", "--minify", "-o", "json"], None).expect("the kubeconfig");
        let mut config: Value = serde_json::from_str(&config).expect("the kubeconfig");
        // A client certificate would win over the token.
        for user in config.get_mut("users").and_then(Value::as_array_mut).expect("users") {
            user["user"] = serde_json::json!({"token": token});
        }
        let kubeconfig = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(kubeconfig.path(), config.to_string()).expect("a kubeconfig");
        Self { kubeconfig }
    }

    /// Runs `kubectl` as this one.
    pub fn run(&self, arguments: &[&str], input: Option<&str>) -> Answer {
        let mut command = Command::new("kubectl");
        command.arg("--kubeconfig").arg(self.kubeconfig.path());
        answer(command, arguments, input)
    }

    /// Asks what would become of the status of an object if it were applied as the agents do.
    pub fn apply_status(&self, object: &Value) -> Answer {
        let how =
            ["--server-side", "--force-conflicts", "--subresource=status", "--dry-run=server", "--validate=false"];
        self.run(&[&["apply", "-f", "-"], &how[..]].concat(), Some(&object.to_string()))
    }
}

/// Runs `kubectl` with these arguments and this standard input.
pub fn run(arguments: &[&str], input: Option<&str>) -> Answer {
    answer(Command::new("kubectl"), arguments, input)
}

fn answer(mut command: Command, arguments: &[&str], input: Option<&str>) -> Answer {
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
