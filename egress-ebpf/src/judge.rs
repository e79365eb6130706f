//! Judges packets that pods send: verdict, reply, fragment; counts, tells, remembers. The same stages serve TC and `cgroup_skb`.

use core::mem::MaybeUninit;

use egress_common::class;
use egress_common::dns::PORT;
use egress_common::endpoint::flag as endpoint_flag;
use egress_common::event::{Event, Hook, Stat, outcome};
use egress_common::packet::{self, Packet};
use egress_common::reason::DropReason;
use egress_common::table::{Decision, flag};

use crate::answer::Answer;
use crate::endpoint::Judged;
use crate::fragment::{self, First};
use crate::names::Named;
use crate::report::{self, Told};
use crate::skb::{Skb, cleared, has_ethernet, parse};
use crate::{dns, flow, short, table};

/// What happens to a packet.
#[must_use]
pub enum Verdict {
    /// It goes on.
    Pass,
    /// It is dropped.
    Drop,
    /// It is dropped and its sender told, if the table says so.
    Refuse,
}

/// A packet under judgement: everything the stages need, passed by one pointer.
struct Case<'a> {
    skb: Skb,
    endpoint: &'a Judged,
    packet: &'a Packet,
    hook: Hook,
    /// Where the IP header starts; 0 if that is not known.
    start: u32,
}

/// Judges a packet that the pod sends.
#[inline(always)]
pub fn from_pod(skb: Skb, endpoint: &Judged, hook: Hook) -> Verdict {
    let answer = match short::passes(skb, endpoint, hook) {
        Ok(()) => return Verdict::Pass,
        Err(answer) => answer.forget(),
    };
    let mut memory = MaybeUninit::uninit();
    let packet = cleared(&mut memory);
    let start = match parse(skb, hook, packet) {
        Ok(None) => return Verdict::Pass,
        Ok(Some(start)) => start,
        Err(reason) => return Case { skb, endpoint, packet, hook, start: 0 }.drop(reason, Event::NO_RANK, 0),
    };
    forget(packet, endpoint);
    Case { skb, endpoint, packet, hook, start }.judge(answer)
}

/// Lets the verifier forget on which way through the parser the packet was filled in, so that it follows the judgement once and
/// not once per kind of packet: 6.1 would walk 800,000 instructions otherwise. Changes nothing at run time.
#[inline(always)]
pub fn forget(packet: &mut Packet, endpoint: &Judged) {
    let zero = (endpoint.info.flags >> flag::NEVER.trailing_zeros()) as u8;
    packet.protocol |= zero;
    packet.fragment_protocol |= zero;
    packet.icmp_type |= zero;
    packet.flags |= zero;
    // As wide as they are read afterwards: a processor waits for narrower stores to reach the cache before it loads what they are parts of.
    let half = u16::from(zero);
    let source: u16 = zerocopy::transmute!(packet.source_port);
    packet.source_port = zerocopy::transmute!(source | half);
    let destination: u16 = zerocopy::transmute!(packet.destination_port);
    packet.destination_port = zerocopy::transmute!(destination | half);
    let id: u32 = zerocopy::transmute!(packet.fragment_id);
    packet.fragment_id = zerocopy::transmute!(id | u32::from(zero));
    packet.fragment_units |= half;
}

impl Case<'_> {
    /// Bytes from the IP header on.
    #[inline(always)]
    fn length(&self) -> u32 {
        self.skb.length().wrapping_sub(self.start)
    }

    /// `answer`: what the table says, [`Answer::NONE`] if it was not asked yet.
    #[inline(always)]
    fn judge(&self, answer: Answer) -> Verdict {
        if self.packet.has(packet::flag::LATER_FRAGMENT) {
            return self.judge_later_fragment();
        }
        if self.is_spoofed() {
            return self.drop(DropReason::SpoofedResolver, Event::NO_RANK, 0);
        }
        let mut named = Named::default();
        let answer = match answer {
            Answer::NONE => table::ask(self.endpoint, &self.packet.destination, self.packet.egress_key(), &mut named),
            asked => asked,
        };
        let Some(decision) = answer.decision() else {
            return self.drop(DropReason::NoTable, Event::NO_RANK, 0);
        };
        // The rules may deny the destination, and still a reply to a connection that began outside passes.
        let passes = !decision.is_deny() || self.is_reply();
        if self.packet.has(packet::flag::FIRST_FRAGMENT) {
            fragment::remember(self.endpoint, self.packet, decision, passes);
        }
        if decision.is_deny() && passes {
            return Verdict::Pass;
        }
        report::count_rule(self.endpoint, decision, self.length());
        if let Some(audit) = answer.audit() {
            self.tell_audit(decision, audit, named.id);
        }
        if !passes {
            let verdict = self.drop(DropReason::Policy, decision.rank(), named.id);
            return if self.endpoint.info.flags & flag::REJECT == 0 { verdict } else { Verdict::Refuse };
        }
        if !decision.is_internal()
            && flow::may_begin(self.packet)
            && self.remember(&named)
            && self.endpoint.info.flags & flag::TELL_ALLOWED != 0
        {
            self.tell(outcome::ALLOWED, 0, decision.rank(), named.id);
        }
        dns::sent(self.skb, self.endpoint, self.packet, self.start, self.hook);
        Verdict::Pass
    }

    /// Whether the packet claims to come from a trusted resolver (§5.2). Sockets cannot make such packets without the address.
    #[inline(always)]
    fn is_spoofed(&self) -> bool {
        self.packet.source_port == PORT
            && has_ethernet(self.hook)
            && self.endpoint.flags & endpoint_flag::RESOLVER == 0
            && dns::is_resolver(&self.packet.source)
    }

    #[inline(never)]
    fn is_reply(&self) -> bool {
        let (key, class_key) = match packet::quoted(&self.skb, self.start, self.packet) {
            Some(quoted) => {
                let class_key = class::key(quoted.protocol, u16::from_be_bytes(quoted.remote_port));
                (flow::quoted(self.endpoint.id, self.packet, quoted), class_key)
            }
            None if self.packet.may_answer() => (flow::sent(self.endpoint.id, self.packet), self.packet.egress_key()),
            None => return false,
        };
        flow::lives_on(&key, self.endpoint, class_key)
    }

    #[inline(never)]
    fn judge_later_fragment(&self) -> Verdict {
        let is_hidden = self.packet.has(packet::flag::TRANSPORT_HIDDEN);
        let protocol = if is_hidden { table::ANY_PROTOCOL } else { u32::from(self.packet.protocol) };
        let answer = table::ask_any_port(self.endpoint, &self.packet.destination, protocol);
        let decided = match answer.decision() {
            _ if answer.depends() => None,
            None => return self.drop(DropReason::NoTable, Event::NO_RANK, 0),
            Some(decision) if !decision.is_deny() => {
                report::count_rule_apart(self.endpoint, decision, self.length());
                return Verdict::Pass;
            }
            denied => denied,
        };
        match (fragment::first(self.endpoint, self.packet), decided) {
            // A reply: no rule let it pass.
            (First::Passed(decision), _) if decision.is_deny() => {
                report::stat(Stat::Replies);
                Verdict::Pass
            }
            (First::Passed(decision), _) => {
                report::count_rule_apart(self.endpoint, decision, self.length());
                Verdict::Pass
            }
            (First::Overlapped(decision), _) => self.drop(DropReason::OverlappingFragment, decision.rank(), 0),
            (First::Dropped(decision), _) => self.drop(DropReason::DeniedFragment, decision.rank(), 0),
            (First::Unknown, Some(denied)) => {
                report::count_rule_apart(self.endpoint, denied, self.length());
                self.drop(DropReason::Policy, denied.rank(), 0)
            }
            (First::Unknown, None) => self.drop(DropReason::UnknownFragment, Event::NO_RANK, 0),
        }
    }

    #[inline(always)]
    fn drop(&self, reason: DropReason, rank: u32, name: u32) -> Verdict {
        report::count_drop(reason, self.length());
        self.tell(outcome::DENIED, reason as u8, rank, name);
        Verdict::Drop
    }

    /// Counts and tells what Audit policies would have done.
    #[inline(always)]
    fn tell_audit(&self, decision: Decision, audit: Decision, name: u32) {
        report::count_rule_apart(self.endpoint, audit, self.length());
        if audit.is_deny() != decision.is_deny() {
            let would = if audit.is_deny() { outcome::WOULD_DENY } else { outcome::WOULD_ALLOW };
            self.tell(would, DropReason::Policy as u8, audit.rank(), name);
        }
    }

    /// Remembers a packet that passes; whether it is the first of its connection. A call: with its key on the stack of the caller 6.1
    /// would refuse the program.
    #[expect(
        clippy::trivially_copy_pass_by_ref,
        reason = "it stands on the caller's stack already, which has no room for a copy"
    )]
    #[inline(never)]
    fn remember(&self, named: &Named) -> bool {
        flow::remember_sent(self.endpoint.id, self.packet, named)
    }

    /// One call for every kind of event: another one between would be too much for 6.1's stack.
    #[inline(never)]
    fn tell(&self, outcome: u8, reason: u8, rank: u32, name: u32) {
        let packet = self.packet;
        let is_icmp = matches!(packet.protocol, packet::protocol::ICMP | packet::protocol::ICMPV6);
        let told = Told {
            hook: self.hook,
            outcome,
            reason,
            rank,
            remote: &packet.destination,
            local: &packet.source,
            remote_port: if is_icmp { [0, packet.icmp_type] } else { packet.destination_port },
            local_port: packet.source_port,
            protocol: packet.protocol,
            length: self.length(),
            name,
        };
        report::tell(self.endpoint, &told, None);
    }
}
