//! DNS names: what the kernel counted of messages, and how the agent's lookups and its memory do.

use crate::datapath::DatapathError;
use crate::names;
use crate::vitals::Vitals;

use super::families::{Families, OutcomeLabels, ReasonLabels, ResultLabels, StateLabels};

pub(super) fn add(families: &mut Families, vitals: &Vitals) -> Result<(), DatapathError> {
    let outcome = |outcome: &str| OutcomeLabels { outcome: outcome.to_owned() };
    let messages = vitals.inspector()?.dns_counters()?;
    let messages = messages.into_iter().map(|(of, count)| (outcome(of.name()), count));
    families.counters("dns_messages", "DNS messages and addresses in them, by what became of them", messages);
    if let Some(names) = vitals.names() {
        agent(families, names);
    }
    Ok(())
}

fn agent(families: &mut Families, names: &names::Shared) {
    let directory = names.lock();
    let figures = &directory.figures;
    let help = "From a pod's query to the reply, of replies about names of rules";
    families.0.register("dns_reply_latency_seconds", help, directory.reply_latency.clone());
    let result = |result: &str| ResultLabels { result: result.to_owned() };
    let lookups = [
        (result("answered"), figures.lookups_answered),
        (result("failed"), figures.lookups_failed),
        (result("refused"), figures.lookups_refused),
    ];
    families.counters("dns_lookups", "Lookups of the agent; refused ones were too many at once", lookups);
    let state = |(state, count): (&str, u64)| (StateLabels { state: state.to_owned() }, count);
    let states = directory.states(names::now()).into_iter().map(state);
    families.gauges("dns_names", "Names by how their lookups go; learned ones are not asked for", states);
    let reason = |reason: &str| ReasonLabels { reason: reason.to_owned() };
    let refused = [(reason("internal"), figures.internal), (reason("not-stored"), figures.not_stored)];
    families.counters("dns_addresses_refused", "Addresses in answers to the agent that are not in the kernel", refused);
    let help = "Names and addresses that gave way to others in the agent's memory; the kernel keeps them";
    families.counter("dns_evicted", help, figures.evicted);
    families.counter("dns_swept", "Addresses removed from the kernel after their end", figures.swept);
}
