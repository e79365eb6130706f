//! Maps that another version of the agent made: the commands say so and what to do, the rules stay in force, the agent takes over.

use std::fs;
use std::path::PathBuf;

use egress_e2e::{ALLOWED, DENIED, Lab, OFFICE, PORT, at, policy, reaches, world};
use serde_json::json;

/// The folder of the layout's version and its number.
fn layout(lab: &Lab<'_>) -> (PathBuf, u32) {
    let folders = fs::read_dir(lab.world.bpffs()).expect("the pins").flatten().map(|entry| entry.path());
    let number = |path: &PathBuf| path.file_name()?.to_str()?.strip_prefix("abi-")?.parse().ok();
    let mut layouts = folders.filter_map(|path| number(&path).map(|number| (path, number)));
    layouts.next().expect("maps")
}

#[test]
fn maps_of_another_version_are_said_to_be_of_it_with_what_to_do() {
    let Some(world) = world(&["default/client"]) else {
        return;
    };
    let mut lab = Lab::new(&world, &policy(&OFFICE));
    let pod = world.pod("client");
    lab.agent.kill();
    let (own, number) = layout(&lab);
    for other in [number - 1, number + 1] {
        let elsewhere = own.with_file_name(format!("abi-{other}"));
        fs::rename(&own, &elsewhere).expect("renaming pins");
        for arguments in [
            &["status"][..],
            &["why", "default/client", "1.2.3.4:443"],
            &["dump"],
            &["dump", "all", "-o", "json"],
            &["dump", "rules", "-o", "yaml"],
        ] {
            let mut command = lab.agent.command(arguments);
            let output = command.arg("--bpffs").arg(world.bpffs()).output().expect("running the agent");
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(3), &b""[..]), "{arguments:?}: {said}");
            let expected =
                format!("are abi-{other}, and this egress-agent reads abi-{number}: the rules in them are in force");
            assert!(said.contains(&expected) && said.contains("ask with its binary"), "{arguments:?}: {said}");
        }
        for family in 0..2 {
            assert!(reaches(pod, at(ALLOWED[family], PORT)) && !reaches(pod, at(DENIED[family], PORT)));
        }
        fs::rename(&elsewhere, &own).expect("renaming pins");
    }
    let older = own.with_file_name(format!("abi-{}", number - 1));
    fs::rename(&own, &older).expect("renaming pins");
    lab.agent.start();
    assert_eq!(lab.agent.ask(&["status"]).1["problems"], json!([]));
    assert!(own.exists() && !older.exists(), "the older version's maps are removed once nothing uses them");
    for family in 0..2 {
        assert!(reaches(pod, at(ALLOWED[family], PORT)) && !reaches(pod, at(DENIED[family], PORT)));
    }
}
