//! [`Principal`]: the caller of a request, with its role and claims.

use std::sync::Arc;
use std::time::SystemTime;

use axum::http::Extensions;
use tokio_util::sync::CancellationToken;

use super::verb::Verbs;
use diorama_core::record::CborValue;

/// Name of all callers with a token of `server.auth`.
pub(crate) const TOKEN: &str = "token";
/// Role of callers without credentials.
pub const ANONYMOUS: &str = "anonymous";

/// Claims that differ between two tokens of the same principal.
const CLAIMS_OF_TOKEN: [&str; 7] = ["exp", "iat", "nbf", "jti", "auth_time", "nonce", "at_hash"];

/// Facts about an authenticated caller. Authentication makes one for each key, and one for each verified token.
#[derive(Debug)]
pub struct Identity {
    /// Name under which the log records the caller's actions, unique among all callers: `key:NAME`, or `jwt:NAME:SUBJECT`.
    pub name: Arc<str>,
    /// Role, which rules name.
    pub role: Arc<str>,
    /// Claims, which rules compare with cells: a map from texts to values.
    pub claims: CborValue,
    /// Verbs that the credential can be used for at most.
    pub verbs: Verbs,
    /// True if access rules do not apply to the caller, as for the tokens of `server.auth` and keys of the role `admin`. Never true
    /// for a JWT, whose role is somebody else's statement.
    pub unrestricted: bool,
    /// Time at which the credential expires.
    pub expires: Option<SystemTime>,
}

/// Caller of a request. Anonymous by default.
#[derive(Clone, Debug, Default)]
pub struct Principal(Option<Arc<Credential>>);

/// Identity of a caller, and whether it still counts.
#[derive(Debug)]
struct Credential {
    identity: Arc<Identity>,
    /// Cancelled once a reload has removed the key or the issuer, and at the end of the session.
    revoked: CancellationToken,
    /// Time at which the session ends; `None` if the caller has sent the credential itself.
    session: Option<SystemTime>,
}

impl Principal {
    /// Returns the caller without credentials.
    pub const fn anonymous() -> Principal {
        Principal(None)
    }

    /// Returns the principal of `identity` until `revoked` is cancelled.
    pub(crate) fn revocable(identity: Arc<Identity>, revoked: CancellationToken) -> Principal {
        Principal(Some(Arc::new(Credential { identity, revoked, session: None })))
    }

    /// Returns the same caller in a session that lasts until `end`, until [`Principal::end_session`], or as long as the credential;
    /// `None` if it is anonymous.
    pub(crate) fn in_session(&self, end: SystemTime) -> Option<Principal> {
        let Credential { identity, revoked, .. } = &**self.0.as_ref()?;
        let (identity, revoked) = (Arc::clone(identity), revoked.child_token());
        Some(Principal(Some(Arc::new(Credential { identity, revoked, session: Some(end) }))))
    }

    /// Ends the session of the caller, and with it the sockets, streams and tickets that it has opened.
    pub(crate) fn end_session(&self) {
        if let Some(own) = self.0.as_ref().filter(|own| own.session.is_some()) {
            own.revoked.cancel();
        }
    }

    /// Returns true if the caller is known by a session.
    pub(crate) fn has_session(&self) -> bool {
        self.0.as_ref().is_some_and(|own| own.session.is_some())
    }

    /// Returns the time at which the credential or the session ends; `None` if neither does.
    pub(crate) fn expires(&self) -> Option<SystemTime> {
        let own = self.0.as_ref()?;
        own.identity.expires.into_iter().chain(own.session).min()
    }

    /// Returns true if the credential is neither revoked nor expired at `now`.
    pub(crate) fn is_valid(&self, now: SystemTime) -> bool {
        self.revoked().is_none_or(|revoked| !revoked.is_cancelled()) && self.expires().is_none_or(|at| now < at)
    }

    /// Returns the token that is cancelled once the credential is revoked or the session has ended; `None` if the caller is anonymous.
    pub(crate) fn revoked(&self) -> Option<&CancellationToken> {
        self.0.as_ref().map(|own| &own.revoked)
    }

    /// Returns true if both are of the same authentication.
    pub(crate) fn is_same(&self, other: &Principal) -> bool {
        match (&self.0, &other.0) {
            (Some(own), Some(other)) => Arc::ptr_eq(own, other),
            (own, other) => own.is_none() && other.is_none(),
        }
    }

    /// Returns true if `other` has the same name, role, verbs and claims, but for those that differ in each token.
    pub(crate) fn has_rights_of(&self, other: &Principal) -> bool {
        let facts = |principal: &Principal| {
            let own = principal.identity()?;
            let mut claims = own.claims.as_map().cloned().unwrap_or_default();
            claims.retain(|(name, _)| !name.as_text().is_some_and(|name| CLAIMS_OF_TOKEN.contains(&name)));
            claims.sort_by(|(one, _), (other, _)| one.as_text().cmp(&other.as_text()));
            Some((Arc::clone(&own.name), Arc::clone(&own.role), own.verbs, own.unrestricted, claims))
        };
        facts(self) == facts(other)
    }

    /// Returns the principal of the request that has these extensions.
    pub(crate) fn of(extensions: &Extensions) -> Principal {
        extensions.get().cloned().unwrap_or_default()
    }

    /// Returns the facts about the caller; `None` if it is anonymous.
    pub fn identity(&self) -> Option<&Arc<Identity>> {
        self.0.as_ref().map(|own| &own.identity)
    }

    /// Returns the name under which the log records the caller's actions; `None` for an anonymous caller.
    pub fn name(&self) -> Option<&Arc<str>> {
        self.identity().map(|identity| &identity.name)
    }

    /// Returns the role, which is [`ANONYMOUS`] for a caller without credentials.
    pub fn role(&self) -> &str {
        self.identity().map_or(ANONYMOUS, |identity| &identity.role)
    }

    /// Returns the claim at `path`: names of members, separated by dots, which names may contain too. A null claim counts as missing.
    pub fn claim(&self, path: &str) -> Option<&CborValue> {
        claim(&self.identity()?.claims, path).filter(|value| !value.is_null())
    }
}

impl From<Arc<Identity>> for Principal {
    fn from(identity: Arc<Identity>) -> Principal {
        Principal::revocable(identity, CancellationToken::new())
    }
}

/// Returns the claim at `path`: names of members, separated by dots, which names may contain too (`https://shop.example/org`).
pub(crate) fn claim<'v>(claims: &'v CborValue, path: &str) -> Option<&'v CborValue> {
    if let Some(found) = member(claims, path) {
        return Some(found);
    }
    path.match_indices('.').find_map(|(at, _)| claim(member(claims, &path[..at])?, &path[at + 1..]))
}

/// Returns a member of a map.
pub(crate) fn member<'v>(value: &'v CborValue, name: &str) -> Option<&'v CborValue> {
    value.as_map()?.iter().find(|(key, _)| key.as_text() == Some(name)).map(|(_, value)| value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claim_is_found_by_its_path_and_a_null_one_is_missing() {
        let map = |members: Vec<(&str, CborValue)>| {
            CborValue::Map(members.into_iter().map(|(name, value)| (name.into(), value)).collect())
        };
        let claims = map(vec![("org", map(vec![("id", 7.into())])), ("none", CborValue::Null)]);
        let (name, role, verbs) = ("key:a".into(), "member".into(), Verbs::ALL);
        let identity = Identity { name, role, claims, verbs, unrestricted: false, expires: None };
        let principal = Principal::from(Arc::new(identity));
        assert_eq!(principal.claim("org.id"), Some(&7.into()));
        assert_eq!((principal.claim("none"), principal.claim("org.id.x"), principal.claim("")), (None, None, None));
        assert_eq!((principal.role(), Principal::anonymous().role()), ("member", "anonymous"));
        let namespaced = CborValue::Map(vec![("https://a.example/x".into(), map(vec![("id", 9.into())]))]);
        assert_eq!(super::claim(&namespaced, "https://a.example/x.id"), Some(&9.into()));
    }
}
