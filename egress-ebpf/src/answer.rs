//! What a table says, in one register: functions that the verifier checks by themselves return no more.

use core::mem::MaybeUninit;

use egress_common::class::ClassVerdict;
use egress_common::names::State;
use egress_common::table::Decision;

/// What the table says, packed into one register: the decision below, the audit decision above. All zero: no table.
#[derive(Clone, Copy, PartialEq, Eq)]
#[must_use]
pub struct Answer(pub u64);

impl Answer {
    pub const NONE: Self = Self(0);
    /// It depends on the port. No decision has these bits.
    pub const DEPENDS: Self = Self(1);

    /// Lets the verifier forget what it knows of the answer, so that it follows what comes next once. Changes nothing at run time.
    #[inline(always)]
    pub fn forget(self) -> Self {
        let mut memory = MaybeUninit::<u64>::uninit();
        let whole = memory.as_mut_ptr();
        let halves: *mut u32 = whole.cast();
        // SAFETY: both halves of a word of this stack, which is written before it is read.
        unsafe {
            halves.write_volatile(self.0 as u32);
            halves.add(1).write_volatile((self.0 >> 32) as u32);
            Self(whole.read_volatile())
        }
    }

    #[inline(always)]
    pub fn of_verdict(verdict: ClassVerdict) -> Self {
        let audit = match verdict.audit {
            Some(audit) => audit.0,
            None => 0,
        };
        Self(u64::from(verdict.decision.0) | u64::from(audit) << 32)
    }

    /// The verdict; its index is 0.
    #[inline(always)]
    pub fn verdict(self) -> Option<ClassVerdict> {
        Some(ClassVerdict { decision: self.decision()?, audit: self.audit(), index: 0 })
    }

    /// The verdict of first matches.
    #[inline(always)]
    pub fn of_state(state: State) -> Self {
        state.verdict().map_or(Self::NONE, Self::of_verdict)
    }

    /// Whether nothing passes: a Deny, or no table.
    #[inline(always)]
    pub fn denies(self) -> bool {
        self.decision().is_none_or(Decision::is_deny)
    }

    /// Whether it depends on the port, which is not known.
    #[inline(always)]
    pub fn depends(self) -> bool {
        self.0 == Self::DEPENDS.0
    }

    /// The decision in force; `None` if the table is missing or damaged.
    #[inline(always)]
    pub fn decision(self) -> Option<Decision> {
        let bits = self.0 as u32;
        if bits == 0 { None } else { Some(Decision(bits)) }
    }

    /// The decision that Audit policies would make, where it is another one.
    #[inline(always)]
    pub fn audit(self) -> Option<Decision> {
        let bits = (self.0 >> 32) as u32;
        if bits == 0 { None } else { Some(Decision(bits)) }
    }
}
