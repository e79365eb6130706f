//! Where policies, endpoints and facts about this node come from: files or the cluster, resolv.conf, the node's own interfaces.
//!
//! Invariant: a broken document changes nothing; the last good version of each of its objects stays in force (§6.3), also across
//! a restart of the agent. Called by [`reconcile`](crate::reconcile), which owns everything read here.

pub(crate) mod cluster;
pub(crate) mod endpoints;
mod folder;
mod foreign;
mod last_good;
mod merge;
pub(crate) mod node;
pub(crate) mod policies;
pub(crate) mod problem;
mod settle;
mod stored;
pub(crate) mod watch;

pub(crate) use cluster::{ClusterSource, Running};
pub(crate) use endpoints::{Endpoint, EndpointSource, NetnsRef, read_once};
pub(crate) use folder::{FileText, Text, is_policy_file, read_regular};
pub(crate) use policies::PolicySource;
pub(crate) use problem::Problem;
