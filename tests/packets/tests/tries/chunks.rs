//! The chunks that tries are made of, in the kernel: versions that share, an agent that takes over, chunks that are gone or damaged.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::os::fd::{AsFd as _, AsRawFd as _};

use aya::maps::{Array, ArrayOfMaps, Map, MapData};
use egress_agent::datapath::inspect::Inspector;
use egress_common::abi::{VERSION, map};
use egress_common::reason::DropReason;
use egress_common::table::{Leaf, flag};
use egress_common::trie::{CHUNK_UNITS, NOWHERE};
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

/// How many there are.
fn chunks(lab: &Lab) -> usize {
    let outer: ArrayOfMaps<MapData> = lab.map(map::TRIES);
    (0..64).filter(|slot| outer.get(slot, 0).is_ok()).count()
}

#[test]
fn versions_share_a_chunk_and_an_agent_that_takes_over_goes_on_with_it() {
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
        assert_eq!(chunks(&lab), 1, "version {version}");
    }
    lab.apply(DENY_ALL);
    assert_eq!(chunks(&lab), 1, "the small table's");
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

/// Takes a chunk away.
fn remove(lab: &Lab, chunk: u32) {
    const BPF_MAP_DELETE_ELEM: libc::c_long = 3;
    let path = lab.bpffs().join(format!("abi-{VERSION}/maps/{}", map::TRIES));
    let data = MapData::from_pin(path).expect("a pin");
    let attributes = [u64::from(data.fd().as_fd().as_raw_fd().unsigned_abs()), (&raw const chunk).addr() as u64, 0, 0];
    // SAFETY: descriptor and key live through the call; the head of `union bpf_attr` is map, padding, key, value, flags.
    let status =
        unsafe { libc::syscall(libc::SYS_bpf, BPF_MAP_DELETE_ELEM, attributes.as_ptr(), size_of_val(&attributes)) };
    assert_eq!(status, 0, "{}", std::io::Error::last_os_error());
}

/// Nothing passes, because the table cannot be read.
fn check_nothing_passes(lab: &mut Lab, row: &str) {
    for side in SIDES {
        for to in [side.open, side.ports, side.shut, side.inside] {
            let missing = Expect::Drop(DropReason::NoTable);
            lab.check(&side.row(row), Hooks::Both, &Frame::syn(to, 443).bytes(), missing);
        }
    }
}

#[test]
fn a_missing_chunk_drops_everything() {
    if !is_root() {
        return;
    }
    let mut lab = Lab::with(Setup::default(), POLICY);
    remove(&lab, lab.table_info().root4 / CHUNK_UNITS);
    check_nothing_passes(&mut lab, "gone");
    // The next agent starts, and the next version is whole.
    lab.reopen();
    check_nothing_passes(&mut lab, "gone, under the next agent");
    lab.apply(&many(1));
    check(&mut lab, "after");
}

#[test]
fn a_damaged_trie_is_withdrawn_by_the_next_agent_and_its_units_serve_another() {
    if !is_root() {
        return;
    }
    let mut lab = Lab::with(Setup::default(), POLICY);
    let before = lab.table_info();
    let outer: ArrayOfMaps<MapData> = lab.map(map::TRIES);
    for root in [before.root4, before.root6] {
        let chunk = outer.get(&(root / CHUNK_UNITS), 0).expect("a chunk");
        let mut units: Array<MapData, [u8; 32]> = Map::from_map_data(chunk).and_then(TryInto::try_into).expect("units");
        // Entries that lead to a page beyond all units.
        units.set(root % CHUNK_UNITS + 63, [0x7f; 32], 0).expect("written");
    }
    lab.reopen();
    let after = lab.table_info();
    assert_eq!((after.root4, after.root6, after.flags), (NOWHERE, NOWHERE, before.flags));
    check_nothing_passes(&mut lab, "withdrawn");
    assert_eq!(chunks(&lab), 0, "nothing is left of it");
    lab.apply(&many(2));
    check(&mut lab, "after");
    assert_eq!(chunks(&lab), 1);
}

/// Both families of one large table: more than a chunk.
#[test]
fn a_large_table_takes_several_chunks_and_gives_them_back() {
    if !is_root() {
        return;
    }
    let mut setup = Setup::default();
    // One for each rule of two versions.
    setup.capacity.rule_counters = 16_384;
    let mut lab = Lab::with(setup, &many(0));
    assert_eq!(chunks(&lab), 1);
    let mut text = many(0);
    for number in 0..6000 {
        let to = format!("{}.{}.{}.{}/32", 120 + number % 90, number % 251, number / 251, number % 7);
        writeln!(text, "  - {{type: Allow, to: {{cidrSelector: \"{to}\"}}}}").expect("a string");
    }
    lab.apply(&text);
    let many_chunks = chunks(&lab);
    assert!(many_chunks > 1, "{many_chunks}");
    check(&mut lab, "large");
    lab.reopen();
    check(&mut lab, "large, under the next agent");
    lab.apply(DENY_ALL);
    assert_eq!(chunks(&lab), 1, "of {many_chunks}");
    lab.apply(&many(0));
    check(&mut lab, "small again");
}
