//! The short way: packets of the most frequent form that a pod sends, under tables of the most frequent form. In registers and in line; whatever
//! is not let pass at once goes the long way ([`judge`](crate::judge)), which is right about every packet.
//!
//! Invariant: what passes here would pass there, and leave the same traces: the counter of its rule, and nothing else.

use egress_common::class;
use egress_common::dns::PORT;
use egress_common::event::Hook;
use egress_common::packet::{Destination, Plain, protocol};
use egress_common::table::flag;

use crate::answer::Answer;
use crate::endpoint::Judged;
use crate::flow::recent::{self, Recent};
use crate::skb::{Skb, plain};
use crate::{report, table};

/// Whether a packet passes and is done with. Otherwise what its table says of it, [`Answer::NONE`] if it was not asked.
#[inline(always)]
pub fn passes(skb: Skb, endpoint: &Judged, hook: Hook) -> Result<(), Answer> {
    let Some(plain) = plain(&skb, hook) else { return Err(Answer::NONE) };
    let [source_port, destination_port] = plain.ports();
    let (destination, flags) = (plain.destination(), endpoint.info.flags);
    let trie = match destination {
        Destination::V4(_) => flag::TRIE4,
        Destination::V6(..) => flag::TRIE6,
    };
    // The long way is about names and other tables, protects the addresses of resolvers, and tells of connections.
    if flags & (flag::NAMES | trie) != trie || source_port == PORT || (flags & flag::TELL_ALLOWED != 0 && plain.opens())
    {
        return Err(Answer::NONE);
    }
    let key = class::key(plain.protocol(), u16::from_be_bytes(destination_port));
    // Asked before the table, though needed after it: the line of memory is then on its way while the table's are waited for.
    let recent = if plain.is_tcp() {
        Recent::YES
    } else {
        recent::ask(endpoint.id, &destination.to_bytes(), (destination_port, source_port), protocol::UDP)
    };
    let answer = table::ask_trie(endpoint, destination, key);
    match (answer.decision(), answer.audit()) {
        (Some(decision), None) if !decision.is_deny() && (decision.is_internal() || recent.is()) => {
            report::count_rule(endpoint, decision, skb.length().wrapping_sub(Plain::START));
            Ok(())
        }
        _ => Err(answer),
    }
}
