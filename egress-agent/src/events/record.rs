//! One event as people and programs read it.

use std::net::{IpAddr, Ipv6Addr};

use egress_common::event::{Event, Hook, outcome};
use egress_common::packet::protocol;
use egress_common::reason::DropReason;
use serde::Serialize;
use tracing::warn;

use super::names::Named;
use super::{rfc3339, wall_time};

/// A line of `events.jsonl`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Record {
    pub(crate) time: String,
    /// `denied`, `would-deny` or `would-allow`.
    pub(crate) outcome: &'static str,
    /// `namespace/name`.
    pub(crate) pod: String,
    pub(crate) destination: IpAddr,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) port: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) icmp_type: Option<u8>,
    pub(crate) protocol: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) source: Option<IpAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) source_port: Option<u16>,
    /// `Deny 0.0.0.0/0`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) rule: Option<String>,
    /// `rule 2 of default/curl`, `default action`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) origin: Option<String>,
    /// `default/curl`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) policy: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) rule_number: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) rule_name: Option<String>,
    pub(crate) hook: &'static str,
    pub(crate) reason: &'static str,
    /// Equal events before this one that were only counted.
    pub(crate) repeats: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) pid: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) comm: Option<String>,
    /// Bytes from the IP header on; none for socket calls.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) length: Option<u32>,
}

impl Record {
    pub(crate) fn new(event: &Event, named: &Named) -> Self {
        let has_ports = matches!(event.protocol, protocol::TCP | protocol::UDP | protocol::SCTP);
        let is_icmp = matches!(event.protocol, protocol::ICMP | protocol::ICMPV6);
        let port = |bytes: [u8; 2]| Some(u16::from_be_bytes(bytes)).filter(|&port| has_ports && port != 0);
        let [_, icmp_type] = event.remote_port;
        let rule = named.rule.as_ref();
        Self {
            time: rfc3339(wall_time(event.time)),
            outcome: outcome_name(event.outcome),
            pod: named.pod.clone().unwrap_or_else(|| format!("unknown endpoint {}", event.endpoint)),
            destination: address(event.remote),
            port: port(event.remote_port),
            icmp_type: is_icmp.then_some(icmp_type),
            protocol: protocol_name(event.protocol),
            source: Some(address(event.local)).filter(|_| event.local != [0; 16]),
            source_port: port(event.local_port),
            rule: rule.map(|rule| rule.text.clone()),
            origin: rule.map(|rule| rule.origin.clone()),
            policy: rule.and_then(|rule| rule.policy.as_ref()).map(ToString::to_string),
            rule_number: rule.and_then(|rule| rule.number),
            rule_name: rule.and_then(|rule| rule.name.as_deref()).map(ToOwned::to_owned),
            hook: Hook::from_number(event.hook).map_or("unknown", Hook::name),
            reason: DropReason::from_number(event.reason).map_or("unknown", DropReason::name),
            repeats: event.repeats,
            pid: Some(event.pid).filter(|&pid| pid != 0),
            comm: comm(&event.comm),
            length: Some(event.length).filter(|&length| length != 0),
        }
    }

    pub(crate) fn log(&self) {
        warn!(
            target: "egress::denied",
            outcome = self.outcome,
            pod = self.pod,
            destination = %self.destination,
            port = self.port,
            icmp_type = self.icmp_type,
            protocol = self.protocol,
            rule = self.rule,
            origin = self.origin,
            policy = self.policy,
            hook = self.hook,
            reason = self.reason,
            repeats = self.repeats,
            pid = self.pid,
            comm = self.comm,
            "{}",
            self.sentence()
        );
    }

    /// `default/curl may not reach 8.8.8.8 TCP/443: rule 2 of default/curl (Deny 0.0.0.0/0)`.
    fn sentence(&self) -> String {
        let verb = match self.outcome {
            "would-deny" => "could not reach under Audit policies",
            "would-allow" => "could reach under Audit policies",
            _ => "may not reach",
        };
        let port = self.port.map(|port| format!("/{port}")).unwrap_or_default();
        let why = match (&self.origin, &self.rule) {
            (Some(origin), Some(rule)) => format!("{origin} ({rule})"),
            _ => self.reason.to_owned(),
        };
        format!("{} {verb} {} {}{port}: {why}", self.pod, self.destination, self.protocol)
    }
}

fn outcome_name(number: u8) -> &'static str {
    match number {
        outcome::DENIED => "denied",
        outcome::WOULD_DENY => "would-deny",
        outcome::WOULD_ALLOW => "would-allow",
        _ => "unknown",
    }
}

/// The address, IPv4 where it is a mapped one.
pub(crate) fn address(bytes: [u8; 16]) -> IpAddr {
    IpAddr::V6(Ipv6Addr::from(bytes)).to_canonical()
}

/// `TCP`, or the number.
pub(crate) fn protocol_name(number: u8) -> String {
    match number {
        protocol::ICMP => "ICMP".to_owned(),
        protocol::TCP => "TCP".to_owned(),
        protocol::UDP => "UDP".to_owned(),
        protocol::ICMPV6 => "ICMPv6".to_owned(),
        protocol::SCTP => "SCTP".to_owned(),
        number => number.to_string(),
    }
}

fn comm(bytes: &[u8; 16]) -> Option<String> {
    let end = bytes.iter().position(|&byte| byte == 0).unwrap_or(bytes.len());
    let text = String::from_utf8_lossy(bytes.get(..end)?).into_owned();
    (!text.is_empty()).then_some(text)
}

#[cfg(test)]
mod tests;
