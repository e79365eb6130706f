//! Pools of tries in the kernel: versions that share, an agent that takes over, a pool that is gone.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::os::fd::{AsFd as _, AsRawFd as _};

use aya::maps::{ArrayOfMaps, MapData};
use egress_agent::datapath::inspect::Inspector;
use egress_common::abi::{VERSION, map};
use egress_common::reason::DropReason;
use egress_common::table::{Leaf, flag};
use egress_packets::{Expect, Frame, Hooks, Lab, Setup, is_root};

use crate::sides::{DENY_ALL, POLICY, SIDES};

/// One rule for each of many prefixes of both families; of every seventh the action depends on `version`.
fn many(version: usize) -> String {
    let mut text = format!(
        "{DENY_ALL}---\napiVersion: egress.rs/v1alpha1\nkind: EgressNetworkPolicy\nmetadata: {{name: p}}\nspec:\n  egress:\n"
    );
    for number in 0..600 {
        let action = if number % 7 == 0 && (number / 7) % 5 == version % 5 { "Deny" } else { "Allow" };
        let to = if number % 2 == 0 {
            format!("{}.{}.{}.0/{}", 20 + number % 90, number / 9, number % 256, 24 + number % 3 * 4)
        } else {
            format!("2001:db8:{:x}:{:x}::/{}", number % 40, number, 64 + number % 5 * 16)
        };
        writeln!(text, "  - {{type: {action}, to: {{cidrSelector: \"{to}\"}}}}").expect("a string");
    }
    text
}

/// Asks for the first addresses of some prefixes of the table that the lab is under, and beside them.
fn check(lab: &mut Lab, row: &str) {
    let policies = lab.policies().clone();
    let prefixes: Vec<IpAddr> = policies.table.table.entries().map(|(prefix, _)| prefix.addr()).collect();
    for address in prefixes.into_iter().step_by(23).filter(|address| !address.is_unspecified()) {
        let said = policies.table.table.lookup(address, 6, 443).decision;
        let origin = policies.rules.rules[usize::try_from(said.rank()).expect("24 bits")].origin.to_string();
        let expect = if said.is_deny() { Expect::Deny(&origin) } else { Expect::Allow(&origin) };
        lab.check(&format!("{row}, {address}"), Hooks::Both, &Frame::syn(address, 443).bytes(), expect);
    }
}

/// Pools that there are.
fn pools(lab: &Lab) -> usize {
    let outer: ArrayOfMaps<MapData> = lab.map(map::TRIES);
    (0..16).filter(|slot| outer.get(slot, 0).is_ok()).count()
}

#[test]
fn versions_share_a_pool_and_an_agent_that_takes_over_goes_on_with_it() {
    if !is_root() {
        return;
    }
    let mut lab = Lab::with(Setup::default(), &many(0));
    let info = lab.table_info();
    assert_eq!(info.flags & (flag::TRIE4 | flag::TRIE6), flag::TRIE4 | flag::TRIE6);
    check(&mut lab, "first");
    for version in 1..20 {
        let applied = lab.apply(&many(version));
        assert_eq!((applied.tables_built, applied.tables_freed), (1, 1), "{applied:?}");
        if version % 4 == 0 {
            lab.reopen();
        }
        check(&mut lab, &format!("version {version}"));
        assert_eq!(pools(&lab), 1, "version {version}");
        assert_eq!(lab.table_info().pool, info.pool, "version {version}");
    }
    lab.apply(DENY_ALL);
    assert_eq!(pools(&lab), 1, "the small table's");
}

#[test]
fn what_is_read_from_the_pins_says_what_was_compiled() {
    if !is_root() {
        return;
    }
    let lab = Lab::with(Setup::default(), &many(3));
    let inspector = Inspector::open(lab.bpffs()).expect("pins");
    let tables = inspector.tables(true).expect("tables");
    let [view] = tables.as_slice() else { panic!("{} tables", tables.len()) };
    let table = &lab.policies().table.table;
    assert!(view.prefixes.len() <= table.prefixes(), "{} of {}", view.prefixes.len(), table.prefixes());
    for (prefix, _) in table.entries() {
        let address = prefix.addr();
        let containing = view.prefixes.iter().filter(|(prefix, _)| prefix.contains(&address));
        let longest: Option<Leaf> = containing.max_by_key(|(prefix, _)| prefix.prefix_len()).map(|(_, leaf)| *leaf);
        assert_eq!(longest, table.leaf(address), "{address}");
        let asked = inspector.containing(view, address).expect("the trie");
        assert_eq!(asked.first().map(|(_, leaf)| *leaf), longest, "{address}");
    }
}

#[test]
fn a_missing_pool_drops_everything() {
    const BPF_MAP_DELETE_ELEM: libc::c_long = 3;
    if !is_root() {
        return;
    }
    let mut lab = Lab::with(Setup::default(), POLICY);
    let path = lab.bpffs().join(format!("abi-{VERSION}/maps/{}", map::TRIES));
    let data = MapData::from_pin(path).expect("a pin");
    let pool = lab.table_info().pool;
    let attributes = [u64::from(data.fd().as_fd().as_raw_fd().unsigned_abs()), (&raw const pool).addr() as u64, 0, 0];
    // SAFETY: descriptor and key live through the call; the head of `union bpf_attr` is map, padding, key, value, flags.
    let status =
        unsafe { libc::syscall(libc::SYS_bpf, BPF_MAP_DELETE_ELEM, attributes.as_ptr(), size_of_val(&attributes)) };
    assert_eq!(status, 0, "{}", std::io::Error::last_os_error());
    for side in SIDES {
        for to in [side.open, side.ports, side.shut, side.inside] {
            let missing = Expect::Drop(DropReason::NoTable);
            lab.check(&side.row("gone"), Hooks::Both, &Frame::syn(to, 443).bytes(), missing);
        }
    }
    // The next agent starts, and the next version is whole.
    lab.reopen();
    lab.apply(&many(1));
    check(&mut lab, "after");
}
