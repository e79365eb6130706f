//! How much to test, from the environment.

const CASES: u64 = 300;
/// The same each time, so that a change that fails is the change's fault.
const SEED: u64 = 0x001b_9027;

/// Packets asked for in each case, of each pod.
pub(crate) const PACKETS: usize = 40;

/// Seeds to run: `EGRESS_CASES` of them from `EGRESS_SEED` on, or one where only a seed is given.
pub(crate) fn seeds() -> std::ops::Range<u64> {
    let seed = number("EGRESS_SEED");
    let first = seed.unwrap_or(SEED);
    first..first + number("EGRESS_CASES").unwrap_or(if seed.is_some() { 1 } else { CASES })
}

/// Whether this is a run of ordinary size or larger, in which every outcome must be reached.
pub(crate) fn is_full_run() -> bool {
    number("EGRESS_SEED").is_none() && number("EGRESS_CASES").is_none_or(|cases| cases >= CASES)
}

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable}={text} is not a number")))
}
