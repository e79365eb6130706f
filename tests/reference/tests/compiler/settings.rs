//! How much to test, from the environment.

/// Worlds of an ordinary run.
const CASES: u64 = 2_000;
/// First seed of an ordinary run; the same each time, so that a change that fails is the change's fault.
const SEED: u64 = 0x00e6_4e55;

/// Packets asked for in each world.
pub(crate) const PACKETS: usize = 200;

/// Seeds to run: `EGRESS_CASES / share` of them from `EGRESS_SEED` on, or one where only a seed is given.
pub(crate) fn seeds(share: u64) -> std::ops::Range<u64> {
    let seed = number("EGRESS_SEED");
    let cases = number("EGRESS_CASES").map(|cases| cases.div_ceil(share));
    let first = seed.unwrap_or(SEED);
    first..first + cases.unwrap_or(if seed.is_some() { 1 } else { CASES / share })
}

/// Whether this is a run of ordinary size or larger, in which every outcome must be reached.
pub(crate) fn is_full_run() -> bool {
    number("EGRESS_SEED").is_none() && number("EGRESS_CASES").is_none_or(|cases| cases >= CASES)
}

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable}={text} is not a number")))
}
