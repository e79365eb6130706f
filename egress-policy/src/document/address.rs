//! Prefixes, addresses and durations as people write them.

use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;

use super::problem::Report;
use super::tree::Node;
use crate::model::canonical;
use crate::spec::LONGEST_DURATION;
use crate::warnings::WarningReason;

impl<'n> Report<'n> {
    /// A prefix, masked (§3.2), in its IPv4 form if it is IPv4-mapped.
    pub(crate) fn prefix(&mut self, node: &'n Node) -> Option<IpNet> {
        let text = self.text(node)?;
        let Some(network) = network(text) else {
            let hint = match text.parse::<IpAddr>() {
                Ok(address) => format!("write the length too: {}", IpNet::from(address)),
                Err(_) => "write an address and a length, such as 1.2.3.0/24 or 2001:db8::/32".to_owned(),
            };
            self.problem(format!("{text:?} is not an IPv4 or IPv6 prefix"), hint);
            return None;
        };
        let masked = network.trunc();
        if masked != network {
            self.warning(
                WarningReason::HostBitsMasked,
                format!("{network} has host bits and is read as {masked}; write {masked}"),
            );
        }
        let canonical = canonical(masked);
        if canonical != masked {
            self.warning(
                WarningReason::MappedPrefix,
                format!("{masked} is IPv4 in IPv6 notation and is read as {canonical}; write {canonical}"),
            );
        }
        Some(canonical)
    }

    /// An address, in its IPv4 form if it is IPv4-mapped.
    pub(crate) fn address(&mut self, node: &'n Node) -> Option<IpAddr> {
        let text = self.text(node)?;
        if let Ok(address) = text.parse::<IpAddr>() {
            return Some(address.to_canonical());
        }
        self.problem(
            format!("{text:?} is not an IPv4 or IPv6 address"),
            "write an address without length or port, such as 10.96.0.10",
        );
        None
    }

    /// Numbers with units, largest first or not: `1h30m`, `5s`, `500ms`.
    pub(crate) fn duration(&mut self, node: &'n Node) -> Option<Duration> {
        let text = self.text(node)?;
        let duration = duration(text);
        if duration.is_none() {
            self.problem(
                format!("{text:?} is not a duration"),
                "write numbers with a unit (ms, s, m, h), such as 5s or 1h30m",
            );
        }
        duration
    }
}

/// Leading zeros are refused, as Kubernetes does: some programs read 010 as 8.
fn network(text: &str) -> Option<IpNet> {
    let (address, length) = text.split_once('/')?;
    let plain = length == "0" || !length.starts_with('0');
    address.parse::<IpAddr>().ok().filter(|_| plain)?;
    text.parse().ok()
}

fn duration(text: &str) -> Option<Duration> {
    if text.len() > LONGEST_DURATION {
        return None;
    }
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let mut total = Duration::ZERO;
    let mut rest = text;
    while !rest.is_empty() {
        let (number, tail) = rest.split_at(rest.find(|c: char| !c.is_ascii_digit())?);
        let (unit, tail) = tail.split_at(tail.find(|c: char| c.is_ascii_digit()).unwrap_or(tail.len()));
        let milliseconds = match unit {
            "ms" => 1,
            "s" => 1000,
            "m" => 60_000,
            "h" => 3_600_000,
            _ => return None,
        };
        let part = number.parse::<u64>().ok()?.checked_mul(milliseconds)?;
        total = total.checked_add(Duration::from_millis(part))?;
        rest = tail;
    }
    (!text.is_empty()).then_some(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_has_one_reading() {
        for text in ["10.0.0.0/8", "0.0.0.0/0", "::/0", "2001:db8::/32", "::ffff:1.2.3.4/128"] {
            assert!(network(text).is_some(), "{text}");
        }
        for text in ["010.0.0.0/8", "10.0.0.0/08", "::/00", "10.0.0.0/33", "10.0.0.0", "10.0.0.0/", "/8", "fe80::%1/64"]
        {
            assert_eq!(network(text), None, "{text}");
        }
    }

    #[test]
    fn durations_are_numbers_with_units() {
        for (text, milliseconds) in
            [("5s", 5000), ("1h", 3_600_000), ("1m30s", 90_000), ("500ms", 500), ("0", 0), ("0s", 0)]
        {
            assert_eq!(duration(text), Some(Duration::from_millis(milliseconds)), "{text}");
        }
        for text in ["", "5", "s", "5 s", "-5s", "5d", "1.5s", "99999999999999999999s"] {
            assert_eq!(duration(text), None, "{text}");
        }
    }
}
