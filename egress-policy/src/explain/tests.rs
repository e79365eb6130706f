//! The text of explanations, and the outcome of every kind of rule.

use super::*;
use crate::sample::{ICMP, TCP, UDP, cluster, list, policy, port_rule, rule};

fn text(rules: &RuleList, address: &str, protocol: u8, port: Option<u16>) -> String {
    explain(rules, address.parse().unwrap(), protocol, port).to_string()
}

fn outcomes(rules: &RuleList, address: &str, protocol: u8, port: Option<u16>) -> Vec<Outcome> {
    let explanation = explain(rules, address.parse().unwrap(), protocol, port);
    let of_policies = explanation.considered.iter().filter(|considered| considered.origin.starts_with("rule"));
    of_policies.map(|considered| considered.outcome).collect()
}

#[test]
fn the_deciding_rule_and_every_rule_before_it_are_told() {
    let rules = list(&policy(
        "curl",
        "",
        &[
            &rule("Deny", "9.0.0.0/8"),
            &port_rule("Deny", "1.2.0.0/16", "protocol: TCP, port: 25"),
            "{type: Deny, to: {cidrSelector: 1.0.0.0/8, except: [1.2.3.0/24]}}",
            "{type: Deny, to: {dnsName: www.foo.com}}",
            "{type: Deny, to: {nodeSelector: {matchLabels: {pool: a}}}}",
            &port_rule("Allow", "1.2.3.0/24", "protocol: TCP, port: 443"),
            &rule("Deny", "0.0.0.0/0"),
        ],
    ));
    let expected = "\
rule 6 of default/curl allows 1.2.3.4:443/TCP because 1.2.3.4 is in 1.2.3.0/24 and TCP/443 is in TCP/443
  internal CIDRs (Allow 127.0.0.0/8,::1/128) does not match: 1.2.3.4 is not in 127.0.0.0/8,::1/128
  link control (neighbour discovery) (Allow fe80::/10,ff02::/16 ICMPv6/130-137,ICMPv6/143) does not match: 1.2.3.4 is not in fe80::/10,ff02::/16
  link control (DHCPv6) (Allow fe80::/10,ff02::/16 UDP/547) does not match: 1.2.3.4 is not in fe80::/10,ff02::/16
  link control (IGMP) (Allow 224.0.0.0/24 IGMP) does not match: 1.2.3.4 is not in 224.0.0.0/24
  link control (DHCPv4) (Allow 255.255.255.255/32 UDP/67) does not match: 1.2.3.4 is not in 255.255.255.255/32
  rule 1 of default/curl (Deny 9.0.0.0/8) does not match: 1.2.3.4 is not in 9.0.0.0/8
  rule 2 of default/curl (Deny 1.2.0.0/16 TCP/25) does not match: TCP/443 is not in TCP/25
  rule 3 of default/curl (Deny 1.0.0.0/8 except 1.2.3.0/24) does not match: 1.2.3.4 is in 1.2.3.0/24, which is excepted
  rule 4 of default/curl (Deny www.foo.com) does not match: 1.2.3.4 is not known as an address of www.foo.com
  rule 5 of default/curl (Deny nodes (pool=a)) does not match: no known node has the labels that it selects
  rule 6 of default/curl (Allow 1.2.3.0/24 TCP/443) decides: 1.2.3.4 is in 1.2.3.0/24 and TCP/443 is in TCP/443
";
    assert_eq!(text(&rules, "1.2.3.4", TCP, Some(443)), expected);
}

#[test]
fn a_denied_ipv6_destination_is_written_in_brackets() {
    let rules = list(&policy("curl", "", &[&rule("Deny", "2001:db8::/32")]));
    let first = text(&rules, "2001:db8::1", UDP, Some(53));
    let first = first.lines().next().unwrap();
    assert_eq!(first, "rule 1 of default/curl denies [2001:db8::1]:53/UDP because 2001:db8::1 is in 2001:db8::/32");
    let first = text(&rules, "2001:db9::1", UDP, Some(53));
    let first = first.lines().next().unwrap();
    assert_eq!(first, "default action allows [2001:db9::1]:53/UDP because it matches everything");
}

#[test]
fn an_ipv4_mapped_destination_is_explained_as_ipv4() {
    let rules = list(&policy("curl", "", &[&rule("Deny", "1.2.3.0/24")]));
    let first = text(&rules, "::ffff:1.2.3.4", TCP, Some(1));
    assert!(first.starts_with("rule 1 of default/curl denies 1.2.3.4:1/TCP"), "{first}");
}

#[test]
fn icmp_has_a_type_in_place_of_a_port() {
    let rules = list(&policy("ping", "", &[&port_rule("Deny", "1.2.3.0/24", "protocol: ICMP")]));
    let first = text(&rules, "1.2.3.4", ICMP, Some(8));
    assert!(
        first.starts_with(
            "rule 1 of default/ping denies 1.2.3.4 ICMP type 8 because 1.2.3.4 is in 1.2.3.0/24 and ICMP/8 is in ICMP\n"
        ),
        "{first}"
    );
}

#[test]
fn pass_and_what_it_skips_are_told() {
    let rules = list(&cluster("a", "tier: Admin", &[&rule("Pass", "1.0.0.0/8"), &rule("Deny", "1.0.0.0/8")]));
    assert_eq!(outcomes(&rules, "1.2.3.4", TCP, Some(1)), [Outcome::Passes, Outcome::Skipped]);
    let text = text(&rules, "1.2.3.4", TCP, Some(1));
    assert!(
        text.contains(
            "rule 1 of a (Pass 1.0.0.0/8) passes: 1.2.3.4 is in 1.0.0.0/8, so the rest of the Admin tier is skipped"
        ),
        "{text}"
    );
    assert!(
        text.contains(
            "rule 2 of a (Deny 1.0.0.0/8) is skipped: a Pass rule before it skips the rest of the Admin tier"
        ),
        "{text}"
    );
}

#[test]
fn a_policy_under_audit_is_told_beside_the_verdict() {
    let rules = list(
        &(policy("a", "mode: Audit", &[&rule("Deny", "1.2.3.0/24")])
            + &policy("b", "", &[&rule("Allow", "1.0.0.0/8")])),
    );
    let text = text(&rules, "1.2.3.4", TCP, Some(1));
    assert!(text.starts_with("rule 1 of default/b allows 1.2.3.4:1/TCP because 1.2.3.4 is in 1.0.0.0/8\nwith the policies under Audit enforced it would be denied by rule 1 of default/a\n"), "{text}");
    assert!(text.contains("rule 1 of default/a (Deny 1.2.3.0/24) would decide: 1.2.3.4 is in 1.2.3.0/24, but the policy is under Audit"), "{text}");
    assert_eq!(outcomes(&rules, "1.2.3.4", TCP, Some(1)), [Outcome::WouldDecide, Outcome::Decides]);
}

#[test]
fn the_walk_goes_on_until_the_audit_verdict_is_known_too() {
    let pass = cluster("a", "tier: Admin, mode: Audit", &[&rule("Pass", "1.0.0.0/8")]);
    let rules = list(
        &(pass
            + &cluster("b", "tier: Admin", &[&rule("Deny", "1.0.0.0/8")])
            + &policy("n", "", &[&rule("Allow", "1.0.0.0/8")])),
    );
    assert_eq!(outcomes(&rules, "1.2.3.4", TCP, Some(1)), [Outcome::WouldPass, Outcome::Decides, Outcome::WouldDecide]);
}

#[test]
fn without_a_port_every_port_is_meant() {
    let rules = list(&policy(
        "p",
        "",
        &[&port_rule("Allow", "1.2.3.0/24", "protocol: TCP, port: 443"), &rule("Deny", "1.2.3.0/24")],
    ));
    let explanation = explain(&rules, "1.2.3.4".parse().unwrap(), TCP, None);
    assert_eq!((explanation.verdict, explanation.rank), (Verdict::DependsOnPort, None));
    assert!(
        explanation.to_string().starts_with("whether 1.2.3.4 TCP is allowed depends on the port\n"),
        "{explanation}"
    );
    assert_eq!(outcomes(&rules, "1.2.3.4", TCP, None), [Outcome::DecidesForSomePorts, Outcome::DecidesForSomePorts]);
    let explanation = explain(&rules, "1.2.3.4".parse().unwrap(), UDP, None);
    assert_eq!(explanation.verdict, Verdict::Deny);
    assert!(explanation.rank.is_some());
    // A protocol without ports has one verdict.
    assert_eq!(explain(&rules, "1.2.3.4".parse().unwrap(), 47, None).verdict, Verdict::Deny);
}

#[test]
fn several_rules_that_agree_give_a_verdict_without_a_single_rule() {
    let rules = list(&policy(
        "p",
        "",
        &[&port_rule("Deny", "1.2.3.0/24", "protocol: TCP, port: 443"), &rule("Deny", "1.2.3.0/24")],
    ));
    let explanation = explain(&rules, "1.2.3.4".parse().unwrap(), TCP, None);
    assert_eq!((explanation.verdict, explanation.rank), (Verdict::Deny, None));
    assert!(
        explanation.to_string().starts_with("several rules deny 1.2.3.4 TCP, which one depends on the port\n"),
        "{explanation}"
    );
}

// §3.3, §5.9
#[test]
fn the_names_of_the_address_that_a_rule_means_are_told() {
    let rules = list(&policy(
        "curl",
        "",
        &[
            "{type: Deny, to: {dnsName: foo.com}}",
            "{type: Deny, to: {dnsName: '*.foo.com'}, ports: [{protocol: TCP, port: 25}]}",
            "{type: Allow, to: {dnsName: '**.foo.com'}, ports: [{protocol: TCP, port: 443}]}",
        ],
    ));
    let names = ["www.foo.com", "a.b.foo.com", "bar.com"].map(str::to_owned);
    for (address, shown) in [("1.2.3.4", "1.2.3.4:443"), ("2001:db8::1", "[2001:db8::1]:443")] {
        let of = |port| explain_named(&rules, address.parse().unwrap(), &names, TCP, port);
        let text = of(Some(443)).to_string();
        let lines: Vec<&str> = text.lines().filter(|line| line.contains("of default/curl")).collect();
        assert_eq!(
            lines,
            [
                format!(
                    "rule 3 of default/curl allows {shown}/TCP because {address} is an address of www.foo.com, a.b.foo.com and TCP/443 is in TCP/443"
                ),
                format!(
                    "  rule 1 of default/curl (Deny foo.com) does not match: {address} is not known as an address of foo.com"
                ),
                "  rule 2 of default/curl (Deny *.foo.com TCP/25) does not match: TCP/443 is not in TCP/25".to_owned(),
                format!(
                    "  rule 3 of default/curl (Allow **.foo.com TCP/443) decides: {address} is an address of www.foo.com, a.b.foo.com and TCP/443 is in TCP/443"
                ),
            ]
        );
        assert_eq!(of(None).verdict, Verdict::DependsOnPort);
        assert_eq!(explain(&rules, address.parse().unwrap(), TCP, Some(25)).rank, Some(8));
    }
}
