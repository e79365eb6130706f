//! Holds the policy compiler to the oracle: worlds are written as a user would, read through `document::read`, compiled, looked up,
//! and compared packet by packet with the naive evaluator. `EGRESS_CASES` (worlds) scales the runs, `EGRESS_SEED` repeats one.

mod adversarial;
mod bridge;
mod counters;
mod differences;
mod exhaustive;
mod names;
mod refusals;
mod sections;
mod sequences;
mod services;
mod settings;
mod worlds;
