//! Asks for every exact name of the policies by its own TTL (§5.2a): [`schedule`] says when, [`lookup`] asks.

mod lookup;
mod schedule;

pub(crate) use lookup::{Failure, PORT, Resolvers, TIMEOUT};
pub(crate) use schedule::{Job, Schedule};
