//! Readers that go away (`egress-agent … | head -1`): every command that prints much ends silently, with the exit code of its answer.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod cli_files;

use std::process::{Command, Stdio};

use cli_files::{Files, WEB};

/// Whose answers are more than a pipe holds.
const RULES: u32 = 1200;
const PIPE: usize = 64 << 10;

/// [`WEB`] with many rules; every one is denied what `port` says, and has host bits, of which `check` warns.
fn many(port: u16) -> String {
    let rule = |n: u32| {
        let network = format!("10.{}.{}.1/24", n / 250, n % 250);
        format!("  - {{type: Deny, to: {{cidrSelector: {network}}}, ports: [{{protocol: TCP, port: {port}}}]}}\n")
    };
    let rules: Vec<String> = (0..RULES).map(rule).collect();
    WEB.split("  - ").next().unwrap().to_owned() + &rules.concat()
}

/// The same as somebody else's object, for `import`.
fn foreign() -> String {
    let rules: Vec<String> = (0..RULES)
        .map(|n| format!("  - {{type: Deny, to: {{cidrSelector: 10.{}.{}.0/24}}}}\n", n / 250, n % 250))
        .collect();
    "apiVersion: k8s.ovn.org/v1\nkind: EgressFirewall\nmetadata: {name: default, namespace: shop}\nspec:\n  egress:\n"
        .to_owned()
        + &rules.concat()
}

/// What a running agent would have stored of many refusals.
fn observed() -> String {
    let seen: Vec<serde_json::Value> = (0..RULES)
        .map(|n| {
            serde_json::json!({
                "namespace": "shop", "pod": "web", "remote": format!("10.{}.{}.1", n / 250, n % 250), "protocol": "TCP",
                "port": 1 + n, "tier": "Namespace", "policy": "shop/trial", "count": 1, "first": 1, "last": 2,
            })
        })
        .collect();
    serde_json::json!({ "version": 1, "observations": seen, "onlyCounted": 0, "forgotten": 0 }).to_string()
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    let files = Files::new(&[
        ("old.yaml", &many(443)),
        ("new.yaml", &many(80)),
        ("ovn.yaml", &foreign()),
        ("state/observed.json", &observed()),
    ]);
    let ask = ["test", "old.yaml", "--from", "shop/web", "--labels", "app=web", "--to"];
    for (arguments, code) in [
        ([&ask[..], &["1.2.3.4:443", "--explain"]].concat(), 0),
        ([&ask[..], &["10.4.199.7:443", "--explain"]].concat(), 1),
        (vec!["check", "old.yaml"], 0),
        (vec!["check", "old.yaml", "--strict"], 1),
        (vec!["diff", "old.yaml", "new.yaml"], 1),
        (vec!["import", "ovn.yaml"], 0),
        (vec!["suggest", "-n", "shop", "--state-dir", "state"], 0),
    ] {
        for format in ["table", "json", "yaml"] {
            let mut command = Command::new(env!("CARGO_BIN_EXE_egress-agent"));
            command.args(&arguments).args(["-o", format]).current_dir(files.path());
            let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
            drop(child.stdout.take());
            let output = child.wait_with_output().unwrap();
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            // The report of `import` goes to standard error, where somebody reads on.
            let said = if arguments[0] == "import" { String::new() } else { said };
            assert_eq!((output.status.code(), said.as_str()), (Some(code), ""), "{arguments:?} {format}");
            let whole = files.shell(&format!("egress-agent {} -o {format} | wc -c", quoted(&arguments)));
            let bytes: usize = whole.out.trim().parse().unwrap();
            assert!(bytes > PIPE, "{arguments:?} {format} prints only {bytes} bytes");
        }
    }
}

#[test]
fn scripts_of_shells_and_help_end_as_silently() {
    let files = Files::new(&[]);
    for line in ["completions bash", "completions zsh", "completions fish", "--help", "run --help"] {
        let run = files.shell(&format!("(egress-agent {line}; echo $? >&2) | head -1"));
        assert_eq!((run.out.lines().count(), run.err.as_str()), (1, "0\n"), "{line}");
    }
}

fn quoted(arguments: &[&str]) -> String {
    arguments.iter().map(|argument| format!("'{argument}'")).collect::<Vec<_>>().join(" ")
}
