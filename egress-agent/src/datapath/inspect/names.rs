//! Names and their addresses, as the kernel has them.

use std::net::IpAddr;

use egress_common::dns::Outcome;
use egress_common::names::{NameEntry, NameKey, Slot};

use super::super::error::DatapathError;
use super::super::names;
use super::Inspector;

impl Inspector {
    /// Every suffix of the node's names with the ids of its places.
    pub fn names(&self) -> Result<Vec<(NameKey, NameEntry)>, DatapathError> {
        names::read_entries(&self.pins)
    }

    /// Every address that has names, with all of them, ended ones too.
    pub fn name_addresses(&self) -> Result<Vec<(IpAddr, Vec<Slot>)>, DatapathError> {
        names::read_addresses(&self.pins)
    }

    /// The names of one address, ended ones too.
    pub fn names_of(&self, address: IpAddr) -> Result<Vec<Slot>, DatapathError> {
        names::read_address(&self.pins, address)
    }

    /// How often each outcome of a DNS message was counted.
    pub fn dns_counters(&self) -> Result<Vec<(Outcome, u64)>, DatapathError> {
        names::read_counters(&self.pins)
    }
}
