//! `egress-agent monitor`: live events, beside the flow log and for several listeners at once.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, ChildStdout, Stdio};

use egress_e2e::{DENIED, Evidence as _, Lab, OFFICE, PORT, RULES, at, document, ip, policy, reaches, world};
use egress_world::eventually;
use egress_world::packet::protocol;
use serde_json::Value;

/// A running `monitor`; killed when dropped.
struct Monitor(Child);

impl Monitor {
    fn start(lab: &Lab<'_>, arguments: &[&str]) -> Self {
        let mut command = lab.agent.command(&["monitor", "-o", "json"]);
        Self(command.args(arguments).stdout(Stdio::piped()).spawn().expect("running the monitor"))
    }

    fn lines(&mut self) -> impl Iterator<Item = Value> + use<> {
        let out: ChildStdout = self.0.stdout.take().expect("its output");
        BufReader::new(out).lines().map(|line| serde_json::from_str(&line.expect("a line")).expect("JSON"))
    }

    fn code(&mut self) -> Option<i32> {
        let mut status = None;
        eventually(|| {
            status = self.0.try_wait().expect("its status");
            status.is_some()
        });
        status.and_then(|status| status.code())
    }
}

impl Drop for Monitor {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_refusal_is_shown_as_it_happens_with_its_rule_to_every_listener() {
    let Some(world) = world(&["default/client"]) else {
        return;
    };
    let lab = Lab::new(&world, &policy(&OFFICE));
    let pod = world.pod("client");
    for (remote, (_, denying)) in DENIED.into_iter().zip(RULES) {
        let mut listeners =
            [Monitor::start(&lab, &["--limit", "1"]), Monitor::start(&lab, &["--pod", "default/client"])];
        let mut feeds = listeners.each_mut().map(Monitor::lines);
        // Whether a listener listens already is seen only by what it hears.
        let mut heard: [Option<Value>; 2] = [None, None];
        std::thread::scope(|scope| {
            let hearing = feeds.each_mut().map(|feed| scope.spawn(|| feed.next()));
            let all = eventually(|| {
                assert!(!reaches(pod, at(remote, PORT)));
                hearing.iter().all(std::thread::ScopedJoinHandle::is_finished)
            });
            assert!(all, "a listener hears nothing");
            heard = hearing.map(|hearing| hearing.join().expect("a listener"));
        });
        for event in heard.into_iter().map(|event| event.expect("an event")) {
            assert_eq!((&event["k8s.pod.name"], &event["egress.outcome"]), (&"client".into(), &"denied".into()));
            assert_eq!((&event["destination.address"], &event["destination.port"]), (&remote.into(), &PORT.into()));
            assert_eq!(event["egress.rule.name"], denying, "{event}");
        }
        assert_eq!(listeners[0].code(), Some(0));
        assert!(!lab.agent.records(pod).is_empty(), "the flow log has them too");
    }
}

#[test]
fn a_listener_hears_only_what_it_asked_for() {
    let Some(world) = world(&["default/client", "default/other"]) else {
        return;
    };
    let trial = document("trial", &["mode: Audit", "priority: 1"], &["Deny 1.2.3.0/24", "Deny 2001:db8:1::/48"]);
    let lab = Lab::new(&world, &(policy(&OFFICE) + &trial));
    let mut audit = Monitor::start(&lab, &["--audit", "--pod", "default/client", "--policy", "default/trial"]);
    let mut feed = audit.lines();
    let (client, other) = (world.pod("client"), world.pod("other"));
    std::thread::scope(|scope| {
        let hearing = scope.spawn(|| feed.next());
        let heard = eventually(|| {
            // The refusals and the other pod's are not asked for; only the last call is.
            assert!(!reaches(client, at(DENIED[0], PORT)) && reaches(other, at("1.2.3.4", PORT)));
            lab.agent.told(other, ip("1.2.3.4"), protocol::TCP);
            assert!(reaches(client, at("2001:db8:1::4", PORT)));
            hearing.is_finished()
        });
        assert!(heard, "nothing was heard");
        let event = hearing.join().expect("a listener").expect("an event");
        assert_eq!((&event["egress.outcome"], &event["k8s.pod.name"]), (&"would-deny".into(), &"client".into()));
        assert_eq!(event["destination.address"], "2001:db8:1::4");
    });
}

#[test]
fn without_an_agent_and_after_its_end_the_monitor_ends_and_says_so() {
    let Some(world) = world(&["default/client"]) else {
        return;
    };
    let mut lab = Lab::new(&world, &policy(&OFFICE));
    let mut monitor = Monitor::start(&lab, &[]);
    let mut feed = monitor.lines();
    std::thread::scope(|scope| {
        let hearing = scope.spawn(|| feed.next());
        assert!(eventually(|| !reaches(world.pod("client"), at(DENIED[0], PORT)) && hearing.is_finished()));
    });
    lab.agent.kill();
    assert_eq!(monitor.code(), Some(3));
    let output = lab.agent.command(&["monitor"]).output().expect("running the monitor");
    assert_eq!(output.status.code(), Some(3));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("no agent listens on"), "{said}");
}
