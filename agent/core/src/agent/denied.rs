//! What the API server does not let the agent do, as far as it was asked.

use std::collections::BTreeSet;

use super::{Agent, Fact};
use crate::permission::Permission;

impl Agent {
    /// The guarding goes on, whatever is denied: it may be granted by the time it's needed.
    pub(super) fn take_denied(&mut self, denied: BTreeSet<Permission>) {
        if denied == self.denied {
            return;
        }
        self.tell(match denied.is_empty() {
            true => Fact::Granted,
            false => Fact::Denied(denied.clone()),
        });
        self.denied = denied;
    }
}
