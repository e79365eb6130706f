//! From a changed file to the first packet under it: all policy files at once, and one small file among them, followed by the agent
//! that watches their folder.

use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::Context as _;
use egress_world::{Agent, Crowd, World};

use super::Effort;
use super::arrivals::Arrivals;
use super::load::{processor_time, resident_kib};
use crate::mix::{self, Mix};
use crate::progress::step;
use crate::results::{FilesApplied, Timing};

/// Longer than anybody would wait.
const PATIENCE: Duration = Duration::from_mins(3);
/// The small file.
const SMALL: &str = "update.yaml";
const CONFIG: &str = "apiVersion: egress.rs/v1alpha1\nkind: EgressConfig\nmetadata: {name: default}\n\
                      spec: {defaultAction: Deny, internalCIDRs: [10.244.0.0/16, 'fd00:10:244::/48']}\n";

/// The address that the small file allows in its version `number`.
fn allowed(number: usize) -> Ipv4Addr {
    Ipv4Addr::new(10, 1, 0, 1 + u8::try_from(number % 250).unwrap_or(0))
}

/// Measures every size, each with an agent of its own.
pub(super) fn measure(sizes: &[(String, usize)], effort: Effort) -> anyhow::Result<Vec<FilesApplied>> {
    let each = |(label, size): &(String, usize)| {
        step(&format!("{label} prefixes from files, to the first packet"), || one(label, *size, effort))
    };
    sizes.iter().map(each).collect()
}

fn one(label: &str, size: usize, effort: Effort) -> anyhow::Result<FilesApplied> {
    let world = World::new(&[]);
    let crowd = Crowd::new(&world, "bench", 1);
    let (member, socket) = (&crowd.members()[0], crowd.members()[0].socket());
    let arrivals = Arrivals::new(&world)?;
    let mix = Mix::new(size);
    let mut agent = Agent::new(&world);
    agent.write_endpoints(&[member.endpoint()]);
    agent.write("config.yaml", CONFIG);
    agent.start();
    anyhow::ensure!(!arrivals.passes(socket, allowed(0), 0)?, "nothing is allowed yet");
    let names: Vec<String> = (0..mix.files.len()).map(|number| format!("part-{number:04}.yaml")).collect();
    let mut files: Vec<(&str, &str)> =
        names.iter().map(String::as_str).zip(mix.files.iter().map(String::as_str)).collect();
    let small = mix::update_file(allowed(0));
    files.push((SMALL, &small));
    let used = processor_time(agent.pid())?;
    let apply = |files: &[(&str, &str)], number| {
        let mut found = None;
        agent.change(|| {
            let called = agent.write_together(files);
            found = Some(arrivals.first_packet(socket, allowed(number), called, PATIENCE));
        });
        found.context("nothing was waited for")?.map(|took| took.as_secs_f64() * 1e3)
    };
    let whole_ms = apply(&files, 0)?;
    let used = processor_time(agent.pid())?.saturating_sub(used);
    let mut changes = Vec::new();
    for number in 1..=effort.changes {
        changes.push(apply(&[(SMALL, &mix::update_file(allowed(number)))], number)?);
        anyhow::ensure!(!arrivals.passes(socket, allowed(number - 1), 0)?, "the version before is still in force");
    }
    Ok(FilesApplied {
        label: label.to_owned(),
        cidrs: mix.prefixes.len(),
        files: files.len(),
        whole_ms,
        processor_ms: used.as_secs_f64() * 1e3,
        change: Timing::of(changes),
        rss_kib: resident_kib(agent.pid())?,
    })
}
