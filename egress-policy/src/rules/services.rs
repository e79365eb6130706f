//! Services that lead outside (§1.6): a packet to a service's address still carries that address at the pod's interface, so what the
//! rules say of its endpoints is said of the service itself.
//!
//! Invariant: one denied endpoint denies the service's port, before the internal CIDRs would allow it; an allowed one adds nothing, so
//! no service lets through what the rules deny by its address. DNS to trusted resolvers stays allowed (§1.3). Endpoints are judged by
//! address: a rule about a DNS name does not match them.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use ipnet::IpNet;

use super::builtin::hosts;
use super::{Builtin, RankedPeer, RankedRule, RuleList, RuleOrigin};
use crate::explain::{Judged, judge};
use crate::model::{Action, Mode, ServicePort, Tier};
use crate::ports::{KeyRange, Ports};

/// Where the rule of a service comes from.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ServiceOrigin {
    /// `namespace/name`.
    pub service: Arc<str>,
    /// The endpoint that decides.
    pub endpoint: SocketAddr,
    /// The rule that judges the endpoint.
    pub by: RuleOrigin,
}

impl fmt::Display for ServiceOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Service {}, which leads to {} ({})", self.service, self.endpoint, self.by)
    }
}

impl RuleList {
    /// Puts rules for `services` in front of the list.
    pub(super) fn judge_services(&mut self, services: &[ServicePort]) {
        let rules: Vec<RankedRule> = services.iter().flat_map(|service| self.of_service(service)).collect();
        self.rules.splice(0..0, rules);
    }

    fn of_service(&self, service: &ServicePort) -> Vec<RankedRule> {
        let key = KeyRange::ports(service.protocol, service.port, service.port);
        let judged = service.addresses.iter().copied().filter(|address| !self.is_resolver(IpNet::from(*address), key));
        let networks = hosts(judged);
        if networks.is_empty() {
            return Vec::new();
        }
        let rule = |networks: &Arc<[IpNet]>, action, mode, (endpoint, rank): (SocketAddr, u32)| {
            let by = self.rules.get(usize::try_from(rank).ok()?)?.origin.clone();
            Some(RankedRule {
                origin: RuleOrigin::Service(Arc::new(ServiceOrigin {
                    service: Arc::clone(&service.service),
                    endpoint,
                    by,
                })),
                tier: Tier::Builtin,
                action,
                mode,
                peer: RankedPeer::Networks(Arc::clone(networks)),
                ports: Ports::new(vec![key]),
            })
        };
        let verdicts: Vec<(SocketAddr, Judged)> = service
            .endpoints
            .iter()
            .map(|endpoint| (*endpoint, judge(self, endpoint.ip(), service.protocol, endpoint.port())))
            .collect();
        let denied = |of: fn(&Judged) -> Option<(bool, u32)>| {
            verdicts.iter().find_map(|(endpoint, judged)| {
                of(judged).filter(|(denies, _)| *denies).map(|(_, rank)| (*endpoint, rank))
            })
        };
        let (real, audit) = (denied(|judged| judged.real), denied(|judged| judged.audit));
        let is_audit = |rank: u32| {
            usize::try_from(rank)
                .ok()
                .and_then(|rank| self.rules.get(rank))
                .is_some_and(|rule| rule.mode == Mode::Audit)
        };
        let mut rules = Vec::new();
        match (real, audit) {
            (_, Some(audit)) if real.is_none() || is_audit(audit.1) => {
                rules.push(rule(&networks, Action::Deny, Mode::Audit, audit));
            }
            (None, None) | (_, Some(_)) => {}
            // Under Audit nothing is denied but by what the rules say of the service's own addresses.
            (Some(real), None) => rules.extend(networks.iter().map(|network| {
                let (denies_itself, rank) = judge(self, network.addr(), service.protocol, service.port).audit?;
                let action = if denies_itself { Action::Deny } else { Action::Allow };
                let differs = !denies_itself || is_audit(rank);
                rule(&[*network].into(), action, Mode::Audit, (real.0, rank)).filter(|_| differs)
            })),
        }
        rules.extend(real.map(|real| rule(&networks, Action::Deny, Mode::Enforce, real)));
        rules.into_iter().flatten().collect()
    }

    /// Whether the pod may always ask this address (§1.3).
    fn is_resolver(&self, address: IpNet, key: KeyRange) -> bool {
        let dns = self.rules.iter().find(|rule| rule.origin == RuleOrigin::Builtin(Builtin::Dns));
        dns.is_some_and(|rule| rule.ports.contains(key.first) && rule.networks().contains(&address))
    }
}
