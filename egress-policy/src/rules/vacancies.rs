//! Vacant ranks: places in a long list that no rule has, so that one more takes one of them and few others move.
//!
//! A vacant rank stands in the list as a rule about no address, which decides nothing and is described by nothing. Where the vacant
//! ranks of a region are used up, the list is laid out anew, which changes all ranks.

use std::sync::{Arc, LazyLock};

use ipnet::IpNet;

use super::{RankedPeer, RankedRule, RuleList, RuleOrigin};
use crate::model::{Action, Mode, Tier};
use crate::ports::Ports;

/// Rules between two vacant ranks: a quarter of them moves, on average, for a rule that is added.
const SPACING: usize = 32;
/// Vacant ranks before the first and behind the last rule of a tier: where most rules are added.
const AT_ENDS: usize = 8;

impl RankedRule {
    /// What stands where no rule does.
    pub(crate) fn vacant(tier: Tier) -> Self {
        static NOWHERE: LazyLock<Arc<[IpNet]>> = LazyLock::new(|| Arc::from([]));
        Self {
            origin: RuleOrigin::Vacant,
            tier,
            action: Action::Deny,
            mode: Mode::Enforce,
            peer: RankedPeer::Networks(Arc::clone(&NOWHERE)),
            ports: Ports::Any,
        }
    }

    /// Whether no rule stands here.
    pub const fn is_vacant(&self) -> bool {
        matches!(self.origin, RuleOrigin::Vacant)
    }
}

impl RuleList {
    /// The same list with vacant ranks among the rules of policies, if it stays below `most` ranks.
    #[must_use]
    pub fn with_vacancies(self, most: usize) -> Self {
        let of_policies = |rule: &RankedRule| matches!(rule.origin, RuleOrigin::Policy { .. });
        let mut rules: Vec<RankedRule> = Vec::with_capacity(self.rules.len() + self.rules.len() / SPACING);
        let (mut tier, mut since) = (None, 0);
        let vacate = |rules: &mut Vec<RankedRule>, tier: Option<Tier>, count: usize| {
            rules.extend(tier.into_iter().flat_map(|tier| std::iter::repeat_n(RankedRule::vacant(tier), count)));
        };
        for rule in &self.rules {
            let next = of_policies(rule).then_some(rule.tier);
            if next != tier {
                vacate(&mut rules, tier, AT_ENDS);
                vacate(&mut rules, next, AT_ENDS);
                (tier, since) = (next, 0);
            } else if since == SPACING {
                vacate(&mut rules, tier, 1);
                since = 0;
            }
            rules.push(rule.clone());
            since += 1;
        }
        if rules.len() < most { Self { rules, ..self } } else { self }
    }

    /// Number of rules, without the vacant ranks.
    pub fn count(&self) -> usize {
        self.rules.iter().filter(|rule| !rule.is_vacant()).count()
    }
}
