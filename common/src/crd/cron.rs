//! Cron schedules of disruption budgets: five fields or a macro, always UTC.

use jiff::civil::{Date, DateTime};
use jiff::tz::Offset;
use jiff::{Timestamp, ToSpan};

/// A parsed schedule. Where both day fields are restricted, either suffices, as in every cron.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Schedule {
    minutes: u64,
    hours: u64,
    days: u64,
    months: u64,
    weekdays: u64,
    /// Whether the day of the month was given as anything but `*`.
    days_restricted: bool,
    /// Whether the weekday was given as anything but `*`.
    weekdays_restricted: bool,
}

/// Why a text is no schedule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ScheduleError {
    /// An unknown `@` word.
    #[error("{0} is not one of @annually, @yearly, @monthly, @weekly, @daily, @midnight, @hourly")]
    UnknownMacro(String),
    /// Not five fields.
    #[error("a schedule has five fields, not {0}")]
    FieldCount(usize),
    /// A bad field.
    #[error("{field} {text:?} is not a list of numbers, ranges or steps within {least} to {most}")]
    Field {
        /// Which field.
        field: &'static str,
        /// What it says.
        text: String,
        /// Smallest number.
        least: u32,
        /// Greatest number.
        most: u32,
    },
}

const MONTHS: [&str; 12] =
    ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const WEEKDAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];

/// One field's name, range and words.
struct Field {
    name: &'static str,
    least: u32,
    most: u32,
    words: &'static [&'static str],
}

const FIELDS: [Field; 5] = [
    Field { name: "minute", least: 0, most: 59, words: &[] },
    Field { name: "hour", least: 0, most: 23, words: &[] },
    Field { name: "day of the month", least: 1, most: 31, words: &[] },
    Field { name: "month", least: 1, most: 12, words: &MONTHS },
    Field { name: "day of the week", least: 0, most: 6, words: &WEEKDAYS },
];

impl Field {
    fn number(&self, text: &str) -> Option<u32> {
        let lower = text.to_ascii_lowercase();
        let word = self.words.iter().position(|word| *word == lower);
        let number = match word {
            Some(position) => u32::try_from(position).ok()?.checked_add(self.least)?,
            None => text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())??,
        };
        (self.least..=self.most).contains(&number).then_some(number)
    }

    fn part(&self, text: &str) -> Option<u64> {
        let (range, step) = match text.split_once('/') {
            Some((range, step)) => (range, Some(step.parse::<u32>().ok().filter(|s| *s > 0)?)),
            None => (text, None),
        };
        let (first, last) = if matches!(range, "*" | "?") {
            (self.least, self.most)
        } else if let Some((first, last)) = range.split_once('-') {
            (self.number(first)?, self.number(last)?)
        } else {
            let first = self.number(range)?;
            // `5/10` counts from 5 to the end.
            (first, if step.is_some() { self.most } else { first })
        };
        let step = usize::try_from(step.unwrap_or(1)).ok()?;
        (first <= last)
            .then(|| (first..=last).step_by(step).fold(0_u64, |bits, number| bits | bit(number)))
    }

    fn parse(&self, text: &str) -> Result<u64, ScheduleError> {
        text.split(',').try_fold(0_u64, |bits, part| Some(bits | self.part(part)?)).ok_or_else(
            || ScheduleError::Field {
                field: self.name,
                text: text.to_owned(),
                least: self.least,
                most: self.most,
            },
        )
    }
}

fn bit(number: u32) -> u64 {
    1_u64.checked_shl(number).unwrap_or(0)
}

fn has(bits: u64, number: i8) -> bool {
    u32::try_from(number).is_ok_and(|number| bits & bit(number) != 0)
}

impl Schedule {
    /// Reads five fields (minute, hour, day, month, weekday) or a macro.
    ///
    /// # Errors
    /// Which part is wrong.
    pub fn parse(text: &str) -> Result<Self, ScheduleError> {
        let text = text.trim();
        let spelled = match text {
            "@annually" | "@yearly" => "0 0 1 1 *",
            "@monthly" => "0 0 1 * *",
            "@weekly" => "0 0 * * 0",
            "@daily" | "@midnight" => "0 0 * * *",
            "@hourly" => "0 * * * *",
            other if other.starts_with('@') => {
                return Err(ScheduleError::UnknownMacro(other.to_owned()));
            }
            other => other,
        };
        let fields: Vec<&str> = spelled.split_whitespace().collect();
        let [minute, hour, day, month, weekday] = fields.as_slice() else {
            return Err(ScheduleError::FieldCount(fields.len()));
        };
        let [minutes, hours, days, months, weekdays] = &FIELDS;
        let restricted = |text: &str| !text.starts_with(['*', '?']);
        Ok(Self {
            minutes: minutes.parse(minute)?,
            hours: hours.parse(hour)?,
            days: days.parse(day)?,
            months: months.parse(month)?,
            weekdays: weekdays.parse(weekday)?,
            days_restricted: restricted(day),
            weekdays_restricted: restricted(weekday),
        })
    }

    /// The last time not after `now` at which the schedule hits, if there was one within the last
    /// eight years (the longest gap there is, between leap days around 2100).
    pub fn last_hit(&self, now: Timestamp) -> Option<Timestamp> {
        let now = Offset::UTC.to_datetime(now);
        let mut date = now.date();
        for _ in 0..=8 * 366 {
            if self.matches_day(date) {
                let until = if date == now.date() { (now.hour(), now.minute()) } else { (23, 59) };
                if let Some(hit) = self.last_of_day(date, until) {
                    return Offset::UTC.to_timestamp(hit).ok();
                }
            }
            date = date.checked_sub(1.day()).ok()?;
        }
        None
    }

    fn matches_day(&self, date: Date) -> bool {
        let day = has(self.days, date.day());
        let weekday = has(self.weekdays, date.weekday().to_sunday_zero_offset());
        let day = if self.days_restricted && self.weekdays_restricted {
            day || weekday
        } else {
            day && weekday
        };
        day && has(self.months, date.month())
    }

    /// The last hit of a day whose hour and minute are not after the given ones.
    fn last_of_day(&self, date: Date, (last_hour, last_minute): (i8, i8)) -> Option<DateTime> {
        for hour in (0..=last_hour).rev().filter(|hour| has(self.hours, *hour)) {
            let most = if hour == last_hour { last_minute } else { 59 };
            if let Some(minute) = (0..=most).rev().find(|minute| has(self.minutes, *minute)) {
                return Some(date.at(hour, minute, 0, 0));
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn last(schedule: &str, now: &str) -> Option<String> {
        let now = now.parse().unwrap();
        Schedule::parse(schedule).unwrap().last_hit(now).map(|hit| hit.to_string())
    }

    #[test]
    fn the_last_hit_is_found_backwards() {
        // 2026-08-21 is a Friday.
        for (schedule, now, hit) in [
            ("0 9 * * mon-fri", "2026-08-21T09:00:00Z", "2026-08-21T09:00:00Z"),
            ("0 9 * * mon-fri", "2026-08-21T08:59:59Z", "2026-08-20T09:00:00Z"),
            ("0 9 * * 1-5", "2026-08-24T08:00:00Z", "2026-08-21T09:00:00Z"),
            ("*/15 * * * *", "2026-08-21T10:44:00Z", "2026-08-21T10:30:00Z"),
            ("5/20 3 * * *", "2026-08-21T10:44:00Z", "2026-08-21T03:45:00Z"),
            ("@weekly", "2026-08-21T10:44:00Z", "2026-08-16T00:00:00Z"),
            ("@yearly", "2026-08-21T10:44:00Z", "2026-01-01T00:00:00Z"),
            ("@hourly", "2026-08-21T10:44:00Z", "2026-08-21T10:00:00Z"),
            ("0 0 29 FEB *", "2026-08-21T10:44:00Z", "2024-02-29T00:00:00Z"),
            // Either day suffices where both are restricted.
            ("0 0 1 * fri", "2026-08-21T10:44:00Z", "2026-08-21T00:00:00Z"),
            ("0 0 1,15 * fri", "2026-08-20T10:44:00Z", "2026-08-15T00:00:00Z"),
            ("0 22 * 6,7 *", "2026-08-21T10:44:00Z", "2026-07-31T22:00:00Z"),
        ] {
            assert_eq!(last(schedule, now).as_deref(), Some(hit), "{schedule} at {now}");
        }
        assert_eq!(last("0 0 31 2 *", "2026-08-21T10:44:00Z"), None);
    }

    #[test]
    fn errors_say_what_is_wrong() {
        for (text, error) in [
            ("@fortnightly", "@fortnightly is not one of"),
            ("* * * *", "a schedule has five fields, not 4"),
            ("60 * * * *", "minute \"60\" is not"),
            ("* * 0 * *", "day of the month \"0\""),
            ("* * * foo *", "month \"foo\""),
            ("* 5-3 * * *", "hour \"5-3\""),
            ("*/0 * * * *", "minute \"*/0\""),
            ("* * * * 8", "day of the week \"8\""),
            ("+5 * * * *", "minute \"+5\""),
            (", * * * *", "minute \",\""),
            ("", "a schedule has five fields, not 0"),
        ] {
            let message = Schedule::parse(text).unwrap_err().to_string();
            assert!(message.starts_with(error), "{text}: {message}");
        }
    }
}
