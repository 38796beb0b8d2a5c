//! What pods receive and send between two readings.

/// What was read of a pod's network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PodNetwork {
    /// Which network it is: a pod whose sandbox is made anew gets another, with counters of its own.
    pub namespace: u64,
    /// Bytes received and sent, by all interfaces but the loopback.
    pub bytes: [u64; 2],
}

impl PodNetwork {
    /// Bytes received and sent since then; `None` if another network was read, or an interface went and
    /// took its count along.
    pub(super) fn since(self, before: Self) -> Option<[u64; 2]> {
        let [received, sent] = self.bytes;
        let [received_before, sent_before] = before.bytes;
        let since = [received.checked_sub(received_before)?, sent.checked_sub(sent_before)?];
        (self.namespace == before.namespace).then_some(since)
    }
}
