//! Readers of a running agent's answers that go away: the commands end silently, `monitor` also where nothing happens.

use std::process::Stdio;

use egress_e2e::{DENIED, Lab, PORT, at, policy, reaches, world};
use egress_world::eventually;

/// More than a pipe holds, in every form of every answer.
fn many() -> Vec<String> {
    (0..4000).map(|n| format!("Deny 10.{}.{}.0/24 TCP/{}", n / 250, n % 250, 1 + n)).collect()
}

#[test]
fn answers_whose_reader_goes_away_end_silently() {
    let Some(world) = world(&["default/client"]) else {
        return;
    };
    let rules = many();
    let lab = Lab::new(&world, &policy(&rules.iter().map(String::as_str).collect::<Vec<_>>()));
    for subject in ["endpoints", "tables", "rules", "counters", "flows", "names", "config", "stats", "all"] {
        for format in ["table", "json", "yaml"] {
            let mut command = lab.agent.command(&["dump", subject, "-o", format]);
            command.arg("--bpffs").arg(world.bpffs()).stdout(Stdio::piped()).stderr(Stdio::piped());
            let mut child = command.spawn().expect("running the agent");
            drop(child.stdout.take());
            let output = child.wait_with_output().expect("its end");
            let said = String::from_utf8_lossy(&output.stderr);
            assert_eq!((output.status.code(), said.as_ref()), (Some(0), ""), "dump {subject} -o {format}");
        }
    }
    for arguments in [&["status"][..], &["why", "default/client", "10.0.7.7:8"]] {
        let expected = lab.agent.ask(arguments).0;
        let mut command = lab.agent.command(arguments);
        command.arg("--bpffs").arg(world.bpffs()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("running the agent");
        drop(child.stdout.take());
        let output = child.wait_with_output().expect("its end");
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!((output.status.code(), said.as_ref()), (Some(expected), ""), "{arguments:?}");
    }
}

#[test]
fn a_monitor_whose_reader_goes_away_ends_at_once_and_well() {
    let Some(world) = world(&["default/client"]) else {
        return;
    };
    let lab = Lab::new(&world, &policy(&["Deny 0.0.0.0/0", "Deny ::/0"]));
    for format in ["table", "json", "yaml"] {
        for refused in [None, Some(DENIED[0]), Some(DENIED[1])] {
            let mut command = lab.agent.command(&["monitor", "-o", format]);
            let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("running the monitor");
            drop(child.stdout.take());
            let mut status = None;
            let ended = eventually(|| {
                if let Some(remote) = refused {
                    assert!(!reaches(world.pod("client"), at(remote, PORT)));
                }
                status = child.try_wait().expect("its status");
                status.is_some()
            });
            if !ended {
                let _ = child.kill();
            }
            let output = child.wait_with_output().expect("its end");
            let said = String::from_utf8_lossy(&output.stderr);
            assert_eq!((ended, output.status.code(), said.as_ref()), (true, Some(0), ""), "{format} {refused:?}");
        }
    }
}
