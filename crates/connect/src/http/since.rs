//! Times of last changes, from which a list of changes continues.

use std::time::Duration;

use jiff::Timestamp;

use diorama_core::record::CborValue;

/// The newest time of a list, in the form that the API writes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum ChangeTime {
    /// Seconds since 1970.
    Seconds(i64),
    /// RFC 3339.
    Text(Timestamp),
}

impl ChangeTime {
    /// Returns the time in a column; `None` if it is not one.
    pub(super) fn of(value: &CborValue) -> Option<ChangeTime> {
        match value {
            CborValue::Integer(seconds) => Some(ChangeTime::Seconds(i64::try_from(*seconds).ok()?)),
            CborValue::Text(text) => Some(ChangeTime::Text(text.parse().ok()?)),
            _ => None,
        }
    }

    /// Parses what [`ChangeTime::to_text`] has written.
    pub(super) fn parse(text: &str) -> Option<ChangeTime> {
        match text.parse() {
            Ok(seconds) => Some(ChangeTime::Seconds(seconds)),
            Err(_) => Some(ChangeTime::Text(text.parse().ok()?)),
        }
    }

    pub(super) fn to_text(&self) -> String {
        match self {
            ChangeTime::Seconds(seconds) => seconds.to_string(),
            ChangeTime::Text(time) => time.to_string(),
        }
    }

    /// Returns the time as a value of a request.
    pub(super) fn to_value(&self) -> CborValue {
        match self {
            ChangeTime::Seconds(seconds) => (*seconds).into(),
            ChangeTime::Text(time) => time.to_string().into(),
        }
    }

    /// Returns the time `lookback` earlier.
    pub(super) fn before(&self, lookback: Duration) -> ChangeTime {
        match self {
            ChangeTime::Seconds(seconds) => {
                ChangeTime::Seconds(seconds.saturating_sub(i64::try_from(lookback.as_secs()).unwrap_or(i64::MAX)))
            }
            ChangeTime::Text(time) => ChangeTime::Text(time.checked_sub(lookback).unwrap_or(Timestamp::MIN)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_written_as_the_api_writes_it() {
        let text = ChangeTime::of(&"2026-01-02T03:04:05+01:00".into()).unwrap();
        assert_eq!(text.before(Duration::from_secs(300)).to_text(), "2026-01-02T01:59:05Z");
        let seconds = ChangeTime::of(&1_700_000_000.into()).unwrap();
        assert_eq!(seconds.before(Duration::from_secs(60)).to_text(), "1699999940");
        assert_eq!(ChangeTime::of(&"yesterday".into()), None);
        assert_eq!(ChangeTime::parse(&text.to_text()), Some(text));
        assert_eq!(ChangeTime::parse(&seconds.to_text()), Some(seconds));
    }
}
