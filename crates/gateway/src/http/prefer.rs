//! `Prefer` (RFC 7240): how long to wait for the master, whether the row is sent back, and how strictly a request is read.

use std::time::Duration;

use axum::http::{HeaderMap, HeaderValue};
use thiserror::Error;

use crate::http::response;

/// The longest wait there is.
pub(crate) const LONGEST: u64 = 30;

/// A strict request prefers something that is not understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("Prefer has something that is not understood")]
pub(crate) struct UnclearPreference;

/// What a request prefers. The first of a name counts. Unknown preferences are ignored, as the RFC says, unless the request
/// says `handling=strict`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Prefer {
    /// Seconds to wait for the master.
    pub(crate) wait: Option<u64>,
    /// Answer at once, whatever the resource's habit.
    pub(crate) respond_async: bool,
    /// Whether the row is sent back; `None` is the default, yes.
    pub(crate) minimal: Option<bool>,
    /// Lowers the bound on rows that one write may touch.
    pub(crate) max_affected: Option<u64>,
    /// `handling=strict` or `lenient`; `None` is the default, lenient.
    strict: Option<bool>,
    /// Whether something in it is not understood.
    unclear: bool,
}

/// A kind of request, which can follow some preferences and not others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A write of one row.
    One,
    /// A row that the master makes at once.
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

    /// Refuses what is not understood, if the request asks for that.
    pub(crate) fn check(self) -> Result<Prefer, UnclearPreference> {
        match self.is_strict() && self.unclear {
            false => Ok(self),
            true => Err(UnclearPreference),
        }
    }

    /// Whether everything must be right before anything is done.
    pub(crate) fn is_strict(&self) -> bool {
        self.strict == Some(true)
    }

    /// How long to wait for the master, where the resource waits for `habit` otherwise.
    pub(crate) fn patience(&self, habit: Duration) -> Duration {
        match (self.wait, self.respond_async) {
            (Some(wait), _) => Duration::from_secs(wait),
            (None, true) => Duration::ZERO,
            (None, false) => habit,
        }
    }

    pub(crate) fn is_minimal(&self) -> bool {
        self.minimal == Some(true)
    }

    /// The preferences that a request of this kind follows.
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
    fn the_first_of_a_name_counts_and_unknown_ones_do_not() {
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
    fn what_is_not_understood_is_refused_where_that_is_asked_for() {
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
