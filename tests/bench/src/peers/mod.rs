//! What is measured side by side: ours, one lookup in the kernel's trie, an nftables set, an ipset.

pub(crate) mod egress;
pub(crate) mod ipset;
pub(crate) mod lpm;
pub(crate) mod nft;

use std::io::Write as _;
use std::process::{Command, Stdio};

use anyhow::Context as _;

/// Runs a program of another firewall to its end; what it said if it failed.
fn run(mut command: Command, input: Option<&str>) -> anyhow::Result<String> {
    let name = command.get_program().to_string_lossy().into_owned();
    command.stdin(if input.is_some() { Stdio::piped() } else { Stdio::null() });
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().context(name.clone())?;
    if let (Some(mut pipe), Some(input)) = (child.stdin.take(), input) {
        // If it has ended early it says why itself.
        let _ = pipe.write_all(input.as_bytes());
    }
    let output = child.wait_with_output()?;
    let error = String::from_utf8_lossy(&output.stderr);
    anyhow::ensure!(output.status.success(), "{name}: {}", error.lines().next().unwrap_or("failed"));
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
