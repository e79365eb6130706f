//! The property of every importer: where the report says exact (or not expressed) of every rule, each verdict is that of the other
//! firewall; where the heaviest word is narrower, nothing passes that is refused there.

use std::fmt::Write as _;
use std::net::IpAddr;

use egress_import::asm::Asm;
use egress_import::calico::Calico;
use egress_import::cilium::Cilium;
use egress_import::cnp::ClusterPolicies;
use egress_import::egress_router::Routers;
use egress_import::istio::Istio;
use egress_import::netpol::NetworkPolicies;
use egress_import::openshift::OpenShift;
use egress_import::osm::Osm;
use egress_import::ovn::Ovn;
use egress_import::{Cluster, Foreign};
use egress_policy::import::{Imported, Options, Outcome, Source, import};
use egress_reference::{Packet, Pod, Prefix, Random, at_edge, to_yaml};

use crate::imported::{Counts, Enforced, passes};
use crate::settings::{PACKETS, is_full_run, seeds};

/// Every outcome, and every way in which verdicts may agree or differ.
const ALL: [&str; 8] = ["exact", "not-expressed", "narrower", "wider", "equal allow", "equal deny", "less", "more"];

#[test]
fn openshift() {
    holds::<OpenShift>(&ALL);
}

#[test]
fn ovn() {
    holds::<Ovn>(&ALL);
}

#[test]
fn networkpolicy() {
    holds::<NetworkPolicies>(&["exact", "not-expressed", "equal allow", "equal deny"]);
}

#[test]
fn cnp() {
    holds::<ClusterPolicies>(&["exact", "not-expressed", "narrower", "equal allow", "equal deny", "less"]);
}

#[test]
fn egress_router() {
    holds::<Routers>(&ALL);
}

#[test]
fn cilium() {
    holds::<Cilium>(&ALL);
}

#[test]
fn osm() {
    holds::<Osm>(&ALL);
}

#[test]
fn istio() {
    holds::<Istio>(&ALL);
}

#[test]
fn asm() {
    holds::<Asm>(&["exact", "not-expressed", "narrower", "wider", "equal allow", "equal deny", "less"]);
}

#[test]
fn calico() {
    holds::<Calico>(&ALL);
}

/// Runs the property for a kind. `reached` is what an ordinary run must come upon: outcomes of rules; equal verdicts of exact imports;
/// `less`, a verdict that is narrower, and `more`, one that is wider, where the report says so.
fn holds<F: Foreign>(reached: &[&str]) {
    let mut counts = Counts::new();
    for seed in seeds() {
        if let Err(message) = case::<F>(seed, &mut counts) {
            let random = &mut Random::new(seed);
            let cluster = Cluster::random(random);
            let small = shrink(&cluster, &F::random(&cluster, random), seed);
            let again = compare(&cluster, &small, seed, &mut Counts::new()).err().unwrap_or(message);
            panic!("EGRESS_SEED={seed}\n{again}\n{}", picture(&cluster, &small));
        }
    }
    println!("{}: {counts:?}", F::KIND);
    for wanted in reached {
        assert!(!is_full_run() || counts.contains_key(*wanted), "no case had {wanted}: {counts:?}");
    }
}

fn case<F: Foreign>(seed: u64, counts: &mut Counts) -> Result<(), String> {
    let random = &mut Random::new(seed);
    let cluster = Cluster::random(random);
    let foreign = F::random(&cluster, random);
    compare(&cluster, &foreign, seed, counts)
}

fn compare<F: Foreign>(cluster: &Cluster, foreign: &F, seed: u64, counts: &mut Counts) -> Result<(), String> {
    let random = &mut Random::new(seed);
    let imported = imported(foreign, random);
    if let Some(found) = imported.report.problems.first() {
        return Err(format!("refused: {}", found.problem));
    }
    for row in &imported.report.rows {
        let word = serde_json::to_value(row.outcome).expect("an outcome");
        count(counts, word.as_str().expect("a word"));
    }
    let enforced = Enforced::new(&imported, cluster)?;
    for pod in &cluster.pods {
        let table = enforced.table(pod)?;
        for _ in 0..PACKETS {
            let packet = packet(cluster, foreign, random);
            let Some(ours) = passes(&table, &packet).filter(|_| foreign.judges(&packet)) else { continue };
            let theirs = foreign.allows(cluster, pod, &packet);
            judge(imported.report.outcome(), ours, theirs, counts)
                .map_err(|message| said(&message, &imported, pod, &packet))?;
        }
    }
    Ok(())
}

fn judge(outcome: Outcome, ours: bool, theirs: bool, counts: &mut Counts) -> Result<(), String> {
    let word = match (outcome, ours, theirs) {
        (Outcome::Exact | Outcome::NotExpressed, true, true) => "equal allow",
        (Outcome::Exact | Outcome::NotExpressed, false, false) => "equal deny",
        (Outcome::Narrower | Outcome::Wider, false, true) => "less",
        (Outcome::Wider, true, false) => "more",
        (Outcome::Narrower | Outcome::Wider, _, _) => "the same",
        (Outcome::Exact | Outcome::NotExpressed, _, _) => {
            return Err(format!("exact, and ours says {ours}, theirs {theirs}"));
        }
    };
    if outcome == Outcome::Narrower && ours && !theirs {
        return Err("narrower, and ours lets through what theirs refuses".to_owned());
    }
    count(counts, word);
    Ok(())
}

fn imported<F: Foreign>(foreign: &F, random: &mut Random) -> Imported {
    let texts: Vec<String> = foreign.objects().iter().map(|object| text(object, random)).collect();
    // Some in one text of several documents, some in texts of their own.
    let at = random.below(texts.len() + 1);
    let (first, second) = (texts[..at].join("---\n"), texts[at..].join("---\n"));
    let sources = [Source { name: "one", text: &first }, Source { name: "two", text: &second }];
    import(&sources, &Options::default())
}

/// YAML of some style, or JSON, which has one style for a text of several lines.
fn text(object: &serde_json::Value, random: &mut Random) -> String {
    let plain = object.to_string();
    if plain.contains("\\n") { plain + "\n" } else { to_yaml(object, random) }
}

/// A packet that is likely to be where rules begin or end.
fn packet<F: Foreign>(cluster: &Cluster, foreign: &F, random: &mut Random) -> Packet {
    let mut prefixes = foreign.prefixes();
    let nodes = cluster.nodes.iter().flat_map(|node| &node.addresses).copied();
    prefixes.extend(cluster.names.all().into_iter().chain(nodes).map(Prefix::host));
    let outside: IpAddr =
        if random.chance(50) { [203, 0, 113, 77].into() } else { [0x2001, 0xdb8, 9, 0, 0, 0, 0, 1].into() };
    prefixes.push(Prefix::host(outside));
    let destination = at_edge(*random.pick(&prefixes), random);
    let protocol = *random.pick(&[6, 6, 6, 17, 17, 132, 1, 58, 47]);
    let mut ports = foreign.ports();
    ports.extend([80, 443, 1, 65535]);
    let port = match (protocol, random.below(4)) {
        (6 | 17 | 132, 0) => random.pick(&ports).saturating_add(1),
        (6 | 17 | 132, 1) => random.pick(&ports).saturating_sub(1),
        (6 | 17 | 132, _) => *random.pick(&ports),
        (1 | 58, _) => 8,
        _ => 0,
    };
    Packet { destination, protocol, port }
}

fn shrink<F: Foreign>(cluster: &Cluster, foreign: &F, seed: u64) -> F {
    let mut small = foreign.clone();
    while let Some(smaller) =
        small.smaller().into_iter().find(|smaller| compare(cluster, smaller, seed, &mut Counts::new()).is_err())
    {
        small = smaller;
    }
    small
}

fn said(message: &str, imported: &Imported, pod: &Pod, packet: &Packet) -> String {
    let mut text = format!("{message}: {packet} of {}/{} {:?}\n", pod.namespace, pod.name, pod.labels);
    for row in &imported.report.rows {
        let _ = writeln!(
            text,
            "{:?} {} {} {} -> {:?} {:?}",
            row.outcome, row.object, row.path, row.rule, row.into, row.why
        );
    }
    for object in &imported.objects {
        let _ = writeln!(text, "{}", serde_json::to_string(object).expect("objects serialize"));
    }
    text
}

fn picture<F: Foreign>(cluster: &Cluster, foreign: &F) -> String {
    let objects: Vec<String> = foreign.objects().iter().map(|object| format!("{object:#}")).collect();
    format!("{}\n{cluster:#?}", objects.join("\n"))
}

fn count(counts: &mut Counts, word: &str) {
    *counts.entry(word.to_owned()).or_default() += 1;
}
