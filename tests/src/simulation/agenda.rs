//! Virtual time: what happens next, and when.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};

/// Events in the order of their times; equal times keep the order in which they were put in.
#[derive(Debug)]
pub struct Agenda<E> {
    now: Timestamp,
    events: BTreeMap<(Timestamp, u64), E>,
    count: u64,
}

impl<E> Agenda<E> {
    /// Nothing yet, at `start`.
    pub fn new(start: Timestamp) -> Self {
        Self { now: start, events: BTreeMap::new(), count: 0 }
    }

    /// The virtual time.
    pub fn now(&self) -> Timestamp {
        self.now
    }

    /// Lets `event` happen after `delay`.
    pub fn after(&mut self, delay: SignedDuration, event: E) {
        let at = self.now.checked_add(delay).unwrap_or(Timestamp::MAX);
        self.count += 1;
        self.events.insert((at, self.count), event);
    }

    /// The next event; time moves on to it.
    pub fn advance(&mut self) -> Option<E> {
        let ((at, _), event) = self.events.pop_first()?;
        self.now = self.now.max(at);
        Some(event)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_come_in_time_and_then_in_order() {
        let mut agenda = Agenda::new(Timestamp::UNIX_EPOCH);
        let second = SignedDuration::from_secs(1);
        agenda.after(second * 2, 'c');
        agenda.after(second, 'a');
        agenda.after(second, 'b');
        let order: Vec<char> = std::iter::from_fn(|| agenda.advance()).collect();
        assert_eq!(order, ['a', 'b', 'c']);
        assert_eq!(agenda.now(), Timestamp::from_second(2).unwrap());
    }
}
