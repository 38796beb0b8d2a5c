//! Instances that are to die soon after their birth, put in by command.

use jiff::SignedDuration;

/// How many of the next launches die by themselves, and how long after launch.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Doomed {
    left: u32,
    after: SignedDuration,
}

impl Doomed {
    pub(super) fn new(left: u32, after: SignedDuration) -> Self {
        Self { left, after }
    }

    /// The next launch's fate.
    pub(super) fn take(&mut self) -> Option<SignedDuration> {
        self.left = self.left.checked_sub(1)?;
        Some(self.after)
    }
}
