//! Holds the importers to the evaluators of this package: random objects are written as their users do, imported, compiled, and every
//! verdict is compared; golden files show what an import looks like; broken texts break nothing.
//!
//! `EGRESS_CASES` scales the random runs, `EGRESS_SEED` repeats one, `EGRESS_GOLDEN=write` accepts what the golden cases give now.

mod golden;
mod imported;
mod mutations;
mod properties;
mod round_trip;
mod settings;
