//! Rates over the last seconds, added up from events and from the totals of rules. Pure: the time comes in.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::{Duration, Instant};

use crate::api::{Line, RulesAnswer};
use crate::events::Record;
use crate::vitals::{RuleKey, Tally};

/// Rates are those of this time.
const WINDOW: Duration = Duration::from_secs(10);
/// Pods and destinations that are followed; further ones are left out until others fall silent.
const MOST: usize = 4096;

/// Refused and would-be refused, per second and in all.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Figures {
    pub(super) refused: f64,
    pub(super) would: f64,
    pub(super) total: u64,
}

/// A pod or a destination.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Row {
    pub(super) name: String,
    pub(super) figures: Figures,
}

/// A rule.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct RuleRow {
    pub(super) key: RuleKey,
    pub(super) packets: f64,
    pub(super) bytes: f64,
    pub(super) total: u64,
}

impl RuleRow {
    /// `deny        rule 2 of shop/web`.
    pub(super) fn words(&self) -> String {
        let RuleKey { policy, rule, verdict } = &self.key;
        let name = if policy.is_empty() { rule.clone() } else { format!("rule {rule} of {policy}") };
        format!("{verdict:<11} {name}")
    }
}

/// Everything that is on the screen.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct View {
    pub(super) title: String,
    /// What is wrong, if something is.
    pub(super) note: Option<String>,
    pub(super) pods: Vec<Row>,
    pub(super) destinations: Vec<Row>,
    pub(super) rules: Vec<RuleRow>,
}

#[derive(Debug, Default)]
struct Series {
    /// Times in the window with refusals and would-be refusals.
    recent: VecDeque<(Instant, u64, u64)>,
    total: u64,
}

impl Series {
    fn add(&mut self, record: &Record, now: Instant) {
        let times = record.times();
        self.total += times;
        let (refused, would) = match record.outcome.as_ref() {
            "denied" => (times, 0),
            "would-deny" => (0, times),
            _ => (0, 0),
        };
        self.recent.push_back((now, refused, would));
    }

    /// Rates of the window, or of `time` where it has not lasted as long yet.
    fn figures(&mut self, now: Instant, time: Duration) -> Figures {
        while self.recent.front().is_some_and(|(at, ..)| now.saturating_duration_since(*at) > WINDOW) {
            self.recent.pop_front();
        }
        let sum = |pick: fn(&(Instant, u64, u64)) -> u64| self.recent.iter().map(pick).sum::<u64>();
        Figures {
            refused: per_second(sum(|row| row.1), time),
            would: per_second(sum(|row| row.2), time),
            total: self.total,
        }
    }
}

/// All series.
#[derive(Debug)]
pub(super) struct Rates {
    node: String,
    namespace: Option<String>,
    pods: HashMap<String, Series>,
    destinations: HashMap<String, Series>,
    /// Totals of rules as they were asked for, the oldest first.
    totals: VecDeque<(Instant, BTreeMap<RuleKey, Tally>)>,
    missed: u64,
    silent: Option<String>,
    /// Since when events are counted.
    since: Option<Instant>,
}

impl Rates {
    pub(super) fn new(node: String, namespace: Option<String>) -> Self {
        Self {
            node,
            namespace,
            pods: HashMap::new(),
            destinations: HashMap::new(),
            totals: VecDeque::new(),
            missed: 0,
            silent: None,
            since: None,
        }
    }

    pub(super) fn line(&mut self, line: &Line, now: Instant) {
        self.since.get_or_insert(now);
        match line {
            Line::Missed { missed } => self.missed += missed,
            Line::Record(record) if record.is_allowed() => {}
            Line::Record(record) => {
                let to = record.name.as_ref().map_or_else(|| record.to(), |name| format!("{} ({name})", record.to()));
                add(&mut self.pods, record.full_pod(), record, now);
                add(&mut self.destinations, to, record, now);
            }
        }
    }

    pub(super) fn rules(&mut self, rules: &RulesAnswer, now: Instant) {
        self.silent = None;
        let totals = rules.rules.iter().map(|row| (row.key.clone(), row.tally)).collect();
        self.totals.push_back((now, totals));
        // The one before the window stays: the rate is the difference to it.
        while self.totals.get(1).is_some_and(|(at, _)| now.saturating_duration_since(*at) >= WINDOW) {
            self.totals.pop_front();
        }
    }

    /// The agent does not answer; until it does again.
    pub(super) fn silent(&mut self, why: String) {
        self.silent = Some(why);
    }

    /// Begins anew.
    pub(super) fn forget(&mut self) {
        self.pods.clear();
        self.destinations.clear();
        self.totals.drain(..self.totals.len().saturating_sub(1));
        self.missed = 0;
        self.since = None;
    }

    pub(super) fn view(&mut self, now: Instant) -> View {
        let scope = self.namespace.as_ref().map(|namespace| format!(", namespace {namespace}")).unwrap_or_default();
        let time = self.since.map_or(WINDOW, |since| now.saturating_duration_since(since));
        let time = time.clamp(Duration::from_secs(1), WINDOW);
        let missed = (self.missed > 0).then(|| format!("{} events came too fast", self.missed));
        View {
            title: format!("egress on {}{scope}: rates of the last {} s", self.node, WINDOW.as_secs()),
            note: self.silent.clone().or(missed),
            pods: rows(&mut self.pods, now, time),
            destinations: rows(&mut self.destinations, now, time),
            rules: self.rule_rows(),
        }
    }

    fn rule_rows(&self) -> Vec<RuleRow> {
        let (Some((then, before)), Some((now, totals))) = (self.totals.front(), self.totals.back()) else {
            return Vec::new();
        };
        let time = now.saturating_duration_since(*then);
        let row = |(key, tally): (&RuleKey, &Tally)| {
            let earlier = before.get(key).copied().unwrap_or_default();
            RuleRow {
                key: key.clone(),
                packets: per_second(tally.packets.saturating_sub(earlier.packets), time),
                bytes: per_second(tally.bytes.saturating_sub(earlier.bytes), time),
                total: tally.packets,
            }
        };
        let mut rows: Vec<RuleRow> = totals.iter().filter(|(_, tally)| tally.packets > 0).map(row).collect();
        rows.sort_by(|a, b| order(a).cmp(&order(b)).then(b.packets.total_cmp(&a.packets)).then(b.total.cmp(&a.total)));
        rows
    }
}

/// Refusals that go on first, then what Audit would refuse, then the rest; what is silent last.
fn order(row: &RuleRow) -> u8 {
    match (row.packets > 0.0, row.key.verdict.as_str()) {
        (true, "deny") => 0,
        (true, "audit-deny") => 1,
        (true, _) => 2,
        (false, "deny") => 3,
        (false, _) => 4,
    }
}

fn add(all: &mut HashMap<String, Series>, name: String, record: &Record, now: Instant) {
    if all.len() >= MOST && !all.contains_key(&name) {
        all.retain(|_, series| {
            let figures = series.figures(now, WINDOW);
            figures.refused + figures.would > 0.0
        });
        if all.len() >= MOST {
            return;
        }
    }
    all.entry(name).or_default().add(record, now);
}

fn rows(all: &mut HashMap<String, Series>, now: Instant, time: Duration) -> Vec<Row> {
    let row = |(name, series): (&String, &mut Series)| Row { name: name.clone(), figures: series.figures(now, time) };
    let mut rows: Vec<Row> = all.iter_mut().map(row).collect();
    let key = |row: &Row| (row.figures.refused, row.figures.would);
    rows.sort_by(|a, b| {
        let ((a_refused, a_would), (b_refused, b_would)) = (key(a), key(b));
        let by_rate = b_refused.total_cmp(&a_refused).then(b_would.total_cmp(&a_would));
        by_rate.then(b.figures.total.cmp(&a.figures.total)).then_with(|| a.name.cmp(&b.name))
    });
    rows
}

#[expect(clippy::cast_precision_loss, reason = "a rate for people to read")]
fn per_second(count: u64, time: Duration) -> f64 {
    if time.is_zero() { 0.0 } else { count as f64 / time.as_secs_f64() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::RuleTotal;
    use crate::events::sample;

    fn event(pod: &str, outcome: &'static str, repeats: u32) -> Line {
        Line::Record(Box::new(Record { pod: pod.into(), outcome: outcome.into(), repeats, ..sample() }))
    }

    fn rules(rows: &[(&str, &str, u64)]) -> RulesAnswer {
        let row = |(rule, verdict, packets): &(&str, &str, u64)| RuleTotal {
            key: RuleKey { policy: "shop/web".into(), rule: (*rule).into(), verdict: (*verdict).into() },
            tally: Tally { packets: *packets, bytes: packets * 100 },
        };
        RulesAnswer { version: 1, node: "node".into(), rules: rows.iter().map(row).collect() }
    }

    #[test]
    fn pods_are_ordered_by_what_is_refused_now() {
        let mut rates = Rates::new("node".into(), None);
        let start = Instant::now();
        rates.line(&event("old", "denied", 999), start);
        rates.line(&event("audited", "would-deny", 49), start + Duration::from_secs(20));
        rates.line(&event("refused", "denied", 19), start + Duration::from_secs(20));
        let view = rates.view(start + Duration::from_secs(21));
        let names: Vec<(&str, f64, f64)> =
            view.pods.iter().map(|row| (row.name.as_str(), row.figures.refused, row.figures.would)).collect();
        assert_eq!(names, [("default/refused", 2.0, 0.0), ("default/audited", 0.0, 5.0), ("default/old", 0.0, 0.0)]);
        assert_eq!(view.destinations.len(), 1);
        assert_eq!(view.destinations[0].figures.total, 1070);
        rates.forget();
        assert_eq!(rates.view(start + Duration::from_secs(22)).pods, []);
    }

    #[test]
    fn rates_at_the_start_are_those_of_the_time_since_then() {
        let mut rates = Rates::new("node".into(), None);
        let start = Instant::now();
        rates.line(&event("web", "denied", 9), start);
        let figures = rates.view(start + Duration::from_secs(2)).pods[0].figures;
        assert!((figures.refused - 5.0).abs() < 0.01, "{figures:?}");
    }

    #[test]
    fn rules_have_the_rate_between_two_answers_and_refusals_come_first() {
        let mut rates = Rates::new("node".into(), None);
        let start = Instant::now();
        rates.rules(&rules(&[("1", "allow", 1000), ("2", "deny", 5), ("3", "deny", 7), ("4", "allow", 0)]), start);
        let later = rules(&[("1", "allow", 3000), ("2", "deny", 15), ("3", "deny", 7), ("4", "allow", 0)]);
        rates.rules(&later, start + Duration::from_secs(2));
        let view = rates.view(start + Duration::from_secs(2));
        let rows: Vec<(&str, f64)> = view.rules.iter().map(|row| (row.key.rule.as_str(), row.packets)).collect();
        assert_eq!(rows, [("2", 5.0), ("1", 1000.0), ("3", 0.0)]);
        // What was asked long ago does not count any more.
        for second in 3..30 {
            rates.rules(&later, start + Duration::from_secs(second));
        }
        assert!(rates.view(start + Duration::from_secs(30)).rules.iter().all(|row| row.packets == 0.0));
        assert!(rates.totals.len() <= 12);
    }

    #[test]
    fn an_agent_that_is_silent_is_said_to_be_so_until_it_answers_again() {
        let mut rates = Rates::new("node".into(), None);
        rates.silent("the agent ended".into());
        assert_eq!(rates.view(Instant::now()).note.as_deref(), Some("the agent ended"));
        rates.rules(&rules(&[]), Instant::now());
        assert_eq!(rates.view(Instant::now()).note, None);
    }

    #[test]
    fn more_pods_than_can_be_followed_leave_out_the_silent_ones() {
        let mut rates = Rates::new("node".into(), None);
        let start = Instant::now();
        for number in 0..MOST + 10 {
            rates.line(&event(&format!("pod-{number}"), "denied", 0), start);
        }
        assert_eq!(rates.pods.len(), MOST);
        rates.line(&event("late", "denied", 0), start + Duration::from_secs(20));
        assert_eq!(rates.pods.len(), 1);
    }
}
