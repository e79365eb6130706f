//! What is concluded from links and identities; the kernel's part is tested end to end.

use super::*;

fn veth(index: u32, name: &str, peer: u32, peer_namespace: Option<i32>) -> Link {
    Link { index, name: name.to_owned(), kind: "veth".to_owned(), peer: Some(peer), peer_namespace }
}

fn endpoint(name: &str) -> Endpoint {
    Endpoint { namespace: "default".into(), name: name.into(), ..Endpoint::default() }
}

#[test]
fn a_pair_needs_both_sides_and_the_right_namespace() {
    let inside = [veth(2, "eth0", 7, Some(0))];
    let pair = [veth(7, "veth7", 2, Some(3))];
    assert_eq!(pairs(&inside, &pair, Some(3)).len(), 1);
    assert_eq!(pairs(&inside, &pair, Some(4)).len(), 0);
    assert_eq!(pairs(&inside, &pair, None).len(), 0);
    assert_eq!(pairs(&inside, &[veth(7, "veth7", 9, Some(3))], Some(3)).len(), 0);
    let macvlan = [Link { kind: "macvlan".into(), ..veth(2, "eth0", 7, Some(0)) }];
    assert_eq!(pairs(&macvlan, &pair, Some(3)).len(), 0);
}

#[test]
fn an_endpoint_with_only_a_cgroup_is_in_the_hosts_network_and_covered_only_on_demand() {
    let mut discovery = Discovery::new(cgroup::mount_point().unwrap().unwrap_or_default()).unwrap();
    let survey = discovery.survey(&[endpoint("host")], false);
    assert!(survey.problems[0].message.contains("hostNetworkPods: Ignore"));
    assert!(!survey.located["default/host"].is_known());
    let survey = discovery.survey(&[endpoint("host")], true);
    assert!(survey.problems[0].message.contains("cannot be recognised"));
}

#[test]
fn the_machines_own_namespace_is_never_taken_for_a_pods() {
    let mut discovery = Discovery::new(PathBuf::from("/")).unwrap();
    let pod = Endpoint { netns: Some(NetnsRef::Path("/proc/self/ns/net".into())), ..endpoint("pod") };
    let survey = discovery.survey(&[pod], true);
    assert_eq!(survey.located["default/pod"].netns, None);
    assert_eq!(survey.located["default/pod"].interface, None);
}

#[test]
fn a_missing_interface_is_a_problem_of_its_endpoint_alone() {
    let mut discovery = Discovery::new(PathBuf::from("/")).unwrap();
    let with = |name: &str, interface: &str| Endpoint { interface: Some(interface.into()), ..endpoint(name) };
    let survey = discovery.survey(&[with("a", "no-such-link"), with("b", "lo")], false);
    assert!(survey.incomplete);
    assert_eq!(survey.problems.len(), 1);
    assert_eq!(survey.problems[0].object.as_deref(), Some("default/a"));
    assert_eq!(survey.located["default/b"].interface, Some(("lo".to_owned(), 1)));
}

#[test]
fn what_two_endpoints_share_stays_with_the_first() {
    let located = Located { interface: Some(("veth7".into(), 7)), netns: Some(9), cgroup: None };
    let mut survey = Survey {
        located: [("default/a".to_owned(), located.clone()), ("default/b".to_owned(), located.clone())].into(),
        ..Survey::default()
    };
    survey.refuse_shared(&[endpoint("a"), endpoint("b")]);
    assert_eq!(survey.located["default/a"], located);
    assert_eq!(survey.located["default/b"], Located::default());
    assert_eq!(survey.problems.len(), 2);
}

#[test]
fn interfaces_beside_the_guarded_one_are_told_from_loopback_and_the_tunnels_of_every_namespace() {
    let kind = |kind: &str, name: &str| Link { kind: kind.into(), name: name.into(), ..Link::default() };
    for link in [kind("veth", "eth0"), kind("macvlan", "net1"), kind("", "eth1")] {
        assert!(leads_out(&link), "{link:?}");
    }
    for link in [kind("", "lo"), kind("ipip", "tunl0"), kind("sit", "sit0"), kind("dummy", "d0")] {
        assert!(!leads_out(&link), "{link:?}");
    }
}
