//! The answer of `why`.

use std::io::{self, Write};
use std::net::IpAddr;

use egress_common::table::{Decision, flag};
use egress_policy::compile::Lookup;
use egress_policy::describe::{RuleDescription, TableDescription};
use egress_policy::ports::KeyRange;
use ipnet::IpNet;
use owo_colors::{OwoColorize as _, Style};
use serde::Serialize;

use crate::columns::{self, Cell, Tone};
use crate::datapath::inspect::EndpointView;
use crate::destination::Destination;
use crate::names::{self, Snapshot};
use crate::output::Answer;
use crate::pods::PodName;
use crate::reconcile::LastStatus;
use crate::sources::Problem;

use super::kernel::{Found, Judged, NameHeld, PrefixSays};

const VERSION: u32 = 1;
/// Known endpoints that are named when the one asked for is not known.
const SHOWN: usize = 5;

/// The verdict and where it comes from.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Why {
    version: u32,
    pod: String,
    to: Destination,
    /// `allow`, `deny`, `internal`, `depends` on the port, or `unknown`: the kernel does not know the pod, and refuses nothing of it.
    verdict: &'static str,
    /// What is to be known about it in words, where the rest does not say it.
    #[serde(skip_serializing_if = "Option::is_none")]
    note: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    endpoint: Option<EndpointRow>,
    #[serde(skip_serializing_if = "Option::is_none")]
    table: Option<TableRow>,
    /// The rule or rules that decide.
    rules: Vec<RuleRow>,
    /// DNS names that the destination is known to belong to now.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    names: Vec<NameRow>,
    /// Every prefix of the table that contains the destination, the longest, which decides, first.
    prefixes: Vec<PrefixRow>,
    /// None if the agent has left no status.
    agent: Option<AgentRow>,
    /// Reasons why the kernel may enforce something else than the files say.
    differs: Vec<Problem>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct EndpointRow {
    id: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    interface: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    netns: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cgroup: Option<u64>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct TableRow {
    slot: u32,
    generation: u32,
    rules: u32,
    /// `Reject` or `Drop`.
    deny_response: &'static str,
}

#[derive(Debug, Serialize)]
struct RuleRow {
    /// Which ports of those that are meant: `TCP/443`, `TCP`.
    ports: String,
    verdict: &'static str,
    rank: u32,
    origin: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    text: Option<String>,
    /// Packets and refused calls that the rule was charged with in this version of the table; none if it does not count one by one.
    packets: Option<u64>,
    bytes: Option<u64>,
    /// The verdict with the policies under Audit enforced, where that is reported.
    #[serde(skip_serializing_if = "Option::is_none")]
    audit: Option<SaysRow>,
}

/// A name of the destination.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct NameRow {
    /// Concrete names where the agent knows them, else what the id stands for.
    names: Vec<String>,
    id: u32,
    /// Until the address is not the name's any more, unless it is looked up again.
    seconds_left: u64,
    /// Whether rules of this pod are about it.
    counts: bool,
}

#[derive(Debug, Serialize)]
struct PrefixRow {
    prefix: IpNet,
    says: Vec<SaysRow>,
}

#[derive(Clone, Debug, Serialize)]
struct SaysRow {
    ports: String,
    verdict: &'static str,
    by: String,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct AgentRow {
    pid: u32,
    running: bool,
    applied_at: String,
    generation: u64,
}

impl Why {
    pub(super) fn new(
        pod: &PodName,
        to: Destination,
        found: &Found,
        status: Option<&LastStatus>,
        snapshot: Option<&Snapshot>,
    ) -> Self {
        let mut why = Self {
            version: VERSION,
            pod: pod.to_string(),
            to,
            verdict: "unknown",
            note: None,
            endpoint: None,
            table: None,
            rules: Vec::new(),
            names: Vec::new(),
            prefixes: Vec::new(),
            agent: status.map(|status| AgentRow {
                pid: status.pid,
                running: status.is_running(),
                applied_at: status.applied_at.clone(),
                generation: status.generation,
            }),
            differs: status.map(|status| status.problems_of(pod)).unwrap_or_default(),
        };
        match found {
            Found::Unknown { known } => why.note = Some(unknown(known)),
            Found::NoTable(endpoint) => {
                why.verdict = "allow";
                why.note = Some("the pod has no table, so everything passes".to_owned());
                why.endpoint = Some(EndpointRow::new(endpoint));
            }
            Found::Judged(judged) => {
                why.judged(judged);
                why.names = judged.names.iter().map(|held| NameRow::new(held, to.address, snapshot)).collect();
            }
        }
        why
    }

    /// Whether everything that was asked for passes.
    /// `allow`, `deny`, `internal`, `depends` or `unknown`.
    pub(super) const fn verdict(&self) -> &'static str {
        self.verdict
    }

    pub(super) fn allows(&self) -> bool {
        matches!(self.verdict, "allow" | "internal")
    }

    fn judged(&mut self, judged: &Judged) {
        let description = judged.table.description.as_deref();
        let deciding = judged.says.as_slice();
        self.verdict = verdict(deciding);
        if deciding.is_empty() {
            self.note =
                Some("the table is damaged here, so the kernel drops; restart the agent and report this".to_owned());
        }
        let info = judged.table.info;
        self.endpoint = Some(EndpointRow::new(&judged.endpoint));
        self.table = Some(TableRow {
            slot: judged.table.reference.slot,
            generation: info.generation,
            rules: info.rules,
            deny_response: if info.flags & flag::REJECT == 0 { "Drop" } else { "Reject" },
        });
        self.rules = deciding.iter().map(|said| RuleRow::new(*said, judged, description)).collect();
        let row = |prefix: &PrefixSays| PrefixRow {
            prefix: prefix.prefix,
            says: prefix.says.iter().map(|(keys, said)| SaysRow::new(*keys, said.decision, description)).collect(),
        };
        self.prefixes = judged.prefixes.iter().map(row).collect();
    }
}

/// What several intervals say together.
fn verdict(says: &[(KeyRange, Lookup)]) -> &'static str {
    let mut words = says.iter().map(|(_, lookup)| word(lookup.decision));
    let Some(first) = words.next() else { return "deny" };
    if words.all(|other| other == first) {
        first
    } else if says.iter().all(|(_, lookup)| !lookup.decision.is_deny()) {
        "allow"
    } else {
        "depends"
    }
}

fn unknown(known: &[String]) -> String {
    let some: Vec<&str> = known.iter().take(SHOWN).map(String::as_str).collect();
    let some = match (some.is_empty(), known.len() > SHOWN) {
        (true, _) => "no pod is known here".to_owned(),
        (false, more) => format!("known here: {}{}", some.join(", "), if more { ", …" } else { "" }),
    };
    format!(
        "the kernel does not know this pod, so this node refuses nothing of it. That is right for a pod that no policy selects \
         while the default action is Allow, and for a pod of another node; otherwise the name is wrong, or the agent has not found \
         the pod; {some}"
    )
}

const fn word(decision: Decision) -> &'static str {
    if decision.is_deny() {
        "deny"
    } else if decision.is_internal() {
        "internal"
    } else {
        "allow"
    }
}

fn rule(description: Option<&TableDescription>, decision: Decision) -> Option<&RuleDescription> {
    description.and_then(|description| description.rule(decision.rank()))
}

fn origin(description: Option<&TableDescription>, decision: Decision) -> String {
    rule(description, decision).map_or_else(|| format!("rank {}", decision.rank()), |rule| rule.origin.clone())
}

impl EndpointRow {
    fn new(view: &EndpointView) -> Self {
        Self { id: view.id, interface: view.interface, netns: view.netns, cgroup: view.cgroup }
    }

    fn words(&self) -> String {
        let interface = self.interface.map(|index| format!("interface {index}"));
        let netns = self.netns.map(|cookie| format!("netns {cookie}"));
        let cgroup = self.cgroup.map(|id| format!("cgroup {id}"));
        let keys: Vec<String> = [interface, netns, cgroup].into_iter().flatten().collect();
        if keys.is_empty() { "nothing, so no packet is judged".to_owned() } else { keys.join(", ") }
    }
}

impl RuleRow {
    fn new((keys, said): (KeyRange, Lookup), judged: &Judged, description: Option<&TableDescription>) -> Self {
        let decision = said.decision;
        let described = rule(description, decision);
        let counter = judged.counters.iter().find(|(rank, _)| *rank == decision.rank()).map(|(_, counter)| counter);
        Self {
            ports: keys.to_string(),
            verdict: word(decision),
            rank: decision.rank(),
            origin: origin(description, decision),
            name: described.and_then(|rule| rule.name.as_deref()).map(ToOwned::to_owned),
            text: described.map(|rule| rule.text.clone()),
            packets: counter.map(|counter| counter.packets),
            bytes: counter.map(|counter| counter.bytes),
            audit: said.audit.map(|audit| SaysRow::new(keys, audit, description)),
        }
    }

    fn words(&self) -> String {
        let name = self.name.as_ref().map(|name| format!(" {name:?}")).unwrap_or_default();
        let text = self.text.as_ref().map(|text| format!(": {text}")).unwrap_or_default();
        format!("{}{name}{text}", self.origin)
    }

    fn counted(&self) -> String {
        match (self.packets, self.bytes) {
            (Some(packets), Some(bytes)) => {
                format!("{packets} packets or calls, {bytes} bytes by this rule since the table was made")
            }
            _ => "not rule by rule: there was no room for a counter each".to_owned(),
        }
    }
}

impl NameRow {
    fn new(held: &NameHeld, address: IpAddr, snapshot: Option<&Snapshot>) -> Self {
        let known = snapshot.map_or(&[][..], |snapshot| &snapshot.names);
        let is_of =
            |row: &&names::NameRow| row.id == Some(held.id) && row.addresses.iter().any(|own| own.address == address);
        let mut names: Vec<String> = known.iter().filter(is_of).map(|row| row.name.clone()).collect();
        if names.is_empty() {
            let place = held.place.clone();
            names.push(place.unwrap_or_else(|| format!("id {}, which no rule is about any more", held.id)));
        }
        let seconds_left = u64::from(held.expiry).saturating_sub(names::now().as_secs());
        Self { names, id: held.id, seconds_left, counts: held.counts }
    }

    fn words(&self) -> String {
        let counts = if self.counts { "" } else { "; no rule of this pod is about it" };
        format!("{} for {} s more{counts}", self.names.join(", "), self.seconds_left)
    }
}

impl SaysRow {
    fn new(keys: KeyRange, decision: Decision, description: Option<&TableDescription>) -> Self {
        Self { ports: keys.to_string(), verdict: word(decision), by: origin(description, decision) }
    }
}

impl Answer for Why {
    fn text(&self, out: &mut dyn Write, colours: bool) -> io::Result<()> {
        let paint = |text: &str, style: Style| if colours { text.style(style).to_string() } else { text.to_owned() };
        let style = if self.allows() { Style::new().green().bold() } else { Style::new().red().bold() };
        let verdict = if self.verdict == "depends" { "depends on the port" } else { self.verdict };
        writeln!(out, "{} to {}: {}", self.pod, self.to, paint(verdict, style))?;
        let mut line = |name: &str, text: &str| writeln!(out, "  {name:<9} {text}");
        if let Some(note) = &self.note {
            line("note", note)?;
        }
        for rule in &self.rules {
            let ports = if self.rules.len() > 1 { format!("{} {}, ", rule.verdict, rule.ports) } else { String::new() };
            line("by", &format!("{ports}{}", rule.words()))?;
            if let Some(audit) = &rule.audit {
                line("audit", &format!("with the policies under Audit enforced: {} by {}", audit.verdict, audit.by))?;
            }
            line("counted", &rule.counted())?;
        }
        for name in &self.names {
            line("name", &name.words())?;
        }
        if let Some(TableRow { slot, generation, rules, deny_response }) = &self.table {
            line("table", &format!("{slot}#{generation}, {rules} rules, denyResponse {deny_response}"))?;
        }
        if let Some(endpoint) = &self.endpoint {
            line("known by", &endpoint.words())?;
        }
        match &self.agent {
            Some(AgentRow { pid, running: true, applied_at, .. }) => {
                line("agent", &format!("runs (pid {pid}), last applied {applied_at}"))?;
            }
            Some(AgentRow { pid, applied_at, .. }) => {
                line(
                    "agent",
                    &format!("does not run (pid {pid} is gone), last applied {applied_at}; the kernel keeps enforcing"),
                )?;
            }
            None => line("agent", "has left no status; is --state-dir right?")?,
        }
        self.prefixes_text(out, colours)?;
        if !self.differs.is_empty() {
            let title = "the kernel may enforce something else than the files say:";
            writeln!(out, "{}", paint(title, Style::new().yellow().bold()))?;
        }
        for told in &self.differs {
            writeln!(out, "  {told}")?;
        }
        Ok(())
    }
}

impl Why {
    fn prefixes_text(&self, out: &mut dyn Write, colours: bool) -> io::Result<()> {
        if self.prefixes.is_empty() {
            return Ok(());
        }
        let mut rows = Vec::new();
        for prefix in &self.prefixes {
            for (index, says) in prefix.says.iter().enumerate() {
                let name = if index == 0 { prefix.prefix.to_string() } else { String::new() };
                let tone = if says.verdict == "deny" { Tone::Bad } else { Tone::Good };
                let verdict = Cell::text(says.verdict).tone(tone);
                rows.push(vec![Cell::text(name), Cell::text(&says.ports), verdict, Cell::text(&says.by)]);
            }
        }
        let decides = if self.names.iter().any(|name| name.counts) {
            "of the first one and the names, the rule that comes first decides"
        } else {
            "the first one decides"
        };
        let title = format!("prefixes that contain {}; {decides}", self.to.address);
        columns::write(out, &title, &["prefix", "ports", "verdict", "by"], &rows, colours)
    }
}
