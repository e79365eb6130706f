//! The time of day, as objects have it. Tests have their own.

use std::time::Duration;

use k8s_openapi::jiff::{Timestamp, Unit};

/// Where the time comes from.
#[derive(Clone, Debug, Default)]
pub(crate) enum Clock {
    /// The system.
    #[default]
    System,
    /// The runtime's time, which tests can stop and skip, from a start.
    #[cfg(test)]
    Runtime(Timestamp, tokio::time::Instant),
}

impl Clock {
    /// Now, in whole seconds, as Kubernetes writes it.
    pub(crate) fn now(&self) -> Timestamp {
        let now = match self {
            Self::System => Timestamp::now(),
            #[cfg(test)]
            Self::Runtime(start, since) => start.saturating_add(since.elapsed()).unwrap_or(*start),
        };
        now.round(Unit::Second).unwrap_or(now)
    }
}

/// A time as objects have it; none if it is no time.
pub(super) fn time(text: &str) -> Option<Timestamp> {
    text.parse().ok()
}

/// How long ago `then` was. What lies ahead, by a clock that goes fast, counts as now.
pub(super) fn age(then: Timestamp, now: Timestamp) -> Duration {
    Duration::try_from(now.duration_since(then)).unwrap_or_default()
}
