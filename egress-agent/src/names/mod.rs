//! The agent's half of DNS names (§5): which numbers stand for which places, which names are asked for and when, and what is known of
//! each.
//!
//! [`registry`] gives ids, [`poll`] asks, [`known`] remembers. Everything that decides is in the kernel: the agent hands it the trie of
//! names and the answers that it polled, and reads what pods were answered.

mod answer;
mod known;
mod lifetime;
mod place;
mod poll;
mod registry;
