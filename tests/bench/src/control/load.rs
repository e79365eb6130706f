//! What a process takes of the machine, as `/proc` says.

use std::time::{Duration, Instant};

use anyhow::Context as _;

use crate::results::Load;

/// Where a count of processor time began.
pub(super) struct Meter {
    process: u32,
    begun: Instant,
    used: Duration,
}

impl Meter {
    /// Begins to count.
    pub(super) fn of(process: u32) -> anyhow::Result<Self> {
        Ok(Self { process, begun: Instant::now(), used: processor_time(process)? })
    }

    /// What was used since.
    pub(super) fn read(&self, what: impl Into<String>) -> anyhow::Result<Load> {
        let used = processor_time(self.process)?.saturating_sub(self.used);
        let seconds = self.begun.elapsed().as_secs_f64();
        let percent = used.as_secs_f64() / seconds * 100.0;
        let rss_kib = resident_kib(self.process)?;
        Ok(Load { what: what.into(), seconds, percent, rss_kib, lookups_per_second: None, stale: None })
    }
}

/// Processor time of all threads of a process, ended ones too, in the kernel too.
pub(super) fn processor_time(process: u32) -> anyhow::Result<Duration> {
    let clock = nix::time::clock_getcpuclockid(nix::unistd::Pid::from_raw(i32::try_from(process)?))?;
    Ok(nix::time::clock_gettime(clock)?.into())
}

/// Memory of a process that is in RAM.
pub(super) fn resident_kib(process: u32) -> anyhow::Result<u64> {
    let path = format!("/proc/{process}/status");
    let text = std::fs::read_to_string(&path).with_context(|| path.clone())?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).with_context(|| format!("no VmRSS in {path}"))
}
