//! On a real cluster, from installing to removing.

mod api;
mod life;
mod newcomer;
mod nodes;
mod report;
