//! [`Receiver`]: the other end of a notification, which the program provides with its HTTP client.

use std::fmt::Debug;
use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;

/// Sends messages to one URL.
pub trait Receiver: Debug + Send + Sync + 'static {
    /// URL as it may be shown: without user, password and query.
    fn url(&self) -> &str;

    /// Sends a `POST` with `headers` and a JSON `body`; returns what is answered.
    fn post(
        &self,
        headers: Vec<(&'static str, String)>,
        body: Bytes,
    ) -> Pin<Box<dyn Future<Output = Posted> + Send + '_>>;
}

/// Result of a `POST`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Posted {
    /// The receiver has answered.
    Answered {
        /// Status of the answer.
        status: u16,
        /// Time after which it wants to be asked again.
        retry_after: Option<Duration>,
        /// Beginning of the body, as text.
        body: String,
    },
    /// There was no answer: a refused connection, a wrong certificate, a timeout. The text says which.
    Unanswered(String),
}

/// Meaning of a result for the notification.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Taken,
    Failed {
        detail: String,
        retry_after: Option<Duration>,
    },
    /// Nothing is to be sent any more.
    Gone(String),
}

/// Longest part of an answer that is kept, in characters.
const MOST_DETAIL: usize = 200;

impl Posted {
    /// Judges the answer as Standard Webhooks says: any 2xx is a success, 410 ends the notification, all others are failures, redirects too.
    pub(super) fn verdict(self) -> Verdict {
        let (status, retry_after, body) = match self {
            Posted::Unanswered(detail) => return Verdict::Failed { detail, retry_after: None },
            Posted::Answered { status, retry_after, body } => (status, retry_after, body),
        };
        let body: String = body.trim().chars().take(MOST_DETAIL).collect();
        let separator = if body.is_empty() { "" } else { ": " };
        match status {
            200..=299 => Verdict::Taken,
            410 => Verdict::Gone(format!("the receiver has answered 410{separator}{body}")),
            300..=399 => Verdict::Failed {
                detail: format!(
                    "the receiver has answered {status}; redirects are not followed: set url to where it is"
                ),
                retry_after,
            },
            _ => {
                Verdict::Failed { detail: format!("the receiver has answered {status}{separator}{body}"), retry_after }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_2xx_is_a_success_and_410_is_the_end() {
        let answered = |status| Posted::Answered { status, retry_after: None, body: String::new() }.verdict();
        for status in [200, 202, 204, 299] {
            assert_eq!(answered(status), Verdict::Taken);
        }
        for status in [100, 301, 304, 400, 401, 404, 409, 429, 500, 503] {
            assert!(matches!(answered(status), Verdict::Failed { .. }), "{status}");
        }
        assert!(matches!(answered(410), Verdict::Gone(_)));
        let wait = Some(Duration::from_secs(9));
        let busy = Posted::Answered { status: 503, retry_after: wait, body: " later \n".into() }.verdict();
        assert_eq!(busy, Verdict::Failed { detail: "the receiver has answered 503: later".into(), retry_after: wait });
        let long = Posted::Answered { status: 500, retry_after: None, body: "x".repeat(9_999) }.verdict();
        assert!(matches!(long, Verdict::Failed { detail, .. } if detail.len() < 300));
    }
}
