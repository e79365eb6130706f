//! How an import ends.

use egress_policy::import::{Imported, Options, Source, import};

use super::verdict;
use crate::cli::Verdict;

const POLICY: &str = "apiVersion: network.openshift.io/v1\nkind: EgressNetworkPolicy\nmetadata: {name: a, namespace: NS}\n\
                      spec: {egress: [{type: Deny, to: {cidrSelector: 1.2.3.0/24}}]}\n";

fn imported(text: &str) -> Imported {
    import(&[Source { name: "a.yaml", text }], &Options::default())
}

#[test]
fn a_difference_ends_with_no_only_under_strict() {
    let exact = imported(&POLICY.replace("NS", "shop"));
    assert_eq!((verdict(&exact, false), verdict(&exact, true)), (Verdict::Yes, Verdict::Yes));
    let different = imported(&POLICY.replace("NS", "default"));
    assert_eq!((verdict(&different, false), verdict(&different, true)), (Verdict::Yes, Verdict::No));
}

#[test]
fn a_problem_and_nothing_at_all_end_with_no() {
    let broken = imported(&POLICY.replace("Deny", "Maybe").replace("NS", "shop"));
    assert_eq!((broken.report.problems.len(), verdict(&broken, false)), (1, Verdict::No));
    let nothing = imported("apiVersion: v1\nkind: Service\nmetadata: {name: a}\n");
    assert_eq!((nothing.report.skipped.len(), verdict(&nothing, false)), (1, Verdict::No));
}
