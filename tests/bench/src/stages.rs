//! Where the nanoseconds of a packet go: packets that get one step further each, through the real programs, hot.
//!
//! A row's step is its time less that of the row it builds on. Rounds of all packets are interleaved, so that whatever else the machine
//! does meets every row alike; the figures are the least of the rounds.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsFd as _, OwnedFd};
use std::process::Command;

use anyhow::Context as _;
use egress_packets::{Frame, Lab, Setup, tcp_flag};
use serde::Serialize;

use crate::dns::program;
use crate::rounds::{Effort, least};
use crate::{kernel, program};

/// `lo` of the laboratory's namespace, where its pod is known.
const POD: u32 = 1;
/// An interface of nobody.
const NOBODY: u32 = 77;
/// Prefixes beside those that packets are sent to, so that the tables are tries.
const PREFIXES: u32 = 2000;
/// Runs of a packet in a round.
const RUNS: u32 = 20_000;

/// What a packet is sent to, in both families.
#[derive(Clone, Copy)]
enum To {
    /// Internal: allowed by the table's first prefixes.
    Internal,
    /// Allowed by a rule without ports.
    Plain,
    /// Allowed by a rule with ports.
    Ports,
    /// An address that a name was learned for.
    Named,
    /// Denied.
    Denied,
}

impl To {
    fn address(self, is_v6: bool) -> IpAddr {
        let last = match self {
            Self::Internal => 1,
            Self::Plain => 2,
            Self::Ports => 3,
            Self::Named => 4,
            Self::Denied => 5,
        };
        match (self, is_v6) {
            (Self::Internal, false) => Ipv4Addr::new(10, 0, 0, last).into(),
            (_, false) => Ipv4Addr::new(198, 51, last, 9).into(),
            (Self::Internal, true) => Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, last.into()).into(),
            (_, true) => Ipv6Addr::new(0x2001, 0xdb8, last.into(), 0, 0, 0, 0, 9).into(),
        }
    }
}

/// One packet and the row that it goes a step further than.
struct Probe {
    adds: &'static str,
    packet: &'static str,
    builds_on: Option<usize>,
    program: &'static str,
    bytes: Vec<u8>,
    interface: u32,
}

/// One row.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Step {
    /// What this packet has more than the one it builds on.
    pub(crate) adds: &'static str,
    /// The packet.
    pub(crate) packet: &'static str,
    /// The program.
    pub(crate) program: &'static str,
    /// Nanoseconds of the whole program.
    pub(crate) total: f64,
    /// Nanoseconds of the step.
    pub(crate) more: f64,
}

/// Policies with `PREFIXES` prefixes and the destinations; with names too if asked.
fn policies(names: bool) -> String {
    let prefix = |number: u32| format!("172.{}.{}.0/24", 16 + (number >> 8), number & 255);
    let prefix6 = |number: u32| format!("2001:db8:{:x}::/48", 0x100 + number);
    let mut text = String::from(
        "apiVersion: egress.rs/v1alpha1\nkind: EgressConfig\nmetadata: {name: default}\n\
         spec: {defaultAction: Deny, internalCIDRs: [10.0.0.0/8, 'fd00::/8']}\n---\n\
         apiVersion: egress.rs/v1alpha1\nkind: EgressNetworkPolicy\nmetadata: {name: p}\nspec:\n  egress:\n",
    );
    for cidr in ["198.51.2.0/24", "2001:db8:2::/48"] {
        let _ = writeln!(text, "  - {{type: Allow, to: {{cidrSelector: '{cidr}'}}}}");
    }
    for cidr in ["198.51.3.0/24", "2001:db8:3::/48"] {
        let _ = writeln!(
            text,
            "  - {{type: Allow, to: {{cidrSelector: '{cidr}'}}, ports: [{{protocol: TCP, port: 443}}, {{protocol: UDP, port: 443}}]}}"
        );
    }
    if names {
        text.push_str("  - {type: Allow, to: {dnsName: www.example.com}}\n");
    }
    for number in 0..PREFIXES {
        for cidr in [prefix(number), prefix6(number)] {
            let _ = writeln!(text, "  - {{type: Allow, to: {{cidrSelector: '{cidr}'}}}}");
        }
    }
    text
}

fn arp() -> Vec<u8> {
    let mut frame = vec![2; 12];
    frame.extend([8, 6]);
    frame.extend([0; 28]);
    frame
}

/// The packets that meet a table without names.
fn probes(is_v6: bool) -> Vec<Probe> {
    let probe =
        |adds, packet, builds_on, program, bytes| Probe { adds, packet, builds_on, program, bytes, interface: POD };
    let segment = |to: To| Frame::tcp(to.address(is_v6), 443, tcp_flag::ACK).bytes();
    let udp = |to: To| Frame::udp(to.address(is_v6), 443).bytes();
    let from = "tc_from_pod";
    vec![
        probe("the hook itself", "empty program", None, "", arp()),
        Probe { interface: NOBODY, ..probe("endpoint: none", "interface of no pod", Some(0), from, arp()) },
        probe("endpoint, Ethernet header", "ARP", Some(0), from, arp()),
        probe(
            "long parser, prefix, counter",
            "protocol 47, internal",
            Some(2),
            from,
            Frame::protocol(To::Internal.address(is_v6), 47).bytes(),
        ),
        probe("endpoint, short parser, prefix", "TCP segment, internal", Some(0), from, segment(To::Internal)),
        probe("not internal", "TCP segment, no ports in its rule", Some(4), from, segment(To::Plain)),
        probe("class of ports", "TCP segment, ports in its rule", Some(5), from, segment(To::Ports)),
        probe("flow of UDP", "UDP of a known flow, no ports", Some(4), from, udp(To::Plain)),
        probe("denied: flow, limiter", "TCP segment, denied", Some(5), from, segment(To::Denied)),
        probe("to the pod: headers", "TCP segment, received", Some(0), "tc_to_pod", {
            Frame::tcp(To::Plain.address(is_v6), 443, tcp_flag::ACK).turned().bytes()
        }),
        probe("to the pod: prefix, flow", "UDP of a known flow, received", Some(9), "tc_to_pod", {
            Frame::udp(To::Plain.address(is_v6), 443).turned().bytes()
        }),
    ]
}

/// The packets that meet a table with names.
fn probes_of_names(is_v6: bool) -> Vec<Probe> {
    let segment = |to: To| Frame::tcp(to.address(is_v6), 443, tcp_flag::ACK).bytes();
    let probe = |adds, packet, builds_on, bytes| Probe {
        adds,
        packet,
        builds_on,
        program: "tc_from_pod",
        bytes,
        interface: POD,
    };
    vec![
        probe("the hook itself", "empty program", None, arp()),
        probe("a table with names", "TCP segment, no ports in its rule", Some(0), segment(To::Plain)),
        probe("names of the address", "TCP segment, by a name", Some(1), segment(To::Named)),
    ]
}

/// Both families, without names and with them.
pub(crate) fn measure(effort: Effort) -> anyhow::Result<Vec<(&'static str, Vec<Step>)>> {
    let run = move || {
        let mut all = Vec::new();
        for (is_v6, title, title_of_names) in
            [(false, "IPv4", "IPv4, rules about names"), (true, "IPv6", "IPv6, rules about names")]
        {
            all.push((title, stages(effort, is_v6, false)?));
            all.push((title_of_names, stages(effort, is_v6, true)?));
        }
        Ok(all)
    };
    // A thread of its own, because the laboratory has a network namespace of its own.
    std::thread::spawn(run).join().map_err(|_| anyhow::anyhow!("the laboratory failed"))?
}

fn stages(effort: Effort, is_v6: bool, names: bool) -> anyhow::Result<Vec<Step>> {
    let mut setup = Setup::default();
    setup.capacity.trie_from = 0;
    let mut lab = Lab::with(setup, &policies(names));
    // An interface that no pod is known by; the namespace goes with the laboratory.
    let add = |kind| {
        let index = NOBODY.to_string();
        Command::new("ip").args(["link", "add", "nobody", "index", &index, "type", kind]).output()
    };
    anyhow::ensure!(add("ifb")?.status.success() || add("dummy")?.status.success(), "neither ifb nor dummy");
    let probes = if names { probes_of_names(is_v6) } else { probes(is_v6) };
    if names {
        anyhow::ensure!(
            lab.learn("www.example.com", &[To::Named.address(is_v6)], 3600) == 1,
            "the address was not learned"
        );
    }
    let programs = probes.iter().map(|probe| program_of(&mut lab, probe)).collect::<anyhow::Result<Vec<_>>>()?;
    let mut times = vec![Vec::new(); probes.len()];
    for round in 0..effort.rounds {
        for place in 0..probes.len() {
            let at = (place + round) % probes.len();
            let probe = &probes[at];
            let ran = kernel::test_run(programs[at].as_fd(), &probe.bytes, probe.interface, RUNS)?;
            let passes = ran.returned.cast_signed() == program::PASS;
            anyhow::ensure!(passes != probe.adds.starts_with("denied"), "{}: returned {}", probe.packet, ran.returned);
            times[at].push(f64::from(ran.nanoseconds));
        }
    }
    let totals: Vec<f64> = times.iter().map(|times| least(times)).collect();
    let stage = |(probe, total): (&Probe, &f64)| Step {
        adds: probe.adds,
        packet: probe.packet,
        program: probe.program,
        total: *total,
        more: total - probe.builds_on.map_or(0.0, |at| totals[at]),
    };
    Ok(probes.iter().zip(&totals).map(stage).collect())
}

fn program_of(lab: &mut Lab, probe: &Probe) -> anyhow::Result<OwnedFd> {
    if probe.program.is_empty() || probe.builds_on.is_none() {
        return program::none();
    }
    program(lab, probe.program).context("a program of ours")
}
