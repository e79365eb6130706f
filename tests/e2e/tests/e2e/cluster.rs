//! Under `--kubernetes`: pods found by kubelet's cgroups, held until the API server tells of them (§6.6), and judged by what it says.

use std::time::{Duration, Instant};

use egress_e2e::{ALLOWED, DENIED, Lab, OFFICE, RULES, Way, at, ip, reaches, world};
use egress_world::probe::{self, Outcome, PATIENCE};
use egress_world::{Agent, Api, Beside, Pod, Process, World, eventually};
use serde_json::{Value, json};

const PODS: &str = "/api/v1/pods";
const POLICIES: &str = "/apis/egress.rs/v1alpha1/egressnetworkpolicies";
const CONFIGS: &str = "/apis/egress.rs/v1alpha1/egressconfigs";
const OUTSIDE: [&str; 2] = ["1.2.3.4", "2001:db8:1::4"];

/// A UID that ends in `last`.
fn uid(last: &str) -> String {
    format!("0c5b4f6e-1d2c-4e5f-8a9b-0123456789{last}")
}

/// Where kubelet's `cgroupfs` driver puts a burstable pod.
fn cgroupfs(last: &str) -> String {
    format!("kubepods/burstable/pod{}", uid(last))
}

/// Where its `systemd` driver puts a pod of best effort.
fn systemd(last: &str) -> String {
    let uid = uid(last).replace('-', "_");
    format!("kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod{uid}.slice")
}

fn pod(pod: &Pod, uid: &str) -> Value {
    json!({
        "metadata": {"name": pod.name(), "namespace": "default", "uid": uid, "labels": {"app": pod.name()}},
        "spec": {"nodeName": "node-a", "serviceAccountName": "default"},
        "status": {"phase": "Running", "podIPs": [{"ip": pod.address4()}, {"ip": pod.address6()}]},
    })
}

fn policy(name: &str, rules: &Value) -> Value {
    let metadata = json!({"name": name, "namespace": "default", "generation": 1});
    json!({"apiVersion": "egress.rs/v1alpha1", "kind": "EgressNetworkPolicy", "metadata": metadata, "spec": {"egress": rules}})
}

fn rule(action: &str, cidr: &str) -> Value {
    json!({"type": action, "to": {"cidrSelector": cidr}})
}

/// The process that holds a pod's namespaces, as a container runtime keeps one.
fn pause(pod: &Pod) -> Process<()> {
    pod.start(|shared| {
        while !shared.stopped() {
            std::thread::sleep(Duration::from_millis(5));
        }
    })
}

/// A cluster that tells what is internal, and an agent that knows it.
fn cluster(world: &World) -> (Api, Agent<'_>) {
    let api = Api::new(world.node());
    let spec = json!({"podCIDRs": ["10.244.0.0/16", "fd00:10:244::/48"]});
    api.put("/api/v1/nodes", json!({"metadata": {"name": "node-a"}, "spec": spec}));
    let spec = json!({"cidrs": ["10.96.0.0/16", "fd00:96::/112"]});
    api.put("/apis/networking.k8s.io/v1/servicecidrs", json!({"metadata": {"name": "kubernetes"}, "spec": spec}));
    let mut agent = Agent::new(world);
    agent.in_cluster(api.kubeconfig(world.files()));
    agent.start();
    (api, agent)
}

/// Pods with their interfaces and what they are called in the kernel.
fn endpoints(agent: &Agent<'_>) -> Vec<(String, String)> {
    let dump = agent.dump("endpoints");
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let row = |endpoint: &Value| (text(&endpoint["name"]), text(&endpoint["interfaceName"]));
    dump["endpoints"].as_array().expect("endpoints").iter().map(row).collect()
}

/// §6.6, and that it ends.
#[test]
fn a_pod_that_the_api_server_has_not_told_of_is_held_to_internal_traffic_until_it_has() {
    let Some(mut world) = world(&[]) else { return };
    world.add_pod_in("default/late", &cgroupfs("01"));
    world.add_pod_in("default/known", &cgroupfs("02"));
    let (late, known) = (world.pod("late"), world.pod("known"));
    let _running = (pause(late), pause(known));
    known.serve(443);
    let (api, agent) = cluster(&world);
    assert!(eventually(|| endpoints(&agent).len() == 2), "{:?}\n{}", endpoints(&agent), agent.log());
    let wire = world.outside().sniff();
    for remote in OUTSIDE {
        let refused = late.run(move || probe::tcp(at(remote, 443), PATIENCE));
        assert!(refused.is_refused(), "{remote}: {refused:?}");
    }
    for address in [known.address4(), known.address6()] {
        assert!(reaches(late, std::net::SocketAddr::new(address, 443)), "{address} is internal");
    }
    api.put(PODS, pod(late, &uid("01")));
    for remote in OUTSIDE {
        assert!(eventually(|| reaches(late, at(remote, 443))), "{remote} {}", agent.log());
        let refused = known.run(move || probe::tcp(at(remote, 443), PATIENCE));
        assert!(refused.is_refused(), "the other one is still held: {refused:?}");
    }
    drop(wire);
}

#[test]
fn a_new_pod_is_held_from_its_first_moments_and_one_of_another_kubelet_never() {
    let Some(mut world) = world(&[]) else { return };
    world.add_pod_in("default/first", &format!("a/{}", cgroupfs("01")));
    let api = Api::new(world.node());
    let late = world.add_pod_in("default/late", &format!("a/{}", cgroupfs("02"))).full_name();
    world.add_pod_in("default/theirs", &format!("b/{}", cgroupfs("03")));
    let mut agent = Agent::new(&world);
    agent.in_cluster(api.kubeconfig(world.files()));
    agent.argument(&["--kubepods", "a/kubepods"]);
    let (first, theirs) = (pause(world.pod("first")), pause(world.pod("theirs")));
    agent.start();
    assert!(eventually(|| endpoints(&agent).len() == 1), "{:?}\n{}", endpoints(&agent), agent.log());
    assert!(reaches(world.pod("theirs"), at("1.2.3.4", 443)), "another node's pod");
    // From the first instruction of the first process on: its calls are refused by the kernel before anybody has noticed it. Then raw
    // packets, which no call shows, until the agent has found its interface: so long they meet nobody.
    let (calls, window) = world.pod("late").run(|| {
        let begun = Instant::now();
        let calls = OUTSIDE.map(|remote| probe::tcp(at(remote, 443), PATIENCE));
        while begun.elapsed() < Duration::from_secs(10) {
            if !probe::ping_raw(ip("1.2.3.4"), Duration::from_millis(100)).is_answered() {
                return (calls, Some(begun.elapsed()));
            }
        }
        (calls, None)
    });
    assert!(calls.iter().all(probe::Attempt::is_refused), "{calls:?}\n{}", agent.log());
    println!("{late}: its raw packets were stopped {window:?} after its first process ran");
    assert!(window.is_some_and(|window| window < Duration::from_secs(2)), "{window:?}\n{}", agent.log());
    drop((first, theirs));
}

/// What a pod reaches: whether each of [`OUTSIDE`], and the pod `inside`.
fn reached(pod: &Pod, inside: &Pod) -> ([bool; 2], [bool; 2]) {
    let inside = [inside.address4(), inside.address6()].map(|address| std::net::SocketAddr::new(address, 443));
    (OUTSIDE.map(|remote| reaches(pod, at(remote, 443))), inside.map(|to| reaches(pod, to)))
}

/// §6.5, §6.6: nobody is there to notice a new pod, and it is held all the same; who was known stays free.
#[test]
fn a_pod_that_comes_while_the_agent_is_down_is_held_by_the_kernel_and_nobody_else_is() {
    let Some(mut world) = world(&[]) else { return };
    world.add_pod_in("default/known", &cgroupfs("01"));
    world.add_pod_in("default/held", &cgroupfs("02"));
    world.add_pod_in("default/new", &cgroupfs("03"));
    world.add_pod_in("default/elsewhere", "system.slice/elsewhere");
    world.add_host_network_pod("default/host-network");
    let (known, new) = (world.pod("known"), world.pod("new"));
    known.serve(443);
    let _running = [known, world.pod("held"), world.pod("host-network"), world.pod("elsewhere")].map(pause);
    let (api, mut agent) = cluster(&world);
    api.put(PODS, pod(known, &uid("01")));
    let metadata = json!({"name": "host-network", "namespace": "default", "uid": "-default-host-network"});
    let spec = json!({"nodeName": "node-a", "hostNetwork": true});
    api.put(PODS, json!({"metadata": metadata, "spec": spec, "status": {"phase": "Running"}}));
    assert!(eventually(|| reached(known, known).0 == [true; 2]), "{}", agent.log());
    agent.kill();
    // Whoever was known, and what no kubelet made.
    for free in ["known", "elsewhere"] {
        assert_eq!(reached(world.pod(free), known), ([true; 2], [true; 2]), "{free}");
    }
    assert!(OUTSIDE.iter().all(|remote| reaches(world.pod("host-network"), at(remote, 443))));
    for held in [world.pod("held"), new] {
        let calls = held.run(|| OUTSIDE.map(|remote| probe::tcp(at(remote, 443), PATIENCE)));
        assert!(calls.iter().all(probe::Attempt::is_refused), "{}: {calls:?}", held.name());
        let calls = held.run(|| OUTSIDE.map(|remote| probe::udp_unconnected(at(remote, 443), PATIENCE)));
        assert!(calls.iter().all(probe::Attempt::is_refused), "{}: {calls:?}", held.name());
        assert_eq!(reached(held, known), ([false; 2], [true; 2]), "{}: what is internal is open", held.name());
    }
    // A namespace that a known pod makes is no new pod.
    let inner = known.run(|| {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).expect("a namespace");
        probe::tcp(at(OUTSIDE[0], 443), probe::SILENCE)
    });
    assert_eq!(inner.outcome, Outcome::Failed(libc::ENETUNREACH), "there is no way out, and no rule against it");
    // The next agent knows it when it is told of it.
    agent.start();
    let running = pause(new);
    api.put(PODS, pod(new, &uid("03")));
    assert!(eventually(|| reached(new, known) == ([true; 2], [true; 2])), "{}", agent.log());
    let refused =
        agent.events().iter().any(|event| event["k8s.pod.name"] == "new" && event["k8s.namespace.name"] == "?");
    assert!(refused, "{:?}", agent.events());
    drop(running);
}

/// §6.6: `Allow`.
#[test]
fn new_pods_pass_where_the_settings_say_so() {
    let Some(mut world) = world(&[]) else { return };
    world.add_pod_in("default/known", &cgroupfs("01"));
    world.add_pod_in("default/new", &cgroupfs("02"));
    let (known, new) = (world.pod("known"), world.pod("new"));
    let _running = pause(known);
    known.serve(443);
    let (api, mut agent) = cluster(&world);
    assert!(eventually(|| endpoints(&agent).len() == 1), "{}", agent.log());
    agent.kill();
    assert_eq!(reached(new, known).0, [false; 2]);
    agent.start();
    api.put(CONFIGS, json!({"metadata": {"name": "default"}, "spec": {"unknownPods": "Allow"}}));
    assert!(eventually(|| reached(known, known).0 == [true; 2]), "{}", agent.log());
    agent.kill();
    assert_eq!(reached(new, known), ([true; 2], [true; 2]));
}

#[test]
fn pods_of_both_drivers_are_found_with_their_interfaces_and_judged_by_policies_of_the_api_server() {
    for layout in [cgroupfs, systemd] {
        let Some(mut world) = world(&[]) else { return };
        world.add_pod_in("default/client", &layout("01"));
        world.add_pod_in("default/other", &layout("02"));
        let (client, other) = (world.pod("client"), world.pod("other"));
        let _running = (pause(client), pause(other));
        let (api, agent) = cluster(&world);
        for (one, last) in [(client, "01"), (other, "02")] {
            api.put(PODS, pod(one, &uid(last)));
        }
        let rules = json!([
            rule("Allow", "1.2.3.0/24"),
            rule("Deny", "0.0.0.0/0"),
            rule("Allow", "2001:db8:1::/48"),
            rule("Deny", "::/0")
        ]);
        let mut only_client = policy("office", &rules);
        only_client["spec"]["podSelector"] = json!({"matchLabels": {"app": "client"}});
        api.put(POLICIES, only_client.clone());
        let expected = vec![("default/client".to_owned(), client.interface())];
        assert!(eventually(|| endpoints(&agent) == expected), "{:?}\n{}", endpoints(&agent), agent.log());
        for (remote, open) in [("1.2.3.4", true), ("5.6.7.8", false), ("2001:db8:1::4", true), ("2001:db8:2::8", false)]
        {
            assert_eq!(reaches(client, at(remote, 443)), open, "{remote}");
            assert!(reaches(other, at(remote, 443)), "{remote}");
        }
        // §6.3: a broken version changes nothing. §6.4: deleting removes at once.
        let mut broken = only_client.clone();
        broken["spec"]["egress"][0]["too"] = json!({});
        api.put(POLICIES, broken);
        assert!(eventually(|| agent.problems().contains("too")), "{}", agent.problems());
        assert!(!reaches(client, at("5.6.7.8", 443)) && reaches(client, at("1.2.3.4", 443)));
        api.delete(POLICIES, &only_client);
        assert!(eventually(|| reaches(client, at("5.6.7.8", 443)) && reaches(client, at("2001:db8:2::8", 443))));
    }
}

/// §1.6.
#[test]
fn a_service_that_leads_outside_is_refused_where_its_endpoint_is() {
    let Some(mut world) = world(&[]) else { return };
    world.add_pod_in("default/client", &cgroupfs("01"));
    let client = world.pod("client");
    let _running = pause(client);
    let (api, agent) = cluster(&world);
    api.put(PODS, pod(client, &uid("01")));
    for (name, number, endpoints) in
        [("open", 4, ["1.2.3.4", "2001:db8:1::4"]), ("closed", 8, ["5.6.7.8", "2001:db8:2::8"])]
    {
        let addresses = [format!("10.96.0.{number}"), format!("fd00:96::{number}")];
        let spec = json!({"clusterIPs": addresses, "ports": [{"port": 80}]});
        api.put("/api/v1/services", json!({"metadata": {"name": name, "namespace": "default"}, "spec": spec}));
        for (family, endpoint) in endpoints.iter().enumerate() {
            let labels = json!({"kubernetes.io/service-name": name});
            let metadata = json!({"name": format!("{name}-{family}"), "namespace": "default", "labels": labels});
            api.put(
                "/apis/discovery.k8s.io/v1/endpointslices",
                json!({"metadata": metadata, "endpoints": [{"addresses": [endpoint]}], "ports": [{"port": 443}]}),
            );
        }
    }
    let rules = json!([rule("Deny", "5.6.7.0/24"), rule("Deny", "2001:db8:2::/48")]);
    api.put(POLICIES, policy("office", &rules));
    for (to, refused) in [
        (at("10.96.0.8", 80), true),
        (at("fd00:96::8", 80), true),
        (at("10.96.0.8", 81), false),
        (at("10.96.0.4", 80), false),
        (at("fd00:96::4", 80), false),
    ] {
        let is_refused = || client.run(move || probe::tcp(to, probe::SILENCE)).is_refused();
        assert!(eventually(|| is_refused() == refused), "{to} {}", agent.log());
    }
}

/// §1.2.
#[test]
fn deny_by_default_waits_until_it_is_known_what_is_internal() {
    let Some(mut world) = world(&[]) else { return };
    world.add_pod_in("default/client", &cgroupfs("01"));
    let client = world.pod("client");
    let _running = pause(client);
    let api = Api::new(world.node());
    api.put(PODS, pod(client, &uid("01")));
    let config = json!({"metadata": {"name": "default"}, "spec": {"defaultAction": "Deny"}});
    api.put(CONFIGS, config);
    let mut agent = Agent::new(&world);
    agent.in_cluster(api.kubeconfig(world.files()));
    agent.start();
    assert!(agent.problems().contains("defaultAction: Deny is not enforced"), "{}", agent.problems());
    assert!(OUTSIDE.iter().all(|remote| reaches(client, at(remote, 443))));
    let spec = json!({"podCIDRs": ["10.244.0.0/16", "fd00:10:244::/48"]});
    api.put("/api/v1/nodes", json!({"metadata": {"name": "node-a"}, "spec": spec}));
    let spec = json!({"cidrs": ["10.96.0.0/16"]});
    api.put("/apis/networking.k8s.io/v1/servicecidrs", json!({"metadata": {"name": "kubernetes"}, "spec": spec}));
    assert!(eventually(|| OUTSIDE.iter().all(|remote| !reaches(client, at(remote, 443)))), "{}", agent.log());
}

/// §6.5, §6.6: what was in force goes on, also in an agent that was started meanwhile.
#[test]
fn an_agent_that_starts_while_the_api_server_is_away_goes_on_from_what_was_in_force() {
    let Some(mut world) = world(&[]) else { return };
    world.add_pod_in("default/client", &cgroupfs("01"));
    world.add_pod_in("default/late", &cgroupfs("02"));
    let (client, late) = (world.pod("client"), world.pod("late"));
    let _running = pause(client);
    let (api, mut agent) = cluster(&world);
    api.put(PODS, pod(client, &uid("01")));
    api.put(POLICIES, policy("office", &json!([rule("Deny", "5.6.7.0/24"), rule("Deny", "2001:db8:2::/48")])));
    let judged = || !reaches(client, at("5.6.7.8", 443)) && !reaches(client, at("2001:db8:2::8", 443));
    let in_force = || agent.status().is_some_and(|status| status["policies"] == 1 && status["enforced"] == 1);
    assert!(eventually(in_force), "{}", agent.log());
    assert!(judged() && reaches(client, at("1.2.3.4", 443)), "{}", agent.log());
    agent.kill();
    assert!(judged(), "the kernel goes on");
    let kubeconfig = world.files().join("kubeconfig");
    let text = std::fs::read_to_string(&kubeconfig).expect("the kubeconfig");
    let server = text.split('"').find(|part| part.starts_with("http://")).expect("its server").to_owned();
    std::fs::write(&kubeconfig, text.replace(&server, "http://127.0.0.1:1")).expect("the kubeconfig");
    // Its first status says what it goes by.
    agent.start();
    assert!(judged() && reaches(client, at("1.2.3.4", 443)), "{}", agent.log());
    let _late = pause(late);
    let held = || OUTSIDE.iter().all(|remote| late.run(move || probe::tcp(at(remote, 443), PATIENCE)).is_refused());
    assert!(eventually(held), "{}", agent.log());
    assert!(agent.log().contains("going on from what was stored"), "{}", agent.log());
}

/// OpenShift's objects by their own kind, beside one that cannot be read.
#[test]
fn openshifts_objects_are_enforced_as_they_are_and_a_broken_one_is_named() {
    const RESOURCE: &str = "/apis/network.openshift.io/v1/egressnetworkpolicies";
    let Some(mut world) = world(&[]) else { return };
    world.add_pod_in("default/client", &cgroupfs("01"));
    let client = world.pod("client");
    let _running = pause(client);
    let api = Api::new(world.node());
    let mut in_shop = pod(client, &uid("01"));
    in_shop["metadata"]["namespace"] = json!("shop");
    api.put(PODS, in_shop);
    let names = json!({"kind": "EgressNetworkPolicy", "plural": "egressnetworkpolicies"});
    let spec = json!({"group": "network.openshift.io", "names": names, "versions": [{"name": "v1", "served": true}]});
    let definition = json!({"metadata": {"name": "egressnetworkpolicies.network.openshift.io"}, "spec": spec});
    api.put("/apis/apiextensions.k8s.io/v1/customresourcedefinitions", definition);
    let object = |namespace: &str, rules: &Value| {
        json!({"apiVersion": "network.openshift.io/v1", "kind": "EgressNetworkPolicy",
            "metadata": {"name": "default", "namespace": namespace, "generation": 1, "uid": "1"}, "spec": {"egress": rules}})
    };
    let rules = json!([
        rule("Allow", "1.2.3.0/24"),
        rule("Deny", "0.0.0.0/0"),
        rule("Allow", "2001:db8:1::/48"),
        rule("Deny", "::/0")
    ]);
    api.put(RESOURCE, object("shop", &rules));
    api.put(RESOURCE, object("other", &json!([rule("Deny", "nonsense")])));
    // Which OpenShift does not enforce either.
    api.put(RESOURCE, object("default", &rules));
    let mut agent = Agent::new(&world);
    agent.in_cluster(api.kubeconfig(world.files()));
    agent.argument(&["--compat", "openshift"]);
    agent.start();
    let closed = || !reaches(client, at("5.6.7.8", 443)) && !reaches(client, at("2001:db8:2::8", 443));
    assert!(eventually(closed), "{}", agent.log());
    assert!(OUTSIDE.iter().all(|remote| reaches(client, at(remote, 443))), "{}", agent.log());
    let problems = agent.problems();
    assert!(problems.contains("EgressNetworkPolicy other/default") && problems.contains("nonsense"), "{problems}");
    assert!(problems.contains("ignores an EgressNetworkPolicy in the project default"), "{problems}");
    // §6.3: a version that cannot be read leaves the one before in force. §6.4.
    api.put(RESOURCE, object("shop", &json!([rule("Allow", "nonsense")])));
    assert!(eventually(|| agent.problems().contains("EgressNetworkPolicy shop/default")), "{}", agent.problems());
    assert!(closed() && OUTSIDE.iter().all(|remote| reaches(client, at(remote, 443))), "{}", agent.log());
    api.delete(RESOURCE, &object("shop", &rules));
    let open = || reaches(client, at("5.6.7.8", 443)) && reaches(client, at("2001:db8:2::8", 443));
    assert!(eventually(open), "{}", agent.log());
}

#[test]
fn foreign_rules_are_enforced_while_the_cluster_has_their_kind_also_if_it_comes_later() {
    const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
    let Some(mut world) = world(&[]) else { return };
    world.add_pod_in("default/client", &cgroupfs("01"));
    let client = world.pod("client");
    let _running = pause(client);
    let api = Api::new(world.node());
    api.put(PODS, pod(client, &uid("01")));
    let metadata = json!({"name": "default", "namespace": "default"});
    let rules = json!([rule("Allow", "1.2.3.0/24"), rule("Deny", "0.0.0.0/0"), rule("Deny", "::/0")]);
    api.put("/apis/k8s.ovn.org/v1/egressfirewalls", json!({"metadata": metadata, "spec": {"egress": rules}}));
    let mut agent = Agent::new(&world);
    agent.in_cluster(api.kubeconfig(world.files()));
    agent.argument(&["--compat", "openshift,ovn"]);
    agent.start();
    assert!(reaches(client, at("5.6.7.8", 443)), "the cluster does not have the kind");
    let names = json!({"kind": "EgressFirewall", "plural": "egressfirewalls"});
    let spec = json!({"group": "k8s.ovn.org", "names": names, "versions": [{"name": "v1", "served": true}]});
    let definition = json!({"metadata": {"name": "egressfirewalls.k8s.ovn.org"}, "spec": spec});
    api.put(DEFINITIONS, definition.clone());
    let closed = || !reaches(client, at("5.6.7.8", 443)) && !reaches(client, at("2001:db8:2::8", 443));
    assert!(eventually(closed), "{}", agent.log());
    assert!(reaches(client, at("1.2.3.4", 443)));
    api.delete(DEFINITIONS, &definition);
    let open = || reaches(client, at("5.6.7.8", 443)) && reaches(client, at("2001:db8:2::8", 443));
    assert!(eventually(open), "{}", agent.log());
}

/// §1.5.
#[test]
fn pods_in_the_hosts_network_are_never_held_and_are_judged_by_cgroup_if_asked_for() {
    let Some(mut world) = world(&[]) else { return };
    world.add_host_network_pod("default/host-network");
    let client = world.pod("host-network");
    let _running = pause(client);
    let (api, agent) = cluster(&world);
    let remotes = [at("5.6.7.8", 443), at("2001:db8:2::8", 443)];
    assert_eq!(remotes.map(|to| reaches(client, to)), [true; 2], "the API server may be one of them");
    // What the world calls its cgroup.
    let metadata = json!({"name": "host-network", "namespace": "default", "uid": "-default-host-network"});
    let spec = json!({"nodeName": "node-a", "hostNetwork": true});
    api.put(PODS, json!({"metadata": metadata, "spec": spec, "status": {"phase": "Running"}}));
    api.put(POLICIES, policy("office", &json!([rule("Deny", "5.6.7.0/24"), rule("Deny", "2001:db8:2::/48")])));
    assert!(eventually(|| agent.status().is_some_and(|status| status["policies"] == 1)), "{}", agent.log());
    assert_eq!(remotes.map(|to| reaches(client, to)), [true; 2], "hostNetworkPods: Ignore");
    api.put(CONFIGS, json!({"metadata": {"name": "default"}, "spec": {"hostNetworkPods": "Enforce"}}));
    // A connection that begins while the rules change may get no answer instead of a refusal.
    let is_refused = |to| client.run(move || probe::tcp(to, probe::SILENCE)).is_refused();
    assert!(eventually(|| remotes.iter().all(|to| is_refused(*to))), "{}", agent.log());
    assert!(OUTSIDE.iter().all(|remote| reaches(client, at(remote, 443))));
}

/// Of CNI plugins that give pods interfaces without another end on the node (macvlan, ipvlan): found out by the agent, and judged by the
/// pod's cgroup.
#[test]
fn pods_without_an_interface_on_the_node_are_held_and_judged_by_their_cgroup() {
    for kind in [Beside::Macvlan, Beside::Ipvlan] {
        let Some(mut world) = world(&[]) else { return };
        if world.add_pod_beside("default/beside", kind, Some(&cgroupfs("01"))).is_none() {
            eprintln!("SKIPPED: this kernel has no {kind:?}");
            continue;
        }
        let client = world.pod("beside");
        let _running = pause(client);
        let (api, agent) = cluster(&world);
        let found = |name: &str| {
            endpoints(&agent).iter().any(|(known, interface)| known.contains(name) && interface.is_empty())
        };
        assert!(eventually(|| found(&uid("01"))), "{kind:?}: {:?}\n{}", endpoints(&agent), agent.log());
        for remote in OUTSIDE {
            let refused = client.run(move || probe::tcp(at(remote, 443), PATIENCE));
            assert!(refused.is_refused(), "{kind:?}, {remote}: {refused:?}: nobody has told of it");
        }
        api.put(PODS, pod(client, &uid("01")));
        assert!(
            eventually(|| OUTSIDE.iter().all(|remote| reaches(client, at(remote, 443)))),
            "{kind:?} {}",
            agent.log()
        );
        let rules: Vec<Value> = OFFICE
            .iter()
            .map(|text| {
                let (action, cidr) = text.split_once(' ').expect("an action and a CIDR");
                json!({"name": text, "type": action, "to": {"cidrSelector": cidr}})
            })
            .collect();
        api.put(POLICIES, policy("office", &json!(rules)));
        assert!(eventually(|| found("default/beside")), "{kind:?}: {:?}\n{}", endpoints(&agent), agent.log());
        assert_eq!(agent.problems(), "[]", "{kind:?}");
        let mut lab = Lab::with_agent(&world, agent);
        for way in [Way::Tcp, Way::UdpConnected, Way::UdpUnconnected, Way::Ping, Way::RawPing, Way::RawUdp] {
            for family in [0, 1] {
                let (allowing, denying) = RULES[family];
                // The kernel does not tell an IPv6 ping socket of the refusal.
                let silent = way == Way::Ping && ip(DENIED[family]).is_ipv6();
                let refusal = if silent { Outcome::Silence } else { Outcome::Failed(libc::EPERM) };
                lab.insist_allowed(client, way, ALLOWED[family], allowing);
                lab.insist_denied_with(client, way, DENIED[family], denying, refusal);
            }
        }
        // §6.4.
        api.delete(POLICIES, &policy("office", &json!(rules)));
        let open = || DENIED.iter().all(|remote| reaches(client, at(remote, 443)));
        assert!(eventually(open), "{kind:?} {}", lab.agent.log());
    }
}
