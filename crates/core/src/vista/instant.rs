//! Instants in the notations that people and databases use.

use jiff::Timestamp;
use jiff::civil::{Date, DateTime, Time};
use jiff::fmt::temporal::Pieces;
use jiff::tz::{Offset, TimeZone};

/// An instant: seconds since 1970 in UTC, rounded down, and the remaining nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instant {
    pub(crate) seconds: i64,
    pub(crate) nanos: u32,
}

/// Numbers from here on are milliseconds, from a thousand times that microseconds, then nanoseconds. As seconds they would be
/// after the year 5138.
const MILLISECONDS_FROM: f64 = 1e11;

impl Instant {
    /// Reads an ISO 8601 date with an optional time (after `T` or a space, seconds and fraction optional) and an optional offset
    /// or `[zone]`. A date alone is its midnight. `zone` applies if the text has neither offset nor zone. `None` if the text is
    /// not in this format.
    pub fn of_text(text: &str, zone: &TimeZone) -> Option<Instant> {
        let bytes = text.as_bytes();
        // jiff would also accept 20240131, which may as well be a number of seconds.
        if bytes.len() < 10 || bytes[4] != b'-' || bytes[7] != b'-' {
            return None;
        }
        let pieces = Pieces::parse(text).ok()?;
        let civil = pieces.date().to_datetime(pieces.time().unwrap_or(Time::midnight()));
        if let Some(offset) = pieces.to_numeric_offset() {
            return Some(Instant::of_civil(civil, offset));
        }
        let written = pieces.to_time_zone().ok()?;
        let zone = written.as_ref().unwrap_or(zone);
        // The conversion fails only on the first and last representable day.
        Some(zone.to_timestamp(civil).map_or_else(|_| Instant::of_civil(civil, Offset::UTC), Instant::from))
    }

    /// The instant at which clocks with this offset show `civil`. Works up to 9999-12-31, which many tables use for "never" and
    /// which is beyond the range of jiff's timestamps.
    fn of_civil(civil: DateTime, offset: Offset) -> Instant {
        let days = civil.date().since(Date::constant(1970, 1, 1)).map_or(0, |days| i64::from(days.get_days()));
        let time = civil.time();
        let hours = i64::from(time.hour());
        let seconds = (hours * 60 + i64::from(time.minute())) * 60 + i64::from(time.second());
        let nanos = time.subsec_nanosecond().unsigned_abs();
        Instant { seconds: days * 86_400 + seconds - i64::from(offset.seconds()), nanos }
    }

    /// Reads seconds since 1970. Larger numbers are milliseconds, microseconds or nanoseconds: those that would be after the year
    /// 5138 as seconds.
    pub fn of_integer(number: i128) -> Option<Instant> {
        let mut per_second = 1;
        while (number / per_second).unsigned_abs() >= MILLISECONDS_FROM as u128 && per_second < 1_000_000_000 {
            per_second *= 1_000;
        }
        let nanos = number.checked_mul(1_000_000_000 / per_second)?;
        Timestamp::from_nanosecond(nanos).ok().map(Instant::from)
    }

    /// [`Instant::of_integer`] with a fraction, rounded to the microsecond.
    pub fn of_float(number: f64) -> Option<Instant> {
        if !number.is_finite() {
            return None;
        }
        if number.abs() >= MILLISECONDS_FROM || number.fract() == 0.0 {
            return Instant::of_integer(number as i128);
        }
        Timestamp::from_microsecond((number * 1e6).round() as i64).ok().map(Instant::from)
    }
}

impl From<Timestamp> for Instant {
    fn from(moment: Timestamp) -> Instant {
        let nanos = moment.as_nanosecond();
        let seconds = nanos.div_euclid(1_000_000_000);
        // Both casts fit for every jiff timestamp.
        Instant { seconds: seconds as i64, nanos: (nanos - seconds * 1_000_000_000) as u32 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Option<Instant> {
        Instant::of_text(text, &TimeZone::UTC)
    }

    #[test]
    fn every_notation_of_an_instant_reads_as_the_same_instant() {
        let one = at("2023-12-31T23:30:00-01:00").unwrap();
        for same in [
            "2024-01-01T00:30:00Z",
            "2024-01-01t00:30:00z",
            "2024-01-01 00:30:00",
            "2024-01-01 00:30:00+00",
            "2024-01-01 00:30",
            "2024-01-01T00:30:00.000000000Z",
            "2024-01-01T01:30+01:00",
            "2024-01-01 01:30:00+0100",
            "2024-01-01T01:30:00[Europe/Berlin]",
            "2024-01-01T01:30:00+01:00[Europe/Berlin]",
        ] {
            assert_eq!(at(same), Some(one), "{same}");
        }
        assert_eq!(Instant::of_text("2024-01-01 01:30:00", &TimeZone::get("Europe/Berlin").unwrap()), Some(one));
        assert!(at("2024-01-01T00:30:00.25Z") > Some(one));
        assert!(at("9999-12-31") > at("9999-12-30") && at("9999-12-31 23:59:59.999-12:00") > at("9999-12-31"));
        assert!(Instant::of_text("9999-12-31", &TimeZone::get("America/New_York").unwrap()) > at("9999-12-30"));
        assert!(
            at("1969-12-31T23:59:59.75Z") < at("1970-01-01")
                && at("1969-12-31T23:59:59.75Z") > at("1969-12-31T23:59:59Z")
        );
    }

    #[test]
    fn text_that_is_not_an_instant_is_none() {
        for text in [
            "",
            "yesterday",
            "2020-1-9",
            "2020-13-01",
            "2023-02-29",
            "20240131",
            "10:00",
            "2024-01-31T25:00:00Z",
            "2024-01-31x",
        ] {
            assert_eq!(at(text), None, "{text}");
        }
    }

    #[test]
    fn the_size_of_a_number_decides_its_unit() {
        let one = at("2023-01-29T13:46:41Z").unwrap();
        for number in [1_675_000_001, 1_675_000_001_000, 1_675_000_001_000_000, 1_675_000_001_000_000_000] {
            assert_eq!(Instant::of_integer(number), Some(one), "{number}");
            assert_eq!(Instant::of_float(number as f64), Some(one), "{number}");
        }
        assert_eq!(Instant::of_float(1_675_000_001.25), at("2023-01-29T13:46:41.25Z"));
        assert_eq!(Instant::of_float(-0.5), at("1969-12-31T23:59:59.5Z"));
        assert_eq!(
            (Instant::of_integer(i128::MAX), Instant::of_float(f64::NAN), Instant::of_float(1e300)),
            (None, None, None)
        );
    }
}
