//! What pods receive: openings of connections from outside, and answers of resolvers. Nothing is judged here.

use core::mem::MaybeUninit;

use egress_common::event::Hook;
use egress_common::packet::{self, Packet};

use crate::endpoint::Judged;
use crate::flow::recent;
use crate::judge::forget;
use crate::names::Named;
use crate::skb::{Skb, cleared, has_ethernet, parse};
use crate::{dns, flow, table};

/// Remembers connections that begin outside, and learns names. Never stops a packet: what reaches a pod is not ours to judge.
#[inline(always)]
pub fn to_pod(skb: Skb, endpoint: &Judged, hook: Hook) {
    let mut memory = MaybeUninit::uninit();
    let packet = cleared(&mut memory);
    let Ok(Some(start)) = parse(skb, hook, packet) else {
        return;
    };
    forget(packet, endpoint);
    remember_opening(endpoint, packet);
    // Last, and with nothing behind it that the verifier would have to follow for every kind of message.
    if has_ethernet(hook) {
        dns::received(skb, endpoint, packet, start);
    }
}

#[inline(always)]
fn remember_opening(endpoint: &Judged, packet: &Packet) {
    let opens = packet.has(packet::flag::OPENS);
    if packet.has(packet::flag::LATER_FRAGMENT) || (!opens && flow::shows_opening(packet.protocol)) {
        return;
    }
    if !opens && recent::is_received(endpoint.id, packet) {
        return;
    }
    let answer = table::ask(endpoint, &packet.source, packet.reply_key(), &mut Named::default());
    if answer.decision().is_some_and(|decision| !decision.is_internal()) {
        flow::remember_received(endpoint.id, packet);
    }
}
