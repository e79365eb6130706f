//! `egress-agent dump` of one pod, one namespace, one policy; the bytes of the maps; and of very many entries.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{BufRead as _, BufReader};

use egress_e2e::{CONFIG, DENIED, Lab, OFFICE, PORT, at, document, policy, reaches, world};
use egress_world::Agent;
use serde_json::Value;

/// The exit code, the answer and what was said of `dump … -o json`.
fn dump(lab: &Lab<'_>, arguments: &[&str]) -> (i32, Value, String) {
    let output = lab.agent.dump_output(&[arguments, &["-o", "json"]].concat());
    let answer = serde_json::from_slice(&output.stdout).unwrap_or_default();
    (output.status.code().expect("an exit code"), answer, String::from_utf8_lossy(&output.stderr).into_owned())
}

fn each<'v>(answer: &'v Value, list: &str, field: &str) -> Vec<&'v str> {
    answer[list].as_array().expect("a list").iter().filter_map(|row| row[field].as_str()).collect()
}

/// [`policy`] and the same for namespace `shop`.
fn two_namespaces() -> String {
    let shop =
        document("shop", &[], &["Allow 5.6.7.0/24", "Deny ::/0"]).replace("namespace: default", "namespace: shop");
    policy(&OFFICE) + &shop
}

#[test]
fn one_pod_one_namespace_and_one_policy_can_be_asked_for() {
    let Some(world) = world(&["default/client", "shop/web"]) else {
        return;
    };
    let lab = Lab::new(&world, &two_namespaces());
    for remote in DENIED {
        assert!(!reaches(world.pod("client"), at(remote, PORT)));
    }
    for arguments in [&["--pod", "shop/web"][..], &["--namespace", "shop"], &["--policy", "shop/shop"]] {
        let ask = |subject: &str| dump(&lab, &[&[subject], arguments].concat());
        let (code, endpoints, _) = ask("endpoints");
        assert_eq!((code, each(&endpoints, "endpoints", "name")), (0, vec!["shop/web"]), "{arguments:?}");
        let rules = ask("rules").1;
        let origins = each(&rules, "rules", "origin");
        assert!(
            origins.contains(&"rule 1 of shop/shop") && origins.iter().all(|rule| !rule.contains("office")),
            "{rules}"
        );
        assert_eq!(origins.contains(&"default action"), arguments[0] != "--policy", "{rules}");
        let tables = ask("tables").1;
        assert_eq!(tables["tables"].as_array().map(Vec::len), Some(1));
        assert_eq!(tables["tables"][0]["endpoints"], serde_json::json!(["shop/web"]));
        let prefixes = each(&tables["tables"][0], "prefixes", "prefix");
        assert!(prefixes.contains(&"5.6.7.0/24") && prefixes.contains(&"::/0") && !prefixes.contains(&"1.2.3.0/24"));
        assert_eq!(prefixes.contains(&"127.0.0.0/8"), arguments[0] != "--policy", "{prefixes:?}");
        // Whose drops these are the kernel does not count.
        let counters = ask("counters").1;
        assert!(counters["counters"]["drops"].is_null(), "{counters}");
        assert_eq!(ask("flows").1["flows"], serde_json::json!([]));
    }
    let counted = dump(&lab, &["counters", "--policy", "default/office"]).1;
    let origins = each(&counted["counters"], "rules", "origin");
    assert_eq!(origins, ["rule 3 of default/office", "rule 4 of default/office"]);
    assert!(dump(&lab, &["counters"]).1["counters"]["drops"].is_array());

    let (code, _, said) = dump(&lab, &["rules", "--pod", "shop/absent"]);
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("does not know the pod shop/absent; known here: default/client, shop/web"), "{said}");
    let (code, _, said) = dump(&lab, &["config", "--pod", "shop/web"]);
    assert!(code == 2 && said.contains("of the whole node"), "{said}");
    assert_eq!(dump(&lab, &["rules", "--pod", "shop/web", "--raw"]).0, 2);
}

/// A number of so many bytes, as the machine writes it.
fn number(hex: &str) -> u64 {
    let bytes = hex.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).expect("digits"));
    bytes.rev().fold(0, |sum, byte| sum << 8 | u64::from_str_radix(byte, 16).expect("digits"))
}

#[test]
fn the_bytes_of_the_maps_say_what_the_words_say() {
    let Some(world) = world(&["default/client"]) else {
        return;
    };
    let lab = Lab::new(&world, &policy(&OFFICE));
    for remote in DENIED {
        assert!(!reaches(world.pod("client"), at(remote, PORT)));
    }
    let abi = lab.agent.dump("config")["config"]["abi"].as_u64().expect("the layout's version");
    let (code, config, said) = dump(&lab, &["config", "--raw"]);
    assert_eq!((code, &config["version"]), (0, &1.into()), "{said}");
    let row = &config["raw"][0];
    assert_eq!((&row["map"], &row["key"]), (&"config".into(), &"00000000".into()));
    assert_eq!(number(&row["values"][0].as_str().expect("bytes")[..8]), abi, "{row}");

    // Packets of every rule, added up over the CPUs.
    let words: u64 = each_number(&lab.agent.dump("rules"));
    let raw = dump(&lab, &["rules", "--raw"]).1;
    let counters = raw["raw"].as_array().expect("entries").iter().filter(|row| row["map"] == "rule_counters");
    let values = counters.flat_map(|row| row["values"].as_array().expect("values"));
    let packets: u64 = values.map(|value| number(&value.as_str().expect("bytes")[..16])).sum();
    assert!(packets > 0 && packets >= words, "{packets} and {words}");
    for subject in ["endpoints", "tables", "rules", "counters", "flows", "names", "config", "stats", "all"] {
        for format in ["table", "json", "yaml"] {
            let output = lab.agent.dump_output(&[subject, "--raw", "-o", format]);
            assert!(output.status.success() && !output.stdout.is_empty(), "{subject} {format}");
        }
    }
    let text = String::from_utf8(lab.agent.dump_output(&["tables", "--raw"]).stdout).expect("text");
    assert!(text.contains("table_info\n  key       cpu  value\n") && text.contains("tries in slot "), "{text}");
}

fn each_number(rules: &Value) -> u64 {
    rules["rules"].as_array().expect("rules").iter().filter_map(|rule| rule["packets"].as_u64()).sum()
}

/// Policies of as many rules as one may have.
const POLICIES: u32 = 13;
const RULES: u32 = 8000;
/// What a command may use at most, in kilobytes: several times what 100,000 prefixes and rules are in the kernel.
const MEMORY: i64 = 400 << 10;

#[test]
fn more_than_100_000_rules_and_prefixes_are_written_in_little_memory() {
    let Some(world) = world(&["default/client"]) else {
        return;
    };
    if std::env::var_os("EGRESS_PATIENCE").is_some() {
        eprintln!(
            "SKIPPED: an emulated machine is too slow for 100,000 rules, and the command does not depend on the kernel here"
        );
        return;
    }
    let mut text = CONFIG.to_owned();
    for policy in 0..POLICIES {
        let _ = write!(
            text,
            "---\napiVersion: egress.rs/v1alpha1\nkind: EgressNetworkPolicy\nmetadata: {{name: p{policy}, namespace: default}}\n\
             spec:\n  egress:\n"
        );
        for rule in 0..RULES {
            let (high, low) = (rule / 250, rule % 250);
            let _ = writeln!(text, "  - {{type: Deny, to: {{cidrSelector: 20.{policy}.{high}.{low}/32}}}}");
        }
    }
    let lab = Lab::new(&world, &text);
    let most = POLICIES * RULES;
    for (subject, format) in
        [("rules", "table"), ("rules", "json"), ("tables", "table"), ("tables", "json"), ("tables", "yaml")]
    {
        let path = world.files().join(format!("{subject}-{format}"));
        let mut command = world.node().command(Agent::binary());
        command.args(["dump", subject, "-o", format, "--bpffs"]).arg(world.bpffs());
        #[expect(clippy::zombie_processes, reason = "`wait` waits for it, and asks how much memory it used")]
        let child =
            command.stdout(File::create(&path).expect("a file of the world")).spawn().expect("running the agent");
        let (status, kilobytes) = wait(child.id());
        assert_eq!(status, 0, "{subject} {format}");
        assert!(kilobytes < MEMORY, "{subject} {format}: {kilobytes} kB");
        let lines = BufReader::new(File::open(&path).expect("the answer")).lines().map(|line| line.expect("text"));
        let about = lines.filter(|line| line.contains("20.") && line.contains("/32")).count();
        let expected = if subject == "rules" { most } else { most / 2 };
        assert!(about >= usize::try_from(expected).expect("few"), "{subject} {format}: {about} lines");
        eprintln!("dump {subject} -o {format}: {kilobytes} kB, {} bytes", path.metadata().expect("the answer").len());
    }
    // One policy of them, and one pod.
    let (code, rules, _) = dump(&lab, &["rules", "--policy", "default/p7"]);
    assert_eq!((code, rules["rules"].as_array().map(Vec::len)), (0, Some(usize::try_from(RULES).expect("few"))));
    let (code, why) = lab.agent.ask(&["why", "default/client", "20.12.31.249:443"]);
    assert_eq!((code, &why["rules"][0]["origin"]), (1, &"rule 8000 of default/p12".into()));
}

/// Waits for a process. Returns its status and the most memory that it used, in kilobytes.
fn wait(pid: u32) -> (i32, i64) {
    let pid = i32::try_from(pid).expect("a process id");
    let mut status = 0;
    // SAFETY: zero bytes are a valid `rusage`.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: both pointers lead to values of this frame; the child is ours, and nobody else waits for it.
    let ended = unsafe { libc::wait4(pid, &raw mut status, 0, &raw mut usage) };
    assert_eq!(ended, pid);
    (status, usage.ru_maxrss)
}
