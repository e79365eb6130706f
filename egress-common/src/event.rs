//! Records that the kernel writes for people: refusals and would-be refusals, limited per endpoint and rule, none lost silently.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Where a verdict was made. Part of the ABI; names are what the CLI prints.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Hook {
    /// `cgroup/connect4`.
    Connect4 = 1,
    /// `cgroup/connect6`.
    Connect6 = 2,
    /// `cgroup/sendmsg4`.
    Sendmsg4 = 3,
    /// `cgroup/sendmsg6`.
    Sendmsg6 = 4,
    /// TC, packets that the pod sends.
    TcFromPod = 5,
    /// TC, packets that reach the pod.
    TcToPod = 6,
    /// `cgroup_skb/egress`.
    CgroupEgress = 7,
    /// `cgroup_skb/ingress`.
    CgroupIngress = 8,
}

impl Hook {
    /// Every hook.
    pub const ALL: [Self; 8] = [
        Self::Connect4,
        Self::Connect6,
        Self::Sendmsg4,
        Self::Sendmsg6,
        Self::TcFromPod,
        Self::TcToPod,
        Self::CgroupEgress,
        Self::CgroupIngress,
    ];

    /// The hook of a number in an [`Event`].
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|hook| *hook as u8 == number)
    }

    /// What the CLI prints.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Connect4 => "connect4",
            Self::Connect6 => "connect6",
            Self::Sendmsg4 => "sendmsg4",
            Self::Sendmsg6 => "sendmsg6",
            Self::TcFromPod => "tc-from-pod",
            Self::TcToPod => "tc-to-pod",
            Self::CgroupEgress => "cgroup-egress",
            Self::CgroupIngress => "cgroup-ingress",
        }
    }
}

/// What an event reports. Part of the ABI.
pub mod outcome {
    /// The packet or call was refused.
    pub const DENIED: u8 = 1;
    /// It was passed; with Audit policies enforced it would have been refused.
    pub const WOULD_DENY: u8 = 2;
    /// It was refused; with Audit policies enforced it would have been passed.
    pub const WOULD_ALLOW: u8 = 3;
    /// The first packet of a connection, which passed. Only from tables with [`flag::TELL_ALLOWED`](crate::table::flag::TELL_ALLOWED).
    pub const ALLOWED: u8 = 4;
}

/// One refusal, or one verdict that Audit policies would change.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct Event {
    /// `CLOCK_MONOTONIC` nanoseconds.
    pub time: u64,
    /// Number of the endpoint.
    pub endpoint: u32,
    /// Generation of the table that judged; the rank belongs to it.
    pub generation: u32,
    /// Rank of the rule: the deciding one, or the Audit rule for `WOULD_*` outcomes. [`Event::NO_RANK`] if no rule was asked.
    pub rank: u32,
    /// Equal events since the last record that were only counted.
    pub repeats: u32,
    /// Remote address; IPv4 as `::ffff:a.b.c.d`.
    pub remote: [u8; 16],
    /// The pod's address, likewise; zero where the hook does not know it.
    pub local: [u8; 16],
    /// Remote port, network order; an ICMP type in the second byte; 0 where unknown.
    pub remote_port: [u8; 2],
    /// The pod's port, network order; 0 where unknown.
    pub local_port: [u8; 2],
    /// IP protocol number.
    pub protocol: u8,
    /// [`Hook`] number.
    pub hook: u8,
    /// One of [`outcome`].
    pub outcome: u8,
    /// [`DropReason`](crate::reason::DropReason) number; 0 for [`outcome::ALLOWED`].
    pub reason: u8,
    /// Process id of the caller; 0 where the hook does not know it.
    pub pid: u32,
    /// Name of the calling thread, NUL-padded; zero where the hook does not know it.
    pub comm: [u8; 16],
    /// Length of the packet from the IP header on, bytes; 0 for socket calls.
    pub length: u32,
    /// A live [name id](crate::names) of the remote address, the one whose rule decided if one did; 0 if it has none.
    pub name: u32,
    /// Padding.
    pub padding: u32,
}
const _: () = assert!(size_of::<Event>() == 96);

impl Event {
    /// [`Event::rank`] of a packet that was refused before any rule was asked.
    pub const NO_RANK: u32 = u32::MAX;
}

/// Key of the event limiter.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct LimitKey {
    /// Number of the endpoint.
    pub endpoint: u32,
    /// Rank of the rule.
    pub rank: u32,
    /// Generation of the table.
    pub generation: u32,
    /// From the lowest byte: [`DropReason`](crate::reason::DropReason) number, [`outcome`], and for events that are no refusal a hash of the
    /// destination, so that a busy one does not hide the others from who asks what a pod needs.
    pub reason: u32,
}
const _: () = assert!(size_of::<LimitKey>() == 16);

/// State of the event limiter for one (endpoint, rule).
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct Limit {
    /// Start of the current second, `CLOCK_MONOTONIC` nanoseconds.
    pub window: u64,
    /// Events written in it.
    pub written: u32,
    /// Events counted and not written since the last one written.
    pub repeats: u32,
}
const _: () = assert!(size_of::<Limit>() == 16);

/// Node-wide figures of the programs. Part of the ABI.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stat {
    /// Events lost because the ring was full.
    EventsLost = 0,
    /// Events counted as repeats.
    EventsLimited = 1,
    /// Connections that could not be remembered (map update failed).
    FlowsFailed = 2,
    /// First fragments that could not be remembered.
    FragmentsFailed = 3,
    /// Refusals that could not be answered under `denyResponse: Reject`; the packet was dropped.
    RejectsFailed = 4,
    /// Refusals answered with a reset or an ICMP error.
    Rejected = 5,
    /// Packets that the policy denies and that passed as replies (§1.4).
    Replies = 6,
}

impl Stat {
    /// Every figure, in the order of its number.
    pub const ALL: [Self; 7] = [
        Self::EventsLost,
        Self::EventsLimited,
        Self::FlowsFailed,
        Self::FragmentsFailed,
        Self::RejectsFailed,
        Self::Rejected,
        Self::Replies,
    ];

    /// What the CLI and the metrics print.
    pub const fn name(self) -> &'static str {
        match self {
            Self::EventsLost => "events_lost",
            Self::EventsLimited => "events_limited",
            Self::FlowsFailed => "flows_failed",
            Self::FragmentsFailed => "fragments_failed",
            Self::RejectsFailed => "rejects_failed",
            Self::Rejected => "rejected",
            Self::Replies => "replies",
        }
    }
}
