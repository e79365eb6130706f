//! The agent stops, dies, comes back, cleans up: the kernel keeps enforcing what it last had (§6.5).

use egress_e2e::{ALLOWED, DENIED, Lab, OFFICE, PORT, Traffic, Way, at, policy, reaches, world};
use egress_world::probe::{self, Outcome};
use egress_world::{Agent, Pod};

const REVERSE: [&str; 2] = ["Deny 1.2.3.0/24", "Deny 2001:db8:1::/48"];

fn verdicts(pod: &Pod) -> [bool; 4] {
    [ALLOWED[0], ALLOWED[1], DENIED[0], DENIED[1]].map(|remote| reaches(pod, at(remote, PORT)))
}

const OFFICE_VERDICTS: [bool; 4] = [true, true, false, false];
const REVERSE_VERDICTS: [bool; 4] = [false, false, true, true];

#[test]
fn a_killed_agent_leaves_no_gap_and_its_successor_makes_none() {
    let Some(world) = world(&["default/client"]) else {
        return;
    };
    let mut lab = Lab::new(&world, &policy(&OFFICE));
    let traffic = Traffic::start(&mut lab, world.pod("client"));
    for _ in 0..3 {
        traffic.run_on(&mut lab);
        lab.agent.kill();
        traffic.run_on(&mut lab);
        lab.agent.start();
        lab.wire.pump();
    }
    traffic.run_on(&mut lab);
    traffic.stop(&mut lab).insist_flawless();
}

#[test]
fn a_successor_applies_what_changed_while_nobody_was_there() {
    let Some(world) = world(&["default/client"]) else {
        return;
    };
    let mut lab = Lab::new(&world, &policy(&OFFICE));
    let pod = world.pod("client");
    lab.agent.kill();
    lab.agent.write("policies.yaml", &policy(&REVERSE));
    assert_eq!(verdicts(pod), OFFICE_VERDICTS, "nobody read the new version");
    lab.agent.start();
    assert_eq!(verdicts(pod), REVERSE_VERDICTS);
}

#[test]
fn a_policy_deleted_while_nobody_was_there_is_gone_and_a_broken_one_is_kept() {
    let Some(world) = world(&["default/client"]) else { return };
    let mut lab = Lab::new(&world, &policy(&OFFICE));
    let pod = world.pod("client");
    lab.agent.kill();
    lab.agent.write("policies.yaml", &policy(&["Deny 1.2.3.0/33"]));
    lab.agent.start();
    assert_eq!(verdicts(pod), OFFICE_VERDICTS);
    lab.agent.kill();
    lab.agent.remove("policies.yaml");
    lab.agent.start();
    assert_eq!(verdicts(pod), [true; 4]);
}

#[test]
fn a_stopped_agent_exits_with_0_and_the_kernel_keeps_enforcing() {
    let Some(world) = world(&["default/client"]) else {
        return;
    };
    let mut lab = Lab::new(&world, &policy(&OFFICE));
    let pod = world.pod("client");
    assert!(lab.agent.terminate().success());
    for family in [0, 1] {
        let frame = Way::Frame.attempt(pod, egress_e2e::ip(DENIED[family]), false);
        assert_eq!(frame.outcome, Outcome::Silence);
        assert!(lab.wire.arrived(egress_e2e::ip(DENIED[family])).is_empty());
    }
    assert_eq!(verdicts(pod), OFFICE_VERDICTS);
}

#[test]
fn the_dump_names_rules_and_counts_while_no_agent_lives() {
    let Some(world) = world(&["default/client"]) else {
        return;
    };
    let mut lab = Lab::new(&world, &policy(&OFFICE));
    let pod = world.pod("client");
    lab.agent.kill();
    for family in [0, 1] {
        let (allowing, denying) = egress_e2e::RULES[family];
        lab.insist_allowed(pod, Way::Tcp, ALLOWED[family], allowing);
        let before = egress_e2e::Evidence::charged(&lab.agent, denying);
        assert!(!reaches(pod, at(DENIED[family], PORT)));
        assert!(egress_e2e::Evidence::charged(&lab.agent, denying) > before);
    }
    for subject in ["endpoints", "tables", "rules", "counters", "flows", "config", "stats", "all"] {
        assert!(lab.agent.dump(subject).is_object(), "{subject}");
        let table = lab.agent.dump_output(&[subject]);
        assert!(table.status.success(), "{subject}: {}", String::from_utf8_lossy(&table.stderr));
    }
}

#[test]
fn cleanup_leaves_nothing() {
    let Some(world) = world(&["default/client"]) else {
        return;
    };
    let mut lab = Lab::new(&world, &policy(&OFFICE));
    let pod = world.pod("client");
    assert_eq!(verdicts(pod), OFFICE_VERDICTS);
    assert!(lab.agent.terminate().success());
    let output = lab.agent.cleanup();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let left: Vec<_> =
        std::fs::read_dir(world.bpffs()).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    assert!(left.is_empty(), "{left:?}");
    assert_eq!(verdicts(pod), [true; 4]);
    let remote = egress_e2e::ip(DENIED[0]);
    assert_eq!(Way::Frame.attempt(pod, remote, false).outcome, Outcome::Silence);
    assert!(lab.wire.wait_for(remote, |seen| seen.source_port == 40_001), "frames pass again");
    let filters = world.node().command("tc").args(["filter", "show", "dev", "pod1", "ingress"]).output();
    if let Ok(filters) = filters {
        assert!(filters.stdout.is_empty(), "{}", String::from_utf8_lossy(&filters.stdout));
    }
    assert_eq!(lab.agent.dump_output(&["endpoints"]).status.code(), Some(1), "a negative answer");
    assert!(lab.agent.cleanup().status.success(), "nothing to clean up is no error");
}

/// What deploy/ gives the agent. Its pod is known by a process with all capabilities, which it may not look into without `SYS_PTRACE`.
#[test]
fn three_capabilities_are_enough_and_none_of_them_is_too_many() {
    const ENOUGH: [&str; 3] = ["net_admin", "sys_admin", "sys_ptrace"];
    for left_out in [None, Some(0), Some(1), Some(2)] {
        let Some(world) = world(&["default/client"]) else {
            return;
        };
        let pod = world.pod("client");
        let mut process = pod.network().command("sleep").arg("1000").spawn().unwrap();
        let mut agent = Agent::new(&world);
        let mut endpoint = pod.endpoint();
        endpoint.netns = Some(format!("/proc/{}/ns/net", process.id()).into());
        endpoint.interface = None;
        agent.write_endpoints(&[endpoint]);
        agent.write("policies.yaml", &policy(&OFFICE));
        let names = ENOUGH.iter().enumerate().filter(|(place, _)| left_out != Some(*place)).map(|(_, name)| *name);
        agent.limit_capabilities(&names.collect::<Vec<_>>());
        if let Some(place) = left_out {
            agent.launch();
            assert_eq!(agent.wait_for_end().code(), Some(3), "{}", agent.log());
            let name = format!("CAP_{}", ENOUGH[place].to_uppercase());
            assert!(agent.log().contains(&name), "{name}: {}", agent.log());
        } else {
            agent.start();
            assert_eq!(verdicts(pod), OFFICE_VERDICTS);
        }
        process.kill().unwrap();
        process.wait().unwrap();
    }
}

#[test]
fn uninstalling_leaves_nothing_says_so_and_stays_until_it_is_told_to_end() {
    let Some(world) = world(&["default/client"]) else {
        return;
    };
    let mut lab = Lab::new(&world, &policy(&OFFICE));
    let pod = world.pod("client");
    assert_eq!(verdicts(pod), OFFICE_VERDICTS);
    assert!(lab.agent.terminate().success());
    let probes = "127.0.0.1:9478".parse().unwrap();
    let mut uninstaller = lab.agent.uninstall(probes);
    let answers = || world.node().enter(|| std::net::TcpStream::connect(probes).is_ok());
    assert!(egress_world::eventually(answers), "it answers when it is done");
    assert_eq!(egress_e2e::get(&world, probes, "/readyz"), (200, "nothing is left\n".to_owned()));
    assert_eq!(verdicts(pod), [true; 4]);
    assert!(!world.bpffs().exists(), "the folder of pins");
    assert!(!lab.agent.state("status.json").parent().unwrap().exists(), "the state folder");
    assert!(uninstaller.try_wait().unwrap().is_none(), "it stays");
    let process = nix::unistd::Pid::from_raw(uninstaller.id().try_into().unwrap());
    nix::sys::signal::kill(process, nix::sys::signal::Signal::SIGTERM).unwrap();
    assert!(uninstaller.wait().unwrap().success());
}

#[test]
fn after_a_cleanup_a_new_agent_starts_from_nothing() {
    let Some(world) = world(&["default/client"]) else {
        return;
    };
    let mut lab = Lab::new(&world, &policy(&OFFICE));
    lab.agent.kill();
    assert!(lab.agent.cleanup().status.success());
    lab.agent.start();
    assert_eq!(verdicts(world.pod("client")), OFFICE_VERDICTS);
}

#[test]
fn a_missing_policies_folder_is_a_usage_error_with_its_path() {
    let Some(world) = world(&["default/client"]) else {
        return;
    };
    let mut agent = Agent::new(&world);
    std::fs::remove_dir(agent.policies()).unwrap();
    agent.launch();
    let status = agent.wait_for_end();
    assert_eq!(status.code(), Some(2), "{}", agent.log());
    assert!(agent.log().contains("policies"), "{}", agent.log());
    let pod = world.pod("client");
    assert!(pod.run(|| probe::tcp_echo(at(DENIED[0], PORT))).is_answered(), "nothing is enforced");
}
