//! Files in a folder of their own, and the binary run there: shared by the tests of the command line.
#![allow(dead_code, reason = "each test program uses some of it")]

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use tempfile::TempDir;

/// The policy of most tests: one network on one port, nothing else.
pub(crate) const WEB: &str = "\
apiVersion: egress.rs/v1alpha1
kind: EgressNetworkPolicy
metadata: {name: web, namespace: shop}
spec:
  podSelector: {matchLabels: {app: web}}
  egress:
  - {type: Allow, to: {cidrSelector: 1.2.3.0/24}, ports: [{protocol: TCP, port: 443}]}
  - {type: Allow, to: {cidrSelector: '2001:db8::/32'}, ports: [{protocol: TCP, port: 443}]}
  - {type: Deny, to: {cidrSelector: 0.0.0.0/0}}
  - {type: Deny, to: {cidrSelector: '::/0'}}
";

/// A folder with files.
pub(crate) struct Files(TempDir);

/// How a run of the binary ended.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Run {
    fn of(output: Output) -> Self {
        Self {
            code: output.status.code().unwrap(),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap()
    }
}

impl Files {
    pub(crate) fn new(files: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        Self(folder)
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    /// Runs a line of shell in the folder, where `egress-agent` is the binary.
    pub(crate) fn shell(&self, line: &str) -> Run {
        let binary = Path::new(env!("CARGO_BIN_EXE_egress-agent")).parent().unwrap();
        let path = format!("{}:{}", binary.display(), std::env::var("PATH").unwrap_or_default());
        let mut command = Command::new("sh");
        command.args(["-c", line]).env("PATH", path).current_dir(self.0.path());
        Run::of(command.stdin(Stdio::null()).output().unwrap())
    }

    /// Runs the binary in the folder.
    pub(crate) fn agent(&self, arguments: &[&str]) -> Run {
        self.agent_reading(arguments, "")
    }

    /// The same with something to read on standard input.
    pub(crate) fn agent_reading(&self, arguments: &[&str], input: &str) -> Run {
        let mut command = Command::new(env!("CARGO_BIN_EXE_egress-agent"));
        command.args(arguments).current_dir(self.0.path());
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        // It may end without reading.
        let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
        Run::of(child.wait_with_output().unwrap())
    }
}
