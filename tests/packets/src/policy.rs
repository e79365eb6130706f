//! Policies as a user writes them, through the production path to a table: YAML, documents, rule list, compiler, description.

use std::sync::Arc;

use egress_agent::datapath::DesiredTable;
use egress_policy::compile::{Limits, compile};
use egress_policy::describe::TableDescription;
use egress_policy::document::{self, Object};
use egress_policy::model::{DenyResponse, NodeContext, PodIdentity, PolicySet};
use egress_policy::rules::RuleList;

/// What applies to one pod.
#[derive(Clone, Debug)]
pub struct Policies {
    /// The rules in order; the index is the rank.
    pub rules: RuleList,
    /// What the kernel gets.
    pub table: Arc<DesiredTable>,
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
        let table = DesiredTable {
            fingerprint: rules.fingerprint(),
            table: compile(&rules, &Limits::default()).expect("it fits"),
            description: TableDescription::new(&rules),
            reject: set.config.deny_response == DenyResponse::Reject,
        };
        Self { rules, table: Arc::new(table) }
    }

    /// The rank of the rule that messages call `origin`: "rule 1 of default/p", "default action", "internal CIDRs".
    pub fn rank(&self, origin: &str) -> u32 {
        let found = self.rules.rules.iter().position(|rule| rule.origin.to_string() == origin);
        let names = || self.rules.rules.iter().map(|rule| rule.origin.to_string()).collect::<Vec<_>>();
        u32::try_from(found.unwrap_or_else(|| panic!("no {origin:?} in {:?}", names()))).expect("24 bits")
    }

    /// What messages call the rule of `rank`.
    pub fn origin(&self, rank: u32) -> String {
        self.rules.rules.get(rank as usize).map_or_else(|| format!("rank {rank}"), |rule| rule.origin.to_string())
    }
}
