//! What a packet must do: the verdict, the one counter, the one event; and nothing else.

use egress_common::endpoint::TableRef;
use egress_common::event::{Event, Hook, Stat, outcome};
use egress_common::reason::DropReason;

use crate::host::Reading;
use crate::observe::Seen;
use crate::policy::Policies;

/// What must have become of a packet that a pod sent. Rules go by the names that messages use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect<'a> {
    /// Passed by this rule.
    Allow(&'a str),
    /// Dropped by this rule.
    Deny(&'a str),
    /// Dropped before any rule was asked.
    Drop(DropReason),
    /// Dropped because the first fragment was, by this rule.
    DropWith(DropReason, &'a str),
    /// Passed because it belongs to a connection that began outside.
    Reply,
    /// Passed as a later fragment of such a reply.
    ReplyFragment,
    /// Passed, and nothing moved.
    Untouched,
    /// Passed by the first rule; the second one, under Audit, would have refused it.
    WouldDeny(&'a str, &'a str),
    /// Dropped by the first rule; the second one, under Audit, would have passed it.
    WouldAllow(&'a str, &'a str),
    /// Passed by the first rule; the second one, under Audit, would have passed it too.
    AllowAudited(&'a str, &'a str),
    /// Dropped by the first rule; the second one, under Audit, would have dropped it too.
    DenyAudited(&'a str, &'a str),
    /// Dropped by this rule and answered.
    Answered(&'a str),
    /// Dropped by this rule; the answer that the policy asks for cannot be given.
    Unanswered(&'a str),
}

/// The parts that are compared.
#[derive(Debug, Default, PartialEq, Eq)]
struct Moved {
    action: i32,
    counted: Vec<(u32, u64, u64)>,
    drops: Vec<(DropReason, u64, u64)>,
    stats: Vec<(Stat, u64)>,
    events: Vec<Event>,
}

impl Expect<'_> {
    /// The rules that count, whether it passes, its drop reason, and the events as (outcome, rule).
    pub(crate) fn compare(
        self,
        policies: &Policies,
        table: TableRef,
        endpoint: u32,
        hook: Hook,
        reading: &Reading,
        seen: &Seen,
    ) -> Result<(), String> {
        let length = u64::from(reading.length);
        let rank = |rule: &str| policies.rank(rule);
        let event = |outcome, reason: DropReason, rank| Event {
            time: 0,
            endpoint,
            generation: table.generation,
            rank,
            repeats: 0,
            remote: reading.packet.destination,
            local: reading.packet.source,
            remote_port: reading.remote_port(),
            local_port: reading.packet.source_port,
            protocol: reading.packet.protocol,
            hook: hook as u8,
            outcome,
            reason: reason as u8,
            pid: 0,
            comm: [0; 16],
            length: reading.length,
            name: 0,
            padding: 0,
        };
        let denied = |rule| event(outcome::DENIED, DropReason::Policy, rank(rule));
        let policy = (DropReason::Policy, 1, length);
        let mut expected = Moved { action: if self.passes() { pass(hook) } else { drop(hook) }, ..Moved::default() };
        let audit_rank = |rule: &str| policies.audit_rank(rule);
        let counts: Vec<u32> = match self {
            Self::Allow(rule) => vec![rank(rule)],
            Self::Deny(rule) | Self::Answered(rule) | Self::Unanswered(rule) => {
                expected.drops = vec![policy];
                expected.events = vec![denied(rule)];
                vec![rank(rule)]
            }
            Self::Drop(reason) => {
                expected.drops = vec![(reason, 1, length)];
                expected.events = vec![event(outcome::DENIED, reason, Event::NO_RANK)];
                Vec::new()
            }
            Self::DropWith(reason, rule) => {
                expected.drops = vec![(reason, 1, length)];
                expected.events = vec![event(outcome::DENIED, reason, rank(rule))];
                Vec::new()
            }
            Self::Reply | Self::ReplyFragment => {
                expected.stats = vec![(Stat::Replies, 1)];
                Vec::new()
            }
            Self::Untouched => Vec::new(),
            Self::WouldDeny(real, audit) => {
                expected.events = vec![event(outcome::WOULD_DENY, DropReason::Policy, audit_rank(audit))];
                vec![rank(real), audit_rank(audit)]
            }
            Self::WouldAllow(real, audit) => {
                let would = event(outcome::WOULD_ALLOW, DropReason::Policy, audit_rank(audit));
                expected.events = vec![would, denied(real)];
                expected.drops = vec![policy];
                vec![rank(real), audit_rank(audit)]
            }
            Self::AllowAudited(real, audit) => vec![rank(real), audit_rank(audit)],
            Self::DenyAudited(real, audit) => {
                expected.events = vec![denied(real)];
                expected.drops = vec![policy];
                vec![rank(real), audit_rank(audit)]
            }
        };
        if let Self::Answered(_) = self {
            expected.action = 7;
            expected.stats = vec![(Stat::Rejected, 1)];
        } else if let Self::Unanswered(_) = self {
            expected.stats = vec![(Stat::RejectsFailed, 1)];
        }
        expected.counted = counts.into_iter().map(|rank| (rank, 1, length)).collect();
        expected.counted.sort_unstable();
        let found = Moved {
            action: seen.action,
            counted: seen.counted.clone(),
            drops: seen.drops.clone(),
            stats: seen.stats.clone(),
            events: seen.events.iter().map(|event| Event { time: 0, name: 0, ..*event }).collect(),
        };
        if seen.events.iter().any(|event| event.time == 0) {
            return Err("an event without a time".to_owned());
        }
        if expected == found { Ok(()) } else { Err(format!("{self:?}\nexpected {expected:?}\nfound    {found:?}")) }
    }

    /// Whether the packet goes on.
    pub const fn passes(self) -> bool {
        match self {
            Self::Allow(_)
            | Self::Reply
            | Self::ReplyFragment
            | Self::Untouched
            | Self::WouldDeny(..)
            | Self::AllowAudited(..) => true,
            Self::Deny(_)
            | Self::Drop(_)
            | Self::DropWith(..)
            | Self::WouldAllow(..)
            | Self::DenyAudited(..)
            | Self::Answered(_)
            | Self::Unanswered(_) => false,
        }
    }
}

/// `TC_ACT_UNSPEC`, or 1.
pub(crate) const fn pass(hook: Hook) -> i32 {
    if matches!(hook, Hook::TcFromPod | Hook::TcToPod) { -1 } else { 1 }
}

/// `TC_ACT_SHOT`, or 0.
const fn drop(hook: Hook) -> i32 {
    if matches!(hook, Hook::TcFromPod | Hook::TcToPod) { 2 } else { 0 }
}
