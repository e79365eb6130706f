//! What `dump` shows, as structs. Their serialized form is what programs read: [`VERSION`] is raised when it changes.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

use egress_common::abi::Config;
use egress_common::class::{ClassEntry, ClassVerdict, search};
use egress_common::flow::{Flow, FlowKey, origin};
use egress_common::reason::DropReason;
use egress_common::table::{Counter, Decision, Leaf, flag};
use egress_policy::describe::{RuleDescription, TableDescription};
use ipnet::IpNet;
use serde::Serialize;

use crate::datapath::inspect::{EndpointView, TableView};
use crate::events::{address, protocol_name};

use super::names::NameView;
use super::ports::{Ends, Span, spans};

const VERSION: u32 = 1;

/// The answer; only what was asked for is there.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Dump {
    pub(super) version: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) endpoints: Option<Vec<EndpointRow>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) tables: Option<Vec<TableRow>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) rules: Option<Vec<RuleRow>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) counters: Option<Counters>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) flows: Option<Vec<FlowRow>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) names: Option<Vec<NameView>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) config: Option<ConfigRow>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) stats: Option<BTreeMap<&'static str, u64>>,
}

impl Default for Dump {
    fn default() -> Self {
        Self {
            version: VERSION,
            endpoints: None,
            tables: None,
            rules: None,
            counters: None,
            flows: None,
            names: None,
            config: None,
            stats: None,
        }
    }
}

/// A table by its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(super) struct TableNumber {
    pub(super) slot: u32,
    pub(super) generation: u32,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct EndpointRow {
    pub(super) name: String,
    pub(super) id: u32,
    /// Index of the host-side interface.
    pub(super) interface: Option<u32>,
    /// Its name, if it is in this network namespace.
    pub(super) interface_name: Option<String>,
    pub(super) netns: Option<u64>,
    pub(super) cgroup: Option<u64>,
    /// None: everything passes.
    pub(super) table: Option<TableNumber>,
    /// The policies whose rules are in the table.
    pub(super) policies: Vec<String>,
}

pub(super) fn endpoint(view: &EndpointView, tables: &[TableView], interfaces: &HashMap<u32, String>) -> EndpointRow {
    let number = TableNumber { slot: view.table.slot, generation: view.table.generation };
    let table = tables.iter().find(|table| table.reference == view.table);
    EndpointRow {
        name: view.name.clone(),
        id: view.id,
        interface: view.interface,
        interface_name: view.interface.and_then(|index| interfaces.get(&index).cloned()),
        netns: view.netns,
        cgroup: view.cgroup,
        table: (number.generation != 0).then_some(number),
        policies: table.and_then(|table| table.description.as_deref()).map(policies).unwrap_or_default(),
    }
}

/// Policies in the order of their first rules.
fn policies(description: &TableDescription) -> Vec<String> {
    let mut policies: Vec<String> = Vec::new();
    for policy in description.rules.iter().filter_map(|rule| rule.policy.as_ref()).map(ToString::to_string) {
        if policies.last() != Some(&policy) {
            policies.push(policy);
        }
    }
    policies
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct TableRow {
    pub(super) table: TableNumber,
    pub(super) fingerprint: Option<String>,
    pub(super) rules: u32,
    /// `Reject` or `Drop`.
    pub(super) deny_response: &'static str,
    pub(super) shared_counters: bool,
    pub(super) endpoints: Vec<String>,
    pub(super) class_entries: usize,
    pub(super) prefixes: Vec<PrefixRow>,
}

#[derive(Debug, Serialize)]
pub(super) struct PrefixRow {
    pub(super) prefix: IpNet,
    pub(super) intervals: Vec<IntervalRow>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct IntervalRow {
    #[serde(skip)]
    pub(super) span: Span,
    #[serde(flatten)]
    ends: Ends,
    #[serde(flatten)]
    pub(super) decision: DecisionRow,
    /// The decision with Audit policies enforced, where it is another one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) audit: Option<DecisionRow>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct DecisionRow {
    /// `allow`, `deny` or `internal`.
    pub(super) verdict: &'static str,
    pub(super) rank: u32,
    /// `rule 2 of default/curl`.
    pub(super) origin: Option<String>,
}

pub(super) fn table(view: &TableView, endpoints: &[EndpointView]) -> TableRow {
    let of_table = endpoints.iter().filter(|endpoint| endpoint.table == view.reference);
    TableRow {
        table: number(view),
        fingerprint: view.description.as_ref().map(|description| description.fingerprint.clone()),
        rules: view.info.rules,
        deny_response: if view.info.flags & flag::REJECT == 0 { "Drop" } else { "Reject" },
        shared_counters: view.info.flags & flag::SHARED_COUNTERS != 0,
        endpoints: of_table.map(|endpoint| endpoint.name.clone()).collect(),
        class_entries: view.classes.len(),
        prefixes: view.prefixes.iter().map(|&(prefix, leaf)| prefix_row(view, prefix, leaf)).collect(),
    }
}

fn number(view: &TableView) -> TableNumber {
    TableNumber { slot: view.reference.slot, generation: view.reference.generation }
}

fn prefix_row(view: &TableView, prefix: IpNet, leaf: Leaf) -> PrefixRow {
    let named = |decision: Decision| decision_row(decision, view.description.as_deref());
    let intervals = match leaf.open() {
        Ok(decision) => vec![(Span::ALL, (decision, None))],
        Err(base) => spans(intervals(&view.classes, base)),
    };
    let row = |(span, (decision, audit)): (Span, (Decision, Option<Decision>))| IntervalRow {
        span,
        ends: span.ends(),
        decision: named(decision),
        audit: audit.map(named),
    };
    PrefixRow { prefix, intervals: intervals.into_iter().map(row).collect() }
}

/// The intervals of the class at `base`, each as the kernel would find it.
fn intervals(classes: &[ClassEntry], base: u32) -> Vec<(u32, (Decision, Option<Decision>))> {
    let start = usize::try_from(base).unwrap_or(usize::MAX);
    let count = classes.get(start).and_then(|header| usize::try_from(header.from).ok()).unwrap_or(0);
    let entries = classes.iter().skip(start.saturating_add(1)).take(count);
    let verdict = |entry: &ClassEntry| {
        let ClassVerdict { decision, audit, .. } = search(classes, base, entry.from)?;
        Some((entry.from, (decision, audit)))
    };
    entries.filter_map(verdict).collect()
}

fn decision_row(decision: Decision, description: Option<&TableDescription>) -> DecisionRow {
    let verdict = match (decision.is_deny(), decision.is_internal()) {
        (true, _) => "deny",
        (false, true) => "internal",
        (false, false) => "allow",
    };
    let rule = description.and_then(|description| description.rule(decision.rank()));
    DecisionRow { verdict, rank: decision.rank(), origin: rule.map(|rule| rule.origin.clone()) }
}

#[derive(Clone, Debug, Serialize)]
pub(super) struct RuleRow {
    pub(super) table: TableNumber,
    pub(super) rank: u32,
    #[serde(flatten)]
    pub(super) rule: RuleDescription,
    /// None where the table has no counter per rule.
    pub(super) packets: Option<u64>,
    pub(super) bytes: Option<u64>,
}

pub(super) fn rules(view: &TableView, counters: &[Counter]) -> Vec<RuleRow> {
    let shared = view.info.flags & flag::SHARED_COUNTERS != 0;
    let rules = view.description.iter().flat_map(|description| &description.rules);
    let row = |(rank, rule): (u32, &RuleDescription)| {
        let index = usize::try_from(rank).unwrap_or(usize::MAX);
        let counter = counters.get(index).filter(|_| !shared);
        RuleRow {
            table: number(view),
            rank,
            rule: rule.clone(),
            packets: counter.map(|counter| counter.packets),
            bytes: counter.map(|counter| counter.bytes),
        }
    };
    (0..).zip(rules).map(row).collect()
}

#[derive(Debug, Serialize)]
pub(super) struct Counters {
    /// Rules that counted anything.
    pub(super) rules: Vec<RuleRow>,
    pub(super) drops: Vec<DropRow>,
}

#[derive(Debug, Serialize)]
pub(super) struct DropRow {
    pub(super) reason: &'static str,
    pub(super) packets: u64,
    pub(super) bytes: u64,
}

pub(super) fn counters(rules: &[RuleRow], drops: &[(DropReason, Counter)]) -> Counters {
    let drop = |(reason, counter): &(DropReason, Counter)| DropRow {
        reason: reason.name(),
        packets: counter.packets,
        bytes: counter.bytes,
    };
    Counters {
        rules: rules.iter().filter(|rule| rule.packets.is_some_and(|packets| packets > 0)).cloned().collect(),
        drops: drops.iter().map(drop).collect(),
    }
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct FlowRow {
    pub(super) endpoint: String,
    pub(super) remote: IpAddr,
    pub(super) remote_port: u16,
    pub(super) local_port: u16,
    pub(super) protocol: String,
    /// `outside` or `inside`: who began it.
    pub(super) origin: &'static str,
    pub(super) idle_seconds: u64,
}

pub(super) fn flows(flows: &[(FlowKey, Flow)], endpoints: &[EndpointView], now: u64) -> Vec<FlowRow> {
    let names: HashMap<u32, &str> = endpoints.iter().map(|endpoint| (endpoint.id, endpoint.name.as_str())).collect();
    let row = |(key, flow): &(FlowKey, Flow)| FlowRow {
        endpoint: names.get(&key.endpoint).map_or_else(|| format!("endpoint {}", key.endpoint), ToString::to_string),
        remote: address(key.remote),
        remote_port: u16::from_be_bytes(key.remote_port),
        local_port: u16::from_be_bytes(key.local_port),
        protocol: protocol_name(u8::try_from(key.protocol).unwrap_or(u8::MAX)),
        origin: match flow.origin {
            origin::OUTSIDE => "outside",
            origin::INSIDE => "inside",
            _ => "unknown",
        },
        idle_seconds: now.saturating_sub(flow.last_seen) / 1_000_000_000,
    };
    let mut rows: Vec<FlowRow> = flows.iter().map(row).collect();
    rows.sort_by(|a, b| (&a.endpoint, a.remote, a.remote_port).cmp(&(&b.endpoint, b.remote, b.remote_port)));
    rows
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ConfigRow {
    pub(super) abi: u32,
    /// Depths below the cgroup v2 root at which endpoints are known by their cgroup.
    pub(super) cgroup_levels: Vec<u32>,
    pub(super) events_per_second: u32,
    /// Entries that each map can hold.
    pub(super) capacities: BTreeMap<&'static str, u32>,
}

pub(super) fn config(config: &Config, capacities: &[(&'static str, u32)]) -> ConfigRow {
    ConfigRow {
        abi: config.abi,
        cgroup_levels: (0..32).filter(|level| config.cgroup_levels & (1 << level) != 0).collect(),
        events_per_second: config.events_per_second,
        capacities: capacities.iter().copied().collect(),
    }
}
