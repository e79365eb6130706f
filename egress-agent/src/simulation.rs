//! What the agents of a large cluster ask of its API server and of its DNS, counted while their own code runs with the clock skipped.
//! `cargo xtask simulate` runs it for 5,000 nodes and prints the tables of docs/scale.md; as a test it is small.
//!
//! - `kube::simulation`: the watches of one agent, which do not depend on other agents, times the agents;
//! - `names::simulation`: the schedule of one agent's lookups, likewise;
//! - `report::tests::scale`: the writers of all agents and the one that leads, all at once.

use std::fs;
use std::path::Path;

use serde::Serialize;

/// Sizes of the cluster.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Size {
    pub(crate) nodes: usize,
    pub(crate) policies: usize,
    /// On each node.
    pub(crate) pods: usize,
}

impl Size {
    /// From the environment, which `cargo xtask simulate` sets.
    pub(crate) fn read() -> Self {
        let number = |name: &str, otherwise| {
            std::env::var(name).ok().map_or(otherwise, |text| text.parse().unwrap_or_else(|_| panic!("{name}: {text}")))
        };
        Self {
            nodes: number("EGRESS_SIMULATE_NODES", 40),
            policies: number("EGRESS_SIMULATE_POLICIES", 100),
            pods: number("EGRESS_SIMULATE_PODS", 50),
        }
    }
}

/// A line of a table, for the whole cluster.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Row {
    /// Which phase or kind of load.
    pub(crate) phase: String,
    /// Of what: a verb and a resource, a TTL.
    pub(crate) what: String,
    /// Whether the figures are of each second; otherwise of the whole phase.
    pub(crate) per_second: bool,
    pub(crate) requests: f64,
    /// Bytes of bodies.
    pub(crate) sent: f64,
    pub(crate) received: f64,
}

/// Prints the rows, and writes them to `part.json` in the folder that `cargo xtask simulate` gives.
pub(crate) fn record(part: &str, size: Size, rows: &[Row]) {
    for Row { phase, what, per_second, requests, sent, received } in rows {
        let unit = if *per_second { "/s" } else { "" };
        println!(
            "{phase:<34} {what:<44} {requests:>12.2}{unit:<2} {:>12.1} kB{unit:<2} to {:>14.1} kB{unit:<2} from",
            sent / 1000.0,
            received / 1000.0
        );
    }
    if let Some(folder) = std::env::var_os("EGRESS_SIMULATE_OUT") {
        let text = serde_json::json!({"part": part, "size": size, "rows": rows}).to_string();
        fs::write(Path::new(&folder).join(format!("{part}.json")), text).expect("the folder of the results");
    }
}

/// Exact up to 2^53.
#[expect(clippy::cast_precision_loss, reason = "figures of a table")]
pub(crate) const fn float(number: u64) -> f64 {
    number as f64
}

/// Likewise.
pub(crate) fn floats(number: usize) -> f64 {
    float(number.try_into().unwrap_or(u64::MAX))
}
