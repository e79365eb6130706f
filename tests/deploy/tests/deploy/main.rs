//! What people install, held to the code and to itself.

mod agent;
mod chart;
mod kustomization;
mod rights;
