//! The independent oracle of policy semantics: worlds of policies, pods and packets, and a naive evaluator that walks
//! tiers, policies and rules one by one, straight from §1–§4 of the semantics, and from §5 what names mean.
//!
//! Invariant: nothing here depends on egress-policy or egress-common, so that a mistake there cannot repeat itself here.
//! Used by the property tests beside this library and by the packet and end-to-end tests, which hold the kernel to the same oracle:
//! `World::generate(seed)`, `world.files(seed)` for the agent, `Oracle::new(&world).evaluate(pod, packet)` for the truth.

mod generate;
mod names;
mod object;
mod oracle;
mod packets;
mod prefix;
mod random;
mod render;
mod shrink;

pub use generate::Size;
pub use names::{Answers, pattern_means};
pub use object::{
    Action, Config, Expression, Kind, Labels, Mode, Node, NodeAddresses, Operator, Peer, Pod, Policy, PolicyId, Ports,
    Protocol, Rule, Selector, Service, Tier, World,
};
pub use oracle::{AnyPort, Builtin, Decider, Oracle, Outcome, Trace, Verdict};
pub use packets::{Packet, at_edge, representatives};
pub use prefix::Prefix;
pub use random::Random;
pub use render::{File, to_yaml};
pub use shrink::shrink;
