//! Two judges of one rule list: the compiled table, which is what the kernel gets, and the explanation, which walks the rules.

use std::sync::Arc;

use egress_common::names::NameLeaf;
use egress_common::table::Decision;
use egress_policy::compile::{CompileError, Limits, Lookup, compile};
use egress_policy::explain::{Explanation, Verdict, explain_named};
use egress_policy::model::{NodeContext, PodIdentity, PolicySet};
use egress_policy::places::Place;
use egress_policy::ports::KeyRange;
use egress_policy::rules::RuleList;

use crate::datapath::DesiredTable;
use crate::destination::Destination;

/// The judges gave different answers.
#[derive(Debug, thiserror::Error)]
#[error(
    "this is a bug in egress-agent: for {to} the compiled table says {table}, and the rules say {rules}; please report it with the policy files"
)]
pub(super) struct Disagreement {
    to: Destination,
    table: String,
    rules: String,
}

/// The rules of one pod, in both forms.
#[derive(Debug)]
pub(super) struct Judge {
    list: RuleList,
    table: Arc<DesiredTable>,
}

impl Judge {
    /// Compiles the rules that apply to `pod`, as an agent does that knows nothing of its node.
    pub(super) fn new(set: &PolicySet, pod: &PodIdentity) -> Result<Self, CompileError> {
        let list = set.rule_list(pod, &NodeContext::default());
        let table = compile(&list, &Limits::default())?;
        let table = DesiredTable::new(Arc::new(list.clone()), list.fingerprint(), table, false);
        Ok(Self { list, table: Arc::new(table) })
    }

    pub(super) fn list(&self) -> &RuleList {
        &self.list
    }

    /// What the kernel would be given.
    pub(super) fn table(&self) -> &Arc<DesiredTable> {
        &self.table
    }

    /// The verdict of both, if they agree, while the address belongs to `names`.
    pub(super) fn ask(&self, to: Destination, names: &[String]) -> Result<Explanation, Disagreement> {
        let explanation = explain_named(&self.list, to.address, names, to.protocol, to.port);
        let lookups: Vec<Lookup> = self.intervals(to, names).into_iter().map(|(_, lookup)| lookup).collect();
        let table = verdict(&lookups);
        let rules = (Some(explanation.verdict), explanation.rank);
        if table != rules || !audits_agree(&lookups, explanation.audit) {
            let rules = format!("{:?}", (rules, explanation.audit));
            return Err(Disagreement { to, table: format!("{:?}", (table, lookups)), rules });
        }
        Ok(explanation)
    }

    /// The intervals of the ports that are meant: the first port of each, and what the table says of it.
    pub(super) fn intervals(&self, to: Destination, names: &[String]) -> Vec<(u16, Lookup)> {
        let table = &self.table.table;
        let leaves: Vec<NameLeaf> = names.iter().map(|name| table.name_leaf(&Place::of_name(name))).collect();
        let KeyRange { first, last } = to.keys();
        if let Some(port) = to.port {
            return vec![(port, table.lookup_with(to.address, to.protocol, port, &leaves))];
        }
        let leaf = table.leaf(to.address);
        let intervals = leaf.map(|leaf| table.intervals_with(leaf, &leaves)).unwrap_or_default();
        let after = intervals.partition_point(|(from, _)| *from <= first);
        let inside = intervals.iter().skip(after.saturating_sub(1)).take_while(|(from, _)| *from <= last);
        let port = |key: u32| u16::try_from(key.max(first) & u32::from(u16::MAX)).unwrap_or_default();
        inside.map(|(from, lookup)| (port(*from), *lookup)).collect()
    }
}

/// What lookups say together, as [`explain`] puts it.
fn verdict(lookups: &[Lookup]) -> (Option<Verdict>, Option<u32>) {
    let Some(first) = lookups.first().map(|lookup| lookup.decision) else {
        return (None, None);
    };
    if lookups.iter().all(|lookup| lookup.decision == first) {
        (Some(word(first)), Some(first.rank()))
    } else if lookups.iter().all(|lookup| lookup.decision.is_deny() == first.is_deny()) {
        (Some(word(first)), None)
    } else {
        (Some(Verdict::DependsOnPort), None)
    }
}

/// Whether the audit verdict of the rules is that of the lookups; nothing to compare where it depends on the port.
fn audits_agree(lookups: &[Lookup], audit: Option<(Verdict, u32)>) -> bool {
    let said = |lookup: &Lookup| lookup.audit.map(|audit| (word(audit), audit.rank()));
    let same = lookups.windows(2).all(|pair| matches!(pair, [a, b] if a.audit == b.audit));
    !same || lookups.iter().all(|lookup| said(lookup) == audit)
}

const fn word(decision: Decision) -> Verdict {
    if decision.is_deny() { Verdict::Deny } else { Verdict::Allow }
}
