//! End to end: the real agent on a node of its own, pods with real interfaces and cgroups, and what really arrived outside.
//!
//! One program, so that it can be carried to other kernels. Every test builds its own world; all need root and say so without it.

mod agent_life;
mod agreement;
mod audit;
mod capacity;
mod changes;
mod cluster;
mod dns;
mod dns_attacks;
mod dns_life;
mod dns_race;
mod dns_servers;
mod dump;
mod endpoints;
mod events;
mod examples;
mod files;
mod flow_log;
mod fragments;
mod metrics;
mod monitor;
mod order;
mod pipes;
mod reject;
mod scope;
mod serving;
mod status;
mod suggest;
mod terminal;
mod versions;
mod ways_out;
mod why;
