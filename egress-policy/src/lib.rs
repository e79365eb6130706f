//! What an egress policy means, from the text of a file to the table that the kernel searches.
//!
//! Data flows one way: [`document`] reads text into validated objects ([`model`], written as in [`spec`]); [`rules`] puts the rules
//! that apply to one pod in order; [`compile`] turns that order into prefixes, and [`trie`] prefixes into what the kernel walks where there are many. [`follow`] keeps what the next version of the policies has in common with the last. [`warnings`], [`diff`], [`explain`] and [`describe`]
//! speak about the results. Invariant: nothing here does I/O, asks for the time or holds state; everything is an argument. The agent
//! and its CLI call this crate, and both use the same code that fills the kernel.
#![forbid(unsafe_code)]

pub mod compile;
pub mod crd;
pub mod describe;
pub mod diff;
pub mod document;
pub mod explain;
pub mod follow;
pub mod import;
pub mod model;
pub mod name;
pub mod places;
pub mod ports;
pub mod ranges;
pub mod rules;
pub mod selector;
pub mod spec;
pub mod status;
pub mod trie;
pub mod warnings;

#[cfg(test)]
mod sample;
