//! The answer of `suggest`: a policy file with comments, or the same for programs.

use std::io::{self, Write};
use std::time::{Duration, UNIX_EPOCH};

use egress_policy::spec::{API_VERSION, Action, EgressNetworkPolicySpec, EgressPeer, EgressPort, EgressRule, Protocol};
use serde::Serialize;

use crate::events::rfc3339;
use crate::output::Answer;
use crate::vitals::Observed;

use super::synthesis::{Peer, PortRange, Rule, Suggestion};

const VERSION: u32 = 1;
/// Pods that a comment names.
const SHOWN: usize = 4;

/// A policy that would have allowed what was seen.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Suggested {
    version: u32,
    policy: PolicyObject,
    /// What is behind each rule of the policy, in the same order.
    rules: Vec<RuleRow>,
    /// What a policy of the namespace cannot allow, in words.
    out_of_reach: Vec<String>,
    /// Would-be refusals that were not remembered, or only counted: the policy may lack some.
    unknown: u64,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct PolicyObject {
    api_version: &'static str,
    kind: &'static str,
    metadata: Metadata,
    spec: EgressNetworkPolicySpec,
}

#[derive(Debug, Serialize)]
struct Metadata {
    name: String,
    namespace: String,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct RuleRow {
    /// Packets and calls that were told; more were only counted.
    count: u64,
    pods: Vec<String>,
    last_seen: String,
}

/// How the policy is to be called and where it stands.
#[derive(Clone, Debug)]
pub(super) struct Frame {
    pub(super) namespace: String,
    pub(super) name: String,
    pub(super) priority: u16,
    /// Whether everything else is denied by the policy itself.
    pub(super) deny_rest: bool,
}

impl Suggested {
    pub(super) fn new(frame: &Frame, suggestion: &Suggestion, observed: &Observed) -> Self {
        let mut egress: Vec<EgressRule> = suggestion.rules.iter().map(spec).collect();
        if frame.deny_rest {
            egress.extend(["0.0.0.0/0", "::/0"].map(deny));
        }
        let spec = EgressNetworkPolicySpec {
            egress,
            pod_selector: None,
            service_accounts: None,
            priority: Some(frame.priority),
            mode: None,
        };
        let metadata = Metadata { name: frame.name.clone(), namespace: frame.namespace.clone() };
        Self {
            version: VERSION,
            policy: PolicyObject { api_version: API_VERSION, kind: "EgressNetworkPolicy", metadata, spec },
            rules: suggestion.rules.iter().map(RuleRow::new).collect(),
            out_of_reach: suggestion.out_of_reach.iter().map(out_of_reach).collect(),
            unknown: observed.forgotten + observed.only_counted,
        }
    }

    /// Whether there is anything to allow.
    pub(super) fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }
}

fn deny(cidr: &str) -> EgressRule {
    let to = EgressPeer { cidr_selector: Some(cidr.to_owned()), ..EgressPeer::default() };
    EgressRule { action: Action::Deny, to, ports: None, name: None }
}

fn spec(rule: &Rule) -> EgressRule {
    let to = match &rule.peer {
        Peer::Name(name) => EgressPeer { dns_name: Some(name.clone()), ..EgressPeer::default() },
        Peer::Prefix(prefix) => EgressPeer { cidr_selector: Some(prefix.to_string()), ..EgressPeer::default() },
    };
    let ports = rule.ports.as_ref().map(|ports| ports.iter().map(port).collect());
    EgressRule { action: Action::Allow, to, ports, name: None }
}

fn port(range: &PortRange) -> EgressPort {
    let protocol = match range.protocol {
        "TCP" => Protocol::TCP,
        "UDP" => Protocol::UDP,
        "SCTP" => Protocol::SCTP,
        "ICMP" => Protocol::ICMP,
        "ICMPv6" => Protocol::ICMPv6,
        _ => Protocol::Any,
    };
    let (port, end_port) = match range.ports {
        Some((first, last)) => (Some(first), Some(last).filter(|last| *last != first)),
        None => (None, None),
    };
    EgressPort { protocol, port, end_port }
}

fn out_of_reach(observation: &crate::vitals::Observation) -> String {
    let attempt = &observation.attempt;
    let port = attempt.port.map(|port| format!(" port {port}")).unwrap_or_default();
    let why = match &attempt.policy {
        Some(policy) if attempt.tier.as_deref() == Some("Admin") => format!("{policy} of the Admin tier comes first"),
        _ => "it was a fragment, so its port is not known".to_owned(),
    };
    format!(
        "{} to {} {}{port}, {} times: {why}",
        attempt.pod, attempt.remote, attempt.protocol, observation.times.count
    )
}

impl RuleRow {
    fn new(rule: &Rule) -> Self {
        let last_seen = rfc3339(UNIX_EPOCH + Duration::from_secs(rule.last));
        Self { count: rule.count, pods: rule.pods.iter().cloned().collect(), last_seen }
    }

    /// `12 times by web-1, web-2, last 2026-01-02T03:04:05Z`.
    fn words(&self) -> String {
        let more = if self.pods.len() > SHOWN { ", …" } else { "" };
        let pods: Vec<&str> = self.pods.iter().take(SHOWN).map(String::as_str).collect();
        let times = if self.count == 1 { "once".to_owned() } else { format!("{} times", self.count) };
        let last = self.last_seen.get(..19).unwrap_or(&self.last_seen);
        format!("{times} by {}{more}, last {last}Z", pods.join(", "))
    }
}

impl Answer for Suggested {
    fn text(&self, out: &mut dyn Write, _colours: bool) -> io::Result<()> {
        let PolicyObject { api_version, kind, metadata, spec } = &self.policy;
        if self.is_empty() {
            writeln!(out, "# Nothing was seen that a policy of namespace {} could allow.", metadata.namespace)?;
        } else {
            writeln!(out, "# Allows what policies under Audit would have refused, and nothing else.")?;
        }
        if self.unknown > 0 {
            let unknown = self.unknown;
            writeln!(
                out,
                "# {unknown} more would-be refusals of this node were only counted or forgotten; rules may be missing."
            )?;
        }
        for line in &self.out_of_reach {
            writeln!(out, "# Out of reach: {line}")?;
        }
        if self.is_empty() {
            return Ok(());
        }
        writeln!(out, "apiVersion: {api_version}\nkind: {kind}")?;
        writeln!(out, "metadata: {{name: {}, namespace: {}}}", metadata.name, metadata.namespace)?;
        writeln!(out, "spec:\n  priority: {}\n  egress:", spec.priority.unwrap_or_default())?;
        for (index, rule) in spec.egress.iter().enumerate() {
            if let Some(row) = self.rules.get(index) {
                writeln!(out, "  # {}", row.words())?;
            }
            // JSON is YAML.
            writeln!(out, "  - {}", serde_json::to_string(rule)?)?;
        }
        Ok(())
    }
}
