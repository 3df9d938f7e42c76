//! Schedules as cron writes them, in the dialect of Kubernetes (`robfig/cron`, standard parser).

use jiff::civil::{Date, DateTime};
use jiff::tz::{AmbiguousOffset, TimeZone};
use jiff::{SignedDuration, Timestamp, ToSpan};

/// When something is to happen.
#[derive(Clone, Debug, PartialEq)]
pub enum Schedule {
    /// At the minutes that the five fields admit.
    Fields(Box<Fields>),
    /// Again and again after this long.
    Every(SignedDuration),
}

/// The five fields of a cron expression.
#[derive(Clone, Debug, PartialEq)]
pub struct Fields {
    minutes: Field,
    hours: Field,
    days: Field,
    months: Field,
    weekdays: Field,
}

/// The admitted values, one bit each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Field {
    values: u64,
    /// Written as `*`: it says nothing about the day.
    any: bool,
}

impl Field {
    fn has(self, value: i8) -> bool {
        u32::try_from(value).is_ok_and(|value| value < 64 && self.values & (1 << value) != 0)
    }
}

const MONTHS: [&str; 12] =
    ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const WEEKDAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];
/// How far ahead a time is looked for: 29 February comes within 8 years.
const DAYS: usize = 366 * 9;

impl Schedule {
    /// Reads a schedule.
    ///
    /// # Errors
    /// A sentence on what is wrong.
    pub fn parse(text: &str) -> Result<Schedule, String> {
        let text = text.trim();
        let text = match text {
            "@yearly" | "@annually" => "0 0 1 1 *",
            "@monthly" => "0 0 1 * *",
            "@weekly" => "0 0 * * 0",
            "@daily" | "@midnight" => "0 0 * * *",
            "@hourly" => "0 * * * *",
            other => other,
        };
        if let Some(pause) = text.strip_prefix("@every ") {
            let pause: SignedDuration =
                pause.trim().parse().map_err(|error| format!("failed to parse duration {text}: {error}"))?;
            return Ok(Schedule::Every(SignedDuration::from_secs(pause.as_secs().max(1))));
        }
        let fields: Vec<&str> = text.split_ascii_whitespace().collect();
        let [minutes, hours, days, months, weekdays] = fields[..] else {
            return Err(format!("expected exactly 5 fields, found {}: {text:?}", fields.len()));
        };
        Ok(Schedule::Fields(Box::new(Fields {
            minutes: field(minutes, 0, 59, &[])?,
            hours: field(hours, 0, 23, &[])?,
            days: field(days, 1, 31, &[])?,
            months: field(months, 1, 12, &MONTHS)?,
            weekdays: field(weekdays, 0, 6, &WEEKDAYS)?,
        })))
    }

    /// The first time after `after`; `None` if there is none in the next years.
    ///
    /// A time that the clocks skip in spring is left out; one that comes twice in autumn counts once.
    pub fn next(&self, after: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        match self {
            Schedule::Every(pause) => {
                let next = after.checked_add(*pause).ok()?;
                Timestamp::from_second(next.as_second()).ok()
            }
            Schedule::Fields(fields) => {
                let start = zone.to_datetime(after);
                let mut date = start.date();
                for _ in 0..DAYS {
                    if fields.admits(date)
                        && let Some(found) = fields.times(date).find_map(|time| {
                            let stamp = exact(time, zone)?;
                            (stamp > after).then_some(stamp)
                        })
                    {
                        return Some(found);
                    }
                    date = date.checked_add(1.day()).ok()?;
                }
                None
            }
        }
    }
}

/// The moment at which the clocks of the zone show the time, if they ever do.
fn exact(time: DateTime, zone: &TimeZone) -> Option<Timestamp> {
    let ambiguous = zone.to_ambiguous_timestamp(time);
    match ambiguous.offset() {
        AmbiguousOffset::Gap { .. } => None,
        _ => ambiguous.earlier().ok(),
    }
}

impl Fields {
    /// As cron does: if both kinds of day are restricted, either suffices.
    fn admits(&self, date: Date) -> bool {
        let day = self.days.has(date.day());
        let weekday = self.weekdays.has(date.weekday().to_sunday_zero_offset());
        let either = !self.days.any && !self.weekdays.any;
        self.months.has(date.month()) && if either { day || weekday } else { day && weekday }
    }

    fn times(&self, date: Date) -> impl Iterator<Item = DateTime> {
        let (hours, minutes) = (self.hours, self.minutes);
        (0..24).filter(move |hour| hours.has(*hour)).flat_map(move |hour| {
            (0..60).filter(move |minute| minutes.has(*minute)).map(move |minute| date.at(hour, minute, 0, 0))
        })
    }
}

/// Reads `*`, `3`, `mon-fri`, `*/5`, `10-20/2`, and lists of them.
fn field(text: &str, min: u32, max: u32, names: &[&str]) -> Result<Field, String> {
    let mut all = Field { values: 0, any: false };
    for part in text.split(',') {
        let (range, step) = match part.split_once('/') {
            Some((range, step)) => (range, Some(step)),
            None => (part, None),
        };
        let value = |text: &str| -> Result<u32, String> {
            let name = text.to_ascii_lowercase();
            let named = names.iter().position(|known| *known == name);
            match named.and_then(|index| u32::try_from(index).ok()) {
                Some(index) => Ok(index + min),
                None => text.parse().map_err(|_| format!("failed to parse {text:?} in {part:?} as a number")),
            }
        };
        let any = matches!(range, "*" | "?");
        let (first, last) = match range.split_once('-') {
            _ if any => (min, max),
            Some((first, last)) => (value(first)?, value(last)?),
            // `5/10` begins at 5 and has no end of its own.
            None if step.is_some() => (value(range)?, max),
            None => (value(range)?, value(range)?),
        };
        let step = match step {
            Some(step) => step.parse().map_err(|_| format!("failed to parse the step of {part:?}"))?,
            None => 1u32,
        };
        if step == 0 {
            return Err(format!("step of range should be a positive number: {part}"));
        }
        if first < min || last > max || first > last {
            return Err(format!("{part} is not a range within {min} and {max}"));
        }
        for value in (first..=last).step_by(usize::try_from(step).unwrap_or(usize::MAX)) {
            all.values |= 1 << value;
        }
        all.any |= any && step == 1;
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn next(schedule: &str, after: &str, zone: &str) -> Option<String> {
        let zone = jiff::tz::TimeZoneDatabase::bundled().get(zone).unwrap();
        let next = Schedule::parse(schedule).unwrap().next(after.parse().unwrap(), &zone)?;
        Some(next.to_string())
    }

    #[test]
    fn the_next_time() {
        // 1 January 2026 is a Thursday.
        for (schedule, after, expected) in [
            ("* * * * *", "2026-01-01T00:00:00Z", "2026-01-01T00:01:00Z"),
            ("* * * * *", "2026-01-01T00:00:59.5Z", "2026-01-01T00:01:00Z"),
            ("*/15 * * * *", "2026-01-01T00:46:00Z", "2026-01-01T01:00:00Z"),
            ("5/20 * * * *", "2026-01-01T00:06:00Z", "2026-01-01T00:25:00Z"),
            ("0 9-17/4 * * mon-fri", "2026-01-02T17:00:00Z", "2026-01-05T09:00:00Z"),
            ("30 4 1,15 * 5", "2026-01-01T05:00:00Z", "2026-01-02T04:30:00Z"),
            ("0 0 13 * *", "2026-01-01T00:00:00Z", "2026-01-13T00:00:00Z"),
            ("0 0 29 2 *", "2026-01-01T00:00:00Z", "2028-02-29T00:00:00Z"),
            ("0 0 */2 * 1", "2026-01-05T00:00:00Z", "2026-01-07T00:00:00Z"),
            ("@daily", "2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z"),
            ("@weekly", "2026-01-01T00:00:00Z", "2026-01-04T00:00:00Z"),
            ("@every 90s", "2026-01-01T00:00:00.7Z", "2026-01-01T00:01:30Z"),
        ] {
            assert_eq!(next(schedule, after, "UTC").as_deref(), Some(expected), "{schedule} after {after}");
        }
        assert_eq!(next("0 0 31 2 *", "2026-01-01T00:00:00Z", "UTC"), None);
    }

    #[test]
    fn wrong_schedules_are_refused() {
        for schedule in [
            "",
            "* * * *",
            "60 * * * *",
            "* 24 * * *",
            "* * 0 * *",
            "* * * 13 *",
            "* * * * 7",
            "*/0 * * * *",
            "5-1 * * * *",
            "a * * * *",
            "@never",
            "@every",
            "@every x",
            "* * * * * *",
            "99999999999 * * * *",
        ] {
            assert!(Schedule::parse(schedule).is_err(), "{schedule}");
        }
    }
}
