//! Times at which releases may go out, and times at which they may not.

use jiff::tz::{TimeZone, TimeZoneDatabase};
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::schedule::Schedule;

/// Longer than a year is no window but a rule.
const LONGEST: i64 = 366 * 24 * 3600;
/// How many windows that follow one another are looked through for a time that is open.
const STEPS: usize = 1000;

/// A recurring time.
///
/// Windows hold a release that has not begun. One that is under way is never stopped by a window, and neither is a
/// rollback: what customers have must not stay broken because it is Friday.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Window {
    /// Whether releases go out only within it (`true`), or not within it (`false`).
    pub allow: bool,
    /// Its begin, as a cron expression of five fields.
    pub schedule: String,
    /// Its length in seconds, 60 to a year.
    pub seconds: u32,
    /// The time zone of the expression, by its IANA name.
    pub timezone: String,
}

impl Window {
    /// Whether it can be understood.
    ///
    /// # Errors
    /// A sentence on what is wrong.
    pub fn validate(&self) -> Result<(), String> {
        self.compile().map(drop)
    }

    fn compile(&self) -> Result<Compiled<'_>, String> {
        if !(60..=LONGEST).contains(&i64::from(self.seconds)) {
            return Err("a window lasts a minute to a year".to_owned());
        }
        let schedule = Schedule::parse(&self.schedule)?;
        if matches!(schedule, Schedule::Every(_)) {
            return Err("@every has no times of its own: write a cron expression".to_owned());
        }
        // The bundled data base: the same answer on every machine, and in every replay.
        let zone = TimeZoneDatabase::bundled().get(&self.timezone).map_err(|_| {
            format!("{:?} is no time zone; write its IANA name, as Asia/Dhaka", self.timezone)
        })?;
        Ok(Compiled { window: self, schedule, zone, length: SignedDuration::from_secs(self.seconds.into()) })
    }
}

struct Compiled<'a> {
    window: &'a Window,
    schedule: Schedule,
    zone: TimeZone,
    length: SignedDuration,
}

impl Compiled<'_> {
    /// The end of the window that `at` lies in; the last one, if several overlap.
    fn end(&self, at: Timestamp) -> Option<Timestamp> {
        let mut end = None;
        let mut from = at.checked_sub(self.length).ok()?;
        for _ in 0..STEPS {
            match self.schedule.next(from, &self.zone) {
                Some(start) if start <= at => {
                    end = start.checked_add(self.length).ok();
                    from = start;
                }
                _ => break,
            }
        }
        end
    }

    fn next(&self, after: Timestamp) -> Option<Timestamp> {
        self.schedule.next(after, &self.zone)
    }
}

/// Why no release may begin now, and when one may again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Closed {
    /// None if there is no such time within sight.
    pub until: Option<Timestamp>,
    /// In a sentence.
    pub message: String,
}

/// Whether releases have to wait at this time. A window that cannot be understood keeps them waiting: it was meant to
/// hold something back.
pub(super) fn closed(windows: &[Window], now: Timestamp) -> Option<Closed> {
    if windows.is_empty() {
        return None;
    }
    let compiled: Result<Vec<Compiled<'_>>, String> = windows.iter().map(Window::compile).collect();
    let compiled = match compiled {
        Ok(compiled) => compiled,
        Err(message) => {
            return Some(Closed { until: None, message: format!("spec.rollout.windows: {message}") });
        }
    };
    let mut at = now;
    let mut first = None;
    for _ in 0..STEPS {
        let Some((reason, next)) = obstacle(&compiled, at) else {
            let message: String = first?;
            return Some(Closed { until: Some(at), message: format!("{message}; it goes out at {at}") });
        };
        first.get_or_insert(reason);
        match next {
            Some(next) if next > at => at = next,
            _ => break,
        }
    }
    first.map(|message| Closed { until: None, message })
}

/// What keeps a release from beginning at a time, and when that may be over.
fn obstacle(windows: &[Compiled<'_>], at: Timestamp) -> Option<(String, Option<Timestamp>)> {
    let denied = windows.iter().filter(|each| !each.window.allow);
    if let Some((each, end)) =
        denied.filter_map(|each| Some((each, each.end(at)?))).max_by_key(|(_, end)| *end)
    {
        let Window { schedule, timezone, .. } = each.window;
        return Some((format!("no release goes out in the window {schedule:?} ({timezone})"), Some(end)));
    }
    let allowed: Vec<&Compiled<'_>> = windows.iter().filter(|each| each.window.allow).collect();
    if allowed.is_empty() || allowed.iter().any(|each| each.end(at).is_some()) {
        return None;
    }
    let next = allowed.iter().filter_map(|each| each.next(at)).min();
    Some(("releases go out within the allowed windows only".to_owned(), next))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(allow: bool, schedule: &str, hours: u32, timezone: &str) -> Window {
        Window { allow, schedule: schedule.into(), seconds: hours * 3600, timezone: timezone.into() }
    }

    fn until(windows: &[Window], now: &str) -> Option<String> {
        let closed = closed(windows, now.parse().unwrap())?;
        Some(closed.until.map_or_else(|| closed.message, |until| until.to_string()))
    }

    /// 2 January 2026 is a Friday; Dhaka is six hours ahead of UTC.
    #[test]
    fn a_weekend_without_releases() {
        let weekend = [window(false, "0 18 * * FRI", 62, "Asia/Dhaka")];
        assert_eq!(until(&weekend, "2026-01-02T11:59:59Z"), None);
        assert_eq!(until(&weekend, "2026-01-02T12:00:00Z").as_deref(), Some("2026-01-05T02:00:00Z"));
        assert_eq!(until(&weekend, "2026-01-05T01:59:59Z").as_deref(), Some("2026-01-05T02:00:00Z"));
        assert_eq!(until(&weekend, "2026-01-05T02:00:00Z"), None);
    }

    #[test]
    fn only_in_office_hours_and_not_at_the_end_of_a_month() {
        let windows = [window(true, "0 9 * * MON-FRI", 8, "UTC"), window(false, "0 0 30 * *", 24, "UTC")];
        assert_eq!(until(&windows, "2026-01-28T10:00:00Z"), None);
        assert_eq!(until(&windows, "2026-01-28T17:00:00Z").as_deref(), Some("2026-01-29T09:00:00Z"));
        // Friday the 30th is denied, and then comes the weekend.
        assert_eq!(until(&windows, "2026-01-29T18:00:00Z").as_deref(), Some("2026-02-02T09:00:00Z"));
        assert_eq!(until(&windows, "2026-01-30T10:00:00Z").as_deref(), Some("2026-02-02T09:00:00Z"));
    }

    #[test]
    fn overlapping_windows_count_to_their_last_end() {
        let windows = [window(false, "0 * * * *", 2, "UTC")];
        let message = until(&windows, "2026-01-02T12:30:00Z").unwrap();
        assert!(message.contains("no release goes out"), "always closed: {message}");
        let windows = [window(false, "0 12 * * *", 1, "UTC"), window(false, "30 12 * * *", 1, "UTC")];
        assert_eq!(until(&windows, "2026-01-02T12:10:00Z").as_deref(), Some("2026-01-02T13:30:00Z"));
    }

    #[test]
    fn what_cannot_be_understood_holds() {
        for (window, word) in [
            (window(false, "0 18 * *", 1, "UTC"), "5 fields"),
            (window(false, "@every 1h", 1, "UTC"), "@every"),
            (window(false, "0 18 * * *", 1, "Asia/Dhakka"), "Asia/Dhakka"),
            (window(false, "0 18 * * *", 0, "UTC"), "a minute"),
        ] {
            assert!(window.validate().unwrap_err().contains(word), "{word}");
            assert!(until(&[window], "2026-01-02T12:00:00Z").unwrap().contains(word), "{word}");
        }
    }
}
