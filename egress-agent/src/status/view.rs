//! The answer of `status`, which is also what the agent's socket answers.

use std::io::{self, Write};

use egress_common::event::Stat;
use owo_colors::{OwoColorize as _, Style};
use serde::{Deserialize, Serialize};

use crate::columns::{self, Cell, Tone};
use crate::datapath::DatapathError;
use crate::datapath::inspect::Inspector;
use crate::events::rfc3339;
use crate::output::Answer;
use crate::reconcile::{LastStatus, Status};
use crate::sources::Problem;
use crate::vitals::Vitals;

use super::{kernel_release, node_name};

const VERSION: u32 = 1;
/// A map that is fuller than this, in percent, is coloured.
const NEARLY_FULL: u64 = 80;

/// How everything is.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct StatusView {
    pub(super) version: u32,
    pub(super) node: String,
    pub(super) kernel: String,
    /// None if no agent has left a status.
    pub(super) agent: Option<AgentRow>,
    pub(super) pods: PodsRow,
    pub(super) policies: PoliciesRow,
    pub(super) hooks: Vec<HookRow>,
    pub(super) maps: Vec<MapRow>,
    pub(super) events: EventsRow,
    /// None if the agent does not run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) files: Option<FilesRow>,
    pub(super) problems: Vec<Problem>,
    pub(super) warnings: Vec<String>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct AgentRow {
    pub(super) running: bool,
    pub(super) pid: u32,
    /// Of the binary; only a running agent says so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) release: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) started_at: Option<String>,
    pub(super) applied_at: String,
    pub(super) generation: u64,
    /// Time of the last apply.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) apply_seconds: Option<f64>,
    /// Why the last round failed, if it did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) error: Option<String>,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct PodsRow {
    /// In the endpoints file.
    pub(super) listed: usize,
    /// Of these, covered by policies or by a default action that denies.
    pub(super) covered: usize,
    /// Judged by the kernel now.
    pub(super) enforced: usize,
    /// Covered, and not judged by their own rules.
    pub(super) pending: Vec<String>,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct PoliciesRow {
    pub(super) in_force: usize,
    /// Objects of which an older version is in force, because the present one is broken.
    pub(super) kept: usize,
    /// Distinct rule lists in the kernel.
    pub(super) tables: usize,
    /// `Enforce`, or `Audit` if nothing is refused by policies or by the default action.
    pub(super) enforcement: String,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct HookRow {
    pub(super) hook: String,
    /// Cgroups or interfaces that it is attached to.
    pub(super) places: usize,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct MapRow {
    pub(super) map: String,
    pub(super) entries: u64,
    pub(super) capacity: u64,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct EventsRow {
    /// Because the ring was full.
    pub(super) lost: u64,
    /// Counted as repeats of another one.
    pub(super) limited: u64,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct FilesRow {
    /// Directories that the kernel reports changes of.
    pub(super) watched: usize,
    /// Directories that are only looked at every half minute.
    pub(super) unwatched: usize,
    pub(super) errors: u64,
}

impl StatusView {
    /// Of an agent that does not answer: the pins, and what it last wrote.
    pub(super) fn of_pins(inspector: &Inspector, last: Option<LastStatus>) -> Result<Self, DatapathError> {
        let status = last.as_ref().map(|last| last.status.clone()).unwrap_or_default();
        let mut view = Self::of_kernel(inspector, status)?;
        view.node = node_name();
        view.agent = last.map(|last| AgentRow {
            running: false,
            pid: last.pid,
            release: None,
            started_at: None,
            applied_at: last.applied_at,
            generation: last.generation,
            apply_seconds: None,
            error: None,
        });
        Ok(view)
    }

    /// Of the agent that this process is.
    pub(crate) fn of_running(vitals: &Vitals) -> Result<Self, DatapathError> {
        let (last, error) = {
            let rounds = vitals.rounds();
            (rounds.last.clone(), rounds.error.clone())
        };
        let status = last.as_ref().map(|last| last.status.clone()).unwrap_or_default();
        let mut view = Self::of_kernel(&vitals.inspector()?, status)?;
        vitals.node().clone_into(&mut view.node);
        view.agent = Some(AgentRow {
            running: true,
            pid: std::process::id(),
            release: Some(env!("CARGO_PKG_VERSION").to_owned()),
            started_at: Some(rfc3339(vitals.started())),
            applied_at: last.as_ref().map(|last| rfc3339(last.applied)).unwrap_or_default(),
            generation: last.as_ref().map_or(0, |last| last.generation),
            apply_seconds: last.as_ref().map(|last| last.took.as_secs_f64()),
            error,
        });
        let watched = vitals.watched();
        let (errors, unwatched) = (watched.errors(), watched.unwatched());
        view.files = Some(FilesRow { watched: watched.watched(), unwatched, errors });
        Ok(view)
    }

    fn of_kernel(inspector: &Inspector, status: Status) -> Result<Self, DatapathError> {
        let figures = inspector.stats()?;
        let figure = |wanted| figures.iter().find(|(stat, _)| *stat == wanted).map_or(0, |(_, value)| *value);
        let hooks = inspector.attached().into_iter();
        let fill = inspector.fill()?.into_iter();
        Ok(Self {
            version: VERSION,
            node: String::new(),
            kernel: kernel_release(),
            agent: None,
            pods: PodsRow {
                listed: status.endpoints,
                covered: status.covered,
                enforced: inspector.endpoints()?.len(),
                pending: status.pending.into_iter().collect(),
            },
            policies: PoliciesRow {
                in_force: status.policies,
                kept: status.kept,
                tables: inspector.tables(false)?.len(),
                enforcement: if status.audit { "Audit" } else { "Enforce" }.to_owned(),
            },
            hooks: hooks.map(|found| HookRow { hook: found.hook.to_owned(), places: found.places }).collect(),
            maps: fill
                .map(|fill| MapRow { map: fill.map.to_owned(), entries: fill.entries, capacity: fill.capacity })
                .collect(),
            events: EventsRow { lost: figure(Stat::EventsLost), limited: figure(Stat::EventsLimited) },
            files: None,
            problems: status.problems,
            warnings: status.warnings,
        })
    }

    fn runs(&self) -> bool {
        self.agent.as_ref().is_some_and(|agent| agent.running)
    }

    /// Whether nothing needs a look.
    pub(super) fn is_well(&self) -> bool {
        let failed = self.agent.as_ref().is_some_and(|agent| agent.error.is_some());
        self.runs() && !failed && self.problems.is_empty() && self.pods.pending.is_empty()
    }
}

impl AgentRow {
    fn words(&self) -> String {
        let Self { pid, applied_at, generation, .. } = self;
        let applied = format!("last applied {applied_at} (generation {generation})");
        if !self.running {
            return format!("does not run (pid {pid} is gone), {applied}; the kernel keeps enforcing");
        }
        let release = self.release.as_deref().unwrap_or("unknown");
        let started = self.started_at.as_deref().unwrap_or("unknown");
        let took = self.apply_seconds.map(|seconds| format!(" in {:.1} ms", seconds * 1000.0)).unwrap_or_default();
        format!("runs (pid {pid}, release {release}) since {started}, {applied}{took}")
    }
}

impl Answer for StatusView {
    fn text(&self, out: &mut dyn Write, colours: bool) -> io::Result<()> {
        let paint = |text: &str, style: Style| if colours { text.style(style).to_string() } else { text.to_owned() };
        let word = match (self.is_well(), self.runs()) {
            (true, _) => paint("well", Style::new().green().bold()),
            (false, true) => paint("needs a look", Style::new().red().bold()),
            (false, false) => paint("without an agent", Style::new().red().bold()),
        };
        writeln!(out, "{}, Linux {}: {word}", self.node, self.kernel)?;
        let mut line = |name: &str, text: &str| writeln!(out, "  {name:<9} {text}");
        match &self.agent {
            Some(agent) => line("agent", &agent.words())?,
            None => line("agent", "does not run and has left no status; is --state-dir right?")?,
        }
        if let Some(error) = self.agent.as_ref().and_then(|agent| agent.error.as_ref()) {
            line("failed", error)?;
        }
        let PodsRow { listed, covered, enforced, pending } = &self.pods;
        line("pods", &format!("{listed} listed, {covered} covered by policies, {enforced} judged by the kernel"))?;
        if !pending.is_empty() {
            line("pending", &pending.join(", "))?;
        }
        let PoliciesRow { in_force, kept, tables, enforcement } = &self.policies;
        let kept = if *kept > 0 { format!(", {kept} objects in an older version") } else { String::new() };
        line("policies", &format!("{in_force} in force{kept}, {tables} tables in the kernel"))?;
        if enforcement == "Audit" {
            line("audit", &paint("enforcement is Audit: no policy refuses anything", Style::new().yellow().bold()))?;
        }
        if let Some(FilesRow { watched, unwatched, errors }) = &self.files {
            line("files", &format!("{watched} directories watched, {unwatched} not, {errors} errors"))?;
        }
        line("events", &format!("{} lost, {} counted as repeats", self.events.lost, self.events.limited))?;
        self.sheets(out, colours)?;
        for problem in &self.problems {
            writeln!(out, "{} {problem}", paint("problem", Style::new().red().bold()))?;
        }
        for warning in &self.warnings {
            writeln!(out, "{} {warning}", paint("warning", Style::new().yellow().bold()))?;
        }
        Ok(())
    }
}

impl StatusView {
    fn sheets(&self, out: &mut dyn Write, colours: bool) -> io::Result<()> {
        let row = |hook: &HookRow| vec![Cell::text(&hook.hook), Cell::number(&hook.places)];
        let hooks: Vec<_> = self.hooks.iter().map(row).collect();
        columns::write(out, "hooks", &["program", "places"], &hooks, colours)?;
        let row = |map: &MapRow| {
            let percent = map.entries.saturating_mul(100) / map.capacity.max(1);
            let tone = if percent >= NEARLY_FULL { Tone::Bad } else { Tone::Plain };
            vec![
                Cell::text(&map.map),
                Cell::number(&map.entries),
                Cell::number(&map.capacity),
                Cell::number(&format!("{percent} %")).tone(tone),
            ]
        };
        let maps: Vec<_> = self.maps.iter().map(row).collect();
        columns::write(out, "maps", &["map", "entries", "capacity", "used"], &maps, colours)
    }
}
