//! Counts what the tests met, so that agreement about nothing does not pass for agreement.

use std::collections::BTreeMap;

use egress_reference::{AnyPort, Builtin, Decider, Mode, Oracle, Outcome, Packet, Pod, Tier, World};

/// How often each outcome was reached.
#[derive(Debug)]
pub(crate) struct Counters(BTreeMap<&'static str, u64>);

/// Everything that must be reached at least once in a full run.
const REQUIRED: [&str; 45] = [
    "packet v4",
    "packet v6",
    "admin allows v4",
    "admin allows v6",
    "admin denies v4",
    "admin denies v6",
    "namespace allows v4",
    "namespace allows v6",
    "namespace denies v4",
    "namespace denies v6",
    "baseline allows v4",
    "baseline allows v6",
    "baseline denies v4",
    "baseline denies v6",
    "default allows v4",
    "default allows v6",
    "default denies v4",
    "default denies v6",
    "internal v4",
    "internal v6",
    "link control v4",
    "link control v6",
    "dns v4",
    "dns v6",
    "excluded v4",
    "excluded v6",
    "pass taken, namespace decides",
    "pass taken, baseline decides",
    "pass taken, default decides",
    "except took effect v4",
    "except took effect v6",
    "ports differed, a later rule decides",
    "a port decided",
    "a node selector decided",
    "a protocol without ports decided",
    "audit would deny",
    "audit would allow",
    "audit would decide the same",
    "equal priorities ordered by name",
    "a later rule was shadowed",
    "no policy selects the pod",
    "any port: the same",
    "any port: only audit depends",
    "any port: depends",
    "broader rule before narrower decides",
];

impl Counters {
    pub(crate) fn new() -> Self {
        Self::of(&REQUIRED)
    }

    /// Counters of these names.
    pub(crate) fn of(required: &[&'static str]) -> Self {
        Self(required.iter().map(|name| (*name, 0)).collect())
    }

    pub(crate) fn count(&mut self, name: &'static str) {
        *self.0.get_mut(name).unwrap_or_else(|| panic!("no counter {name}")) += 1;
    }

    /// Counts what `outcome` shows.
    pub(crate) fn observe(&mut self, world: &World, pod: &Pod, packet: &Packet, outcome: &Outcome) {
        let v4 = packet.destination.is_ipv4();
        let mut family = |four, six| self.count(if v4 { four } else { six });
        family("packet v4", "packet v6");
        if outcome.trace.excepted {
            family("except took effect v4", "except took effect v6");
        }
        let allow = outcome.verdict.allow;
        let tier = tier_of(world, &outcome.verdict.decider);
        match (&outcome.verdict.decider, tier) {
            (Decider::Builtin(Builtin::Internal), _) => family("internal v4", "internal v6"),
            (Decider::Builtin(Builtin::LinkControl), _) => family("link control v4", "link control v6"),
            (Decider::Builtin(Builtin::Dns), _) => family("dns v4", "dns v6"),
            (Decider::Builtin(Builtin::Excluded), _) => family("excluded v4", "excluded v6"),
            (_, Some(Tier::Admin)) if allow => family("admin allows v4", "admin allows v6"),
            (_, Some(Tier::Admin)) => family("admin denies v4", "admin denies v6"),
            (_, Some(Tier::Namespace)) if allow => family("namespace allows v4", "namespace allows v6"),
            (_, Some(Tier::Namespace)) => family("namespace denies v4", "namespace denies v6"),
            (_, Some(Tier::Baseline)) if allow => family("baseline allows v4", "baseline allows v6"),
            (_, Some(Tier::Baseline)) => family("baseline denies v4", "baseline denies v6"),
            (_, None) if allow => family("default allows v4", "default allows v6"),
            (_, None) => family("default denies v4", "default denies v6"),
        }
        self.observe_way(outcome, tier, packet);
        self.observe_order(world, pod, packet, outcome);
    }

    fn observe_way(&mut self, outcome: &Outcome, tier: Option<Tier>, packet: &Packet) {
        let trace = &outcome.trace;
        if trace.passed.is_some() {
            match tier {
                Some(Tier::Namespace) => self.count("pass taken, namespace decides"),
                Some(Tier::Baseline) => self.count("pass taken, baseline decides"),
                Some(Tier::Admin) => panic!("the Admin tier decided after Pass"),
                None => self.count("pass taken, default decides"),
            }
        }
        if trace.ports_differed {
            self.count("ports differed, a later rule decides");
        }
        if trace.by_port {
            self.count("a port decided");
        }
        if trace.by_node {
            self.count("a node selector decided");
        }
        if tier.is_some() && !matches!(packet.protocol, 1 | 6 | 17 | 58 | 132) {
            self.count("a protocol without ports decided");
        }
        match &outcome.audit {
            Some(audit) if audit.allow == outcome.verdict.allow => self.count("audit would decide the same"),
            Some(audit) if audit.allow => self.count("audit would allow"),
            Some(_) => self.count("audit would deny"),
            None => {}
        }
    }

    fn observe_order(&mut self, world: &World, pod: &Pod, packet: &Packet, outcome: &Outcome) {
        let oracle = Oracle::new(world);
        let policies = oracle.policies(pod);
        if policies.is_empty() {
            self.count("no policy selects the pod");
            return;
        }
        let Decider::Rule { policy, number } = &outcome.verdict.decider else {
            return;
        };
        let matching = oracle.matching_rules(pod, packet);
        if matching.last() != Some(&outcome.verdict.decider) {
            self.count("a later rule was shadowed");
        }
        let deciding = policies.iter().find(|candidate| candidate.id == *policy).expect("it decided");
        let length = prefix_length(deciding, *number);
        let longer_later = matching.iter().skip_while(|decider| **decider != outcome.verdict.decider).any(|decider| {
            let Decider::Rule { policy, number } = decider else {
                return false;
            };
            let later = policies.iter().find(|candidate| candidate.id == *policy).expect("it matches");
            prefix_length(later, *number) > length
        });
        if length.is_some() && longer_later {
            self.count("broader rule before narrower decides");
        }
        let tie = policies.iter().any(|other| {
            other.tier == deciding.tier
                && other.priority == deciding.priority
                && other.id != deciding.id
                && other.mode == Mode::Enforce
                && matching.iter().any(|decider| matches!(decider, Decider::Rule { policy, .. } if *policy == other.id))
        });
        if tie {
            self.count("equal priorities ordered by name");
        }
    }

    pub(crate) fn observe_any_port(&mut self, answer: &AnyPort) {
        self.count(match answer {
            AnyPort::Same(_) => "any port: the same",
            AnyPort::SameButAudit(_) => "any port: only audit depends",
            AnyPort::Depends => "any port: depends",
        });
    }

    /// Prints the counters; in a full run, fails if one is 0.
    pub(crate) fn report(&self, full: bool) {
        for (name, count) in &self.0 {
            println!("{count:>9}  {name}");
        }
        let missed: Vec<_> = self.0.iter().filter(|(_, count)| **count == 0).map(|(name, _)| name).collect();
        assert!(!full || missed.is_empty(), "never reached: {missed:?}");
    }
}

fn tier_of(world: &World, decider: &Decider) -> Option<Tier> {
    let Decider::Rule { policy, .. } = decider else {
        return None;
    };
    world.policies.iter().find(|candidate| candidate.id == *policy).map(|policy| policy.tier)
}

fn prefix_length(policy: &egress_reference::Policy, number: usize) -> Option<u8> {
    match &policy.rules[number - 1].peer {
        egress_reference::Peer::Cidr { prefix, .. } => Some(prefix.length),
        egress_reference::Peer::Dns(_) | egress_reference::Peer::Nodes(_) => None,
    }
}
