//! End of a socket or stream whose credential expires or is revoked.

use std::future::pending;
use std::pin::Pin;
use std::time::{Duration, SystemTime};

use tokio::time::sleep;

use crate::access::Principal;

/// Close code of a socket whose credential has ended.
pub(crate) const CLOSE: u16 = 4401;
/// Longest sleep. A longer one is repeated, because the clock may be set meanwhile, and timers have a limit.
const STEP: Duration = Duration::from_secs(3_600);

/// Reason of the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CredentialEnd {
    Expired,
    Revoked,
    /// The caller has signed out, or its session or the credential behind it has ended.
    Session,
}

impl CredentialEnd {
    /// Returns the reason as text.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            CredentialEnd::Expired => "the token has expired",
            CredentialEnd::Revoked => "the token has been revoked",
            CredentialEnd::Session => "the session has ended",
        }
    }
}

/// Timer of the credential of a connection. Without an expiry and in an anonymous connection, it needs no memory beyond itself.
pub(crate) struct Validity {
    principal: Principal,
    end: Option<Pin<Box<dyn Future<Output = CredentialEnd> + Send>>>,
}

impl Validity {
    /// Starts the timer of the credential of `principal`.
    pub(crate) fn of(principal: &Principal) -> Validity {
        let end = principal.identity().map(|_| Box::pin(end(principal.clone())) as Pin<Box<_>>);
        Validity { principal: principal.clone(), end }
    }

    /// Starts the timer of another principal of the connection. Nothing happens if it is the same.
    pub(crate) fn renew(&mut self, principal: &Principal) {
        if !self.principal.is_same(principal) {
            *self = Validity::of(principal);
        }
    }

    /// Waits until the credential has expired or is revoked.
    ///
    /// # Cancel safety
    /// Nothing is lost when the future is dropped.
    pub(crate) async fn ended(&mut self) -> CredentialEnd {
        match &mut self.end {
            Some(end) => end.await,
            None => pending().await,
        }
    }
}

async fn end(principal: Principal) -> CredentialEnd {
    let revoked = async {
        match principal.revoked() {
            Some(revoked) => revoked.cancelled().await,
            None => pending().await,
        }
    };
    let end = tokio::select! {
        () = expired(principal.expires()) => CredentialEnd::Expired,
        () = revoked => CredentialEnd::Revoked,
    };
    if principal.has_session() { CredentialEnd::Session } else { end }
}

async fn expired(at: Option<SystemTime>) {
    let Some(at) = at else { return pending().await };
    let mut left = at.duration_since(SystemTime::now()).unwrap_or_default();
    while !left.is_zero() {
        let step = left.min(STEP);
        sleep(step).await;
        // The clock counts again only after a long time, so that a test can pause time.
        left = if left > STEP { at.duration_since(SystemTime::now()).unwrap_or_default() } else { Duration::ZERO };
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::time::{Instant, timeout};
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::access::{Identity, Verbs};
    use diorama_core::record::CborValue;

    fn principal(expires: Option<SystemTime>, revoked: CancellationToken) -> Principal {
        let (name, role, claims) = ("key:a".into(), "x".into(), CborValue::Map(Vec::new()));
        let identity = Identity { name, role, claims, verbs: Verbs::ALL, unrestricted: false, expires };
        Principal::revocable(Arc::new(identity), revoked)
    }

    #[tokio::test(start_paused = true)]
    async fn a_credential_ends_at_its_time_and_a_new_one_prolongs_it() {
        let (start, revoked) = (Instant::now(), CancellationToken::new());
        let at = |seconds| Some(SystemTime::now() + Duration::from_secs(seconds));
        let mut validity = Validity::of(&principal(at(100), revoked.clone()));
        assert!(timeout(Duration::from_secs(90), validity.ended()).await.is_err());
        assert_eq!(validity.ended().await, CredentialEnd::Expired);
        assert!((99..=101).contains(&start.elapsed().as_secs()), "{:?}", start.elapsed());
        let mut validity = Validity::of(&principal(at(100), revoked.clone()));
        validity.renew(&principal(at(1_000), revoked));
        assert!(timeout(Duration::from_secs(900), validity.ended()).await.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn a_revoked_credential_ends_at_once_and_an_anonymous_one_never() {
        let revoked = CancellationToken::new();
        let mut validity = Validity::of(&principal(None, revoked.clone()));
        assert!(timeout(Duration::from_secs(1_000_000), validity.ended()).await.is_err());
        revoked.cancel();
        assert_eq!(validity.ended().await, CredentialEnd::Revoked);
        let mut anonymous = Validity::of(&Principal::anonymous());
        assert!(timeout(Duration::from_secs(1_000_000), anonymous.ended()).await.is_err());
    }
}
