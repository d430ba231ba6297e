//! The time of day as text (RFC 3339), for logs and Kubernetes objects. Deadlines do not depend on it; they are monotonic.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

fn since_epoch() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// Seconds since 1970.
pub fn unix_now() -> u64 {
    since_epoch().as_secs()
}

/// A moment in seconds since 1970, to the nearest second, as the clock stands now.
pub fn unix_of(moment: Instant) -> u64 {
    let (clock, now) = (since_epoch(), Instant::now());
    let time = (clock + moment.saturating_duration_since(now)).saturating_sub(now.saturating_duration_since(moment));
    (time + Duration::from_millis(500)).as_secs()
}

/// Now, in seconds: `2026-11-23T05:43:51Z`.
pub fn now() -> String {
    rfc3339(unix_now())
}

/// Now, as Kubernetes' `MicroTime`: the API server demands exactly six digits after the point.
pub fn micro_now() -> String {
    micros(since_epoch())
}

fn micros(since_epoch: Duration) -> String {
    rfc3339(since_epoch.as_secs()).replace('Z', &format!(".{:06}Z", since_epoch.subsec_micros()))
}

/// Seconds since 1970 in UTC. Days to civil date after Howard Hinnant's `civil_from_days`.
pub fn rfc3339(seconds: u64) -> String {
    let (days, time) = (seconds / 86_400, seconds % 86_400);
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    format!("{year}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z", time / 3600, time / 60 % 60, time % 60)
}

/// An RFC 3339 time in seconds since 1970; fractions are dropped. Civil date to days after Howard Hinnant's
/// `days_from_civil`.
pub fn parse_rfc3339(text: &str) -> Option<u64> {
    let digits = |from: usize, to: usize| -> Option<i64> {
        let part = text.get(from..to)?;
        part.bytes().all(|it| it.is_ascii_digit()).then(|| part.parse().ok())?
    };
    let marks = [(4, "-"), (7, "-"), (13, ":"), (16, ":")];
    let is_time = marks.iter().all(|(at, mark)| text.get(*at..at + 1) == Some(mark))
        && matches!(text.get(10..11), Some("T" | "t" | " "));
    let (year, month, day) = (digits(0, 4)?, digits(5, 7)?, digits(8, 10)?);
    let (hour, minute, second) = (digits(11, 13)?, digits(14, 16)?, digits(17, 19)?);
    if !is_time || !(1..=12).contains(&month) || !(1..=31).contains(&day) || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let rest = text.get(19..)?;
    let zone = match rest.strip_prefix('.') {
        Some(fraction) => {
            Some(fraction.trim_start_matches(|it: char| it.is_ascii_digit())).filter(|it| *it != fraction)?
        }
        None => rest,
    };
    let offset = match zone.as_bytes() {
        [b'Z' | b'z'] => 0,
        [sign @ (b'+' | b'-'), _, _, b':', _, _] => {
            let at = text.len() - 5;
            let minutes = digits(at, at + 2)? * 60 + digits(at + 3, at + 5)?;
            if *sign == b'+' { minutes * 60 } else { -minutes * 60 }
        }
        _ => return None,
    };
    let shifted = if month > 2 { year } else { year - 1 };
    let (era, year_of_era) = (shifted.div_euclid(400), shifted.rem_euclid(400));
    let day_of_year = (153 * (if month > 2 { month - 3 } else { month + 9 }) + 2) / 5 + day - 1;
    let days = era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468;
    u64::try_from(days * 86_400 + hour * 3600 + minute * 60 + second - offset).ok()
}

/// A date of HTTP, such as `Sun, 29 Nov 2026 12:00:22 GMT`, in seconds since 1970.
pub fn parse_http_date(text: &str) -> Option<u64> {
    const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let parts: Vec<&str> = text.split_once(", ")?.1.split(' ').collect();
    let [day, month, year, time, "GMT"] = parts.as_slice() else { return None };
    let month = MONTHS.iter().position(|it| it == month)? + 1;
    parse_rfc3339(&format!("{year}-{month:02}-{day}T{time}Z"))
}

/// Clocks that differ by at most this many seconds agree.
pub const CLOCK_TOLERANCE: i64 = 30;

/// By how many seconds the clock of a peer that sent this header `Date` is ahead of ours.
pub fn seconds_ahead(date: &str) -> Option<i64> {
    let (theirs, ours) = (i64::try_from(parse_http_date(date)?).ok()?, i64::try_from(unix_now()).ok()?);
    Some(theirs - ours)
}

/// The difference between a peer's clock and ours, for people.
pub fn clock_difference(ahead: i64) -> String {
    format!("{} s {} ours", ahead.abs(), if ahead > 0 { "ahead of" } else { "behind" })
}

/// The end of something in seconds since 1970, at least 1; nothing from the last second of 9999 on, by which certificates
/// say that they never end (RFC 5280).
pub fn valid_end(seconds: u64) -> Option<u64> {
    (seconds < 253_402_300_799).then_some(seconds.max(1))
}

/// How far away a time is, for people.
pub fn distance(to: u64, now: u64) -> String {
    let days = match to.abs_diff(now) / 86_400 {
        0 => "less than a day".to_owned(),
        1 => "1 day".to_owned(),
        days => format!("{days} days"),
    };
    if to > now { format!("in {days}") } else { format!("{days} ago") }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// T10: how far away an end is, and the end of certificates that never end.
    #[test]
    fn ends() {
        let now = 100 * 86_400;
        for (to, text) in [
            (now + 3 * 86_400, "in 3 days"),
            (now + 2 * 86_400 - 1, "in 1 day"),
            (now + 1, "in less than a day"),
            (now - 86_399, "less than a day ago"),
            (1, "99 days ago"),
        ] {
            assert_eq!(distance(to, now), text);
        }
        assert_eq!(
            [0, 7, 253_402_300_798, 253_402_300_799, u64::MAX].map(valid_end),
            [Some(1), Some(7), Some(253_402_300_798), None, None]
        );
    }

    #[test]
    fn timestamps() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_827_696, "2000-02-29T12:34:56Z"),
            (1_795_412_631, "2026-11-23T05:43:51Z"),
            (4_107_542_399, "2100-02-28T23:59:59Z"),
        ] {
            assert_eq!(rfc3339(seconds), text);
        }
        for (nanos, text) in [(0, "000000"), (999, "000000"), (1_000, "000001"), (999_999_999, "999999")] {
            assert_eq!(micros(Duration::new(951_827_696, nanos)), format!("2000-02-29T12:34:56.{text}Z"));
        }
    }

    /// T6: the dates of HTTP, and nothing else.
    #[test]
    fn http_dates() {
        for (text, seconds) in [
            ("Mon, 23 Nov 2026 05:43:51 GMT", Some(1_795_412_631)),
            ("Thu, 01 Jan 1970 00:00:00 GMT", Some(0)),
            ("Mon, 23 Nov 2026 05:43:51", None),
            ("Monday, 23-Nov-26 05:43:51 GMT", None),
            ("Mon, 23 Foo 2026 05:43:51 GMT", None),
            ("", None),
        ] {
            assert_eq!(parse_http_date(text), seconds, "{text}");
        }
    }

    /// K3: expiry times in all forms of RFC 3339, and nothing else.
    #[test]
    fn expiry_times() {
        for (text, seconds) in [
            ("1970-01-01T00:00:00Z", Some(0)),
            ("2000-02-29T12:34:56Z", Some(951_827_696)),
            ("2026-11-23T05:43:51.123456789Z", Some(1_795_412_631)),
            ("2026-11-23T07:13:51+01:30", Some(1_795_412_631)),
            ("2026-11-22t21:43:51-08:00", Some(1_795_412_631)),
            ("9999-12-31T23:59:59Z", Some(253_402_300_799)),
            ("1969-12-31T23:59:59Z", None),
            ("2026-11-23", None),
            ("2026-11-23T05:43:51", None),
            ("2026-11-23T05:43:51.Z", None),
            ("2026-13-23T05:43:51Z", None),
            ("2026-11-23T25:43:51Z", None),
            ("+026-11-23T05:43:51Z", None),
            ("2026-11-23T05:43:51+0130", None),
            ("2026-11-2\u{e9}T05:43:51Z", None),
            ("", None),
        ] {
            assert_eq!(parse_rfc3339(text), seconds, "{text}");
        }
    }
}
