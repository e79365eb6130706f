//! Replies that must teach nothing, from servers and from the pod itself, and answers that point inside (§5.2, §5.6). Each false
//! reply names an address of its own, each comes with a true one that is learned.

use std::net::{IpAddr, SocketAddr, UdpSocket};

use egress_e2e::{
    Evidence as _, Lab, Samples, at, held, holds, insist_reached_by_name, insist_refused_by_name, ip,
    look_up_and_connect, names_policy, reaches, scripted_world,
};
use egress_world::packet::{Ip, protocol};
use egress_world::probe::{self, Outcome};
use egress_world::resolver::message::{Question, flag, kind};
use egress_world::resolver::{self, RESOLVERS, Resolver, STRANGERS, Scripted, Sent, Transport};
use egress_world::{Agent, Pod, World, eventually};

const METRICS: &str = "127.0.0.1:9478";
/// The true addresses of every name below `any.test`.
const TRUE: [&str; 2] = ["1.2.3.10", "2001:db8:1::10"];
/// Those of all other names.
const UNTOLD: [&str; 2] = ["1.2.3.77", "2001:db8:1::77"];
/// What false replies claim.
const FALSE: [&str; 2] = ["1.2.3.66", "2001:db8:1::66"];

/// What no server outside can be at.
const INSIDE: [&str; 10] = [
    "10.244.0.99",
    "127.0.0.1",
    "169.254.9.9",
    "224.0.0.1",
    "0.0.0.0",
    "fd00:10:244::99",
    "::1",
    "fe80::9",
    "ff02::1",
    "::",
];

fn addresses(texts: [&str; 2]) -> [IpAddr; 2] {
    texts.map(ip)
}

/// What the server does, by the first label of the name.
fn script(question: &Question, transport: Transport) -> Vec<Sent> {
    let truth = if question.name.ends_with("any.test") { TRUE } else { UNTOLD };
    let truth = question.answered(60, &addresses(truth));
    let mut lie = question.answered(60, &addresses(FALSE));
    let label = question.name.split('.').next().unwrap_or_default();
    match label {
        "wrong-id" => lie.question.id ^= 1,
        "wrong-question" => lie.question.encoded = Question::new(0, "wrong-questiox.any.test", 0).encoded,
        "wrong-type" => lie.question.kind = 16,
        "failed" => lie = lie.with(flag::SERVFAIL),
        "outside-of-the-chain" => {
            let lies = addresses(FALSE).into_iter().filter(|lie| lie.is_ipv4() == (question.kind == kind::A));
            return vec![Sent::Reply(lies.fold(truth, |reply, lie| reply.address("elsewhere.test", 60, lie)))];
        }
        "second" => return vec![Sent::Reply(truth), Sent::Reply(lie)],
        "elsewhere" => return vec![Sent::Elsewhere(lie), Sent::Reply(truth)],
        "segments" if transport == Transport::Tcp => return vec![Sent::Segments(truth)],
        "segments" => return vec![Sent::Reply(question.reply().with(flag::TRUNCATED))],
        _ => return vec![Sent::Reply(truth)],
    }
    vec![Sent::Reply(lie), Sent::Reply(truth)]
}

fn lab(world: &World) -> Lab<'_> {
    let mut agent = Agent::new(world);
    agent.argument(&["--metrics-address", METRICS]);
    agent.write("policies.yaml", &names_policy("", &["Allow *.any.test", "Deny 0.0.0.0/0", "Deny ::/0"]));
    agent.start();
    assert!(eventually(|| world.node().enter(|| std::net::TcpStream::connect(METRICS).is_ok())));
    Lab::with_agent(world, agent)
}

fn counted(world: &World, outcome: &str) -> f64 {
    let address: SocketAddr = METRICS.parse().expect("an address");
    Samples::scrape(world, address).sum("egress_dns_messages_total", &[&format!("outcome=\"{outcome}\"")])
}

fn insist_only_the_truth(lab: &Lab<'_>) {
    for address in FALSE {
        assert!(!holds(&lab.agent, ip(address)), "{address} was learned: {:?}", held(&lab.agent));
        assert!(!reaches(lab.world.pod("client"), at(address, 443)));
    }
}

/// Insists that the true addresses are reached right after the lookup. A false one that the pod's own resolver believed (musl's takes any
/// record of the right type) is refused.
fn insist_truth_reached(pod: &Pod, resolver: &Resolver, name: &str) {
    let got = look_up_and_connect(pod, resolver, name);
    for address in TRUE {
        assert!(got.contains(&(ip(address), Outcome::Answered)), "{name}: {address} in {got:?}");
    }
    for (address, outcome) in &got {
        let is_true = TRUE.iter().any(|known| ip(known) == *address);
        assert!(is_true || *outcome == Outcome::Failed(libc::EPERM), "{name}: {address} in {got:?}");
    }
}

#[test]
fn false_replies_teach_nothing_and_the_true_one_does() {
    let Some((world, resolver)) = scripted_world(&["default/client"]) else {
        return;
    };
    let _server = Scripted::start(&resolver, script);
    let lab = lab(&world);
    let pod = world.pod("client");
    let cases = [
        ("wrong-id", Some("unasked")),
        ("wrong-question", Some("wrong-question")),
        ("wrong-type", Some("wrong-question")),
        ("outside-of-the-chain", None),
        ("second", Some("unasked")),
        ("elsewhere", None),
    ];
    for (label, outcome) in cases {
        let before = outcome.map(|outcome| counted(&world, outcome));
        insist_truth_reached(pod, &resolver, &format!("{label}.any.test"));
        insist_only_the_truth(&lab);
        if let (Some(outcome), Some(before)) = (outcome, before) {
            assert!(counted(&world, outcome) > before + 0.5, "{label} has not counted as {outcome}");
        }
    }
    insist_refused_by_name(pod, &resolver, "true.other.test");
}

#[test]
fn a_reply_with_an_error_code_teaches_nothing_whatever_it_holds() {
    let Some((world, resolver)) = scripted_world(&["default/client"]) else {
        return;
    };
    let _server = Scripted::start(&resolver, script);
    let lab = lab(&world);
    let before = counted(&world, "negative");
    look_up_and_connect(world.pod("client"), &resolver, "failed.any.test");
    insist_only_the_truth(&lab);
    assert!(counted(&world, "negative") > before + 0.5);
}

#[test]
fn a_reply_that_nobody_asked_for_teaches_nothing() {
    let Some((world, resolver)) = scripted_world(&["default/client"]) else {
        return;
    };
    let lab = lab(&world);
    let pod = world.pod("client");
    for (index, (server, kind)) in RESOLVERS.into_iter().zip([kind::A, kind::AAAA]).enumerate() {
        let before = counted(&world, "unasked");
        let any = if server.contains(':') { "[::]:0" } else { "0.0.0.0:0" };
        let bind = || Ok(UdpSocket::bind(any)?.into());
        let client = UdpSocket::from(pod.socket(bind).expect("a socket of the pod"));
        let to = SocketAddr::new(pod.address_like(ip(server)), client.local_addr().expect("a port").port());
        // The pod has spoken with the resolver from this port, but asked for something else.
        let other = Question::new(9, "other.any.test", kind);
        client.send_to(&other.query(), at(server, 53)).expect("DNS to the resolver passes");
        let lie = Question::new(10, "a.any.test", kind).answered(60, &addresses(FALSE));
        let socket = resolver.socket(at(server, 53));
        socket.send_to(&lie.bytes(), to).expect("sent");
        assert!(eventually(|| counted(&world, "unasked") > before + 0.5), "{server}");
        insist_only_the_truth(&lab);
        // The twin: the answer to what was asked.
        let truth = other.answered(60, &addresses(TRUE));
        socket.send_to(&truth.bytes(), to).expect("sent");
        assert!(eventually(|| reaches(pod, at(TRUE[index], 443))), "{server}");
    }
}

/// A packet of the pod that claims to come from the resolver.
fn forge(world: &World, server: &str, port: u16) {
    let pod = world.pod("client");
    let lies = Question::new(1, "a.any.test", if server.contains(':') { kind::AAAA } else { kind::A });
    let neighbour = pod.address_like(ip(server));
    let ip = Ip::new(ip(server), neighbour, protocol::UDP);
    let frame = pod.frame(&[], &ip.packet(&ip.udp(53, port, &lies.answered(60, &addresses(FALSE)).bytes())));
    pod.run(|| probe::frame(&[frame], false));
}

#[test]
fn a_pod_cannot_play_its_own_resolver_by_forged_packets() {
    let Some((world, _resolver)) = scripted_world(&["default/client"]) else {
        return;
    };
    let lab = lab(&world);
    let pod = world.pod("client");
    for (server, kind) in RESOLVERS.into_iter().zip([kind::A, kind::AAAA]) {
        let any = if server.contains(':') { "[::]:0" } else { "0.0.0.0:0" };
        let client = UdpSocket::from(pod.socket(|| Ok(UdpSocket::bind(any)?.into())).expect("a socket"));
        client.send_to(&Question::new(1, "a.any.test", kind).query(), at(server, 53)).expect("sent");
        let before = lab.agent.dropped("spoofed-resolver");
        forge(&world, server, client.local_addr().expect("a port").port());
        assert!(eventually(|| lab.agent.dropped("spoofed-resolver") > before), "{server}");
        insist_only_the_truth(&lab);
    }
}

#[test]
fn a_pod_that_gives_itself_the_resolvers_address_learns_nothing_from_itself() {
    let Some((world, resolver)) = scripted_world(&["default/client"]) else {
        return;
    };
    let _server = Scripted::start(&resolver, script);
    let lab = lab(&world);
    let pod = world.pod("client");
    insist_reached_by_name(pod, &resolver, "a.any.test");
    let [server4, server6] = RESOLVERS;
    pod.network().ip(&format!("addr add {server4}/32 dev lo\naddr add {server6}/128 dev lo nodad\n"));
    for (server, kind) in RESOLVERS.into_iter().zip([kind::A, kind::AAAA]) {
        let forged = pod.socket(|| Ok(UdpSocket::bind(at(server, 53))?.into())).expect("port 53");
        let forged = UdpSocket::from(forged);
        let any = if server.contains(':') { "[::]:0" } else { "0.0.0.0:0" };
        let client = UdpSocket::from(pod.socket(|| Ok(UdpSocket::bind(any)?.into())).expect("a socket"));
        let question = Question::new(3, "b.any.test", kind);
        client.send_to(&question.query(), at(server, 53)).expect("sent");
        let mut buffer = [0; 512];
        forged.set_read_timeout(Some(probe::PATIENCE)).expect("a timeout");
        let (_, asker) = forged.recv_from(&mut buffer).expect("the query came back to the pod");
        let _ = forged.send_to(&question.answered(60, &addresses(FALSE)).bytes(), asker);
        insist_only_the_truth(&lab);
    }
}

#[test]
fn answers_that_point_inside_are_delivered_and_not_learned() {
    let Some((world, resolver)) = scripted_world(&["default/client"]) else {
        return;
    };
    let everything = |question: &Question, _| {
        let inside = INSIDE.map(ip);
        vec![Sent::Reply(question.answered(60, &[&inside[..], &addresses(TRUE)].concat()))]
    };
    let _server = Scripted::start(&resolver, everything);
    let lab = lab(&world);
    let pod = world.pod("client");
    let conf = resolver.conf();
    let found = pod.run(|| {
        resolver::use_resolvers(&conf);
        resolver::lookup("a.any.test").expect("addresses")
    });
    assert!(found.contains(&ip(INSIDE[0])), "delivered as it was: {found:?}");
    assert!(TRUE.iter().all(|address| reaches(pod, at(address, 443))));
    let inside: Vec<_> =
        held(&lab.agent).into_iter().filter(|(_, address, _)| INSIDE.map(ip).contains(address)).collect();
    assert!(inside.is_empty(), "{inside:?}");
    assert!(counted(&world, "internal-address") > 9.5);
}

#[test]
fn replies_in_two_segments_are_delivered_and_the_agent_asks_for_itself() {
    let Some((world, resolver)) = scripted_world(&["default/client"]) else {
        return;
    };
    let _server = Scripted::start(&resolver, script);
    let lab = lab(&world);
    let pod = world.pod("client");
    look_up_and_connect(pod, &resolver, "segments.any.test");
    assert!(counted(&world, "segmented") > 0.5);
    let learned = eventually(|| TRUE.iter().all(|address| reaches(pod, at(address, 443))));
    assert!(learned, "{:?}\n{}", held(&lab.agent), lab.agent.log());
    insist_only_the_truth(&lab);
}

#[test]
fn an_address_outside_of_the_trusted_ones_is_no_resolver() {
    let Some((world, resolver)) = scripted_world(&["default/client"]) else {
        return;
    };
    let lab = lab(&world);
    let pod = world.pod("client");
    for (server, kind) in STRANGERS.into_iter().zip([kind::A, kind::AAAA]) {
        let socket = resolver.socket(at(server, 53));
        let any = if server.contains(':') { "[::]:0" } else { "0.0.0.0:0" };
        let client = UdpSocket::from(pod.socket(|| Ok(UdpSocket::bind(any)?.into())).expect("a socket"));
        let question = Question::new(3, "b.any.test", kind);
        let refused = client.send_to(&question.query(), at(server, 53)).expect_err("no resolver of the policies");
        assert_eq!(refused.raw_os_error(), Some(libc::EPERM));
        let to = SocketAddr::new(pod.address_like(ip(server)), client.local_addr().expect("a port").port());
        socket.send_to(&question.answered(60, &addresses(FALSE)).bytes(), to).expect("sent");
        insist_only_the_truth(&lab);
    }
}
