//! What it costs to learn from a DNS reply (P11): the query and its reply through the real programs, in turn with the empty program.
//!
//! A reply counts once, so each run is one packet; the kernel's own clock times it. The packets are those of the packet tests' laboratory.

use std::net::IpAddr;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use anyhow::Context as _;
use egress_common::dns::Outcome;
use egress_packets::{Frame, Lab, Setup};

use crate::kernel;
use crate::program;
use crate::results::Dns;
use crate::rounds::{least, median};

/// Replies that are read.
const REPLIES: usize = 20_000;
/// `lo` of the laboratory's namespace, where its pod is known.
const INTERFACE: u32 = 1;
const PORT: u16 = 40_000;
const POLICY: &str = "
apiVersion: egress.rs/v1alpha1
kind: EgressConfig
metadata: {name: default}
spec: {defaultAction: Deny, internalCIDRs: [10.0.0.0/8]}
---
apiVersion: egress.rs/v1alpha1
kind: EgressNetworkPolicy
metadata: {name: p}
spec: {egress: [{type: Allow, to: {dnsName: www.example.com}}]}
";

/// Measures on a thread of its own, because the laboratory has a network namespace of its own.
pub(crate) fn measure() -> anyhow::Result<Dns> {
    std::thread::spawn(run).join().map_err(|_| anyhow::anyhow!("the laboratory failed"))?
}

fn run() -> anyhow::Result<Dns> {
    let mut lab = Lab::with(Setup::default(), POLICY);
    let resolver: IpAddr = "10.96.0.10".parse()?;
    let query = Frame::udp(resolver, 53).from_port(PORT).data(&message(false)).bytes();
    let reply = Frame::udp(resolver, 53).from_port(PORT).turned().data(&message(true)).bytes();
    let (from_pod, to_pod, empty) =
        (program(&mut lab, "tc_from_pod")?, program(&mut lab, "tc_to_pod")?, program::none()?);
    let mut replies = lab.names().take_replies()?;
    let time = |program: BorrowedFd<'_>, packet: &[u8]| {
        kernel::test_run(program, packet, INTERFACE, 1).map(|ran| f64::from(ran.nanoseconds))
    };
    let (mut queries, mut learned, mut none) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..REPLIES {
        none.push(time(empty.as_fd(), &reply)?);
        queries.push(time(from_pod.as_fd(), &query)?);
        learned.push(time(to_pod.as_fd(), &reply)?);
        while replies.next().is_some() {}
    }
    let counted = usize::try_from(lab.dns(Outcome::Learned))?;
    anyhow::ensure!(counted == REPLIES, "{counted} of {REPLIES} replies were learned from");
    let figures = |values: &[f64]| [least(values), median(values)];
    Ok(Dns { learn: figures(&learned), query: figures(&queries), none: figures(&none) })
}

/// A program of the laboratory.
pub(crate) fn program(lab: &mut Lab, name: &str) -> anyhow::Result<OwnedFd> {
    let program = lab.datapath().programs_mut().ebpf_mut().program(name).context("a program")?;
    Ok(program.fd()?.as_fd().try_clone_to_owned()?)
}

/// Three labels; two addresses in the reply.
fn message(is_reply: bool) -> Vec<u8> {
    let mut bytes = vec![0x12, 0x34, if is_reply { 0x81 } else { 1 }, if is_reply { 0x80 } else { 0 }, 0, 1];
    bytes.extend([0, if is_reply { 2 } else { 0 }, 0, 0, 0, 0]);
    bytes.extend(b"\x03www\x07example\x03com\0\0\x01\0\x01");
    let answers: &[u8] = if is_reply { &[1, 2] } else { &[] };
    for last in answers.iter().copied() {
        bytes.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 1, 44, 0, 4, 192, 0, 2, last]);
    }
    bytes
}
