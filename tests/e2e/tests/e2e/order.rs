//! Which rule decides: order, ports, tiers, the default action, and what every policy leaves alone (§1–§4).

use egress_e2e::{CONFIG, Evidence as _, Lab, Way, at, cluster, config, ip, policy, reaches, reaches_udp, world};
use egress_world::packet::protocol;
use egress_world::probe::{self, PATIENCE};

#[test]
fn the_openshift_example_allows_its_network_and_refuses_the_rest() {
    let Some(world) = world(&["default/client"]) else {
        return;
    };
    let text = "\
kind: EgressNetworkPolicy
apiVersion: network.openshift.io/v1
metadata: {name: default, namespace: default}
spec:
  egress:
  - type: Allow
    to: {cidrSelector: 1.2.3.0/24}
  - type: Allow
    to: {dnsName: www.foo.com}
  - type: Deny
    to: {cidrSelector: 0.0.0.0/0}
";
    let mut lab = Lab::new(&world, text);
    let pod = world.pod("client");
    lab.insist_allowed(pod, Way::Tcp, "1.2.3.4", "Allow 1.2.3.0/24");
    lab.insist_denied(pod, Way::Tcp, "5.6.7.8", "rule 3 of default/default");
    // The example has no IPv6 rule, and the default action is Allow.
    assert!(reaches(pod, at("2001:db8:2::8", 443)));
}

#[test]
fn the_openshift_example_with_ipv6_rules_holds_for_ipv6() {
    let Some(world) = world(&["default/client"]) else {
        return;
    };
    let text = "\
kind: EgressNetworkPolicy
apiVersion: v1
metadata: {name: default, namespace: default}
spec:
  egress:
  - type: Allow
    to: {cidrSelector: '2001:db8:1::/48'}
  - type: Deny
    to: {cidrSelector: '::/0'}
";
    let mut lab = Lab::new(&world, text);
    let pod = world.pod("client");
    lab.insist_allowed(pod, Way::Tcp, "2001:db8:1::4", "Allow 2001:db8:1::/48");
    lab.insist_denied(pod, Way::Tcp, "2001:db8:2::8", "rule 2 of default/default");
    assert!(reaches(pod, at("5.6.7.8", 443)));
}

#[test]
fn the_first_matching_rule_decides_and_not_the_longest_prefix() {
    let Some(world) = world(&["default/client"]) else {
        return;
    };
    let wide_first = ["Deny 10.0.0.0/8", "Allow 10.1.0.0/16", "Deny 2001:db8::/32", "Allow 2001:db8:1::/48"];
    let narrow_first = ["Allow 10.1.0.0/16", "Deny 10.0.0.0/8", "Allow 2001:db8:1::/48", "Deny 2001:db8::/32"];
    let lab = Lab::new(&world, &policy(&wide_first));
    let pod = world.pod("client");
    let inside_both = [at("10.1.2.3", 443), at("2001:db8:1::4", 443)];
    let inside_wide = [at("10.2.2.3", 443), at("2001:db8:2::8", 443)];
    assert_eq!(inside_both.map(|to| reaches(pod, to)), [false; 2]);
    assert_eq!(inside_wide.map(|to| reaches(pod, to)), [false; 2]);
    lab.agent.apply(&policy(&narrow_first));
    assert_eq!(inside_both.map(|to| reaches(pod, to)), [true; 2]);
    assert_eq!(inside_wide.map(|to| reaches(pod, to)), [false; 2]);
}

#[test]
fn ports_and_protocols_narrow_a_rule() {
    let Some(world) = world(&["default/client"]) else {
        return;
    };
    let rules = [
        "Allow 1.2.3.0/24 TCP/443 UDP/8000-9000",
        "Allow 2001:db8:1::/48 TCP/443 UDP/8000-9000",
        "Deny 0.0.0.0/0",
        "Deny ::/0",
    ];
    let _lab = Lab::new(&world, &policy(&rules));
    let pod = world.pod("client");
    for remote in ["1.2.3.4", "2001:db8:1::4"] {
        assert!(reaches(pod, at(remote, 443)));
        assert!(!reaches(pod, at(remote, 80)));
        assert!(!reaches_udp(pod, at(remote, 443)));
        assert!(reaches_udp(pod, at(remote, 8080)));
        assert!(reaches_udp(pod, at(remote, 9000)), "the end of a range belongs to it");
        assert!(!reaches(pod, at(remote, 8080)));
        assert!(!pod.run(|| probe::ping(ip(remote), probe::SILENCE)).is_answered());
    }
}

#[test]
fn icmp_is_allowed_by_its_own_protocol_name() {
    let Some(world) = world(&["default/client"]) else {
        return;
    };
    let rules = ["Allow 0.0.0.0/0 ICMP", "Allow ::/0 ICMPv6", "Deny 0.0.0.0/0", "Deny ::/0"];
    let _lab = Lab::new(&world, &policy(&rules));
    let pod = world.pod("client");
    for remote in ["5.6.7.8", "2001:db8:2::8"] {
        assert!(pod.run(|| probe::ping(ip(remote), PATIENCE)).is_answered());
        assert!(!reaches(pod, at(remote, 443)));
    }
}

#[test]
fn the_admin_tier_goes_before_and_the_baseline_after_the_namespace() {
    let Some(world) = world(&["default/client"]) else {
        return;
    };
    let text = [
        policy(&["Allow 1.2.3.0/24", "Allow 2001:db8:1::/48", "Deny 5.6.7.8/32", "Deny 2001:db8:2::8/128"]),
        cluster("admin", "Admin", &["Deny 1.2.3.5/32", "Deny 2001:db8:1::5/128", "Pass 1.2.3.4/32", "Deny 1.2.3.4/32"]),
        cluster("base", "Baseline", &["Allow 5.6.7.8/32", "Deny 0.0.0.0/0", "Deny ::/0"]),
    ];
    let mut lab = Lab::new(&world, &text.concat());
    let pod = world.pod("client");
    lab.insist_denied(pod, Way::Tcp, "1.2.3.5", "Deny 1.2.3.5/32");
    lab.insist_denied(pod, Way::Tcp, "2001:db8:1::5", "Deny 2001:db8:1::5/128");
    lab.insist_allowed(pod, Way::Tcp, "1.2.3.4", "Allow 1.2.3.0/24");
    lab.insist_denied(pod, Way::Tcp, "5.6.7.8", "Deny 5.6.7.8/32");
    lab.insist_denied(pod, Way::Tcp, "5.6.7.9", "Deny 0.0.0.0/0");
    lab.insist_denied(pod, Way::Tcp, "2001:db8:2::9", "Deny ::/0");
    assert!(reaches(pod, at("2001:db8:1::4", 443)));
}

#[test]
fn the_default_action_holds_where_no_rule_matches() {
    let Some(world) = world(&["default/client", "default/neighbour"]) else {
        return;
    };
    let lab = Lab::new(&world, &config(&["defaultAction: Deny"]));
    let pod = world.pod("client");
    world.pod("neighbour").serve(8000);
    for remote in ["1.2.3.4", "2001:db8:1::4"] {
        assert!(!reaches(pod, at(remote, 443)));
        let told = lab.agent.denied(pod, ip(remote), protocol::TCP);
        assert!(told.rule.contains("default action"), "{told:?}");
        // Internal traffic is nobody's business here.
        let neighbour = world.pod("neighbour").address_like(ip(remote));
        assert!(reaches(pod, std::net::SocketAddr::new(neighbour, 8000)));
    }
    lab.agent.apply(&config(&["defaultAction: Allow"]));
    assert!(reaches(pod, at("1.2.3.4", 443)) && reaches(pod, at("2001:db8:1::4", 443)));
}

#[test]
fn deny_by_default_without_internal_cidrs_is_refused_with_a_reason() {
    let Some(world) = world(&["default/client"]) else {
        return;
    };
    let lab = Lab::new(&world, CONFIG);
    let pod = world.pod("client");
    lab.agent.apply(
        "apiVersion: egress.rs/v1alpha1\nkind: EgressConfig\nmetadata: {name: default}\nspec: {defaultAction: Deny}\n",
    );
    assert!(lab.agent.problems().contains("internalCIDRs"), "{}", lab.agent.problems());
    assert!(reaches(pod, at("1.2.3.4", 443)) && reaches(pod, at("2001:db8:1::4", 443)));
}

#[test]
fn dns_to_trusted_resolvers_passes_whatever_the_policies_say() {
    let Some(world) = world(&["default/client"]) else {
        return;
    };
    let resolvers = "resolvers: [198.51.100.53, '2001:db8:53::1']";
    let deny_all = egress_e2e::document("office", &[], &["Deny 0.0.0.0/0", "Deny ::/0"]);
    let lab = Lab::new(&world, &(config(&[resolvers]) + &deny_all));
    let pod = world.pod("client");
    for (resolver, other) in [("198.51.100.53", "198.51.100.54"), ("2001:db8:53::1", "2001:db8:53::2")] {
        assert!(reaches_udp(pod, at(resolver, 53)) && reaches(pod, at(resolver, 53)));
        assert!(!reaches_udp(pod, at(resolver, 443)) && !reaches(pod, at(resolver, 443)));
        assert!(!reaches_udp(pod, at(other, 53)) && !reaches(pod, at(other, 53)));
    }
    lab.agent.apply(&(config(&[resolvers, "dns: {allowResolvers: false}"]) + &deny_all));
    assert!(!reaches_udp(pod, at("198.51.100.53", 53)) && !reaches_udp(pod, at("2001:db8:53::1", 53)));
}
