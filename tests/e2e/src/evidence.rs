//! Reads what the agent says of its work: counters by `dump`, refusals by the flow log, `events.jsonl`.

use std::net::IpAddr;

use egress_world::packet::protocol;
use egress_world::{Agent, Pod};
use serde_json::Value;

/// A record of a refusal, or of a verdict that an Audit policy would have changed.
#[derive(Clone, Debug)]
pub struct Told {
    /// `namespace/name` of the pod.
    pub pod: String,
    /// The destination.
    pub remote: String,
    /// Its port.
    pub port: u16,
    /// `tcp`, `udp`, `icmp`, `icmpv6`, `sctp`, or a number.
    pub protocol: String,
    /// `denied`, `would-deny` or `would-allow`.
    pub outcome: String,
    /// Origin and text of the rule.
    pub rule: String,
    /// Where it was decided.
    pub hook: String,
    /// Why.
    pub reason: String,
    /// Name of the calling thread.
    pub comm: String,
    /// Equal ones that were only counted.
    pub repeats: u64,
}

/// What can be asked of the agent's records.
pub trait Evidence {
    /// Packets and calls that rules with this text in origin, name or text were charged with, over all tables.
    fn charged(&self, rule: &str) -> u64;
    /// Packets and calls that were dropped for this reason.
    fn dropped(&self, reason: &str) -> u64;
    /// A figure of `dump stats`.
    fn stat(&self, name: &str) -> u64;
    /// Every record about the pod.
    fn records(&self, pod: &Pod) -> Vec<Told>;
    /// Waits for a record about the pod and the destination.
    fn told(&self, pod: &Pod, remote: IpAddr, protocol: u8) -> Told;
    /// Waits for the record of a refusal.
    fn denied(&self, pod: &Pod, remote: IpAddr, protocol: u8) -> Told {
        let told = self.told(pod, remote, protocol);
        assert_eq!(told.outcome, "denied", "{told:?}");
        told
    }
}

impl Evidence for Agent<'_> {
    fn charged(&self, rule: &str) -> u64 {
        let dump = self.dump("rules");
        let rules = dump["rules"].as_array().into_iter().flatten();
        rules
            .filter(|entry| text(entry, &["origin", "name", "text"]).contains(rule))
            .map(|entry| number(&entry["packets"]))
            .sum()
    }

    fn dropped(&self, reason: &str) -> u64 {
        let dump = self.dump("counters");
        let drops = dump["counters"]["drops"].as_array().into_iter().flatten();
        drops.filter(|entry| entry["reason"] == reason).map(|entry| number(&entry["packets"])).sum()
    }

    fn stat(&self, name: &str) -> u64 {
        number(&self.dump("stats")["stats"][name])
    }

    fn records(&self, pod: &Pod) -> Vec<Told> {
        let records = self.events().into_iter().map(|record| read(&record));
        records.filter(|told| told.pod == pod.full_name()).collect()
    }

    fn told(&self, pod: &Pod, remote: IpAddr, protocol: u8) -> Told {
        let fits = |record: &Value| {
            let told = read(record);
            told.pod == pod.full_name() && told.remote == remote.to_string() && told.protocol == name(protocol)
        };
        read(&self.wait_for_event(fits))
    }
}

fn read(record: &Value) -> Told {
    let string = |name: &str| record[name].as_str().unwrap_or_default().to_owned();
    Told {
        pod: format!("{}/{}", string("k8s.namespace.name"), string("k8s.pod.name")),
        remote: string("destination.address"),
        port: u16::try_from(number(&record["destination.port"])).expect("a port"),
        protocol: string("network.transport"),
        outcome: string("egress.outcome"),
        rule: text(record, &["egress.rule.origin", "egress.rule.name", "egress.rule.text"]),
        hook: string("egress.hook"),
        reason: string("egress.reason"),
        comm: string("thread.name"),
        repeats: number(&record["egress.repeats"]),
    }
}

/// Everything that a record or a line of a dump says of a rule.
fn text(entry: &Value, fields: &[&str]) -> String {
    let words: Vec<_> = fields.iter().map(|name| entry[*name].as_str().unwrap_or_default()).collect();
    words.join(" | ")
}

fn name(protocol: u8) -> String {
    match protocol {
        protocol::ICMP => "icmp".to_owned(),
        protocol::TCP => "tcp".to_owned(),
        protocol::UDP => "udp".to_owned(),
        protocol::ICMPV6 => "icmpv6".to_owned(),
        protocol::SCTP => "sctp".to_owned(),
        other => other.to_string(),
    }
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or(0)
}
