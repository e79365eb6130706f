//! A world with a running agent, and the checks of one attempt against all four witnesses.

use std::net::IpAddr;
use std::time::Duration;

use egress_world::packet::Seen;
use egress_world::probe::{Attempt, Outcome};
use egress_world::{Agent, Pod, Wire, World};

use crate::way::Way;
use crate::{Evidence, ip};

/// Longest that a refusal may take on a machine that does other things too. Typical are microseconds.
const AT_ONCE: Duration = Duration::from_secs(1);

/// The agent of a world, and a sniffer outside.
pub struct Lab<'a> {
    /// The world.
    pub world: &'a World,
    /// The agent.
    pub agent: Agent<'a>,
    /// What arrives outside.
    pub wire: Wire,
}

impl<'a> Lab<'a> {
    /// Starts an agent with these policies.
    pub fn new(world: &'a World, policies: &str) -> Self {
        Self::with_agent(world, Agent::with_policies(world, policies))
    }

    /// Takes an agent that was started in another way.
    pub fn with_agent(world: &'a World, agent: Agent<'a>) -> Self {
        let wire = world.outside().sniff();
        Self { world, agent, wire }
    }

    /// Insists that `way` is open from `pod` to `remote`: for the caller, on the wire, and in the counter of `rule`.
    pub fn insist_allowed(&mut self, pod: &Pod, way: Way, remote: &str, rule: &str) {
        let remote = ip(remote);
        let before = self.agent.charged(rule);
        self.wire.forget();
        let attempt = way.attempt(pod, remote, true);
        if is_unsupported(way, &attempt) {
            return;
        }
        assert_eq!(attempt.outcome, way.when_allowed(), "{way:?} to {remote}, which {rule} allows");
        let arrived = self.arrived(way, remote);
        assert!(!arrived.is_empty(), "{way:?} to {remote}: nothing arrived");
        assert!(self.agent.charged(rule) > before, "{way:?} to {remote}: {rule} has not counted");
    }

    /// Insists that `way` is closed from `pod` to `remote`: for the caller, on the wire, in the counter of `rule` and in the events.
    pub fn insist_denied(&mut self, pod: &Pod, way: Way, remote: &str, rule: &str) {
        self.insist_denied_with(pod, way, remote, rule, way.when_denied());
    }

    /// The same where the caller gets `expected`.
    pub fn insist_denied_with(&mut self, pod: &Pod, way: Way, remote: &str, rule: &str, expected: Outcome) {
        let remote = ip(remote);
        let before = self.agent.charged(rule);
        self.wire.forget();
        let attempt = way.attempt(pod, remote, false);
        if is_unsupported(way, &attempt) {
            return;
        }
        assert_eq!(attempt.outcome, expected, "{way:?} to {remote}, which {rule} denies");
        if matches!(expected, Outcome::Failed(_)) {
            assert!(attempt.elapsed < AT_ONCE, "{way:?} to {remote} was refused only after {:?}", attempt.elapsed);
        }
        let arrived = self.wire.arrived(remote);
        assert!(arrived.is_empty(), "{way:?} to {remote}: {arrived:?} arrived");
        assert!(self.agent.charged(rule) > before, "{way:?} to {remote}: {rule} has not counted");
        let protocol = way.protocol(remote);
        let told = self.agent.denied(pod, remote, protocol);
        assert!(told.rule.contains(rule), "{way:?} to {remote}: the event names {}, not {rule}", told.rule);
    }

    /// Packets of `way` that arrived at `remote`.
    fn arrived(&mut self, way: Way, remote: IpAddr) -> Vec<Seen> {
        let protocol = way.protocol(remote);
        self.wire.arrived(remote).into_iter().filter(|seen| seen.protocol == protocol).collect()
    }
}

/// Whether the kernel lacks the protocol; says so.
fn is_unsupported(way: Way, attempt: &Attempt) -> bool {
    let unsupported = attempt.outcome == Outcome::Unsupported;
    if unsupported {
        eprintln!("SKIPPED: this kernel has no {way:?}");
    }
    unsupported
}
