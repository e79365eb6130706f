//! The families of metrics with their labels. Every label's values are bounded; docs/metrics.md states by what.

use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// What a rule did.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct VerdictLabels {
    pub(super) policy: String,
    pub(super) rule: String,
    pub(super) direction: Direction,
    pub(super) verdict: String,
    pub(super) reason: String,
}

/// Only what a pod initiates is judged (§1.1); the label is there for those who join with other metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
pub(super) enum Direction {
    /// Spelt in small letters by hand: the derived form would be `Egress`.
    #[allow(non_camel_case_types, reason = "the name is the label's value")]
    egress,
}

macro_rules! labels {
    ($($(#[$doc:meta])* $name:ident { $($field:ident),* })*) => {
        $($(#[$doc])* #[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
        pub(super) struct $name { $(pub(super) $field: String),* })*
    };
}

labels! {
    /// Why something was refused.
    ReasonLabels { reason }
    /// Whose event it was.
    EventLabels { namespace, outcome }
    /// Which map.
    MapLabels { map }
    /// Which program.
    HookLabels { hook }
    /// How it went.
    ResultLabels { result }
    /// In which state.
    StateLabels { state }
    /// What became of it.
    OutcomeLabels { outcome }
    /// Of which kind of objects.
    ResourceLabels { resource }
    /// Of which version.
    BuildLabels { version }
}

/// A registry under construction; each function adds one family.
pub(super) struct Families(pub(super) Registry);

/// Of counters, read and not counted here.
pub(super) type Read = Counter<u64, AtomicU64>;

impl Families {
    pub(super) fn new() -> Self {
        Self(Registry::with_prefix("egress"))
    }

    /// A counter without labels.
    pub(super) fn counter(&mut self, name: &str, help: &str, value: u64) {
        let counter = Read::default();
        counter.inc_by(value);
        self.0.register(name, help, counter);
    }

    /// A gauge without labels.
    pub(super) fn gauge(&mut self, name: &str, help: &str, value: u64) {
        let gauge: Gauge<i64> = Gauge::default();
        gauge.set(clamp(value));
        self.0.register(name, help, gauge);
    }

    /// Counters of one family.
    pub(super) fn counters<L>(&mut self, name: &str, help: &str, rows: impl IntoIterator<Item = (L, u64)>)
    where
        L: Clone + std::hash::Hash + Eq + EncodeLabelSet + Send + Sync + std::fmt::Debug + 'static,
    {
        let family: Family<L, Read> = Family::default();
        for (labels, value) in rows {
            family.get_or_create(&labels).inc_by(value);
        }
        self.0.register(name, help, family);
    }

    /// Gauges of one family.
    pub(super) fn gauges<L>(&mut self, name: &str, help: &str, rows: impl IntoIterator<Item = (L, u64)>)
    where
        L: Clone + std::hash::Hash + Eq + EncodeLabelSet + Send + Sync + std::fmt::Debug + 'static,
    {
        let family: Family<L, Gauge<i64>> = Family::default();
        for (labels, value) in rows {
            family.get_or_create(&labels).set(clamp(value));
        }
        self.0.register(name, help, family);
    }
}

fn clamp(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}
