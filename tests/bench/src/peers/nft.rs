//! An nftables interval set on the output hook: allowed addresses pass, everything else is dropped.

use std::fmt::Write as _;
use std::net::Ipv4Addr;
use std::path::Path;
use std::time::{Duration, Instant};

use egress_world::Namespace;

use super::run;

const TABLE: &str = "bench";

/// Why nftables cannot be measured here, if so.
pub(crate) fn absent(namespace: &Namespace) -> Option<String> {
    let try_it = || -> anyhow::Result<()> {
        nft(namespace, &["-f", "-"], Some(&text(&[(Ipv4Addr::LOCALHOST, Ipv4Addr::LOCALHOST)])))?;
        clear(namespace)
    };
    try_it().err().map(|error| format!("{error:#}"))
}

/// Version of the program.
pub(crate) fn version(namespace: &Namespace) -> String {
    nft(namespace, &["--version"], None).unwrap_or_default().trim().to_owned()
}

/// The file that `nft -f` reads.
pub(crate) fn text(allowed: &[(Ipv4Addr, Ipv4Addr)]) -> String {
    let mut text =
        format!("table ip {TABLE} {{\n set allowed {{\n  type ipv4_addr\n  flags interval\n  elements = {{\n");
    for (first, last) in allowed {
        let _ = if first == last { writeln!(text, "{first},") } else { writeln!(text, "{first}-{last},") };
    }
    text.push_str("  }\n }\n chain out {\n  type filter hook output priority 0; policy accept;\n");
    text.push_str("  ip daddr @allowed accept\n  drop\n }\n}\n");
    text
}

/// Loads a file; how long that took.
pub(crate) fn apply(namespace: &Namespace, file: &Path) -> anyhow::Result<Duration> {
    let started = Instant::now();
    nft(namespace, &["-f", &file.to_string_lossy()], None)?;
    Ok(started.elapsed())
}

/// Allows one address.
pub(crate) fn update(namespace: &Namespace, address: Ipv4Addr) -> anyhow::Result<()> {
    nft(namespace, &["add", "element", "ip", TABLE, "allowed", &format!("{{ {address} }}")], None).map(|_| ())
}

/// Removes the table.
pub(crate) fn clear(namespace: &Namespace) -> anyhow::Result<()> {
    nft(namespace, &["delete", "table", "ip", TABLE], None).map(|_| ())
}

fn nft(namespace: &Namespace, arguments: &[&str], input: Option<&str>) -> anyhow::Result<String> {
    let mut command = namespace.command("nft");
    command.args(arguments);
    run(command, input)
}
