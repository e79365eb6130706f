//! The Kubernetes API: the client, what is watched, and the index of what was seen.

#![allow(dead_code, reason = "the watchers that use the client land next")]

mod client;

#[allow(unused_imports, reason = "see above")]
pub(crate) use client::{ConnectError, connect};
