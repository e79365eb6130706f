//! Tables that are swapped while packets are under way: each packet meets the old one or the new one, never the place where the
//! old one was (§6.1).

use egress_common::reason::DropReason;
use egress_packets::{Expect, Frame, Hooks, Lab, Setup, is_root};

use crate::sides::{DEFAULT, DENY_ALL, POLICY, SIDES};

const PASS: u32 = u32::MAX;
const DROP: u32 = 2;
const SWAPS: usize = 150;

#[test]
fn no_packet_finds_its_table_gone_while_tables_are_swapped() {
    if !is_root() {
        return;
    }
    // The same verdicts by other rules at other places.
    let other = POLICY.replace("  egress:\n", "  egress:\n  - {type: Deny, to: {cidrSelector: 9.9.0.0/16}}\n");
    let mut lab = Lab::with(Setup { events_per_second: 1, ..Setup::default() }, POLICY);
    let frames =
        SIDES.map(|side| [(Frame::syn(side.open, 1).bytes(), PASS), (Frame::syn(side.shut, 1).bytes(), DROP)]).concat();
    let storms = lab.storm(&frames, |lab| {
        for swap in 1..=SWAPS {
            let applied = lab.apply(if swap % 2 == 0 { POLICY } else { &other });
            assert_eq!((applied.tables_built, applied.tables_freed), (1, 1));
        }
    });
    assert!(storms.iter().all(|storm| storm.packets > 0 && storm.others == 0), "{storms:?}");
    assert_eq!(lab.dropped(DropReason::NoTable), 0, "{storms:?}");
}

#[test]
fn a_table_that_an_agent_cannot_describe_is_used_until_its_pods_have_another_and_never_overwritten() {
    if !is_root() {
        return;
    }
    let mut lab = Lab::with(Setup::default(), POLICY);
    let before = lab.table();
    let description = lab.bpffs().join(format!("abi-{}/tables/{}", egress_common::abi::VERSION, before.slot));
    std::fs::remove_file(description).expect("a description");
    lab.reopen();
    for side in SIDES {
        lab.check("before", Hooks::Both, &Frame::syn(side.open, 1).bytes(), Expect::Allow(side.open_rule));
    }
    let applied = lab.apply(DENY_ALL);
    assert_eq!((applied.tables_built, applied.tables), (1, 1));
    assert_ne!(lab.table().slot, before.slot, "the slot was in use");
    for side in SIDES {
        lab.check("after", Hooks::Both, &Frame::syn(side.open, 1).bytes(), Expect::Deny(DEFAULT));
    }
    lab.apply(POLICY);
    assert_eq!(lab.table().slot, before.slot, "the slot is free again");
}
