//! The least that a program can do with the kernel's LPM trie: one lookup, whose value is the verdict.

use std::net::Ipv4Addr;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use ipnet::Ipv4Net;

use crate::kernel::{self, PrefixKey};
use crate::program::{self, DROP, PASS};

/// A filled trie and the program that asks it.
#[derive(Debug)]
pub(crate) struct Lpm {
    trie: OwnedFd,
    program: OwnedFd,
}

fn value(allowed: bool) -> u32 {
    if allowed { PASS.cast_unsigned() } else { DROP.cast_unsigned() }
}

impl Lpm {
    /// Builds the trie with one batch call; how long that took.
    pub(crate) fn build(prefixes: &[(Ipv4Net, bool)]) -> anyhow::Result<(Self, Duration)> {
        let key = |(prefix, _): &(Ipv4Net, bool)| PrefixKey {
            length: u32::from(prefix.prefix_len()),
            address: prefix.network().octets(),
        };
        let keys: Vec<PrefixKey> = prefixes.iter().map(key).collect();
        let values: Vec<u32> = prefixes.iter().map(|(_, allowed)| value(*allowed)).collect();
        let started = Instant::now();
        // Room for the addresses that updates add.
        let trie = kernel::create_trie(u32::try_from(keys.len())? + 64)?;
        kernel::fill_trie(trie.as_fd(), &keys, &values)?;
        let took = started.elapsed();
        let program = program::lpm(trie.as_fd())?;
        Ok((Self { trie, program }, took))
    }

    /// The program.
    pub(crate) fn program(&self) -> BorrowedFd<'_> {
        self.program.as_fd()
    }

    /// Allows one address.
    pub(crate) fn update(&self, address: Ipv4Addr) -> anyhow::Result<()> {
        kernel::set_prefix(self.trie.as_fd(), PrefixKey { length: 32, address: address.octets() }, value(true))
    }
}
