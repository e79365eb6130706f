//! Why a packet was dropped. `docs/drop-reasons.md` is generated from here.
//!
//! Numbers are part of the ABI and never used again for something else.

macro_rules! drop_reasons {
    ($($name:ident = $number:literal, $text:literal, $doc:literal;)*) => {
        /// Why a packet was dropped or a socket call refused.
        #[repr(u8)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum DropReason { $(#[doc = $doc] $name = $number,)* }

        impl DropReason {
            /// Every reason, in the order of its number.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// What the CLI, the metrics and the events print.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }

            /// What it means and what to do, for people.
            pub const fn explanation(self) -> &'static str {
                match self { $(Self::$name => $doc,)* }
            }
        }
    };
}

drop_reasons! {
    Policy = 1, "policy", "A rule, or the default action, denies the destination. The event names the rule.";
    TruncatedEthernet = 2, "truncated-ethernet", "The frame ends inside its Ethernet or VLAN header.";
    TooManyVlanTags = 3, "too-many-vlan-tags", "The frame has more than two VLAN tags.";
    UnknownEthertype = 4, "unknown-ethertype", "The frame carries neither IPv4, IPv6 nor ARP, so no rule can judge it.";
    TruncatedIpv4 = 5, "truncated-ipv4", "The packet ends inside its IPv4 header, or is shorter than the header says.";
    BadIpv4Header = 6, "bad-ipv4-header", "The IPv4 version is not 4 or the header length is below 20 bytes.";
    Ipv4SourceRoute = 7, "ipv4-source-route", "The packet carries a source-route option (RFC 791): its destination field is not where it goes.";
    BadIpv4Options = 8, "bad-ipv4-options", "The IPv4 options are malformed, or more than twelve, so a source route could hide in them.";
    TruncatedIpv6 = 9, "truncated-ipv6", "The packet ends inside its IPv6 header or an extension header.";
    BadIpv6Header = 10, "bad-ipv6-header", "The IPv6 version is not 6, or an address is IPv4-mapped, which no packet carries (RFC 6890).";
    TooManyExtensionHeaders = 11, "too-many-extension-headers", "The packet has more than eight IPv6 extension headers.";
    Ipv6RoutingHeader = 12, "ipv6-routing-header", "A routing header has segments left (RFC 8200 §4.4): the destination field is not where the packet goes.";
    TruncatedTransport = 13, "truncated-transport", "The packet, or its first fragment, ends inside its transport header, so its ports cannot be known.";
    OverlappingFragment = 14, "overlapping-fragment", "A later fragment could rewrite the transport header (RFC 1858, RFC 3128).";
    UnknownFragment = 15, "unknown-fragment", "A later fragment whose first fragment was not seen, where the verdict depends on ports.";
    DeniedFragment = 16, "denied-fragment", "A later fragment whose first fragment was refused.";
    NoTable = 17, "no-table", "The endpoint's table is missing or damaged. This is a bug; please report it with the output of `egress-agent dump`.";
    SpoofedResolver = 18, "spoofed-resolver", "A packet of a pod from port 53 of a trusted resolver's address: it could make names resolve to anything. Pods that are resolvers say so by `addresses` in the endpoints file.";
}

impl DropReason {
    /// Length of an array indexed by reason number.
    pub const COUNT: u32 = 19;

    /// The reason of a number in an event or counter.
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.iter().copied().find(|reason| *reason as u8 == number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_distinct_and_below_the_count() {
        for (index, reason) in DropReason::ALL.iter().enumerate() {
            assert_eq!(*reason as usize, index + 1);
            assert!(u32::from(*reason as u8) < DropReason::COUNT);
            assert_eq!(DropReason::from_number(*reason as u8), Some(*reason));
        }
        assert_eq!(DropReason::from_number(0), None);
    }
}
