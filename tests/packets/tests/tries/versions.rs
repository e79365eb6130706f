//! The next version of a long list in the kernel: what is new in it is written, and packets are judged by all of it.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use aya::maps::{ArrayOfMaps, MapData};
use egress_agent::datapath::DesiredTable;
use egress_agent::datapath::inspect::Inspector;
use egress_common::abi::map;
use egress_packets::{Expect, Frame, Hooks, Lab, Policies, Setup, is_root};
use egress_policy::compile::Limits;
use egress_policy::document::{self, Object};
use egress_policy::follow::{Followed, Next};
use egress_policy::model::{NodeContext, PodIdentity, PolicySet};

use crate::sides::{DEFAULT, DENY_ALL, POLICY, SIDES};

/// Rules with a port, each about an address of its own.
const RULES: usize = 1500;

/// The rule `number`: for some, the port depends on the version.
fn rule(number: usize, version: usize) -> (IpAddr, usize) {
    let changes = number % 300 == version % 300;
    let address = Ipv4Addr::from(u32::from(Ipv4Addr::new(20, 0, 0, 1)) + u32::try_from(number * 2311).expect("small"));
    (address.into(), if changes { 2000 + version } else { 1000 })
}

/// All rules: every version takes away the rule that the one before it has added, and adds one in front, in the middle or at the end.
fn rules(version: usize) -> Vec<(IpAddr, usize)> {
    let mut rules: Vec<_> = (0..RULES).map(|number| rule(number, version)).collect();
    let own = Ipv4Addr::new(30, 0, 0, u8::try_from(version).expect("small"));
    rules.insert([0, RULES / 2, RULES][version % 3], (own.into(), 3000 + version));
    rules
}

fn policies(version: usize) -> PolicySet {
    let mut text = format!(
        "{DENY_ALL}---\napiVersion: egress.rs/v1alpha1\nkind: EgressNetworkPolicy\nmetadata: {{name: p}}\nspec:\n  egress:\n"
    );
    for (address, port) in rules(version) {
        let ports = format!("[{{protocol: TCP, port: {port}}}]");
        writeln!(text, "  - {{type: Allow, to: {{cidrSelector: {address}/32}}, ports: {ports}}}").expect("a string");
    }
    let mut set = PolicySet::default();
    for object in document::read(&text).objects {
        match object {
            Object::Policy(policy) => drop(set.insert(policy)),
            Object::Config(config) => set.config = config,
            Object::Namespace { .. } => {}
        }
    }
    set
}

fn applied(lab: &mut Lab, followed: &Followed) {
    let (list, dns) = (Arc::clone(followed.list()), lab.policies().dns.clone());
    let rules = list.as_ref().clone();
    let table = DesiredTable::new(list, followed.fingerprint(), followed.table(), false);
    let applied = lab.apply_policies(Policies { rules, table: Arc::new(table), dns });
    assert!(applied.problems.is_empty(), "{applied:?}");
}

/// Id of the class array of the pods' table.
fn class_array(lab: &Lab) -> u32 {
    let outer: ArrayOfMaps<MapData> = lab.map(map::CLASSES);
    let array: MapData = outer.get(&lab.table().slot, 0).expect("a class array");
    array.info().expect("its constants").id()
}

/// Slots with a class array.
fn taken(lab: &Lab) -> usize {
    let outer: ArrayOfMaps<MapData> = lab.map(map::CLASSES);
    (0..64).filter(|slot| outer.get(slot, 0).is_ok()).count()
}

#[test]
fn rules_that_are_exchanged_one_after_another_are_in_force_one_after_another() {
    if !is_root() {
        return;
    }
    let (pod, node) = (PodIdentity { namespace: "default".into(), ..PodIdentity::default() }, NodeContext::default());
    let mut lab = Lab::with(Setup::default(), DENY_ALL);
    let start = |set: &PolicySet| {
        let selection = set.selected(&pod);
        let list = set.rule_list_of(&selection, &node).with_vacancies(Limits::default().rules);
        Followed::new(list, set, &selection, &Limits::default()).expect("it fits").0
    };
    let mut followed = start(&policies(0));
    applied(&mut lab, &followed);
    let (mut arrays, mut shared) = (vec![class_array(&lab)], 0);
    for version in 1..12 {
        let set = policies(version);
        let Next::Changed(next) = followed.follow(&set, &set.selected(&pod), &node) else { panic!("few rules") };
        followed = next;
        applied(&mut lab, &followed);
        shared += usize::from(arrays.contains(&class_array(&lab)));
        arrays.push(class_array(&lab));
        for (number, (address, port)) in rules(version).into_iter().enumerate() {
            let is_other = port != 1000;
            if !is_other && number % 211 != 0 {
                continue;
            }
            let origin = format!("rule {} of default/p", number + 1);
            let row = format!("version {version}, {address}");
            let port = u16::try_from(port).expect("a port");
            lab.check(&row, Hooks::Both, &Frame::syn(address, port).bytes(), Expect::Allow(&origin));
            lab.check(&row, Hooks::Both, &Frame::syn(address, port + 1).bytes(), Expect::Deny(DEFAULT));
        }
        // What the version before had added is gone.
        let gone = Ipv4Addr::new(30, 0, 0, u8::try_from(version - 1).expect("small"));
        let port = u16::try_from(3000 + version - 1).expect("a port");
        lab.check("gone", Hooks::Both, &Frame::syn(gone.into(), port).bytes(), Expect::Deny(DEFAULT));
        if version == 6 {
            lab.reopen();
            assert_eq!(taken(&lab), 1, "another agent does not know what is ready");
        }
    }
    // The next agent does not know what is behind the classes in use, and makes an array of its own.
    assert!(shared >= 8, "{arrays:?}");
    // The one in force, and one that is ready for its next version.
    assert_eq!(taken(&lab), 2);
    // Back to something small, and to the start.
    lab.apply(POLICY);
    assert_eq!(taken(&lab), 1);
    lab.check("small", Hooks::Both, &Frame::syn(SIDES[0].open, 1).bytes(), Expect::Allow(SIDES[0].open_rule));
    applied(&mut lab, &start(&policies(0)));
    let (address, port) = rules(0)[0];
    let frame = Frame::syn(address, u16::try_from(port).expect("a port"));
    lab.check("again", Hooks::Both, &frame.bytes(), Expect::Allow("rule 1 of default/p"));
}

/// An agent that died after it had published a table and before it had described it.
#[test]
fn a_table_without_its_description_judges_until_the_next_agent_has_another() {
    if !is_root() {
        return;
    }
    let mut lab = Lab::with(Setup::default(), POLICY);
    let before = lab.table();
    let described = |lab: &Lab| {
        let inspector = Inspector::open(lab.bpffs()).expect("pins");
        let tables = inspector.tables(false).expect("tables");
        tables.iter().map(|table| (table.reference, table.description.is_some())).collect::<Vec<_>>()
    };
    assert_eq!(described(&lab), [(before, true)]);
    let pin = lab.bpffs().join(format!("abi-{}/tables/{}", egress_common::abi::VERSION, before.slot));
    std::fs::remove_file(&pin).expect("a pin");
    assert_eq!(described(&lab), [(before, false)]);
    lab.reopen();
    assert_eq!((lab.table(), described(&lab)), (before, vec![(before, false)]));
    for side in SIDES {
        lab.check(&side.row("no description"), Hooks::Both, &Frame::syn(side.shut, 1).bytes(), Expect::Deny(DEFAULT));
        let allowed = Expect::Allow(side.open_rule);
        lab.check(&side.row("no description"), Hooks::Both, &Frame::syn(side.open, 1).bytes(), allowed);
    }
    lab.apply(POLICY);
    assert_ne!(lab.table(), before);
    assert_eq!(described(&lab), [(lab.table(), true)]);
    for side in SIDES {
        lab.check(&side.row("after"), Hooks::Both, &Frame::syn(side.shut, 1).bytes(), Expect::Deny(DEFAULT));
        lab.check(&side.row("after"), Hooks::Both, &Frame::syn(side.open, 1).bytes(), Expect::Allow(side.open_rule));
    }
}
