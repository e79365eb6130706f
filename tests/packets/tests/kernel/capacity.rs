//! Maps that are too small or damaged: what is said, and what stays in force.

use std::sync::Arc;

use aya::maps::{Array, ArrayOfMaps, MapData};
use egress_agent::datapath::{Applied, Capacity, Desired, DesiredEndpoint};
use egress_common::abi::map;
use egress_common::event::Hook;
use egress_common::reason::DropReason;
use egress_common::table::{Counter, TableInfo, flag};
use egress_packets::{CGROUP_POD, Expect, Frame, Hooks, Lab, Policies, Setup, TC_POD, is_root, trie_from};
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

use crate::sides::{DEFAULT, DENY_ALL, POLICY, SIDES};

fn sized(capacity: Capacity) -> Setup {
    Setup { capacity, ..Setup::default() }
}

fn small() -> Capacity {
    Setup::default().capacity
}

fn message(applied: &Applied) -> &str {
    let [problem, ..] = applied.problems.as_slice() else { panic!("no problem: {applied:?}") };
    &problem.message
}

#[test]
fn rules_share_two_counters_where_there_is_no_room_for_one_each() {
    if !is_root() {
        return;
    }
    let mut lab = Lab::with(sized(Capacity { rule_counters: 4, ..small() }), POLICY);
    let info = lab.table_info();
    assert_eq!(info.flags & flag::SHARED_COUNTERS, flag::SHARED_COUNTERS);
    let mut counts = [0, 0];
    for side in SIDES {
        for (frame, denied) in
            [(Frame::syn(side.open, 1), 0), (Frame::syn(side.ports, 443), 0), (Frame::syn(side.shut, 1), 1)]
        {
            let bytes = frame.bytes();
            let seen = lab.send(Hook::TcFromPod, &bytes);
            counts[denied] += 1;
            assert_eq!(seen.counted, [(u32::try_from(denied).expect("0 or 1"), 1, bytes.len() as u64 - 14)]);
            assert_eq!(seen.action, if denied == 1 { 2 } else { -1 });
            // The event still names the rule.
            let ranks: Vec<u32> = seen.events.iter().map(|event| event.rank).collect();
            assert_eq!(ranks, if denied == 1 { vec![lab.policies().rank(DEFAULT)] } else { vec![] });
        }
    }
    let inspector = egress_agent::datapath::inspect::Inspector::open(lab.bpffs()).expect("pins");
    let packets: Vec<u64> =
        inspector.rule_counters(&info).expect("counters").iter().map(|counter| counter.packets).collect();
    assert_eq!(packets, counts);
}

#[test]
fn a_new_table_starts_with_counters_at_zero() {
    if !is_root() {
        return;
    }
    let mut lab = Lab::new(POLICY);
    for _ in 0..3 {
        lab.check("allowed", Hooks::Both, &Frame::syn(SIDES[0].open, 1).bytes(), Expect::Allow(SIDES[0].open_rule));
        lab.check("denied", Hooks::Both, &Frame::syn(SIDES[1].shut, 1).bytes(), Expect::Deny(DEFAULT));
        lab.apply(DENY_ALL);
        lab.apply(POLICY);
        let inspector = egress_agent::datapath::inspect::Inspector::open(lab.bpffs()).expect("pins");
        let counters = inspector.rule_counters(&lab.table_info()).expect("counters");
        assert!(counters.iter().all(|counter| *counter == Counter::default()), "{counters:?}");
    }
}

/// Counted here from the map itself: the processor's number leads to its part of the array, the table and the rule to the place in it.
fn counted(lab: &Lab, processors: &[usize], rule: &str) -> Vec<u64> {
    let counters: Array<MapData, [u8; size_of::<Counter>()]> = lab.map(map::RULE_COUNTERS);
    let each = counters.len() / u32::try_from(aya::util::nr_cpus().expect("processors")).expect("few");
    let at = lab.table_info().counter_base + lab.policies().rank(rule);
    let packets = |processor: &usize| {
        let index = u32::try_from(*processor).expect("few") * each + at;
        let counter: Counter = zerocopy::transmute!(counters.get(&index, 0).expect("a counter"));
        counter.packets
    };
    processors.iter().map(packets).collect()
}

#[test]
fn each_processor_counts_in_its_own_part_and_all_are_added_up_and_cleared() {
    if !is_root() {
        return;
    }
    let mut lab = Lab::new(POLICY);
    // The laboratory may have had these rules for another test.
    lab.apply(DENY_ALL);
    lab.apply(POLICY);
    let mine = Pid::from_raw(0);
    let may = sched_getaffinity(mine).expect("processors");
    let processors: Vec<usize> =
        (0..CpuSet::count()).filter(|number| may.is_set(*number).expect("its number")).collect();
    let frames = [(SIDES[0].open, SIDES[0].open_rule), (SIDES[1].shut, DEFAULT)];
    for (times, processor) in (1..).zip(&processors) {
        let mut only = CpuSet::new();
        only.set(*processor).expect("its number");
        sched_setaffinity(mine, &only).expect("one of those that it has");
        for _ in 0..times {
            for (to, _) in frames {
                lab.send(Hook::TcFromPod, &Frame::syn(to, 1).bytes());
            }
        }
    }
    let expected: Vec<u64> = (1..).take(processors.len()).collect();
    let inspector = egress_agent::datapath::inspect::Inspector::open(lab.bpffs()).expect("pins");
    for (_, rule) in frames {
        assert_eq!(counted(&lab, &processors, rule), expected, "{rule}");
        let sum = inspector.rule_counter(&lab.table_info(), lab.policies().rank(rule)).expect("counters");
        assert_eq!(sum.map(|counter| counter.packets), Some(expected.iter().sum()), "{rule}");
    }
    lab.apply(DENY_ALL);
    lab.apply(POLICY);
    for (_, rule) in frames {
        assert_eq!(counted(&lab, &processors, rule), vec![0; processors.len()], "{rule}");
    }
}

#[test]
fn without_room_for_two_counters_a_table_is_refused_with_its_numbers() {
    if !is_root() {
        return;
    }
    let setup = sized(Capacity { rule_counters: 1, ..small() });
    let policies = Policies::compile([POLICY], &setup.pod, &setup.node);
    let Err(error) = Lab::of(setup, policies) else { panic!("there is no room") };
    let text = error.to_string();
    assert!(text.contains("rule counters is full: 2 needed, 1 there"), "{text}");
}

#[test]
fn where_no_table_is_free_the_old_one_stays_in_force() {
    if !is_root() {
        return;
    }
    let mut lab = Lab::with(sized(Capacity { tables: 1, ..small() }), POLICY);
    let before = lab.table();
    let applied = lab.apply(DENY_ALL);
    assert!(message(&applied).contains("the table map is full: 2 needed, 1 there"), "{}", message(&applied));
    assert_eq!(
        applied.problems.iter().map(|problem| problem.endpoint.as_str()).collect::<Vec<_>>(),
        [TC_POD, CGROUP_POD]
    );
    assert_eq!(lab.table(), before);
    for side in SIDES {
        lab.check(&side.row("allowed"), Hooks::Both, &Frame::syn(side.open, 1).bytes(), Expect::Allow(side.open_rule));
        lab.check(&side.row("denied"), Hooks::Both, &Frame::syn(side.shut, 1).bytes(), Expect::Deny(DEFAULT));
    }
}

#[test]
fn one_pod_too_many_is_named_and_the_others_stay_judged() {
    if !is_root() {
        return;
    }
    let mut lab = Lab::with(sized(Capacity { endpoints: 2, ..small() }), POLICY);
    let pod = |name: &str| DesiredEndpoint {
        is_resolver: false,
        name: name.to_owned(),
        interface: None,
        netns: None,
        namespace: None,
        cgroup: None,
        table: Arc::clone(&lab.policies().table),
        fallback: None,
    };
    let endpoints = vec![pod(TC_POD), pod(CGROUP_POD), pod("default/third")];
    let applied = lab.apply_desired(&Desired { endpoints, events_per_second: 1_000_000, ..Desired::default() });
    assert_eq!(applied.problems.len(), 1, "{applied:?}");
    assert_eq!(applied.problems[0].endpoint, "default/third");
    assert!(message(&applied).contains("the endpoint map is full: 3 needed, 2 there"), "{}", message(&applied));
    assert_eq!(lab.datapath().table_of("default/third"), None);
    assert!(lab.datapath().table_of(TC_POD).is_some());
}

/// Takes the inner map out of a table's slot, as no agent does while it is published.
fn remove(lab: &Lab, name: &str) {
    const BPF_MAP_DELETE_ELEM: libc::c_long = 3;
    use std::os::fd::{AsFd as _, AsRawFd as _};
    let outer: ArrayOfMaps<MapData> = lab.map(name);
    let slot = lab.table().slot;
    let _ = &outer;
    let path = lab.bpffs().join(format!("abi-{}", egress_common::abi::VERSION)).join("maps").join(name);
    let data = MapData::from_pin(path).expect("a pin");
    let attributes = [u64::from(data.fd().as_fd().as_raw_fd().unsigned_abs()), (&raw const slot).addr() as u64, 0, 0];
    // SAFETY: descriptor and key live through the call; the head of `union bpf_attr` is map, padding, key, value, flags.
    let status =
        unsafe { libc::syscall(libc::SYS_bpf, BPF_MAP_DELETE_ELEM, attributes.as_ptr(), size_of_val(&attributes)) };
    assert_eq!(status, 0, "{name}: {}", std::io::Error::last_os_error());
}

#[test]
fn a_missing_prefix_map_drops_everything_of_its_family() {
    if !is_root() {
        return;
    }
    // A pool of tries has both families: see `tries/pools.rs`.
    if trie_from() == 0 {
        return;
    }
    for (name, [hit, other]) in [(map::TABLES4, SIDES), (map::TABLES6, [SIDES[1], SIDES[0]])] {
        let mut lab = Lab::with(Setup::default(), POLICY);
        remove(&lab, name);
        let missing = Expect::Drop(DropReason::NoTable);
        for to in [hit.open, hit.ports, hit.shut, hit.inside] {
            lab.check(&hit.row(name), Hooks::Both, &Frame::syn(to, 443).bytes(), missing);
            lab.check(&hit.row(name), Hooks::Both, &Frame::later(to, 17, 1, 5).bytes(), missing);
        }
        lab.check(&other.row(name), Hooks::Both, &Frame::syn(other.open, 443).bytes(), Expect::Allow(other.open_rule));
        lab.check(&other.row(name), Hooks::Both, &Frame::syn(other.shut, 443).bytes(), Expect::Deny(DEFAULT));
    }
}

#[test]
fn missing_classes_drop_what_depends_on_ports() {
    if !is_root() {
        return;
    }
    let mut lab = Lab::with(Setup::default(), POLICY);
    remove(&lab, map::CLASSES);
    for side in SIDES {
        let row = side.row("no classes");
        lab.check(&row, Hooks::Both, &Frame::syn(side.ports, 443).bytes(), Expect::Drop(DropReason::NoTable));
        let unknown = Expect::Drop(DropReason::UnknownFragment);
        lab.check(&row, Hooks::Both, &Frame::later(side.ports, 17, 1, 5).bytes(), unknown);
        lab.check(&row, Hooks::Both, &Frame::syn(side.open, 443).bytes(), Expect::Allow(side.open_rule));
    }
}

#[test]
fn a_slot_that_holds_another_table_version_drops_everything() {
    if !is_root() {
        return;
    }
    let mut lab = Lab::with(Setup::default(), POLICY);
    let mut infos: Array<MapData, [u8; size_of::<TableInfo>()]> = lab.map(map::TABLE_INFO);
    let info = lab.table_info();
    let other: [u8; size_of::<TableInfo>()] =
        zerocopy::transmute!(TableInfo { generation: info.generation + 1, ..info });
    infos.set(lab.table().slot, other, 0).expect("written");
    for side in SIDES {
        for to in [side.open, side.shut, side.inside] {
            lab.check(
                &side.row("other version"),
                Hooks::Both,
                &Frame::syn(to, 443).bytes(),
                Expect::Drop(DropReason::NoTable),
            );
        }
    }
}

/// Room for few connections: the oldest are forgotten, which cuts replies and never opens anything.
#[test]
fn more_connections_than_fit_are_forgotten_and_not_let_through() {
    if !is_root() {
        return;
    }
    let mut lab = Lab::with(sized(Capacity { flows: 64, ..small() }), POLICY);
    let mut replies = 0;
    for port in 1..2000 {
        let question = Frame::udp(SIDES[0].shut, port).turned().bytes();
        lab.run(Hook::TcToPod, &question).expect("a run");
    }
    for port in 1..2000 {
        let (action, _) = lab.run(Hook::TcFromPod, &Frame::udp(SIDES[0].shut, port).bytes()).expect("a run");
        replies += u32::from(action == u32::MAX);
    }
    assert!((1..2000).contains(&replies), "{replies}");
    let (action, _) = lab.run(Hook::TcFromPod, &Frame::udp(SIDES[0].shut, 2001).bytes()).expect("a run");
    assert_eq!(action, 2);
}
