//! Packets cut at every byte: each cut has its own reason, and the whole packet passes.

use egress_common::event::Hook;
use egress_common::reason::DropReason;
use egress_packets::{Expect, Extension, Frame, Lab, Transport, is_root, read};

use crate::sides::{DEFAULT, POLICY, SIDES, Side};

/// The shortest frame that the kernel lets a test send.
const SHORTEST: usize = 14;

fn minimum(frame: &Frame) -> usize {
    match frame.transport {
        Transport::Tcp { .. } => 20,
        Transport::Udp { .. } | Transport::Icmp { .. } => 8,
        Transport::Sctp { .. } => 12,
        Transport::Raw { .. } => 0,
    }
}

/// Why the frame cannot be read when it ends before `cut`.
fn reason(frame: &Frame, cut: usize) -> Option<DropReason> {
    if cut < frame.network() {
        return Some(DropReason::TruncatedEthernet);
    }
    let fixed = frame.network() + if frame.source.is_ipv4() { 20 } else { 40 };
    if cut < fixed {
        return Some(if frame.source.is_ipv4() { DropReason::TruncatedIpv4 } else { DropReason::TruncatedIpv6 });
    }
    (cut < frame.transport_offset() + minimum(frame)).then_some(DropReason::TruncatedTransport)
}

/// Cuts `frame` everywhere and sends it through both kinds of hook. Where the kernel makes no packet of the cut frame, the host's
/// parser must give the reason. Returns (asked, refused by the kernel).
fn cut_everywhere(lab: &mut Lab, row: &str, frame: &Frame, whole: Expect<'_>) -> [usize; 2] {
    let mut counts = [0; 2];
    let bytes = frame.bytes();
    for cut in SHORTEST..=bytes.len() {
        let row = format!("{row}, cut at {cut}");
        let reason = reason(frame, cut);
        let expect = reason.map_or(whole, Expect::Drop);
        let hooks: &[Hook] =
            if frame.tags.is_empty() { &[Hook::TcFromPod, Hook::CgroupEgress] } else { &[Hook::TcFromPod] };
        for hook in hooks {
            let asked = lab.check_if_possible(&row, *hook, &bytes[..cut], expect);
            counts[usize::from(!asked)] += 1;
            assert_eq!(read(*hook, &bytes[..cut]).result.err(), reason, "{row}");
        }
    }
    counts
}

fn transports(side: &Side) -> [(&'static str, Frame, Expect<'static>); 10] {
    let (allowed, denied) = (Expect::Allow(side.ports_rule), Expect::Deny(DEFAULT));
    [
        ("TCP", Frame::syn(side.ports, 443), allowed),
        ("TCP, denied", Frame::syn(side.ports, 444), denied),
        ("UDP", Frame::udp(side.ports, 53), allowed),
        ("UDP, denied", Frame::udp(side.ports, 54), denied),
        ("SCTP", Frame::sctp(side.ports, 5000, 1), allowed),
        ("SCTP, denied", Frame::sctp(side.ports, 5001, 1), denied),
        ("ICMP", Frame::echo(side.ports), allowed),
        ("ICMP, denied", Frame::echo(side.shut), denied),
        ("GRE", Frame::protocol(side.open, 47), Expect::Allow(side.open_rule)),
        ("GRE, denied", Frame::protocol(side.shut, 47), denied),
    ]
}

#[test]
fn a_packet_cut_at_any_byte_of_its_headers_is_dropped_with_the_right_reason() {
    if !is_root() {
        return;
    }
    let mut lab = Lab::new(POLICY);
    let mut counts = [0; 2];
    for side in &SIDES {
        for (name, frame, whole) in transports(side) {
            let [asked, refused] = cut_everywhere(&mut lab, &side.row(name), &frame, whole);
            counts = [counts[0] + asked, counts[1] + refused];
        }
    }
    println!("{} cut packets, {} of which this kernel makes no packet", counts[0], counts[1]);
    assert!(counts[0] > 500);
}

#[test]
fn a_tagged_packet_cut_at_any_byte_is_dropped_with_the_right_reason() {
    if !is_root() {
        return;
    }
    let mut lab = Lab::new(POLICY);
    for side in &SIDES {
        for (name, frame, whole) in transports(side) {
            // The tag hides the IP header from the kernel, which refuses none of these.
            let tagged = frame.tag(0x8100);
            let [_, refused] = cut_everywhere(&mut lab, &side.row(&format!("{name}, one tag")), &tagged, whole);
            assert_eq!(refused, 0, "{name}");
        }
        let frame = Frame::syn(side.open, 80).tag(0x8100).tag(0x88a8);
        cut_everywhere(&mut lab, &side.row("two tags"), &frame, Expect::Allow(side.open_rule));
    }
}

/// Options and extension headers are read one after the other, so a cut may be found by what follows; it is found.
#[test]
fn options_and_extension_headers_cut_at_any_byte_are_dropped() {
    if !is_root() {
        return;
    }
    let mut lab = Lab::new(POLICY);
    let options = [7, 11, 4, 0, 0, 0, 0, 0, 0, 0, 0, 68, 8, 5, 0, 0, 0, 0, 0];
    let mut frames = vec![Frame::udp(SIDES[0].ports, 53).options(&options)];
    let headers = [
        vec![Extension::Common(Extension::HOP_BY_HOP, 8)],
        vec![Extension::Common(Extension::DESTINATION, 32)],
        vec![Extension::Authentication(16)],
        vec![Extension::Fragment(3, 0, false)],
        vec![Extension::Fragment(3, 0, true)],
        vec![Extension::Routing(0)],
        vec![
            Extension::Common(Extension::DESTINATION, 8),
            Extension::Fragment(3, 0, false),
            Extension::Authentication(16),
        ],
    ];
    let with = |headers: Vec<Extension>| headers.into_iter().fold(Frame::udp(SIDES[1].ports, 53), Frame::extension);
    frames.extend(headers.into_iter().map(with));
    for frame in frames {
        let rule = if frame.source.is_ipv4() { SIDES[0].ports_rule } else { SIDES[1].ports_rule };
        let frame = frame.tag(0x8100);
        let bytes = frame.bytes();
        for cut in SHORTEST..=bytes.len() {
            let reading = read(Hook::TcFromPod, &bytes[..cut]);
            let row = format!("{:02x?} cut at {cut}", &bytes[..cut]);
            let expect = match reading.result {
                Err(reason) => Expect::Drop(reason),
                Ok(_) => Expect::Allow(rule),
            };
            assert_eq!(reading.result.is_err(), cut < frame.transport_offset() + 8, "{row}");
            lab.check(&row, egress_packets::Hooks::Tc, &bytes[..cut], expect);
        }
    }
}
