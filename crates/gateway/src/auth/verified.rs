//! Cache of verified tokens, so that a signature is verified once and not with each request.

use std::sync::Arc;
use std::time::SystemTime;

use parking_lot::RwLock;

use super::issuer::Issuer;
use super::keys::{ByHash, TokenHash};
use crate::access::Principal;

/// Maximum number of tokens in each of the two generations.
const MOST: usize = 5_000;

/// Verified tokens by their hash, in two generations. The older one is dropped when the younger one is full.
#[derive(Debug, Default)]
pub(super) struct VerifiedTokens(RwLock<Generations>);

#[derive(Debug, Default)]
struct Generations {
    young: ByHash<Verified>,
    old: ByHash<Verified>,
}

/// Token that was verified by a key set of its issuer.
#[derive(Clone, Debug)]
pub(super) struct Verified {
    pub(super) principal: Principal,
    pub(super) issuer: Arc<Issuer>,
    /// Number of the issuer's key set at the beginning of the verification.
    pub(super) set: u64,
}

impl Verified {
    /// Returns true if the token has not expired, and the keys of its issuer are still the same.
    fn is_valid(&self, now: SystemTime) -> bool {
        let expires = self.principal.identity().and_then(|identity| identity.expires);
        expires.is_some_and(|at| now < at) && self.issuer.set_number() == self.set
    }
}

impl VerifiedTokens {
    /// Returns the principal of the token with this hash, if it was verified and is still valid.
    pub(super) fn find(&self, hash: &TokenHash, now: SystemTime) -> Option<Principal> {
        let found = {
            let all = self.0.read();
            match all.young.get(hash) {
                Some(found) if found.is_valid(now) => return Some(found.principal.clone()),
                Some(_) => return None,
                None => all.old.get(hash).cloned()?,
            }
        };
        if !found.is_valid(now) {
            return None;
        }
        let principal = found.principal.clone();
        self.insert(*hash, found);
        Some(principal)
    }

    /// Stores a verified token.
    pub(super) fn insert(&self, hash: TokenHash, verified: Verified) {
        let mut all = self.0.write();
        if all.young.len() >= MOST {
            all.old = std::mem::take(&mut all.young);
        }
        all.young.insert(hash, verified);
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        let all = self.0.read();
        all.young.len() + all.old.len()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::access::{Identity, Verbs};
    use crate::auth::issuer::testing::secret_issuer;
    use diorama_core::record::CborValue;

    fn verified(expires: SystemTime) -> Verified {
        let (name, role, claims) = ("jwt:a:b".into(), "x".into(), CborValue::Map(Vec::new()));
        let identity = Identity { name, role, claims, verbs: Verbs::ALL, unrestricted: false, expires: Some(expires) };
        Verified { principal: Arc::new(identity).into(), issuer: Arc::new(secret_issuer("a")), set: 0 }
    }

    fn hash(number: usize) -> TokenHash {
        TokenHash::of(&number.to_be_bytes())
    }

    #[test]
    fn tokens_are_bounded_and_used_ones_stay() {
        let (cache, now) = (VerifiedTokens::default(), SystemTime::now());
        let token = verified(now + Duration::from_secs(60));
        for number in 0..4 * MOST {
            cache.insert(hash(number), token.clone());
            assert!(cache.find(&hash(0), now).is_some(), "it is used all the time ({number})");
        }
        assert!(cache.len() <= 2 * MOST + 1, "{}", cache.len());
        assert!(cache.find(&hash(1), now).is_none());
    }

    #[test]
    fn a_token_is_forgotten_at_its_end_and_with_the_keys_of_its_issuer() {
        let (cache, now) = (VerifiedTokens::default(), SystemTime::now());
        let token = verified(now + Duration::from_secs(60));
        cache.insert(hash(1), token.clone());
        assert!(cache.find(&hash(1), now).is_some());
        assert!(cache.find(&hash(1), now + Duration::from_secs(60)).is_none());
        token.issuer.set_keys(crate::auth::JwkSet::default());
        assert!(cache.find(&hash(1), now).is_none());
    }
}
