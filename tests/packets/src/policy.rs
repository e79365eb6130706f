//! Policies as a user writes them, through the production path to a table: YAML, documents, rule list, compiler, description.

use std::sync::Arc;

use egress_agent::datapath::{DesiredDns, DesiredNames, DesiredTable};
use egress_policy::compile::{Limits, compile};
use egress_policy::document::{self, Object};
use egress_policy::model::{DenyResponse, NodeContext, PodIdentity, PolicySet};
use egress_policy::places::{Place, Places};
use egress_policy::rules::RuleList;

/// What applies to one pod.
#[derive(Clone, Debug)]
pub struct Policies {
    /// The rules in order; the index is the rank.
    pub rules: RuleList,
    /// What the kernel gets.
    pub table: Arc<DesiredTable>,
    /// DNS settings of the node.
    pub dns: DesiredDns,
}

impl Policies {
    /// Compiles the objects in `texts` for `pod` on `node`.
    pub fn compile<'a>(texts: impl IntoIterator<Item = &'a str>, pod: &PodIdentity, node: &NodeContext) -> Self {
        let mut set = PolicySet::default();
        for text in texts {
            let documents = document::read(text);
            assert!(documents.problems.is_empty(), "{:?} in\n{text}", documents.problems);
            for object in documents.objects {
                match object {
                    Object::Policy(policy) => drop(set.insert(policy)),
                    Object::Config(config) => set.config = config,
                    Object::Namespace { name, labels, .. } => drop(set.namespaces.insert(name, labels)),
                }
            }
        }
        let rules = set.rule_list(pod, node);
        let table = compile(&rules, &Limits::default()).expect("it fits");
        let reject = set.config.deny_response == DenyResponse::Reject;
        let table = DesiredTable::new(Arc::new(rules.clone()), rules.fingerprint(), table, reject);
        let dns = DesiredDns {
            resolvers: set.config.resolvers.as_ref().unwrap_or(&node.resolvers).clone(),
            lifetimes: set.config.dns,
            internal: Vec::new(),
        };
        Self { rules, table: Arc::new(table), dns }
    }

    /// Numbers of the names, from 1 in the order of their places.
    pub fn names(&self) -> DesiredNames {
        let places = self.places();
        let numbered: Vec<(u32, Place)> = (1..).zip(places.iter()).collect();
        let id = |place: &Place| numbered.iter().find(|(_, known)| known == place).map_or(0, |(id, _)| *id);
        let entries = places.entries(id).collect();
        let length = u32::try_from(numbered.len()).expect("few names") + 1;
        DesiredNames { entries, length, places: numbered, reused: Vec::new() }
    }

    fn places(&self) -> Places {
        self.table.patterns.iter().map(Arc::as_ref).collect()
    }

    /// The id under which the addresses of `name` are stored.
    pub fn name_id(&self, name: &str) -> u32 {
        let place = self.places().place_of(&Place::of_name(name)).expect("a rule is about the name");
        self.names().places.iter().find(|(_, known)| *known == place).expect("numbered").0
    }

    /// The rank of the rule that messages call `origin`: "rule 1 of default/p", "default action", "internal CIDRs". Under
    /// `enforcement: Audit` there may be two default actions; this is the one in force.
    pub fn rank(&self, origin: &str) -> u32 {
        self.last_or_first(origin, <[u32]>::last)
    }

    /// [`Policies::rank`], of the one that Audit would enforce.
    pub fn audit_rank(&self, origin: &str) -> u32 {
        self.last_or_first(origin, <[u32]>::first)
    }

    fn last_or_first(&self, origin: &str, pick: fn(&[u32]) -> Option<&u32>) -> u32 {
        let ranked = (0..).zip(&self.rules.rules);
        let found: Vec<u32> =
            ranked.filter(|(_, rule)| rule.origin.to_string() == origin).map(|(rank, _)| rank).collect();
        let names = || self.rules.rules.iter().map(|rule| rule.origin.to_string()).collect::<Vec<_>>();
        *pick(&found).unwrap_or_else(|| panic!("no {origin:?} in {:?}", names()))
    }

    /// What messages call the rule of `rank`.
    pub fn origin(&self, rank: u32) -> String {
        self.rules.rules.get(rank as usize).map_or_else(|| format!("rank {rank}"), |rule| rule.origin.to_string())
    }
}
