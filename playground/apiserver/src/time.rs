//! Times as the API writes them: RFC 3339 in UTC, with seconds or with microseconds.

use jiff::Timestamp;

/// The one place where this crate reads the clock.
pub fn now() -> Timestamp {
    Timestamp::now()
}

/// `2026-01-02T03:04:05Z`.
pub fn seconds(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// `2026-01-02T03:04:05.000006Z`.
pub fn micros(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string()
}

/// Reads any RFC 3339 time.
pub fn parse(text: &str) -> Option<Timestamp> {
    text.parse().ok()
}

/// An age as `kubectl` prints it: `5s`, `2m3s`, `4h5m`, `3d`. Rule: k8s.io/apimachinery `duration.HumanDuration`.
pub fn age(created: &str, now: Timestamp) -> String {
    let Some(created) = parse(created) else { return "<unknown>".into() };
    let total = (now.as_second() - created.as_second()).max(0);
    let (minutes, hours, days) = (total / 60, total / 3600, total / 86_400);
    if total < 120 {
        format!("{total}s")
    } else if minutes < 10 {
        pair(minutes, "m", total % 60, "s")
    } else if minutes < 180 {
        format!("{minutes}m")
    } else if hours < 8 {
        pair(hours, "h", minutes % 60, "m")
    } else if hours < 48 {
        format!("{hours}h")
    } else if days < 8 {
        pair(days, "d", hours % 24, "h")
    } else if days < 730 {
        format!("{days}d")
    } else if days < 8 * 365 {
        pair(days / 365, "y", days % 365, "d")
    } else {
        format!("{}y", days / 365)
    }
}

fn pair(big: i64, big_unit: &str, small: i64, small_unit: &str) -> String {
    if small == 0 { format!("{big}{big_unit}") } else { format!("{big}{big_unit}{small}{small_unit}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_and_forms() {
        let at = parse("2026-01-02T03:04:05.000006Z").unwrap();
        assert_eq!(seconds(at), "2026-01-02T03:04:05Z");
        assert_eq!(micros(at), "2026-01-02T03:04:05.000006Z");
        let now = parse("2026-01-02T03:10:05Z").unwrap();
        for (created, expected) in [
            ("2026-01-02T03:10:00Z", "5s"),
            ("2026-01-02T03:04:05Z", "6m"),
            ("2026-01-02T03:04:02Z", "6m3s"),
            ("2026-01-01T22:05:05Z", "5h5m"),
            ("2025-12-20T03:10:05Z", "13d"),
            ("2027-01-01T00:00:00Z", "0s"),
            ("nonsense", "<unknown>"),
        ] {
            assert_eq!(age(created, now), expected, "{created}");
        }
    }
}
