//! One scrape: from what the agent knows and what the maps say to the text.

use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

use egress_common::event::Stat;
use egress_common::reason::DropReason;
use egress_common::table::Counter;
use prometheus_client::encoding::text::encode;

use crate::datapath::DatapathError;
use crate::vitals::{Bounded, ByRule, RuleKey, Tally, Vitals};

use super::families::{
    BuildLabels, Direction, EventLabels, Families, HookLabels, MapLabels, ReasonLabels, ResultLabels, StateLabels,
    VerdictLabels,
};
use super::{cluster, names};

/// Rules with a series of their own; the others are added up as `other`.
pub(super) const MOST_RULES: usize = 2000;

/// Why there is no text.
#[derive(Debug, thiserror::Error)]
pub(super) enum GatherError {
    #[error("the maps cannot be read: {0}")]
    Datapath(#[from] DatapathError),
    #[error("the metrics cannot be written: {0}")]
    Encode(#[from] fmt::Error),
}

/// Everything, in the text format.
pub(super) fn text(vitals: &Vitals) -> Result<String, GatherError> {
    let mut families = Families::new();
    let version = BuildLabels { version: env!("CARGO_PKG_VERSION").to_owned() };
    families.gauges("build_info", "The agent's version, as a label", [(version, 1)]);
    families.gauge("start_time_seconds", "When the agent started", seconds(vitals.started()));
    kernel(&mut families, vitals)?;
    rounds(&mut families, vitals);
    events(&mut families, vitals);
    sources(&mut families, vitals);
    cluster::add(&mut families, vitals);
    names::add(&mut families, vitals)?;
    let mut text = String::new();
    encode(&mut text, &families.0)?;
    Ok(text)
}

fn kernel(families: &mut Families, vitals: &Vitals) -> Result<(), DatapathError> {
    let inspector = vitals.inspector()?;
    let rules = bounded(&vitals.rules());
    let drops = inspector.drop_counters()?;
    let help =
        "Packets and refused socket calls by the rule that decided; audit-* verdicts are of rules that decide nothing";
    families.counters("verdicts", help, verdicts(&rules, &drops, |tally| tally.packets, |counter| counter.packets));
    let help = "Bytes from the IP header on, likewise; socket calls have none";
    families.counters("verdict_bytes", help, verdicts(&rules, &drops, |tally| tally.bytes, |counter| counter.bytes));
    let denied = drops.iter().map(|(reason, counter)| (reason_labels(*reason), counter.packets));
    families.counters("denials", "Packets and socket calls that were refused, by reason", denied);
    for (stat, value) in inspector.stats()? {
        families.counter(stat.name(), stat_help(stat), value);
    }
    let fill = inspector.fill()?;
    let map = |name: &str| MapLabels { map: name.to_owned() };
    let entries = fill.iter().map(|fill| (map(fill.map), fill.entries));
    families.gauges("map_entries", "Entries in use; table_* are those of the fullest table", entries);
    let capacity = fill.iter().map(|fill| (map(fill.map), fill.capacity));
    families.gauges("map_capacity", "Entries that fit", capacity);
    let attached = inspector.attached();
    let places = attached.iter().map(|attached| {
        let places = u64::try_from(attached.places).unwrap_or(u64::MAX);
        (HookLabels { hook: attached.hook.to_owned() }, places)
    });
    families.gauges("hook_attachments", "Cgroups or interfaces that a program is attached to", places);
    Ok(())
}

/// Rules up to the bound by themselves, the rest together. The same ones in every scrape, as long as they are there: the order is that
/// of policies and rules.
fn bounded(all: &ByRule) -> ByRule {
    let mut places: Bounded<RuleKey> = Bounded::new(MOST_RULES);
    let mut rules = ByRule::new();
    for (key, tally) in all {
        let key = if places.admits(key) { key.clone() } else { key.other() };
        rules.entry(key).or_default().add(tally.packets, tally.bytes);
    }
    rules
}

/// Rules that decided, and refusals that no rule decided.
fn verdicts(
    rules: &ByRule,
    drops: &[(DropReason, Counter)],
    of_rule: impl Fn(&Tally) -> u64,
    of_drop: impl Fn(&Counter) -> u64,
) -> Vec<(VerdictLabels, u64)> {
    let labels = |policy: &str, rule: &str, verdict: &str, reason: &str| VerdictLabels {
        policy: policy.to_owned(),
        rule: rule.to_owned(),
        direction: Direction::egress,
        verdict: verdict.to_owned(),
        reason: reason.to_owned(),
    };
    let reason = |key: &RuleKey| if key.verdict.ends_with("deny") { DropReason::Policy.name() } else { "" };
    let decided =
        rules.iter().map(|(key, tally)| (labels(&key.policy, &key.rule, &key.verdict, reason(key)), of_rule(tally)));
    let unread = drops.iter().filter(|(reason, _)| *reason != DropReason::Policy);
    decided.chain(unread.map(|(reason, counter)| (labels("", "", "deny", reason.name()), of_drop(counter)))).collect()
}

fn reason_labels(reason: DropReason) -> ReasonLabels {
    ReasonLabels { reason: reason.name().to_owned() }
}

const fn stat_help(stat: Stat) -> &'static str {
    match stat {
        Stat::EventsLost => "Events lost because the ring was full",
        Stat::EventsLimited => "Events that were only counted, as repeats of another one",
        Stat::FlowsFailed => "Connections that could not be remembered",
        Stat::FragmentsFailed => "First fragments that could not be remembered",
        Stat::RejectsFailed => "Refusals that could not be answered",
        Stat::Rejected => "Refusals that were answered with a reset or an ICMP error",
        Stat::Replies => "Packets that a policy denies and that passed as replies",
    }
}

fn rounds(families: &mut Families, vitals: &Vitals) {
    let rounds = vitals.rounds();
    let result = |result: &str| ResultLabels { result: result.to_owned() };
    let counts = [(result("succeeded"), rounds.succeeded), (result("failed"), rounds.failed)];
    families.counters("rounds", "Rounds of the reconciler", counts);
    let help = "Time from reading a change to the kernel's confirmation";
    families.0.register("apply_duration_seconds", help, rounds.took.clone());
    let Some(last) = &rounds.last else { return };
    let (status, count) = (&last.status, |count: usize| u64::try_from(count).unwrap_or(u64::MAX));
    families.gauge("last_apply_timestamp_seconds", "When something was applied last", seconds(last.applied));
    families.gauge("generation", "Number of what was last applied", last.generation);
    families.gauge("policies", "Policies in force", count(status.policies));
    families.gauge(
        "enforcing",
        "0 if no policy refuses anything (enforcement: Audit), else 1",
        u64::from(!status.audit),
    );
    families.gauge("objects_kept", "Objects of which an older version is in force", count(status.kept));
    families.gauge(
        "problems",
        "Problems of files, pods and kernel; `egress-agent status` names them",
        count(status.problems.len()),
    );
    families.gauge("endpoints_held", "Pods that run and are not known yet", count(status.held));
    families.gauge("warnings", "Things that are legal and probably not meant", count(status.warnings.len()));
    let pending = count(status.pending.len());
    families.gauge("endpoints_desired", "Pods that policies cover", count(status.covered));
    families.gauge(
        "endpoints_realized",
        "Pods that the kernel judges by their own rules",
        count(status.covered).saturating_sub(pending),
    );
    families.gauge("endpoints_pending", "Desired minus realized", pending);
}

fn events(families: &mut Families, vitals: &Vitals) {
    let tallies = vitals.tallies();
    let rows = tallies.events().map(|(namespace, outcome, count)| {
        (EventLabels { namespace: namespace.to_owned(), outcome: outcome.to_owned() }, count)
    });
    families.counters("events", "Refusals and would-be refusals that were told, repeats included", rows);
    let result = |result: &str| ResultLabels { result: result.to_owned() };
    let lines = [(result("written"), tallies.lines_written), (result("failed"), tallies.lines_failed)];
    families.counters("flow_log_lines", "Lines of the flow log", lines);
}

fn sources(families: &mut Families, vitals: &Vitals) {
    let (watched, count) = (vitals.watched(), |count: usize| u64::try_from(count).unwrap_or(u64::MAX));
    let state = |state: &str| StateLabels { state: state.to_owned() };
    let directories = [(state("watched"), count(watched.watched())), (state("unwatched"), count(watched.unwatched()))];
    families.gauges("watch_directories", "Directories of policies, endpoints and settings", directories);
    families.counter("watch_errors", "Failures of watching files", watched.errors());
    families.gauge("watch_last_look_timestamp_seconds", "When the files were looked at last", watched.looked());
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_beyond_the_bound_are_added_up_by_verdict() {
        let key = |number: usize, verdict: &str| RuleKey {
            policy: format!("default/p{number:05}"),
            rule: "1".to_owned(),
            verdict: verdict.to_owned(),
        };
        let one = Tally { packets: 1, bytes: 10 };
        let verdict = |number: usize| if number.is_multiple_of(2) { "allow" } else { "deny" };
        let all: ByRule = (0..MOST_RULES + 100).map(|number| (key(number, verdict(number)), one)).collect();
        let rules = bounded(&all);
        assert_eq!(rules.len(), MOST_RULES + 2);
        assert_eq!(rules.get(&key(0, "allow")), Some(&one));
        assert_eq!(rules.get(&key(0, "deny").other()), Some(&Tally { packets: 50, bytes: 500 }));
        assert_eq!(rules.values().map(|tally| tally.packets).sum::<u64>(), all.len() as u64);
    }

    #[test]
    fn refusals_of_packets_that_no_rule_judged_have_a_reason_and_no_rule() {
        let drops = [
            (DropReason::Policy, Counter { packets: 9, bytes: 0 }),
            (DropReason::TruncatedIpv4, Counter { packets: 2, bytes: 0 }),
        ];
        let rows = verdicts(&ByRule::new(), &drops, |tally| tally.packets, |counter| counter.packets);
        let [(labels, 2)] = rows.as_slice() else { panic!("{rows:?}") };
        assert_eq!((labels.rule.as_str(), labels.reason.as_str()), ("", "truncated-ipv4"));
    }
}
