//! Packets without a pause, while something else happens to the datapath: one verdict for every one of them.

use std::os::fd::RawFd;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::runner::run_here;

/// What became of the packets of one frame.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Storm {
    /// Packets.
    pub packets: u64,
    /// Those to which something else happened than `action` of [`rage`].
    pub others: u64,
}

/// Runs each of `frames` through `program` again and again, each in a thread of its own, while `meanwhile` works here. `action` is
/// what the program has to return for each.
pub(crate) fn rage(program: RawFd, frames: &[(Vec<u8>, u32)], meanwhile: impl FnOnce()) -> Vec<Storm> {
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let threads: Vec<_> =
            frames.iter().map(|(frame, action)| scope.spawn(|| blow(program, frame, *action, &over))).collect();
        meanwhile();
        over.store(true, Ordering::Relaxed);
        threads.into_iter().map(|thread| thread.join().expect("a storm")).collect()
    })
}

fn blow(program: RawFd, frame: &[u8], action: u32, over: &AtomicBool) -> Storm {
    let mut storm = Storm::default();
    while !over.load(Ordering::Relaxed) {
        let ran = run_here(program, frame).expect("a run");
        storm.packets += 1;
        storm.others += u64::from(ran.action != action);
    }
    storm
}
