//! `Prefer` (RFC 7240): the time to wait for the master, the content of the answer, and strict handling of a request.

use std::time::Duration;

use axum::http::{HeaderMap, HeaderValue};
use thiserror::Error;

use crate::http::response;

/// Maximum wait in seconds.
pub(crate) const LONGEST: u64 = 30;

/// Error of a request with `handling=strict` and an unknown preference.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the header Prefer has a preference that is not known, or a value that is not valid")]
pub(crate) struct UnclearPreference;

/// Preferences of a request. The first one of each name applies. Unknown preferences are ignored, as the RFC requires, unless the
/// request has `handling=strict`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Prefer {
    /// Seconds to wait for the master.
    pub(crate) wait: Option<u64>,
    /// True to answer at once, whatever the default of the resource.
    pub(crate) respond_async: bool,
    /// True to leave the row out of the answer; `None` is the default, which sends it.
    pub(crate) minimal: Option<bool>,
    /// Lower bound than the resource's on the rows that one write may change.
    pub(crate) max_affected: Option<u64>,
    /// True for `handling=strict`, false for `lenient`; `None` is the default, lenient.
    strict: Option<bool>,
    /// True if a preference is unknown or its value is not valid.
    unclear: bool,
}

/// Kind of a request, which determines the preferences that it can follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A write of one row.
    One,
    /// An insert that the master executes at once.
    Made,
    /// A write by filter.
    Filter,
    /// A bulk insert.
    Bulk,
}

impl Prefer {
    pub(crate) fn of(headers: &HeaderMap) -> Prefer {
        let mut prefer = Prefer::default();
        let values = headers.get_all("prefer").iter().filter_map(|value| value.to_str().ok());
        for item in values.flat_map(|value| value.split(',')) {
            let item = item.split(';').next().unwrap_or_default().trim();
            let (name, value) = item.split_once('=').map_or((item, ""), |(name, value)| (name.trim(), value.trim()));
            let value = value.trim_matches('"');
            match name.to_ascii_lowercase().as_str() {
                "" => {}
                "wait" if value.parse::<u64>().is_ok() => {
                    prefer.wait = prefer.wait.or(value.parse().ok().map(|wait: u64| wait.min(LONGEST)))
                }
                "respond-async" => prefer.respond_async = true,
                "return" if value == "minimal" => prefer.minimal = prefer.minimal.or(Some(true)),
                "return" if value == "representation" => prefer.minimal = prefer.minimal.or(Some(false)),
                "max-affected" if value.parse::<u64>().is_ok() => {
                    prefer.max_affected = prefer.max_affected.or(value.parse().ok());
                }
                "handling" if value == "strict" => prefer.strict = prefer.strict.or(Some(true)),
                "handling" if value == "lenient" => prefer.strict = prefer.strict.or(Some(false)),
                _ => prefer.unclear = true,
            }
        }
        prefer
    }

    /// Refuses unknown preferences if the request has `handling=strict`.
    pub(crate) fn check(self) -> Result<Prefer, UnclearPreference> {
        match self.is_strict() && self.unclear {
            false => Ok(self),
            true => Err(UnclearPreference),
        }
    }

    /// Returns true if the request has `handling=strict`: it is executed as a whole or not at all.
    pub(crate) fn is_strict(&self) -> bool {
        self.strict == Some(true)
    }

    /// Returns the time to wait for the master; `default` is that of the resource.
    pub(crate) fn patience(&self, default: Duration) -> Duration {
        match (self.wait, self.respond_async) {
            (Some(wait), _) => Duration::from_secs(wait),
            (None, true) => Duration::ZERO,
            (None, false) => default,
        }
    }

    pub(crate) fn is_minimal(&self) -> bool {
        self.minimal == Some(true)
    }

    /// Returns the value of `Preference-Applied` for a request of this kind; `None` if it follows none.
    pub(crate) fn applied(&self, kind: Kind) -> Option<HeaderValue> {
        let (waits, shows) = (kind != Kind::Made, matches!(kind, Kind::One | Kind::Made));
        let word = |yes: bool, then: &str, or: &str| if yes { then.to_string() } else { or.to_string() };
        let all = [
            self.respond_async.then(|| "respond-async".to_string()).filter(|_| waits),
            self.wait.map(|wait| format!("wait={wait}")).filter(|_| waits),
            self.minimal.map(|minimal| word(minimal, "return=minimal", "return=representation")).filter(|_| shows),
            self.strict.map(|strict| word(strict, "handling=strict", "handling=lenient")),
            self.max_affected.map(|most| format!("max-affected={most}")).filter(|_| kind == Kind::Filter),
        ];
        let applied: Vec<String> = all.into_iter().flatten().collect();
        (!applied.is_empty()).then(|| response::text(applied.join(", ")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_preference_of_a_name_applies_and_unknown_ones_are_ignored() {
        let headers = HeaderMap::from_iter([(
            "prefer".parse().unwrap(),
            "wait=500, RETURN=\"minimal\"; x=1, colour=red".parse().unwrap(),
        )]);
        let prefer = Prefer::of(&headers);
        assert_eq!((prefer.wait, prefer.minimal), (Some(30), Some(true)));
        assert_eq!(prefer.applied(Kind::One).unwrap(), "wait=30, return=minimal");
        assert_eq!(prefer.applied(Kind::Bulk).unwrap(), "wait=30");
        assert!(prefer.check().is_ok());
    }

    #[test]
    fn unknown_preferences_are_refused_with_strict_handling() {
        let check = |value: &str| {
            Prefer::of(&HeaderMap::from_iter([("prefer".parse().unwrap(), value.parse().unwrap())])).check().is_ok()
        };
        assert!(check("colour=red, wait=x") && check("handling=lenient, colour=red"));
        assert!(check("handling=strict, wait=1,, return=minimal, max-affected=2, respond-async"));
        for unclear in ["colour=red", "wait=x", "wait", "return=half", "max-affected=-1", "handling=odd"] {
            assert!(!check(&format!("{unclear}, handling=strict")), "{unclear}");
        }
    }
}
