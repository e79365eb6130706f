//! Programs that come to an interface and go from it.

use aya::programs::{SchedClassifier, TcAttachType};
use aya::util::KernelVersion;
use egress_agent::datapath::Desired;
use egress_packets::{Lab, Setup, is_root};

use crate::shortcuts::endpoint;
use crate::sides::DENY_ALL;

const DIRECTIONS: [TcAttachType; 2] = [TcAttachType::Ingress, TcAttachType::Egress];

/// Programs on the loopback, in and out.
fn on_loopback() -> [usize; 2] {
    DIRECTIONS.map(|direction| SchedClassifier::query_tcx("lo", direction).expect("a query").1.len())
}

#[test]
fn an_interface_whose_programs_were_just_taken_off_gets_them_again_at_once() {
    if !is_root() {
        return;
    }
    let mut lab = Lab::with(Setup::default(), DENY_ALL);
    // Before 6.6 there is nothing to ask, and nothing that goes late.
    let has_tcx = KernelVersion::current().expect("a version") >= KernelVersion::new(6, 6, 0);
    let on = Desired { endpoints: vec![endpoint("default/first", "lo", 1, DENY_ALL)], ..Desired::default() };
    for round in 0..10 {
        for desired in [&Desired::default(), &on] {
            let applied = lab.apply_desired(desired);
            assert!(applied.problems.is_empty(), "round {round}: {applied:?}");
        }
        assert!(!has_tcx || on_loopback() == [1, 1], "round {round}: {:?}", on_loopback());
    }
    lab.apply_desired(&Desired::default());
    let gone = std::iter::repeat_with(|| std::thread::sleep(std::time::Duration::from_millis(10)));
    assert!(!has_tcx || gone.take(500).any(|()| on_loopback() == [0, 0]), "{:?}", on_loopback());
}
