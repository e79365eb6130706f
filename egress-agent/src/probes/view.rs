//! The answer of `test`.

use std::io::{self, Write};

use egress_policy::explain::{Considered, Explanation, Verdict};
use egress_policy::rules::{RuleList, RuleOrigin};
use serde::Serialize;

use crate::columns::{self, Cell, Tone};
use crate::destination::{Asked, Destination, NamedDestination};
use crate::output::Answer;

use super::cases::Probe;

const VERSION: u32 = 1;

/// Every probe with its verdict.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Tested {
    version: u32,
    /// Whether everything is allowed, or as expected.
    passed: bool,
    probes: Vec<Row>,
    /// What was asked for by name, with the worst verdict of its addresses.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    names: Vec<NameRow>,
    /// Packets that the real programs judged alike (`--kernel`).
    #[serde(skip_serializing_if = "Option::is_none")]
    kernel_packets: Option<usize>,
    #[serde(skip)]
    has_cases: bool,
}

#[derive(Debug, Serialize)]
struct NameRow {
    from: String,
    to: NamedDestination,
    /// The worst of them: `deny`, `depends`, `allow`.
    verdict: &'static str,
    /// How many addresses have it.
    count: usize,
    /// How many there are.
    addresses: usize,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Row {
    from: String,
    to: Destination,
    /// The name that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<NamedDestination>,
    /// Every name that has the address.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    names: Vec<String>,
    /// `allow`, `deny`, or `depends` on the port, if none was given.
    verdict: &'static str,
    /// The deciding rule; none where it depends on the port.
    #[serde(skip_serializing_if = "Option::is_none")]
    rule: Option<RuleRow>,
    /// What it would be with the policies under Audit enforced, where that is reported.
    #[serde(skip_serializing_if = "Option::is_none")]
    audit: Option<AuditRow>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expected: Option<ExpectedRow>,
    #[serde(skip_serializing_if = "Option::is_none")]
    considered: Option<Vec<Considered>>,
    #[serde(skip)]
    explanation: Explanation,
}

#[derive(Debug, Serialize)]
struct RuleRow {
    rank: u32,
    /// `rule 2 of shop/web`.
    origin: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    /// `Allow 1.2.3.0/24 TCP/443`.
    text: String,
}

#[derive(Debug, Serialize)]
struct AuditRow {
    verdict: &'static str,
    rule: Option<RuleRow>,
}

#[derive(Debug, Serialize)]
struct ExpectedRow {
    verdict: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    rule: Option<String>,
    /// Whether it came so.
    met: bool,
}

const fn word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Allow => "allow",
        Verdict::Deny => "deny",
        Verdict::DependsOnPort => "depends",
    }
}

impl RuleRow {
    fn new(list: &RuleList, rank: u32) -> Option<Self> {
        let rule = list.rules.get(usize::try_from(rank).ok()?)?;
        let name = match &rule.origin {
            RuleOrigin::Policy { name, .. } => name.as_deref().map(ToOwned::to_owned),
            RuleOrigin::Builtin(_) | RuleOrigin::Service(_) | RuleOrigin::Default | RuleOrigin::Vacant => None,
        };
        Some(Self { rank, origin: rule.origin.to_string(), name, text: rule.text() })
    }

    fn is_called(&self, words: &str) -> bool {
        self.origin == words || self.text == words || self.name.as_deref() == Some(words)
    }
}

impl Row {
    pub(super) fn new(
        probe: &Probe,
        to: Destination,
        names: Vec<String>,
        list: &RuleList,
        explanation: Explanation,
    ) -> Self {
        let rule = explanation.rank.and_then(|rank| RuleRow::new(list, rank));
        let expected = probe.expected.as_ref().map(|expected| {
            let verdict = if expected.allow { Verdict::Allow } else { Verdict::Deny };
            let by = expected.rule.as_deref();
            let met = explanation.verdict == verdict
                && by.is_none_or(|by| rule.as_ref().is_some_and(|rule| rule.is_called(by)));
            ExpectedRow { verdict: word(verdict), rule: expected.rule.clone(), met }
        });
        let audit = explanation.audit;
        Self {
            from: format!("{}/{}", probe.pod.namespace, probe.pod.name),
            to,
            name: match &probe.to {
                Asked::Address(_) => None,
                Asked::Name(asked) => Some(asked.clone()),
            },
            names,
            verdict: word(explanation.verdict),
            rule,
            audit: audit.map(|(verdict, rank)| AuditRow { verdict: word(verdict), rule: RuleRow::new(list, rank) }),
            expected,
            considered: None,
            explanation,
        }
    }

    /// With every rule that was considered, if `explain` says so.
    pub(super) fn explained(mut self, explain: bool) -> Self {
        self.considered = explain.then(|| self.explanation.considered.clone());
        self
    }

    fn passed(&self) -> bool {
        match &self.expected {
            Some(expected) => expected.met,
            None => self.explanation.verdict == Verdict::Allow,
        }
    }

    fn cells(&self, has_cases: bool, has_audit: bool) -> Vec<Cell> {
        let tone = |verdict| if verdict == "allow" { Tone::Good } else { Tone::Bad };
        let rule = self.rule.as_ref();
        let to = match &self.name {
            Some(named) => format!("{} ({})", self.to, named.name),
            None => self.to.to_string(),
        };
        let mut cells = vec![Cell::text(&self.from), Cell::text(to)];
        if has_cases {
            let expected = self.expected.as_ref();
            cells.push(Cell::text(expected.map_or("-", |expected| expected.verdict)));
        }
        let verdict = if self.verdict == "depends" { "depends on the port" } else { self.verdict };
        cells.push(Cell::text(verdict).tone(if has_cases { Tone::Plain } else { tone(self.verdict) }));
        if has_audit {
            let audit = self.audit.as_ref();
            let by = |audit: &AuditRow| {
                let origin = audit.rule.as_ref().map(|rule| rule.origin.clone()).unwrap_or_default();
                format!("{} by {origin}", audit.verdict)
            };
            cells.push(Cell::text(audit.map_or_else(|| "-".to_owned(), by)));
        }
        cells.push(Cell::text(rule.map_or("-", |rule| &rule.origin)));
        cells.push(Cell::text(rule.map_or("-", |rule| &rule.text)));
        if has_cases {
            cells.push(match &self.expected {
                Some(ExpectedRow { met: false, rule: Some(rule), .. }) => {
                    Cell::text(format!("FAILED, expected by {rule}")).tone(Tone::Bad)
                }
                Some(ExpectedRow { met: false, .. }) => Cell::text("FAILED").tone(Tone::Bad),
                _ => Cell::text("ok").tone(Tone::Good),
            });
        }
        cells
    }
}

impl Tested {
    pub(super) fn new(probes: Vec<Row>, has_cases: bool, kernel_packets: Option<usize>) -> Self {
        let names = by_name(&probes);
        let passed = probes.iter().all(Row::passed);
        Self { version: VERSION, passed, probes, names, kernel_packets, has_cases }
    }

    pub(super) fn passed(&self) -> bool {
        self.passed
    }
}

/// The worst verdict for each name, in the order of asking.
fn by_name(probes: &[Row]) -> Vec<NameRow> {
    const WORST_FIRST: [Verdict; 3] = [Verdict::Deny, Verdict::DependsOnPort, Verdict::Allow];
    let mut names: Vec<NameRow> = Vec::new();
    for (row, name) in probes.iter().filter_map(|row| Some((row, row.name.as_ref()?))) {
        if names.iter().any(|known| (&known.from, &known.to) == (&row.from, name)) {
            continue;
        }
        let same = || probes.iter().filter(|other| (&other.from, other.name.as_ref()) == (&row.from, Some(name)));
        let worst = WORST_FIRST.into_iter().map(word).find(|verdict| same().any(|other| other.verdict == *verdict));
        let verdict = worst.unwrap_or(row.verdict);
        let count = same().filter(|other| other.verdict == verdict).count();
        names.push(NameRow { from: row.from.clone(), to: name.clone(), verdict, count, addresses: same().count() });
    }
    names
}

impl Answer for Tested {
    fn text(&self, out: &mut dyn Write, colours: bool) -> io::Result<()> {
        let has_audit = self.probes.iter().any(|row| row.audit.is_some());
        let mut headers = vec!["from", "to"];
        headers.extend(self.has_cases.then_some("expected"));
        headers.push("verdict");
        headers.extend(has_audit.then_some("with Audit enforced"));
        headers.extend(["by", "rule"]);
        headers.extend(self.has_cases.then_some("result"));
        let rows: Vec<_> = self.probes.iter().map(|row| row.cells(self.has_cases, has_audit)).collect();
        columns::write(out, "verdicts", &headers, &rows, colours)?;
        for NameRow { from, to, verdict, count, addresses } in &self.names {
            writeln!(out, "{from} to {to}: {verdict} at {count} of {addresses} addresses")?;
        }
        if self.has_cases {
            let met = self.probes.iter().filter(|row| row.passed()).count();
            writeln!(out, "{met} of {} as expected", self.probes.len())?;
        }
        if let Some(packets) = self.kernel_packets {
            writeln!(out, "the kernel's programs judged {packets} packets, each as the table says")?;
        }
        for row in self.probes.iter().filter(|row| row.considered.is_some()) {
            write!(out, "\n{}: {}", row.from, row.explanation)?;
        }
        Ok(())
    }
}
