//! What `dump` shows, as structs. Their serialized form is what programs read: [`VERSION`] is raised when it changes. Prefixes and rules
//! are made one by one while they are written.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use egress_common::abi::Config;
use egress_common::class::{ClassEntry, ClassVerdict, search};
use egress_common::endpoint::TableRef;
use egress_common::flow::{Flow, FlowKey, origin};
use egress_common::reason::DropReason;
use egress_common::table::{Counter, Decision, Leaf, flag};
use egress_policy::describe::{RuleDescription, TableDescription};
use ipnet::IpNet;
use serde::{Serialize, Serializer};

use crate::datapath::inspect::{EndpointView, TableView};
use crate::events::{address, protocol_name};

use super::names::NameView;
use super::ports::{Ends, Span, spans};
use super::scope::Scope;

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
    pub(super) rules: Option<Rules>,
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

pub(super) fn endpoints(
    views: &[EndpointView],
    tables: &[TableView],
    interfaces: &HashMap<u32, String>,
) -> Vec<EndpointRow> {
    let policies: HashMap<TableRef, Vec<String>> =
        tables.iter().filter_map(|table| Some((table.reference, policies(table.description.as_deref()?)))).collect();
    let row = |view: &EndpointView| {
        let number = TableNumber { slot: view.table.slot, generation: view.table.generation };
        EndpointRow {
            name: view.name.clone(),
            id: view.id,
            interface: view.interface,
            interface_name: view.interface.and_then(|index| interfaces.get(&index).cloned()),
            netns: view.netns,
            cgroup: view.cgroup,
            table: (number.generation != 0).then_some(number),
            policies: policies.get(&view.table).cloned().unwrap_or_default(),
        }
    };
    views.iter().map(row).collect()
}

/// Policies in the order of their first rules.
fn policies(description: &TableDescription) -> Vec<String> {
    let mut policies: Vec<String> = Vec::new();
    for policy in description.ranked().filter_map(|(_, rule)| rule.policy.as_ref()).map(ToString::to_string) {
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
    pub(super) prefixes: Prefixes,
}

/// The prefixes of a table.
#[derive(Debug)]
pub(super) struct Prefixes {
    view: TableView,
    scope: Scope,
}

impl Prefixes {
    /// How many there are in the table, shown or not.
    pub(super) fn len(&self) -> usize {
        self.view.prefixes.len()
    }

    /// Those with a decision that is asked for.
    pub(super) fn rows(&self) -> impl Iterator<Item = PrefixRow> + '_ {
        let description = self.view.description.as_deref();
        let admitted = move |row: &DecisionRow| {
            let rule = description.and_then(|description| description.rule(row.rank));
            rule.is_none_or(|rule| self.scope.admits_rule(rule))
        };
        let rows = self.view.prefixes.iter().map(|&(prefix, leaf)| prefix_row(&self.view, prefix, leaf));
        rows.filter(move |row| {
            let mut decisions =
                row.intervals.iter().flat_map(|interval| std::iter::once(&interval.decision).chain(&interval.audit));
            decisions.any(admitted)
        })
    }
}

impl Serialize for Prefixes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.rows())
    }
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

pub(super) fn tables(views: Vec<TableView>, endpoints: &[EndpointView], scope: &Scope) -> Vec<TableRow> {
    let mut of_table: HashMap<TableRef, Vec<String>> = HashMap::new();
    for endpoint in endpoints {
        of_table.entry(endpoint.table).or_default().push(endpoint.name.clone());
    }
    let row = |view: TableView| TableRow {
        table: number(&view),
        fingerprint: view.description.as_ref().map(|description| description.fingerprint.clone()),
        rules: rules(&view),
        deny_response: if view.info.flags & flag::REJECT == 0 { "Drop" } else { "Reject" },
        shared_counters: view.info.flags & flag::SHARED_COUNTERS != 0,
        endpoints: of_table.remove(&view.reference).unwrap_or_default(),
        class_entries: view.classes.len(),
        prefixes: Prefixes { view, scope: scope.clone() },
    };
    views.into_iter().map(row).collect()
}

/// Number of rules; of ranks, if it is not known which of them are vacant.
fn rules(view: &TableView) -> u32 {
    let described = view.description.as_ref().map(|description| description.ranked().count());
    described.and_then(|count| u32::try_from(count).ok()).unwrap_or(view.info.rules)
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

#[derive(Debug, Serialize)]
pub(super) struct RuleRow<'r> {
    pub(super) table: TableNumber,
    pub(super) rank: u32,
    #[serde(flatten)]
    pub(super) rule: &'r RuleDescription,
    /// None where the table has no counter per rule.
    pub(super) packets: Option<u64>,
    pub(super) bytes: Option<u64>,
}

/// The rules of a table and what they counted.
#[derive(Debug)]
pub(super) struct Counted {
    table: TableNumber,
    description: Option<Arc<TableDescription>>,
    /// By rank; none where the table has no counter per rule.
    counters: Option<Vec<Counter>>,
}

impl Counted {
    pub(super) fn new(view: &TableView, counters: Vec<Counter>) -> Self {
        let shared = view.info.flags & flag::SHARED_COUNTERS != 0;
        Self { table: number(view), description: view.description.clone(), counters: (!shared).then_some(counters) }
    }

    fn rows(&self) -> impl Iterator<Item = RuleRow<'_>> {
        let rules = self.description.iter().flat_map(|description| description.ranked());
        rules.map(|(rank, rule)| {
            let counter = self.counters.as_ref().and_then(|counters| counters.get(usize::try_from(rank).ok()?));
            RuleRow {
                table: self.table,
                rank,
                rule,
                packets: counter.map(|counter| counter.packets),
                bytes: counter.map(|counter| counter.bytes),
            }
        })
    }
}

/// Rules of tables.
#[derive(Clone, Debug)]
pub(super) struct Rules {
    tables: Arc<Vec<Counted>>,
    scope: Scope,
    that_counted: bool,
}

impl Rules {
    /// Every rule that is asked for.
    pub(super) fn all(tables: &Arc<Vec<Counted>>, scope: &Scope) -> Self {
        Self { tables: Arc::clone(tables), scope: scope.clone(), that_counted: false }
    }

    /// Those that counted anything.
    pub(super) fn that_counted(tables: &Arc<Vec<Counted>>, scope: &Scope) -> Self {
        Self { that_counted: true, ..Self::all(tables, scope) }
    }

    pub(super) fn rows(&self) -> impl Iterator<Item = RuleRow<'_>> {
        let rows = self.tables.iter().flat_map(Counted::rows);
        rows.filter(|row| {
            let counted = !self.that_counted || row.packets.is_some_and(|packets| packets > 0);
            counted && self.scope.admits_rule(row.rule)
        })
    }
}

impl Serialize for Rules {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.rows())
    }
}

#[derive(Debug, Serialize)]
pub(super) struct Counters {
    /// Rules that counted anything.
    pub(super) rules: Rules,
    /// Of the whole node; none where only some pods or policies are asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) drops: Option<Vec<DropRow>>,
}

#[derive(Debug, Serialize)]
pub(super) struct DropRow {
    pub(super) reason: &'static str,
    pub(super) packets: u64,
    pub(super) bytes: u64,
}

pub(super) fn drops(counters: &[(DropReason, Counter)]) -> Vec<DropRow> {
    let row = |(reason, counter): &(DropReason, Counter)| DropRow {
        reason: reason.name(),
        packets: counter.packets,
        bytes: counter.bytes,
    };
    counters.iter().map(row).collect()
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

/// `others`: also connections of pods that are not among the endpoints, such as those that are gone.
pub(super) fn flows(flows: &[(FlowKey, Flow)], endpoints: &[EndpointView], others: bool, now: u64) -> Vec<FlowRow> {
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
    let wanted = |(key, _): &&(FlowKey, Flow)| others || names.contains_key(&key.endpoint);
    let mut rows: Vec<FlowRow> = flows.iter().filter(wanted).map(row).collect();
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
