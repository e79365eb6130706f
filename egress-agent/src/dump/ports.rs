//! Intervals of (protocol, port) keys in words.

use egress_common::packet::protocol;
use serde::Serialize;

use crate::events::protocol_name;

/// The last key there is: protocol 255, port 65535.
const LAST_KEY: u32 = (1 << 24) - 1;

/// A closed interval of keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) first: u32,
    pub(super) last: u32,
}

/// The ends of a [`Span`], for programs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Ends {
    pub(super) first_protocol: u32,
    pub(super) first_port: u32,
    pub(super) last_protocol: u32,
    pub(super) last_port: u32,
}

impl Span {
    pub(super) const ALL: Self = Self { first: 0, last: LAST_KEY };

    pub(super) fn ends(self) -> Ends {
        Ends {
            first_protocol: self.first >> 16,
            first_port: self.first & 0xffff,
            last_protocol: self.last >> 16,
            last_port: self.last & 0xffff,
        }
    }

    pub(super) fn width(self) -> u32 {
        self.last - self.first + 1
    }

    /// `any`, `TCP`, `TCP/443`, `TCP/1-442`, `TCP/444 to UDP/52`.
    pub(super) fn text(self) -> String {
        if self == Self::ALL {
            return "any".to_owned();
        }
        let (low, high) = (self.first >> 16, self.last >> 16);
        let (from, to) = (self.first & 0xffff, self.last & 0xffff);
        if low == high {
            let name = name(low);
            return match (from, to) {
                (0, 0xffff) => name,
                (from, to) if from == to => format!("{name}/{from}"),
                (from, to) => format!("{name}/{from}-{to}"),
            };
        }
        let start = if from == 0 { name(low) } else { format!("{}/{from}", name(low)) };
        let end = if to == 0xffff { name(high) } else { format!("{}/{to}", name(high)) };
        format!("{start} to {end}")
    }
}

fn name(number: u32) -> String {
    let number = u8::try_from(number).unwrap_or(u8::MAX);
    match number {
        protocol::ICMP | protocol::TCP | protocol::UDP | protocol::ICMPV6 | protocol::SCTP => protocol_name(number),
        other => format!("protocol {other}"),
    }
}

/// Turns interval starts into closed spans; the last one ends with the last key.
pub(super) fn spans<T>(starts: Vec<(u32, T)>) -> Vec<(Span, T)> {
    let ends: Vec<u32> = starts.iter().skip(1).map(|(next, _)| next.saturating_sub(1)).chain([LAST_KEY]).collect();
    starts.into_iter().zip(ends).map(|((first, value), last)| (Span { first, last }, value)).collect()
}

#[cfg(test)]
mod tests {
    use egress_common::class::key;

    use super::*;

    #[test]
    fn spans_are_said_as_short_as_they_can_be() {
        let text = |first, last| Span { first, last }.text();
        assert_eq!(text(0, LAST_KEY), "any");
        assert_eq!(text(key(6, 0), key(6, 65535)), "TCP");
        assert_eq!(text(key(6, 443), key(6, 443)), "TCP/443");
        assert_eq!(text(key(17, 1), key(17, 1023)), "UDP/1-1023");
        assert_eq!(text(key(6, 444), key(17, 52)), "TCP/444 to UDP/52");
        assert_eq!(text(0, key(5, 65535)), "protocol 0 to protocol 5");
    }

    #[test]
    fn starts_become_spans_without_gaps() {
        let spans = spans(vec![(0, 'a'), (key(6, 443), 'b'), (key(6, 444), 'c')]);
        assert_eq!(spans.len(), 3);
        assert_eq!(spans[1].0.text(), "TCP/443");
        assert_eq!(spans[2].0.last, LAST_KEY);
        assert_eq!(spans.iter().map(|(span, _)| span.width()).sum::<u32>(), 1 << 24);
    }
}
