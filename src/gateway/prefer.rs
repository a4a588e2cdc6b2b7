//! `Prefer` (RFC 7240): how long to wait for the master, and whether the row is sent back.

use std::time::Duration;

use axum::http::{HeaderMap, HeaderValue};

use super::answer;

/// The longest wait there is.
pub(super) const LONGEST: u64 = 30;

/// What a request prefers. Unknown preferences are ignored, as the RFC says; the first of a name counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Prefer {
    /// Seconds to wait for the master.
    pub(super) wait: Option<u64>,
    /// Answer at once, whatever the resource's habit.
    pub(super) respond_async: bool,
    /// Whether the row is sent back; `None` is the default, yes.
    pub(super) minimal: Option<bool>,
    /// Lowers the bound on rows that one write may touch.
    pub(super) max_affected: Option<u64>,
}

impl Prefer {
    pub(super) fn of(headers: &HeaderMap) -> Prefer {
        let mut prefer = Prefer::default();
        let values = headers.get_all("prefer").iter().filter_map(|value| value.to_str().ok());
        for item in values.flat_map(|value| value.split(',')) {
            let item = item.split(';').next().unwrap_or_default().trim();
            let (name, value) = item.split_once('=').map_or((item, ""), |(name, value)| (name.trim(), value.trim()));
            let value = value.trim_matches('"');
            match name.to_ascii_lowercase().as_str() {
                "wait" => prefer.wait = prefer.wait.or_else(|| value.parse().ok().map(|wait: u64| wait.min(LONGEST))),
                "respond-async" => prefer.respond_async = true,
                "return" if value == "minimal" => prefer.minimal = prefer.minimal.or(Some(true)),
                "return" if value == "representation" => prefer.minimal = prefer.minimal.or(Some(false)),
                "max-affected" => prefer.max_affected = prefer.max_affected.or_else(|| value.parse().ok()),
                _ => {}
            }
        }
        prefer
    }

    /// How long to wait for the master, where the resource waits for `habit` otherwise.
    pub(super) fn patience(&self, habit: Duration) -> Duration {
        match (self.wait, self.respond_async) {
            (Some(wait), _) => Duration::from_secs(wait),
            (None, true) => Duration::ZERO,
            (None, false) => habit,
        }
    }

    pub(super) fn is_minimal(&self) -> bool {
        self.minimal == Some(true)
    }

    /// The preferences that were followed.
    pub(super) fn applied(&self) -> Option<HeaderValue> {
        let mut applied = Vec::new();
        applied.extend(self.respond_async.then(|| "respond-async".to_string()));
        applied.extend(self.wait.map(|wait| format!("wait={wait}")));
        applied.extend(
            self.minimal.map(|minimal| format!("return={}", if minimal { "minimal" } else { "representation" })),
        );
        applied.extend(self.max_affected.map(|most| format!("max-affected={most}")));
        (!applied.is_empty()).then(|| answer::text(applied.join(", ")))
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
        assert_eq!(prefer.applied().unwrap(), "wait=30, return=minimal");
    }
}
