//! How long an answer counts (§5.3), on the clock that the kernel compares with.

use std::time::Duration;

use egress_common::dns::QUERY_SECONDS;
use egress_policy::model::DnsConfig;

/// A moment of `CLOCK_MONOTONIC`.
pub(crate) type Moment = Duration;

/// The bounds of the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Lifetimes {
    /// Shorter TTLs are raised to this,
    pub(crate) min: Duration,
    /// longer ones lowered to this,
    pub(crate) max: Duration,
    /// and this is added.
    pub(crate) grace: Duration,
}

impl From<&DnsConfig> for Lifetimes {
    fn from(config: &DnsConfig) -> Self {
        Self { min: config.min_ttl, max: config.max_ttl, grace: config.grace }
    }
}

impl Default for Lifetimes {
    fn default() -> Self {
        Self::from(&DnsConfig::default())
    }
}

impl Lifetimes {
    /// A TTL within the bounds.
    pub(crate) fn bounded(&self, ttl: u32) -> Duration {
        Duration::from_secs(ttl.into()).max(self.min).min(self.max)
    }

    /// When an address with this TTL ends that is answered now.
    pub(crate) fn end(&self, ttl: u32, now: Moment) -> Moment {
        now + self.bounded(ttl) + self.grace
    }

    /// The TTL with which an address that has `left` to live is stored anew; never ends earlier than it would have.
    pub(crate) fn ttl_for(&self, left: Duration) -> u32 {
        let ttl = left.saturating_sub(self.grace);
        u32::try_from(ttl.as_secs() + u64::from(ttl.subsec_nanos() > 0)).unwrap_or(u32::MAX)
    }

    /// How long an address can be held under an id that is given up now: a query that is under way may still be answered.
    pub(crate) fn longest(&self) -> Duration {
        self.max + self.grace + Duration::from_secs(QUERY_SECONDS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Moment = Duration::from_secs(1000);

    fn seconds(min: u64, max: u64, grace: u64) -> Lifetimes {
        let [min, max, grace] = [min, max, grace].map(Duration::from_secs);
        Lifetimes { min, max, grace }
    }

    #[test]
    fn a_ttl_is_raised_lowered_and_given_grace() {
        let lifetimes = Lifetimes::default();
        for (ttl, life) in [(0, 35), (4, 35), (5, 35), (300, 330), (3600, 3630), (3601, 3630), (u32::MAX, 3630)] {
            assert_eq!(lifetimes.end(ttl, NOW), NOW + Duration::from_secs(life), "TTL {ttl}");
        }
    }

    #[test]
    fn storing_anew_never_shortens_a_life() {
        for lifetimes in [Lifetimes::default(), seconds(0, 10, 0), seconds(1, 3600, 3600)] {
            for left in [0, 1, 29_500, 30_000, 34_999, 36_000, 1_000_000].map(Duration::from_millis) {
                let left = left.min(lifetimes.max + lifetimes.grace);
                let end = lifetimes.end(lifetimes.ttl_for(left), NOW);
                assert!(end >= NOW + left, "{lifetimes:?} {left:?}");
                assert!(end < NOW + left.max(lifetimes.min + lifetimes.grace) + Duration::from_secs(1));
            }
        }
    }

    #[test]
    fn an_id_is_held_longer_than_any_answer_to_a_query_under_way() {
        assert_eq!(seconds(5, 3600, 30).longest(), Duration::from_mins(61));
    }
}
