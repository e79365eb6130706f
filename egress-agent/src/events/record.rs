//! One event as people and programs read it. The serialized form is a line of the flow log, of `monitor -o json` and of the agent's
//! socket; docs/flow-log.md documents its fields. Names are those of the OpenTelemetry semantic conventions where these have one.

use std::borrow::Cow;
use std::net::{IpAddr, Ipv6Addr};

use egress_common::event::{Event, Hook, outcome};
use egress_common::packet::protocol;
use egress_common::reason::DropReason;
use serde::{Deserialize, Serialize};
use tracing::warn;

use super::names::Named;
use super::{rfc3339, wall_time};

/// Version of the fields; raised when one changes its meaning or goes.
pub(crate) const SCHEMA: u32 = 1;

/// What happened to a packet or call, and by which rule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    /// [`SCHEMA`].
    #[serde(rename = "egress.schema")]
    pub(crate) schema: u32,
    #[serde(rename = "timestamp")]
    pub(crate) time: String,
    /// `denied`, `would-deny`, `would-allow` or `allowed`.
    #[serde(rename = "egress.outcome")]
    pub(crate) outcome: Cow<'static, str>,
    /// A drop reason; none for what was allowed.
    #[serde(rename = "egress.reason", default, skip_serializing_if = "str::is_empty")]
    pub(crate) reason: Cow<'static, str>,
    #[serde(rename = "egress.hook")]
    pub(crate) hook: Cow<'static, str>,
    /// Equal events before this one that were only counted.
    #[serde(rename = "egress.repeats")]
    pub(crate) repeats: u32,
    #[serde(rename = "k8s.node.name", default)]
    pub(crate) node: String,
    #[serde(rename = "k8s.namespace.name", skip_serializing_if = "Option::is_none")]
    pub(crate) namespace: Option<String>,
    /// Without the namespace; `unknown endpoint N` for a pod that was gone before anybody asked for its name.
    #[serde(rename = "k8s.pod.name")]
    pub(crate) pod: String,
    /// `ipv4` or `ipv6`.
    #[serde(rename = "network.type")]
    pub(crate) family: Cow<'static, str>,
    /// `tcp`, `udp`, …, or the number.
    #[serde(rename = "network.transport")]
    pub(crate) transport: String,
    #[serde(rename = "source.address", skip_serializing_if = "Option::is_none")]
    pub(crate) source: Option<IpAddr>,
    #[serde(rename = "source.port", skip_serializing_if = "Option::is_none")]
    pub(crate) source_port: Option<u16>,
    #[serde(rename = "destination.address")]
    pub(crate) destination: IpAddr,
    #[serde(rename = "destination.port", skip_serializing_if = "Option::is_none")]
    pub(crate) port: Option<u16>,
    #[serde(rename = "egress.icmp.type", skip_serializing_if = "Option::is_none")]
    pub(crate) icmp_type: Option<u8>,
    /// The name that the address was learned for.
    #[serde(rename = "dns.question.name", skip_serializing_if = "Option::is_none")]
    pub(crate) name: Option<String>,
    /// `default/curl`.
    #[serde(rename = "egress.policy", skip_serializing_if = "Option::is_none")]
    pub(crate) policy: Option<String>,
    /// `Admin`, `Namespace`, `Baseline`, `Default` or `Builtin`.
    #[serde(rename = "egress.rule.tier", skip_serializing_if = "Option::is_none")]
    pub(crate) tier: Option<Cow<'static, str>>,
    #[serde(rename = "egress.rule.number", skip_serializing_if = "Option::is_none")]
    pub(crate) rule_number: Option<u32>,
    #[serde(rename = "egress.rule.name", skip_serializing_if = "Option::is_none")]
    pub(crate) rule_name: Option<String>,
    /// `rule 2 of default/curl`, `default action`.
    #[serde(rename = "egress.rule.origin", skip_serializing_if = "Option::is_none")]
    pub(crate) origin: Option<String>,
    /// `Deny 0.0.0.0/0`.
    #[serde(rename = "egress.rule.text", skip_serializing_if = "Option::is_none")]
    pub(crate) rule: Option<String>,
    #[serde(rename = "process.pid", skip_serializing_if = "Option::is_none")]
    pub(crate) pid: Option<u32>,
    /// Name of the calling thread.
    #[serde(rename = "thread.name", skip_serializing_if = "Option::is_none")]
    pub(crate) comm: Option<String>,
    /// Bytes from the IP header on; none for socket calls.
    #[serde(rename = "egress.packet.size", skip_serializing_if = "Option::is_none")]
    pub(crate) length: Option<u32>,
}

impl Record {
    pub(crate) fn new(event: &Event, named: &Named, node: &str) -> Self {
        let has_ports = matches!(event.protocol, protocol::TCP | protocol::UDP | protocol::SCTP);
        let is_icmp = matches!(event.protocol, protocol::ICMP | protocol::ICMPV6);
        let port = |bytes: [u8; 2]| Some(u16::from_be_bytes(bytes)).filter(|&port| has_ports && port != 0);
        let [_, icmp_type] = event.remote_port;
        let destination = address(event.remote);
        let rule = named.rule.as_ref();
        let (namespace, pod) = match named.pod.as_deref().map(|pod| pod.split_once('/').unwrap_or(("", pod))) {
            Some((namespace, pod)) => (Some(namespace.to_owned()), pod.to_owned()),
            None => (None, format!("unknown endpoint {}", event.endpoint)),
        };
        Self {
            schema: SCHEMA,
            time: rfc3339(wall_time(event.time)),
            outcome: outcome_name(event.outcome).into(),
            reason: reason_name(event.reason).into(),
            hook: Hook::from_number(event.hook).map_or("unknown", Hook::name).into(),
            repeats: event.repeats,
            node: node.to_owned(),
            namespace,
            pod,
            family: if destination.is_ipv4() { "ipv4" } else { "ipv6" }.into(),
            transport: protocol_name(event.protocol).to_ascii_lowercase(),
            source: Some(address(event.local)).filter(|_| event.local != [0; 16]),
            source_port: port(event.local_port),
            destination,
            port: port(event.remote_port),
            icmp_type: is_icmp.then_some(icmp_type),
            name: named.name.clone(),
            policy: rule.and_then(|rule| rule.policy.as_ref()).map(ToString::to_string),
            tier: rule.map(|rule| rule.tier.name().into()),
            rule_number: rule.and_then(|rule| rule.number),
            rule_name: rule.and_then(|rule| rule.name.as_deref()).map(ToOwned::to_owned),
            origin: rule.map(|rule| rule.origin.clone()),
            rule: rule.map(|rule| rule.text.clone()),
            pid: Some(event.pid).filter(|&pid| pid != 0),
            comm: comm(&event.comm),
            length: Some(event.length).filter(|&length| length != 0),
        }
    }

    /// Whether it passed, and no policy under Audit objects.
    pub(crate) fn is_allowed(&self) -> bool {
        self.outcome == "allowed"
    }

    /// What was allowed is no news for the log.
    pub(crate) fn log(&self) {
        if self.is_allowed() {
            return;
        }
        warn!(
            target: "egress::denied",
            outcome = %self.outcome,
            pod = self.full_pod(),
            destination = %self.destination,
            port = self.port,
            icmp_type = self.icmp_type,
            protocol = self.protocol(),
            name = self.name,
            rule = self.rule,
            origin = self.origin,
            policy = self.policy,
            hook = %self.hook,
            reason = %self.reason,
            repeats = self.repeats,
            pid = self.pid,
            comm = self.comm,
            "{}",
            self.sentence()
        );
    }

    /// `namespace/name`.
    pub(crate) fn full_pod(&self) -> String {
        self.namespace.as_ref().map_or_else(|| self.pod.clone(), |namespace| format!("{namespace}/{}", self.pod))
    }

    /// `TCP`, `ICMPv6`, or the number: as policies write it.
    pub(crate) fn protocol(&self) -> String {
        if self.transport == "icmpv6" { "ICMPv6".to_owned() } else { self.transport.to_ascii_uppercase() }
    }

    /// `8.8.8.8:443/TCP`, `[2001:db8::1]:53/UDP`, `1.2.3.4/ICMP`: as commands take a destination.
    pub(crate) fn to(&self) -> String {
        let address = match (self.destination, self.port) {
            (destination, None) => destination.to_string(),
            (IpAddr::V4(destination), Some(port)) => format!("{destination}:{port}"),
            (IpAddr::V6(destination), Some(port)) => format!("[{destination}]:{port}"),
        };
        format!("{address}/{}", self.protocol())
    }

    /// This event and the equal ones that were only counted.
    pub(crate) fn times(&self) -> u64 {
        1 + u64::from(self.repeats)
    }

    /// `default/curl may not reach 8.8.8.8 TCP/443: rule 2 of default/curl (Deny 0.0.0.0/0)`.
    fn sentence(&self) -> String {
        let verb = match self.outcome.as_ref() {
            "would-deny" => "could not reach under Audit policies",
            "would-allow" => "could reach under Audit policies",
            _ => "may not reach",
        };
        let port = self.port.map(|port| format!("/{port}")).unwrap_or_default();
        let why = match (&self.origin, &self.rule) {
            (Some(origin), Some(rule)) => format!("{origin} ({rule})"),
            _ => self.reason.clone().into_owned(),
        };
        let name = self.name.as_ref().map(|name| format!(" ({name})")).unwrap_or_default();
        format!("{} {verb} {}{name} {}{port}: {why}", self.full_pod(), self.destination, self.protocol())
    }
}

fn reason_name(number: u8) -> &'static str {
    match number {
        0 => "",
        number => DropReason::from_number(number).map_or("unknown", DropReason::name),
    }
}

fn outcome_name(number: u8) -> &'static str {
    match number {
        outcome::DENIED => "denied",
        outcome::WOULD_DENY => "would-deny",
        outcome::WOULD_ALLOW => "would-allow",
        outcome::ALLOWED => "allowed",
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

/// A refusal, for tests to vary.
#[cfg(test)]
pub(crate) fn sample() -> Record {
    tests::sample()
}

#[cfg(test)]
mod tests;
