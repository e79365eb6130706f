//! Events are limited per endpoint and rule, and what is not written is counted (§7.3).

use std::time::{Duration, Instant};

use egress_common::event::{Event, Hook, Stat};
use egress_packets::{Frame, Lab, Setup, is_root};

use crate::sides::{POLICY, SIDES};

const PER_SECOND: u32 = 5;
/// More events than fit into the ring.
const SENT: u64 = 12_000;

fn limited() -> Lab {
    Lab::with(Setup { events_per_second: PER_SECOND, ..Setup::default() }, POLICY)
}

fn send(lab: &mut Lab, hook: Hook, frame: &Frame, times: usize) {
    for _ in 0..times {
        lab.run(hook, &frame.bytes()).expect("a run");
    }
}

#[test]
fn more_events_than_allowed_are_counted_and_told_with_the_next_one() {
    if !is_root() {
        return;
    }
    for side in SIDES {
        let mut lab = limited();
        let frame = Frame::syn(side.shut, 80);
        let mut sent = 40;
        let mut told = Vec::new();
        send(&mut lab, Hook::TcFromPod, &frame, 40);
        told.extend(lab.events());
        // A new second may have begun meanwhile.
        assert!(told.len() >= PER_SECOND as usize && told.len() <= 3 * PER_SECOND as usize, "{}", told.len());
        // Later ones carry the repeats, so that none is missing in the end.
        let deadline = Instant::now() + Duration::from_secs(30);
        while told.iter().map(|event| 1 + u64::from(event.repeats)).sum::<u64>() < sent {
            assert!(Instant::now() < deadline, "{told:?}");
            send(&mut lab, Hook::TcFromPod, &frame, 1);
            sent += 1;
            told.extend(lab.events());
        }
        assert_eq!(told.iter().map(|event| 1 + u64::from(event.repeats)).sum::<u64>(), sent);
        let repeats: u64 = told.iter().map(|event| u64::from(event.repeats)).sum();
        assert!(repeats >= 20, "{repeats}");
        assert!(lab.stat(Stat::EventsLimited) >= repeats);
        assert_eq!(lab.stat(Stat::EventsLost), 0);
    }
}

#[test]
fn every_rule_reason_and_endpoint_has_its_own_limit() {
    if !is_root() {
        return;
    }
    let mut lab = limited();
    let loud = Frame::syn(SIDES[0].shut, 80);
    send(&mut lab, Hook::TcFromPod, &loud, 40);
    let first = lab.events();
    let id = |event: &Event| (event.endpoint, event.rank, event.reason);
    assert!(first.iter().all(|event| id(event) == id(&first[0])));
    // The same rule from another endpoint, and another reason, are heard at once.
    send(&mut lab, Hook::CgroupEgress, &loud, 1);
    send(&mut lab, Hook::TcFromPod, &Frame::later(SIDES[0].ports, 17, 1, 3), 1);
    send(&mut lab, Hook::TcFromPod, &loud, 1);
    let heard: Vec<_> = lab.events().iter().map(id).filter(|event| *event != id(&first[0])).collect();
    assert_eq!(heard.len(), 2, "{heard:?}");
    // So is the same rule in another table.
    lab.apply(&POLICY.replace("1.2.3.0/24", "1.2.4.0/24"));
    send(&mut lab, Hook::TcFromPod, &loud, 1);
    let told = lab.events();
    assert_eq!((told.len(), told[0].generation), (1, lab.table().generation), "{told:?}");
}

#[test]
fn events_that_find_the_ring_full_are_counted_as_lost() {
    if !is_root() {
        return;
    }
    let mut lab = Lab::new(POLICY);
    let frame = Frame::syn(SIDES[0].shut, 80);
    send(&mut lab, Hook::TcFromPod, &frame, usize::try_from(SENT).expect("small"));
    let lost = lab.stat(Stat::EventsLost);
    let told = lab.events();
    assert!(lost > 0 && !told.is_empty());
    assert_eq!(told.len() as u64 + lost, SENT);
    assert_eq!(lab.stat(Stat::EventsLimited), 0);
    // With room again, they are heard again.
    send(&mut lab, Hook::TcFromPod, &frame, 3);
    assert_eq!(lab.events().len(), 3);
    assert_eq!(lab.stat(Stat::EventsLost), lost);
}

#[test]
fn a_busy_destination_hides_no_other_from_audit_and_hides_it_from_refusals() {
    if !is_root() {
        return;
    }
    for (audit, sides) in [(true, [0, 1]), (false, [0, 0])] {
        let mut lab = limited();
        if audit {
            let config = POLICY.replace("spec: {defaultAction", "spec: {enforcement: Audit, defaultAction");
            assert_ne!(config, POLICY);
            lab.apply(&config);
        }
        for side in sides.map(|side| &SIDES[side]) {
            let others = (1_u16..=20).map(|port| Frame::syn(side.shut, 8000 + port));
            send(&mut lab, Hook::TcFromPod, &Frame::syn(side.shut, 80), 100);
            lab.events();
            let heard: std::collections::BTreeSet<[u8; 2]> = others
                .flat_map(|frame| {
                    send(&mut lab, Hook::TcFromPod, &frame, 1);
                    lab.events()
                })
                .map(|event| event.remote_port)
                .collect();
            // Destinations share a limit only where their hashes are equal; a refusal may be heard when a second begins.
            if audit {
                assert!(heard.len() >= 18, "{heard:?}");
            } else {
                assert!(heard.len() <= 2 * PER_SECOND as usize, "{heard:?}");
            }
        }
    }
}
