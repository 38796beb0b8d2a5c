//! The clocks, the wall's without jumps while something is under way.

use std::time::Instant;

use drover_agent_core::Moment;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

/// What both clocks show.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reading {
    steady: Instant,
    wall: Timestamp,
}

impl Reading {
    pub(crate) fn now() -> Self {
        Self { steady: Instant::now(), wall: Timestamp::now() }
    }
}

/// The steady clock since the machine's boot, time asleep left out. It's the one that [`Instant`] reads, which does
/// not say when that began.
pub(crate) fn since_boot() -> SignedDuration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    let nanoseconds = i32::try_from(time.tv_nsec).unwrap_or(0);
    SignedDuration::new(time.tv_sec, nanoseconds)
}

/// What the clock showed at a time since the machine's boot, for a later process of the same boot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct KeptClock {
    wall: Timestamp,
    since_boot_milliseconds: i64,
}

/// Tells the time. A steady clock runs from the start on and is never set. Beside it the wall clock's
/// time, carried on by the steady one: that it was set shows only once nothing counts down.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    started: Instant,
    /// The steady clock since the machine's boot, at the start.
    since_boot: SignedDuration,
    /// The last reading whose wall time was taken over.
    taken: Reading,
}

impl Clock {
    pub(crate) fn new(reading: Reading) -> Self {
        Self { started: reading.steady, since_boot: SignedDuration::ZERO, taken: reading }
    }

    /// Goes on from what an earlier process of this boot kept: that the wall clock was set in between shows no
    /// sooner than it would have to that one.
    pub(crate) fn resume(mut self, since_boot: SignedDuration, kept: Option<KeptClock>) -> Self {
        self.since_boot = since_boot;
        let Some(kept) = kept else { return self };
        let then = SignedDuration::from_millis(kept.since_boot_milliseconds);
        let passed = since_boot.saturating_sub(then);
        let carried = kept.wall.checked_add(passed);
        if let Some(wall) = carried.ok().filter(|_| !passed.is_negative()) {
            self.taken.wall = wall;
        }
        self
    }

    /// What it shows, to be kept.
    pub(crate) fn kept(&self, now: Instant) -> KeptClock {
        let since_boot = self.since_boot.saturating_add(between(self.started, now));
        let since_boot_milliseconds = i64::try_from(since_boot.as_millis()).unwrap_or(i64::MAX);
        KeptClock { wall: self.wall(now), since_boot_milliseconds }
    }

    /// The moment of a reading. Its wall time is taken over unless something counts down.
    pub(crate) fn moment(&mut self, reading: Reading, counts_down: bool) -> Moment {
        if !counts_down {
            self.taken = reading;
        }
        Moment { steady: between(self.started, reading.steady), wall: self.wall(reading.steady) }
    }

    /// The wall clock's time, carried on since it was last taken over.
    pub(crate) fn carried(&self) -> Timestamp {
        self.wall(Instant::now())
    }

    fn wall(&self, now: Instant) -> Timestamp {
        let elapsed = between(self.taken.steady, now);
        self.taken.wall.checked_add(elapsed).unwrap_or(Timestamp::MAX)
    }
}

fn between(earlier: Instant, later: Instant) -> SignedDuration {
    let elapsed = later.saturating_duration_since(earlier);
    SignedDuration::try_from(elapsed).unwrap_or(SignedDuration::MAX)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const START: i64 = 1_700_000_000;

    /// So many seconds after the start, with the wall clock set by so many.
    fn reading(start: Instant, seconds: u64, set: i64) -> Reading {
        let wall = START.saturating_add_unsigned(seconds) + set;
        Reading {
            steady: start + Duration::from_secs(seconds),
            wall: Timestamp::from_second(wall).unwrap(),
        }
    }

    fn moment(seconds: i64, set: i64) -> Moment {
        Moment {
            steady: SignedDuration::from_secs(seconds),
            wall: Timestamp::from_second(START + seconds + set).unwrap(),
        }
    }

    #[test]
    fn a_step_of_the_wall_clock_shows_while_nothing_counts_down() {
        for set in [-3_600, 3_600] {
            let start = Instant::now();
            let mut clock = Clock::new(reading(start, 0, 0));
            assert_eq!(clock.moment(reading(start, 5, 0), false), moment(5, 0));
            assert_eq!(clock.moment(reading(start, 6, set), false), moment(6, set));
            assert_eq!(clock.moment(reading(start, 7, set), true), moment(7, set));
        }
    }

    #[test]
    fn while_something_counts_down_a_step_waits_for_its_end() {
        for set in [-3_600, 3_600] {
            let start = Instant::now();
            let mut clock = Clock::new(reading(start, 0, 0));
            clock.moment(reading(start, 5, 0), false);
            assert_eq!(clock.moment(reading(start, 6, 0), true), moment(6, 0));
            assert_eq!(clock.moment(reading(start, 7, set), true), moment(7, 0));
            assert_eq!(clock.moment(reading(start, 600, set), true), moment(600, 0));
            assert_eq!(clock.moment(reading(start, 601, set), false), moment(601, set));
        }
    }

    #[test]
    fn a_step_between_two_processes_of_a_boot_waits_as_well() {
        for set in [-3_600, 3_600] {
            let start = Instant::now();
            let up = SignedDuration::from_secs;
            let mut first = Clock::new(reading(start, 0, 0)).resume(up(500), None);
            first.moment(reading(start, 10, 0), true);
            let kept = Some(first.kept(start + Duration::from_secs(10)));
            let next = reading(start, 30, set);
            let wall = |clock: Clock, counts| {
                let mut clock = clock;
                clock.moment(next, counts).wall
            };
            let second = Clock::new(next).resume(up(530), kept);
            assert_eq!(wall(second, true), moment(30, 0).wall);
            assert_eq!(wall(second, false), moment(30, set).wall);
            // What was kept by a machine that was up for longer is another boot's.
            assert_eq!(wall(Clock::new(next).resume(up(20), kept), true), moment(30, set).wall);
            assert_eq!(wall(Clock::new(next).resume(up(530), None), true), moment(30, set).wall);
        }
    }

    /// It would not be, were one of the two to count time asleep or to begin elsewhere.
    #[test]
    fn an_instant_and_what_is_told_since_the_boot_are_of_one_clock() {
        let (before, first) = (Instant::now(), since_boot());
        std::thread::sleep(Duration::from_millis(50));
        let (told, passed) = (since_boot().saturating_sub(first), between(before, Instant::now()));
        assert!(first.is_positive() && told <= passed && told.as_millis() >= 50, "{told} {passed}");
    }

    #[test]
    fn times_out_of_range_are_its_ends() {
        let start = Instant::now();
        let last = Reading { steady: start, wall: Timestamp::MAX };
        let mut clock = Clock::new(last);
        let later = Reading { steady: start + Duration::from_secs(9), wall: Timestamp::MIN };
        assert_eq!(clock.moment(later, true).wall, Timestamp::MAX);
    }
}
