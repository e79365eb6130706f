//! Every command as somebody who is not root: those that need the kernel say what they lack, the others do their work.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod cli_files;

use std::collections::BTreeSet;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

use cli_files::{Files, WEB};

/// `nobody` on every Linux machine.
const NOBODY: u32 = 65534;

/// What needs the kernel, and with which words it gives up.
const NEEDS_ROOT: [(&str, &[&str]); 8] = [
    ("run", &["run", "--policies", ".", "--endpoints", "endpoints.yaml", "--state-dir", "state"]),
    ("run", &["run", "--cleanup"]),
    ("run", &["run", "--uninstall", "--state-dir", "state"]),
    ("status", &["status", "--state-dir", "state"]),
    ("dump", &["dump"]),
    ("dump", &["dump", "all", "-o", "json"]),
    ("why", &["why", "shop/web", "1.2.3.4:443"]),
    ("test", &["test", "web.yaml", "--from", "shop/web", "--to", "1.2.3.4:443", "--kernel"]),
];

/// What asks a running agent; there is none.
const NEEDS_AGENT: [(&str, &[&str]); 2] = [
    ("monitor", &["monitor", "--state-dir", "state"]),
    ("suggest", &["suggest", "-n", "shop", "--state-dir", "state"]),
];

/// What needs files only.
const NEEDS_FILES: [(&str, &[&str]); 6] = [
    ("check", &["check", "web.yaml"]),
    ("test", &["test", "web.yaml", "--from", "shop/web", "--labels", "app=web", "--to", "1.2.3.4:443"]),
    ("diff", &["diff", "web.yaml", "web.yaml"]),
    ("import", &["import", "web.yaml", "--to", "openshift"]),
    ("completions", &["completions", "bash"]),
    ("man", &["man", "pages"]),
];

/// Runs a copy of the binary as nobody, in the folder.
fn as_nobody(folder: &Path, arguments: &[&str]) -> Output {
    let binary = folder.join("egress-agent");
    let mut command = if nix::unistd::Uid::effective().is_root() {
        if !binary.exists() {
            fs::copy(env!("CARGO_BIN_EXE_egress-agent"), &binary).unwrap();
        }
        let mut command = Command::new(&binary);
        command.uid(NOBODY).gid(NOBODY);
        command
    } else {
        Command::new(env!("CARGO_BIN_EXE_egress-agent"))
    };
    command.args(arguments).current_dir(folder);
    // Another thread that starts a process while the copy is written holds it open for a moment, and then it cannot be run.
    let run = || match command.output() {
        Err(error) if error.kind() == ErrorKind::ExecutableFileBusy => {
            std::thread::sleep(Duration::from_millis(10));
            None
        }
        output => Some(output.unwrap()),
    };
    std::iter::repeat_with(run).take(500).flatten().next().unwrap()
}

fn files() -> Files {
    let files = Files::new(&[("web.yaml", WEB), ("endpoints.yaml", "endpoints: []")]);
    fs::set_permissions(files.path(), fs::Permissions::from_mode(0o777)).unwrap();
    files
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn what_needs_the_kernel_names_the_missing_capabilities_and_what_to_do() {
    let files = files();
    for (_, arguments) in NEEDS_ROOT {
        let output = as_nobody(files.path(), arguments);
        assert_eq!(output.status.code(), Some(3), "{arguments:?}: {}", said(&output));
        assert!(output.stdout.is_empty(), "{arguments:?}");
        let expected =
            "needs CAP_NET_ADMIN and CAP_SYS_PTRACE and CAP_SYS_ADMIN; run it as root, or give it these capabilities";
        assert!(said(&output).contains(expected), "{arguments:?}: {}", said(&output));
    }
}

#[test]
fn what_asks_the_agent_says_that_none_listens() {
    let files = files();
    for (_, arguments) in NEEDS_AGENT {
        let output = as_nobody(files.path(), arguments);
        assert_eq!(output.status.code(), Some(3), "{arguments:?}: {}", said(&output));
        assert!(said(&output).contains("no agent listens on state/agent.sock"), "{arguments:?}: {}", said(&output));
    }
}

#[test]
fn what_needs_only_files_needs_no_root() {
    let files = files();
    for (_, arguments) in NEEDS_FILES {
        let output = as_nobody(files.path(), arguments);
        assert_eq!(output.status.code(), Some(0), "{arguments:?}: {}", said(&output));
    }
}

#[test]
fn a_bpf_file_system_is_mounted_by_root_only_and_one_that_is_there_is_enough() {
    let files = files();
    let output = as_nobody(files.path(), &["mount-bpffs"]);
    let there = fs::read_to_string("/proc/self/mountinfo").unwrap().contains(" /sys/fs/bpf ");
    assert_eq!(output.status.code(), Some(if there { 0 } else { 3 }), "{}", said(&output));
    let words = if there { "a BPF file system is there" } else { "mount -t bpf bpf /sys/fs/bpf" };
    assert!(said(&output).contains(words), "{}", said(&output));
}

#[test]
fn no_command_is_left_out_here() {
    // `top` draws on a terminal and is run on one elsewhere.
    let tried: BTreeSet<&str> = [&NEEDS_ROOT[..], &NEEDS_AGENT, &NEEDS_FILES]
        .concat()
        .iter()
        .map(|(name, _)| *name)
        .chain(["top", "mount-bpffs"])
        .collect();
    let command = egress_agent::cli::command();
    let there: BTreeSet<&str> = command.get_subcommands().map(clap::Command::get_name).collect();
    assert_eq!(tried, there);
}
