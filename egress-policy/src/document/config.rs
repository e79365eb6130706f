//! The configuration: from the values of a document to a [`Config`].

use std::net::IpAddr;

use ipnet::IpNet;

use super::metadata::Metadata;
use super::problem::{Fields, Report};
use super::tree::{Node, Value};
use crate::model::{Config, DefaultAction, DenyResponse, DnsConfig, HostNetworkPods, Mode, UnknownPods};
use crate::spec::{MAX_PREFIXES, MAX_RESOLVERS};
use crate::warnings::WarningReason;

/// Fields of `EgressConfig`'s spec.
pub(super) const CONFIG: [&str; 9] = [
    "defaultAction",
    "enforcement",
    "excludedCIDRs",
    "internalCIDRs",
    "resolvers",
    "dns",
    "unknownPods",
    "hostNetworkPods",
    "denyResponse",
];
/// Fields of the DNS settings.
pub(super) const DNS: [&str; 5] = ["minTTL", "maxTTL", "grace", "allowResolvers", "allowInternalAnswers"];

impl<'n> Report<'n> {
    /// The configuration. What comes back is complete only if the report has no problems.
    pub(super) fn config(&mut self, object: Fields<'n>, metadata: &Metadata) -> Option<Config> {
        self.within("metadata", |report| {
            if let Some(name) = metadata.name.as_ref().filter(|name| *name != "default") {
                report.problem_at(
                    "name",
                    format!("the configuration must be named default, not {name}"),
                    "write name: default",
                );
            }
            if metadata.namespace.is_some() {
                report.problem_at("namespace", "an EgressConfig has no namespace", "remove it");
            }
        });
        self.required(object, "spec", "add a spec; an empty one ({}) is valid", Self::config_spec)
    }

    fn config_spec(&mut self, node: &'n Node) -> Option<Config> {
        let fields = self.fields(node, &CONFIG)?;
        let actions = [("Allow", DefaultAction::Allow), ("Deny", DefaultAction::Deny)];
        let unknown = [("Deny", UnknownPods::Deny), ("Allow", UnknownPods::Allow)];
        let host = [("Ignore", HostNetworkPods::Ignore), ("Enforce", HostNetworkPods::Enforce)];
        let response = [("Drop", DenyResponse::Drop), ("Reject", DenyResponse::Reject)];
        let enforcement = [("Enforce", Mode::Enforce), ("Audit", Mode::Audit)];
        let config = Config {
            default_action: self
                .optional(fields, "defaultAction", |report, node| report.choice(node, &actions))
                .unwrap_or_default(),
            enforcement: self
                .optional(fields, "enforcement", |report, node| report.choice(node, &enforcement))
                .unwrap_or_default(),
            excluded_cidrs: self.optional(fields, "excludedCIDRs", Self::exempt_prefixes).unwrap_or_default(),
            internal_cidrs: self.optional(fields, "internalCIDRs", Self::exempt_prefixes),
            resolvers: self.optional(fields, "resolvers", Self::resolvers),
            dns: self.optional(fields, "dns", Self::dns).unwrap_or_default(),
            unknown_pods: self
                .optional(fields, "unknownPods", |report, node| report.choice(node, &unknown))
                .unwrap_or_default(),
            host_network_pods: self
                .optional(fields, "hostNetworkPods", |report, node| report.choice(node, &host))
                .unwrap_or_default(),
            deny_response: self
                .optional(fields, "denyResponse", |report, node| report.choice(node, &response))
                .unwrap_or_default(),
            warnings: Vec::new(),
        };
        // §1.2: never guessed, because a wrong guess cuts the pods off from their own cluster.
        let known = fields.get("internalCIDRs").is_some() || self.discovers_internal;
        if config.default_action == DefaultAction::Deny && !known {
            self.problem_at(
                "internalCIDRs",
                "defaultAction Deny needs to know what is internal",
                "list the cluster's pod and service CIDRs; an empty list ([]) says that there are none",
            );
        }
        Some(config)
    }

    fn exempt_prefixes(&mut self, node: &'n Node) -> Option<Vec<IpNet>> {
        self.short_list(node, MAX_PREFIXES, "write larger prefixes", Self::exempt_prefix)
    }

    fn resolvers(&mut self, node: &'n Node) -> Option<Vec<IpAddr>> {
        self.short_list(node, MAX_RESOLVERS, "list only the resolvers that pods are to ask", Self::resolver)
    }

    fn exempt_prefix(&mut self, node: &'n Node) -> Option<IpNet> {
        let prefix = self.prefix(node)?;
        if prefix.prefix_len() == 0 {
            let message =
                format!("{prefix} is every address of its family, so no policy judges any; list smaller prefixes");
            self.warning(WarningReason::NothingJudged, message);
        }
        Some(prefix)
    }

    fn resolver(&mut self, node: &'n Node) -> Option<IpAddr> {
        let address = self.address(node)?;
        if address.is_unspecified() || address.is_multicast() {
            self.problem(format!("{address} cannot be a resolver"), "write the address of a DNS server");
            return None;
        }
        Some(address)
    }

    fn dns(&mut self, node: &'n Node) -> Option<DnsConfig> {
        let fields = self.fields(node, &DNS)?;
        let default = DnsConfig::default();
        let dns = DnsConfig {
            min_ttl: self.optional(fields, "minTTL", Self::duration).unwrap_or(default.min_ttl),
            max_ttl: self.optional(fields, "maxTTL", Self::duration).unwrap_or(default.max_ttl),
            grace: self.optional(fields, "grace", Self::duration).unwrap_or(default.grace),
            allow_resolvers: self.optional(fields, "allowResolvers", Self::truth).unwrap_or(default.allow_resolvers),
            allow_internal: self
                .optional(fields, "allowInternalAnswers", Self::truth)
                .unwrap_or(default.allow_internal),
        };
        if dns.min_ttl > dns.max_ttl {
            let written = |name: &str| fields.get(name).is_some_and(|node| node.value != Value::Null);
            let name = if written("minTTL") { "minTTL" } else { "maxTTL" };
            self.problem_at(
                name,
                format!("minTTL ({:?}) is above maxTTL ({:?})", dns.min_ttl, dns.max_ttl),
                "raise maxTTL (default 1h) or lower minTTL (default 5s)",
            );
        }
        Some(dns)
    }
}
