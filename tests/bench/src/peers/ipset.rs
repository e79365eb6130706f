//! An ipset `hash:net` and one iptables rule on the output hook. Denied prefixes inside allowed ones are `nomatch` entries.

use std::fmt::Write as _;
use std::net::Ipv4Addr;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use egress_world::Namespace;
use ipnet::Ipv4Net;

use super::run;

const SET: &str = "bench";

/// Why ipset cannot be measured here, if so.
pub(crate) fn absent(namespace: &Namespace) -> Option<String> {
    let try_it = || -> anyhow::Result<()> {
        program(namespace, "ipset", &["restore"], Some(&text(&[])))?;
        guard(namespace)?;
        clear(namespace)
    };
    try_it().err().map(|error| format!("{error:#}"))
}

/// Versions of the programs.
pub(crate) fn version(namespace: &Namespace) -> String {
    let [set, tables] = [("ipset", "-v"), ("iptables", "-V")]
        .map(|(name, option)| program(namespace, name, &[option], None).unwrap_or_default().trim().to_owned());
    format!("{set}, {tables}")
}

/// The file that `ipset restore` reads. A default of Deny needs no entry.
pub(crate) fn text(prefixes: &[(Ipv4Net, bool)]) -> String {
    let mut text = format!("create {SET} hash:net family inet maxelem {}\n", prefixes.len() + 64);
    for (prefix, allowed) in prefixes.iter().filter(|(prefix, _)| prefix.prefix_len() > 0) {
        let _ = writeln!(text, "add {SET} {prefix}{}", if *allowed { "" } else { " nomatch" });
    }
    text
}

/// Loads a file and puts the rule in place; how long that took.
pub(crate) fn apply(namespace: &Namespace, file: &Path) -> anyhow::Result<Duration> {
    let started = Instant::now();
    program(namespace, "ipset", &["restore", "-file", &file.to_string_lossy()], None)?;
    guard(namespace)?;
    Ok(started.elapsed())
}

fn guard(namespace: &Namespace) -> anyhow::Result<()> {
    let rule = ["-w", "-A", "OUTPUT", "-m", "set", "!", "--match-set", SET, "dst", "-j", "DROP"];
    program(namespace, "iptables", &rule, None).map(|_| ())
}

/// Allows one address.
pub(crate) fn update(namespace: &Namespace, address: Ipv4Addr) -> anyhow::Result<()> {
    program(namespace, "ipset", &["add", SET, &address.to_string()], None).map(|_| ())
}

/// Bytes of kernel memory, as ipset says.
pub(crate) fn memory(namespace: &Namespace) -> anyhow::Result<u64> {
    let header = program(namespace, "ipset", &["list", "-t", SET], None)?;
    let line = header.lines().find_map(|line| line.strip_prefix("Size in memory:")).context("no size in memory")?;
    Ok(line.trim().parse()?)
}

/// Removes rule and set.
pub(crate) fn clear(namespace: &Namespace) -> anyhow::Result<()> {
    program(namespace, "iptables", &["-w", "-F", "OUTPUT"], None)?;
    let deadline = Instant::now() + Duration::from_secs(5);
    // An iptables rule lets go of its set after a grace period.
    loop {
        match program(namespace, "ipset", &["destroy", SET], None) {
            Ok(_) => return Ok(()),
            Err(error) if Instant::now() > deadline => return Err(error),
            Err(_) => std::thread::sleep(Duration::from_millis(10)),
        }
    }
}

fn program(namespace: &Namespace, name: &str, arguments: &[&str], input: Option<&str>) -> anyhow::Result<String> {
    let mut command = namespace.command(name);
    command.args(arguments);
    run(command, input)
}
