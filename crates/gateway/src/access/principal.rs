//! [`Principal`]: the caller of a request, with its role and claims.

use std::sync::Arc;
use std::time::SystemTime;

use axum::http::Extensions;

use super::verb::Verbs;
use diorama_core::record::CborValue;

/// Role of callers without credentials.
pub const ANONYMOUS: &str = "anonymous";

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
pub struct Principal(Option<Arc<Identity>>);

impl Principal {
    /// Returns the caller without credentials.
    pub const fn anonymous() -> Principal {
        Principal(None)
    }

    /// Returns the principal of the request that has these extensions.
    pub(crate) fn of(extensions: &Extensions) -> Principal {
        extensions.get().cloned().unwrap_or_default()
    }

    /// Returns the facts about the caller; `None` if it is anonymous.
    pub fn identity(&self) -> Option<&Arc<Identity>> {
        self.0.as_ref()
    }

    /// Returns the name under which the log records the caller's actions; `None` for an anonymous caller.
    pub fn name(&self) -> Option<&Arc<str>> {
        self.0.as_ref().map(|identity| &identity.name)
    }

    /// Returns the role, which is [`ANONYMOUS`] for a caller without credentials.
    pub fn role(&self) -> &str {
        self.0.as_ref().map_or(ANONYMOUS, |identity| &identity.role)
    }

    /// Returns the claim at `path`: names of members, separated by dots. A null claim counts as missing.
    pub fn claim(&self, path: &str) -> Option<&CborValue> {
        let claims = &self.0.as_ref()?.claims;
        path.split('.').try_fold(claims, member).filter(|value| !value.is_null())
    }
}

impl From<Arc<Identity>> for Principal {
    fn from(identity: Arc<Identity>) -> Principal {
        Principal(Some(identity))
    }
}

/// Returns a member of a map.
fn member<'v>(value: &'v CborValue, name: &str) -> Option<&'v CborValue> {
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
    }
}
