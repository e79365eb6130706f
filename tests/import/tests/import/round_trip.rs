//! The way back: our random objects written as those of another firewall and imported again. Where the export says exact, each verdict is
//! that of our own objects; where its heaviest word is narrower, nothing passes that ours refuse. The importers are held to evaluators of
//! their own, so this holds the exports to them too.

use egress_import::{Cluster, Names, Node};
use egress_policy::import::{Imported, Options, Outcome, Source, Target, export, import};
use egress_reference::{Config, Random, World};

use crate::imported::{Counts, Enforced, passes};
use crate::settings::{PACKETS, is_full_run, seeds};

#[test]
fn to_openshift() {
    round_trip(Target::OpenShift, &["Exact", "Narrower", "Wider", "equal allow", "equal deny", "less", "more"]);
}

#[test]
fn to_ovn() {
    round_trip(Target::Ovn, &["Exact", "Narrower", "Wider", "equal allow", "equal deny", "less", "more"]);
}

#[test]
fn to_cnp() {
    round_trip(Target::Cnp, &["Exact", "Narrower", "Wider", "equal allow", "equal deny", "less", "more"]);
}

fn round_trip(target: Target, reached: &[&str]) {
    let mut counts = Counts::new();
    for seed in seeds() {
        if let Err(message) = case(target, seed, &mut counts) {
            panic!("EGRESS_SEED={seed} {target:?}\n{message}");
        }
    }
    println!("{target:?}: {counts:?}");
    for wanted in reached {
        assert!(!is_full_run() || counts.contains_key(*wanted), "no case had {wanted}: {counts:?}");
    }
}

fn case(target: Target, seed: u64, counts: &mut Counts) -> Result<(), String> {
    let random = &mut Random::new(seed);
    let mut world = World::generate(seed);
    // Settings belong to no policy; what is not judged must be the same on both ways.
    world.config = Config { internal: world.config.internal, ..Config::default() };
    simpler(&mut world, random);
    let cluster = cluster(&world, random);
    let ours = imported(&world)?;
    let there = export(&ours, target);
    let outcome =
        there.report.rows.iter().filter(|row| !row.path.is_empty() && row.path != "spec").map(|row| row.outcome);
    let outcome = outcome.max().unwrap_or(Outcome::Exact);
    *counts.entry(format!("{outcome:?}")).or_default() += 1;
    let back = again(&there)?;
    let (ours, back) = (Enforced::new(&ours, &cluster)?, Enforced::new(&back, &cluster)?);
    for pod in &world.pods {
        let (ours, back) = (ours.table(pod)?, back.table(pod)?);
        for _ in 0..PACKETS {
            let packet = world.packet(pod, random);
            // Port 0 is used by no connection, and some cannot name it; OpenShift's network is IPv4.
            let has_ports = matches!(packet.protocol, 6 | 17 | 132);
            if (has_ports && packet.port == 0)
                || (target == Target::OpenShift && packet.destination.to_canonical().is_ipv6())
            {
                continue;
            }
            let (Some(there), Some(here)) = (passes(&back, &packet), passes(&ours, &packet)) else { continue };
            *counts
                .entry(agreed(outcome, there, here).ok_or_else(|| said(outcome, &world, pod, &packet, there))?)
                .or_default() += 1;
        }
    }
    Ok(())
}

/// How the verdicts are to each other, if the outcome allows it.
fn agreed(outcome: Outcome, there: bool, here: bool) -> Option<String> {
    let word = match (outcome, there, here) {
        (Outcome::Exact | Outcome::NotExpressed, true, true) => "equal allow",
        (Outcome::Exact | Outcome::NotExpressed, false, false) => "equal deny",
        (Outcome::Narrower | Outcome::Wider, false, true) => "less",
        (Outcome::Wider, true, false) => "more",
        (Outcome::Narrower | Outcome::Wider, _, _) if there == here => "the same",
        _ => return None,
    };
    Some(word.to_owned())
}

fn said(
    outcome: Outcome,
    world: &World,
    pod: &egress_reference::Pod,
    packet: &egress_reference::Packet,
    there: bool,
) -> String {
    let texts: Vec<String> = world.files(world.seed).into_iter().map(|file| file.text).collect();
    let there = if there { "lets through what ours refuse" } else { "refuses what ours let through" };
    format!(
        "{outcome:?}, and it {there}: {packet} of {}/{} {:?}\n{}",
        pod.namespace,
        pod.name,
        pod.labels,
        texts.join("---\n")
    )
}

/// Half of the worlds have only what every target can say, so that exact exports are compared too.
fn simpler(world: &mut World, random: &mut Random) {
    if random.chance(50) {
        return;
    }
    let keep_ports = random.chance(50);
    for policy in &mut world.policies {
        policy.pod_selector = None;
        policy.service_accounts = None;
        policy.rules.retain(|rule| matches!(rule.peer, egress_reference::Peer::Cidr { .. }));
        for rule in &mut policy.rules {
            let simple = |ports: &egress_reference::Ports| {
                ports.port.is_some() && ports.end.is_none_or(|end| Some(end) == ports.port)
            };
            if !keep_ports || !rule.ports.as_ref().is_some_and(|ports| ports.iter().all(simple)) {
                rule.ports = None;
            }
        }
    }
    if random.chance(70) {
        world.policies.retain(|policy| policy.id.namespace.is_some());
    }
}

fn cluster(world: &World, random: &mut Random) -> Cluster {
    let namespaces = world.namespaces.clone();
    let nodes =
        world.node.nodes.iter().map(|node| Node { labels: node.labels.clone(), addresses: node.addresses.clone() });
    Cluster { namespaces, pods: world.pods.clone(), nodes: nodes.collect(), names: Names::random(random) }
}

fn imported(world: &World) -> Result<Imported, String> {
    let files = world.files(world.seed);
    let sources: Vec<Source<'_>> =
        files.iter().map(|file| Source { name: file.name.as_str(), text: file.text.as_str() }).collect();
    let imported = import(&sources, &Options::default());
    match imported.report.problems.first() {
        Some(found) => Err(format!("ours are refused: {}", found.problem)),
        None => Ok(imported),
    }
}

/// What was written there, imported; it must be read without a difference.
fn again(there: &Imported) -> Result<Imported, String> {
    let texts: Vec<String> =
        there.objects.iter().map(|object| serde_json::to_string(object).expect("objects serialize") + "\n").collect();
    let text = texts.join("---\n");
    let imported = import(&[Source { name: "there", text: &text }], &Options::default());
    if let Some(found) = imported.report.problems.first() {
        return Err(format!("what was written is refused there: {}\n{text}", found.problem));
    }
    match imported.report.rows.iter().find(|row| row.outcome > Outcome::NotExpressed) {
        Some(row) => Err(format!("what was written is not read exactly: {row:?}")),
        None => Ok(imported),
    }
}
