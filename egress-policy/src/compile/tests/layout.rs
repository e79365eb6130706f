//! How a table is laid out: prefixes, classes, limits, and what is shadowed.

use std::sync::Arc;

use super::*;

#[test]
fn an_empty_list_has_the_default_action_in_both_families() {
    let world = World::new("");
    assert!(world.list.is_trivial());
    assert_eq!(world.decider("192.0.2.1", TCP, 1), "default action");
    assert_eq!(world.decider("2001:db8::1", TCP, 1), "default action");
    assert_eq!(world.table.prefixes4.first().unwrap().0.prefix_len(), 0);
    assert_eq!(world.table.prefixes6.first().unwrap().0.prefix_len(), 0);
}

#[test]
fn a_prefix_that_says_what_its_ancestor_says_is_left_out() {
    let before = World::new("").table.prefixes();
    let world = World::new(&one(&[rule("Deny", "0.0.0.0/0"), rule("Allow", "1.2.3.0/24"), rule("Deny", "2.0.0.0/8")]));
    assert_eq!(world.table.prefixes(), before, "the first rule covers the others");
    let world = World::new(&one(&[rule("Allow", "1.2.3.0/24"), rule("Deny", "0.0.0.0/0")]));
    assert_eq!(world.table.prefixes(), before + 1);
}

#[test]
fn equal_classes_are_stored_once() {
    let except: Vec<String> = (0..20).map(|i| format!("10.0.{i}.0/24")).collect();
    let text = one(&[
        format!("{{type: Deny, to: {{cidrSelector: 10.0.0.0/8, except: [{}]}}}}", except.join(", ")),
        port_rule("Deny", "0.0.0.0/0", "protocol: TCP, port: 25"),
    ]);
    let world = World::new(&text);
    let leaves: std::collections::HashSet<_> = world
        .table
        .prefixes4
        .iter()
        .filter(|(prefix, _)| prefix.prefix_len() == 24 && prefix.network().octets()[0] == 10)
        .collect();
    assert_eq!(leaves.len(), 20);
    let distinct: std::collections::HashSet<u32> = leaves.iter().map(|(_, leaf)| leaf.0).collect();
    assert_eq!(distinct.len(), 1);
    assert!(!world.allows("10.0.7.7", TCP, 25));
    assert!(world.allows("10.0.7.7", TCP, 26));
    assert!(!world.allows("10.1.7.7", TCP, 26));
}

#[test]
fn a_class_is_sorted_from_zero_and_has_no_equal_neighbours() {
    let world = World::new(&one(&[
        port_rule("Allow", "1.2.3.0/24", "protocol: TCP, port: 80, endPort: 90"),
        port_rule("Allow", "0.0.0.0/0", "protocol: TCP, port: 85, endPort: 95"),
        port_rule("Deny", "0.0.0.0/0", "protocol: Any"),
    ]));
    let leaf = world.table.leaf("1.2.3.4".parse().unwrap()).unwrap();
    let intervals = world.table.intervals(leaf);
    let starts: Vec<u32> = intervals.iter().map(|(from, _)| *from).collect();
    assert_eq!(starts, [0, class::key(6, 80), class::key(6, 91), class::key(6, 96)]);
    assert!(intervals.windows(2).all(|pair| pair[0].1 != pair[1].1));
}

#[test]
fn a_leaf_without_ports_is_inline_and_one_with_audit_is_a_class() {
    let world = World::new(&one(&[rule("Deny", "1.2.3.0/24")]));
    let leaf = world.table.leaf("1.2.3.4".parse().unwrap()).unwrap();
    assert!(leaf.open().is_ok());
    assert_eq!(world.table.classes.len(), World::new("").table.classes.len());
    let world = World::new(&policy("p", "mode: Audit", &[&rule("Deny", "1.2.3.0/24")]));
    let leaf = world.table.leaf("1.2.3.4".parse().unwrap()).unwrap();
    let base = leaf.open().unwrap_err() as usize;
    assert_eq!(world.table.classes.get(base), Some(&ClassEntry { from: 1, ..ClassEntry::default() }));
}

#[test]
fn prefixes_are_sorted_for_the_lookup() {
    let rules = ["10.0.0.0/8", "10.0.0.0/24", "9.0.0.0/8", "10.0.0.0/16", "255.0.0.0/8", "0.0.0.0/1", "0.0.0.0/0"];
    let world = World::new(&one(&rules
        .iter()
        .enumerate()
        .map(|(i, cidr)| rule(if i % 2 == 0 { "Deny" } else { "Allow" }, cidr))
        .collect::<Vec<_>>()));
    assert!(world.table.prefixes4.is_sorted_by(|a, b| a.0 < b.0));
    assert!(world.table.prefixes6.is_sorted_by(|a, b| a.0 < b.0));
}

// §6.7
#[test]
fn what_does_not_fit_is_refused_with_its_numbers() {
    let rules: Vec<String> = (0..20).map(|i| rule("Deny", &format!("1.2.{i}.0/24"))).collect();
    let list = list(&one(&rules));
    let fits = compile(&list, &Limits::default()).unwrap();
    let limits = Limits { prefixes: fits.prefixes(), ..Limits::default() };
    assert_eq!(compile(&list, &limits), Ok(fits.clone()), "exactly full fits");
    let limits = Limits { prefixes: fits.prefixes() - 5, ..Limits::default() };
    let error =
        CompileError::Capacity { what: Resource::Prefixes, needed: fits.prefixes(), limit: fits.prefixes() - 5 };
    assert_eq!(compile(&list, &limits), Err(error));
    assert!(error.to_string().contains("prefixes"), "{error}");
    let limits = Limits { rules: list.rules.len() - 1, ..Limits::default() };
    let error = CompileError::Capacity { what: Resource::Rules, needed: list.rules.len(), limit: list.rules.len() - 1 };
    assert_eq!(compile(&list, &limits), Err(error));
    let limits = Limits { class_entries: fits.classes.len() - 1, ..Limits::default() };
    let error = compile(&list, &limits).unwrap_err();
    assert!(matches!(error, CompileError::Capacity { what: Resource::ClassEntries, .. }), "{error}");
}

#[test]
fn a_class_with_too_many_intervals_is_refused() {
    let ports = |first: u32| -> Vec<String> {
        let entry = |protocol: &str, i: u32| format!("{{protocol: {protocol}, port: {}}}", first + i * 4);
        let entries: Vec<String> = (0..16_000).flat_map(|i| [entry("TCP", i), entry("UDP", i)]).collect();
        let rule = |ports: &[String]| {
            format!("{{type: Deny, to: {{cidrSelector: 0.0.0.0/0}}, ports: [{}]}}", ports.join(", "))
        };
        entries.chunks(MAX_PORTS).map(rule).collect()
    };
    let few = one(&ports(1));
    let world = World::new(&few);
    assert!(!world.allows("192.0.2.1", UDP, 63_997));
    assert!(world.allows("192.0.2.1", UDP, 63_998));
    let many = list(&one(&[ports(1), ports(3)].concat()));
    let limits = Limits::default();
    let error = compile(&many, &limits).unwrap_err();
    assert!(matches!(error, CompileError::Capacity { what: Resource::ClassIntervals, limit: 65_536, .. }), "{error}");
}

#[test]
fn a_damaged_table_denies() {
    let mut table = World::new(&one(&[port_rule("Allow", "0.0.0.0/0", "protocol: TCP")])).table;
    table.classes = Entries::default();
    assert!(table.lookup("1.2.3.4".parse().unwrap(), 6, 1).decision.is_deny());
    table.prefixes6 = Arc::default();
    assert!(table.lookup("2001:db8::1".parse().unwrap(), 6, 1).decision.is_deny());
}

// §4.3
#[test]
fn rules_that_earlier_ones_cover_are_found_exactly() {
    let numbers = |text: &str| {
        let list = list(text);
        let (_, coverage) = compile_with_coverage(&list, &Limits::default()).unwrap();
        shadowed(&list, &coverage).into_iter().map(|warning| warning.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(numbers(&one(&[rule("Allow", "1.2.3.0/24"), rule("Deny", "0.0.0.0/0")])), [""; 0]);
    let covered = numbers(&one(&[rule("Deny", "0.0.0.0/0"), rule("Allow", "1.2.3.0/24"), rule("Allow", "::/0")]));
    assert_eq!(
        covered,
        [
            "EgressNetworkPolicy default/p: spec.egress: rule 2 never decides, because earlier rules cover all that they match; remove or move them"
        ]
    );
    // A union of two halves covers the whole, in addresses and in ports.
    let halves = [rule("Deny", "10.0.0.0/9"), rule("Deny", "10.128.0.0/9"), rule("Allow", "10.0.0.0/8")];
    assert_eq!(numbers(&one(&halves)).len(), 1);
    let halves = [rule("Deny", "::/1"), rule("Deny", "8000::/1"), rule("Allow", "::/0")];
    assert_eq!(numbers(&one(&halves)).len(), 1);
    let ports = [
        port_rule("Deny", "0.0.0.0/0", "protocol: TCP, port: 1, endPort: 100"),
        port_rule("Deny", "0.0.0.0/0", "protocol: TCP, port: 101, endPort: 200"),
        port_rule("Allow", "1.2.3.0/24", "protocol: TCP, port: 50, endPort: 150"),
    ];
    assert_eq!(numbers(&one(&ports)).len(), 1);
    let almost = [rule("Deny", "10.0.0.0/9"), rule("Deny", "10.128.0.0/10"), rule("Allow", "10.0.0.0/8")];
    assert_eq!(numbers(&one(&almost)), [""; 0]);
}

// §4.3
#[test]
fn pass_and_audit_rules_are_shadowed_by_their_own_measure() {
    let numbers = |text: &str| {
        let list = list(text);
        let (_, coverage) = compile_with_coverage(&list, &Limits::default()).unwrap();
        shadowed(&list, &coverage).len()
    };
    let pass = cluster("a", "tier: Admin", &[&rule("Pass", "10.0.0.0/8"), &rule("Deny", "0.0.0.0/0")]);
    assert_eq!(numbers(&pass), 0, "Pass changes the way through the tiers");
    let covered = cluster("a", "tier: Admin", &[&rule("Deny", "0.0.0.0/0"), &rule("Pass", "10.0.0.0/8")]);
    assert_eq!(numbers(&covered), 1);
    let audit = policy("a", "mode: Audit, priority: 1", &[&rule("Deny", "10.0.0.0/8")]);
    let enforced = policy("b", "", &[&rule("Allow", "10.0.0.0/8")]);
    assert_eq!(numbers(&format!("{audit}{enforced}")), 0, "a rule under Audit shadows no rule in force");
    let behind = policy("c", "mode: Audit, priority: 200", &[&rule("Deny", "10.0.0.0/8")]);
    assert_eq!(numbers(&format!("{enforced}{behind}")), 1);
    let names = policy("p", "", &["{type: Allow, to: {dnsName: a.com}}", "{type: Allow, to: {nodeSelector: {}}}"]);
    assert_eq!(numbers(&names), 0, "rules without addresses have their own warnings");
}

/// Random lists against a first-match walk over the rules themselves; the independent oracle of `tests/reference` goes further.
#[test]
fn tables_agree_with_a_walk_over_the_rules() {
    let mut random = Random(7);
    for round in 0..300 {
        let text = random.policies();
        let world = World::new(&text);
        for _ in 0..60 {
            let (address, protocol, port) = random.packet();
            world.lookup(&address, protocol, port);
        }
        for range in [KeyRange::protocol(TCP), KeyRange::protocol(UDP)] {
            let address = random.packet().0.parse().unwrap();
            let protocol = crate::ports::protocol_of(range.first);
            if let Some(any) = world.table.lookup_any_port(address, protocol) {
                // What Audit policies would do may still depend on the port; it decides nothing (§2.5).
                for port in [0, 1, 79, 80, 443, 65535] {
                    let known = world.table.lookup(address, protocol, port);
                    assert_eq!(known.decision, any.decision, "round {round}: {text}");
                    assert!(any.audit.is_none() || known == any, "round {round}: {text}");
                }
            }
        }
    }
}

/// A small generator (xorshift), so that a failure can be repeated.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % limit
    }

    fn pick<'a>(&mut self, items: &[&'a str]) -> &'a str {
        items[usize::try_from(self.below(items.len() as u64)).unwrap()]
    }

    fn prefix(&mut self, inside: Option<(&str, u8)>) -> (String, u8) {
        let v6 = inside.map_or(self.below(3) == 0, |(base, _)| base.contains(':'));
        let bits: u128 = (0..16)
            .fold(0, |bits, _| bits << 8 | u128::from([0_u8, 1, 128, 255][usize::try_from(self.below(4)).unwrap()]));
        let shortest = inside.map_or(0, |(_, length)| length);
        if v6 {
            let length = shortest + u8::try_from(self.below(u64::from(129 - shortest)).min(40)).unwrap();
            let mut net = ipnet::Ipv6Net::new(bits.into(), length.min(128)).unwrap();
            if let Some((base, base_length)) = inside {
                let base: std::net::Ipv6Addr = base.parse().unwrap();
                let outside = u128::MAX.checked_shr(u32::from(base_length)).unwrap_or(0);
                net =
                    ipnet::Ipv6Net::new((base.to_bits() & !outside | bits & outside).into(), net.prefix_len()).unwrap();
            }
            return (net.trunc().network().to_string(), net.prefix_len());
        }
        let length = shortest + u8::try_from(self.below(u64::from(33 - shortest))).unwrap();
        let mut address = u32::try_from(bits >> 96).unwrap();
        if let Some((base, base_length)) = inside {
            let base: std::net::Ipv4Addr = base.parse().unwrap();
            let outside = u32::MAX.checked_shr(u32::from(base_length)).unwrap_or(0);
            address = base.to_bits() & !outside | address & outside;
        }
        let net = ipnet::Ipv4Net::new(address.into(), length).unwrap().trunc();
        (net.network().to_string(), length)
    }

    fn rule(&mut self, actions: &[&str]) -> String {
        let (base, length) = self.prefix(None);
        let except: Vec<String> = (0..self.below(4).saturating_sub(1))
            .map(|_| {
                let (address, length) = self.prefix(Some((&base, length)));
                format!("'{address}/{length}'")
            })
            .collect();
        let ports = match self.below(4) {
            0 => format!(", ports: [{{protocol: {}}}]", self.pick(&["TCP", "UDP", "ICMP", "Any"])),
            1 => format!(", ports: [{{protocol: TCP, port: {}, endPort: 443}}]", self.pick(&["1", "79", "80", "443"])),
            _ => String::new(),
        };
        let action = self.pick(actions);
        format!("{{type: {action}, to: {{cidrSelector: '{base}/{length}', except: [{}]}}{ports}}}", except.join(", "))
    }

    fn policies(&mut self) -> String {
        let mut text = String::new();
        for (kind, tier) in [("admin", "tier: Admin, "), ("own", ""), ("base", "tier: Baseline, ")] {
            for number in 0..self.below(3) {
                let mode = self.pick(&["Enforce", "Enforce", "Audit"]);
                let spec = format!("{tier}priority: {}, mode: {mode}", self.below(3));
                let actions: &[&str] = if kind == "admin" { &["Allow", "Deny", "Pass"] } else { &["Allow", "Deny"] };
                let rules: Vec<String> = (0..self.below(7)).map(|_| self.rule(actions)).collect();
                let rules: Vec<&str> = rules.iter().map(String::as_str).collect();
                let name = format!("{kind}{number}");
                text += &if kind == "own" { policy(&name, &spec, &rules) } else { cluster(&name, &spec, &rules) };
            }
        }
        text
    }

    fn packet(&mut self) -> (String, u8, u16) {
        let (address, _) = self.prefix(None);
        let protocol = [TCP, TCP, UDP, ICMP, 47][usize::try_from(self.below(5)).unwrap()];
        let port = if protocol == 47 {
            0
        } else {
            [0, 1, 78, 79, 80, 443, 444, 65535][usize::try_from(self.below(8)).unwrap()]
        };
        (address, protocol, port)
    }
}
