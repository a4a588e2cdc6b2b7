//! Keys of programs: tokens with a role, found by their hash, and names of client certificates.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::{BuildHasherDefault, Hash, Hasher};
use std::sync::Arc;
use std::time::SystemTime;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::digest::{SHA256, digest};
use ring::rand::{SecureRandom as _, SystemRandom};
use subtle::ConstantTimeEq as _;
use tokio_util::sync::CancellationToken;

use super::AuthConfigError;
use crate::access::{Identity, Principal, TOKEN, Verbs};
use diorama_core::record::CborValue;

/// Role whose keys no access rule restricts.
const ADMIN: &str = "admin";

/// SHA-256 hash of a token. Hashes are compared in constant time.
#[derive(Clone, Copy, Debug, Eq)]
pub struct TokenHash([u8; 32]);

impl TokenHash {
    /// Computes the hash of `token`.
    pub fn of(token: &[u8]) -> TokenHash {
        let mut hash = [0; 32];
        hash.copy_from_slice(digest(&SHA256, token).as_ref());
        TokenHash(hash)
    }

    /// Parses 64 hexadecimal digits.
    pub fn parse(text: &str) -> Option<TokenHash> {
        let mut hash = [0; 32];
        if text.len() != 64 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return None;
        }
        for (at, byte) in hash.iter_mut().enumerate() {
            *byte = u8::from_str_radix(text.get(2 * at..2 * at + 2)?, 16).ok()?;
        }
        Some(TokenHash(hash))
    }

    /// Returns the hash as hexadecimal digits.
    pub fn hex(&self) -> String {
        self.0.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

impl PartialEq for TokenHash {
    fn eq(&self, other: &TokenHash) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl Hash for TokenHash {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let [a, b, c, d, e, f, g, h, ..] = self.0;
        state.write_u64(u64::from_ne_bytes([a, b, c, d, e, f, g, h]));
    }
}

/// Hasher of token hashes, whose bytes are already evenly distributed.
#[derive(Debug, Default)]
pub(super) struct FirstBytes(u64);

impl Hasher for FirstBytes {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        self.0 = bytes.iter().fold(self.0, |sum, byte| sum.rotate_left(8) ^ u64::from(*byte));
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = number;
    }
}

/// Map by the hash of a token.
pub(super) type ByHash<T> = HashMap<TokenHash, T, BuildHasherDefault<FirstBytes>>;

/// Returns 256 random bits as text, for tokens, tickets and sessions.
pub(super) fn random() -> String {
    let mut bytes = [0; 32];
    // The system's generator of random numbers fails only where it does not exist. UUIDs then panic, and so does this.
    SystemRandom::new().fill(&mut bytes).unwrap_or_else(|_| panic!("the system has no random numbers"));
    URL_SAFE_NO_PAD.encode(bytes)
}

/// Named key of a program: tokens or client certificates with a role.
#[derive(Clone, Debug)]
pub struct Key {
    name: String,
    role: String,
    claims: CborValue,
    verbs: Verbs,
    expires: Option<SystemTime>,
    hashes: Vec<TokenHash>,
    certificates: Vec<Arc<str>>,
}

impl Key {
    /// Creates a key without tokens and certificates. No access rule restricts the role `admin`.
    pub fn new(name: &str, role: &str) -> Key {
        Key {
            name: name.into(),
            role: role.into(),
            claims: CborValue::Map(Vec::new()),
            verbs: Verbs::ALL,
            expires: None,
            hashes: Vec::new(),
            certificates: Vec::new(),
        }
    }

    /// Generates a random token.
    pub fn generate_token() -> String {
        format!("dio_{}", random())
    }

    /// Adds a token. Several tokens count at the same time, so that they can be replaced one after another.
    #[must_use]
    pub fn token(self, token: &str) -> Key {
        self.token_hash(TokenHash::of(token.as_bytes()))
    }

    /// Adds the token that has this hash.
    #[must_use]
    pub fn token_hash(mut self, hash: TokenHash) -> Key {
        self.hashes.push(hash);
        self
    }

    /// Adds the [name](crate::ClientCertificate::name) of client certificates. Requests without another credential are of this key if
    /// the client of their connection has such a certificate. An empty name matches none.
    #[must_use]
    pub fn certificate(mut self, name: &str) -> Key {
        self.certificates.push(name.into());
        self
    }

    /// Sets the claims: a map from texts to values.
    #[must_use]
    pub fn claims(mut self, claims: CborValue) -> Key {
        self.claims = claims;
        self
    }

    /// Sets the verbs that the key can be used for at most (default: all).
    #[must_use]
    pub fn verbs(mut self, verbs: Verbs) -> Key {
        self.verbs = verbs;
        self
    }

    /// Sets the time at which the key expires (default: never).
    #[must_use]
    pub fn expires(mut self, at: SystemTime) -> Key {
        self.expires = Some(at);
        self
    }

    fn identity(&self) -> Identity {
        Identity {
            name: format!("key:{}", self.name).into(),
            role: self.role.as_str().into(),
            claims: self.claims.clone(),
            verbs: self.verbs,
            unrestricted: self.role == ADMIN,
            expires: self.expires,
        }
    }
}

/// Returns the identity of the callers with a token of [`Auth::tokens`](super::Auth::tokens).
fn token_identity() -> Identity {
    Identity {
        name: TOKEN.into(),
        role: ADMIN.into(),
        claims: CborValue::Map(Vec::new()),
        verbs: Verbs::ALL,
        unrestricted: true,
        expires: None,
    }
}

/// Principals of all tokens, by hash, and of all certificates, by name.
#[derive(Clone, Debug, Default)]
pub(super) struct Keys {
    by_hash: ByHash<Principal>,
    by_certificate: HashMap<Arc<str>, Principal>,
    /// True if callers need a token, even if there is none that counts.
    required: bool,
}

impl Keys {
    /// Adds tokens without a name. Empty ones are left out, because an empty token is no secret.
    pub(super) fn add_tokens(&mut self, tokens: &[String]) {
        let identity = Arc::new(token_identity());
        for token in tokens.iter().filter(|token| !token.is_empty()) {
            self.by_hash.insert(
                TokenHash::of(token.as_bytes()),
                Principal::revocable(Arc::clone(&identity), CancellationToken::new()),
            );
        }
    }

    /// Adds a key.
    ///
    /// # Errors
    /// A token or certificate of another key, or a key with neither.
    pub(super) fn add(&mut self, key: &Key) -> Result<(), AuthConfigError> {
        if key.hashes.is_empty() && key.certificates.is_empty() {
            return Err(AuthConfigError::NoToken(key.name.clone()));
        }
        let identity = Arc::new(key.identity());
        for hash in &key.hashes {
            let principal = Principal::revocable(Arc::clone(&identity), CancellationToken::new());
            match self.by_hash.entry(*hash) {
                Entry::Vacant(entry) => entry.insert(principal),
                Entry::Occupied(_) => return Err(AuthConfigError::SameToken(key.name.clone())),
            };
        }
        for name in &key.certificates {
            let principal = Principal::revocable(Arc::clone(&identity), CancellationToken::new());
            match self.by_certificate.entry(Arc::clone(name)) {
                Entry::Vacant(entry) => entry.insert(principal),
                Entry::Occupied(_) => return Err(AuthConfigError::SameCertificate(key.name.clone())),
            };
        }
        Ok(())
    }

    /// Requires a token of every caller, even if there is none.
    pub(super) fn require(&mut self) {
        self.required = true;
    }

    pub(super) fn is_required(&self) -> bool {
        self.required || !self.by_hash.is_empty() || !self.by_certificate.is_empty()
    }

    /// Returns the principal of the token that has this hash. It may have expired.
    pub(super) fn find(&self, hash: &TokenHash) -> Option<&Principal> {
        self.by_hash.get(hash)
    }

    /// Returns the principal of the client certificates with this name. It may have expired.
    pub(super) fn find_certificate(&self, name: &str) -> Option<&Principal> {
        self.by_certificate.get(name).filter(|_| !name.is_empty())
    }

    /// Keeps the principals of `old` that are the same here, and revokes the others.
    pub(super) fn replace(&mut self, old: &Keys) {
        for (hash, old) in &old.by_hash {
            keep_or_revoke(self.by_hash.get_mut(hash), old);
        }
        for (name, old) in &old.by_certificate {
            keep_or_revoke(self.by_certificate.get_mut(name), old);
        }
    }
}

/// Puts `old` in the place of `own` if they are equal, and revokes it otherwise.
fn keep_or_revoke(own: Option<&mut Principal>, old: &Principal) {
    match own {
        Some(own) if is_equal(own, old) => *own = old.clone(),
        _ => old.revoked().into_iter().for_each(CancellationToken::cancel),
    }
}

/// Returns true if two principals are of the same name and may do the same.
fn is_equal(one: &Principal, other: &Principal) -> bool {
    let facts = |principal: &Principal| {
        let own = principal.identity()?;
        Some((Arc::clone(&own.name), Arc::clone(&own.role), own.claims.clone(), own.verbs, own.expires))
    };
    facts(one) == facts(other)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(keys: &[Key]) -> Keys {
        let mut all = Keys::default();
        keys.iter().for_each(|key| all.add(key).unwrap());
        all
    }

    #[test]
    fn each_token_of_a_key_has_its_principal_and_admin_is_unrestricted() {
        let admin = Key::new("ops", "admin").token("first").token_hash(TokenHash::of(b"second"));
        let limited = Key::new("dash", "viewer").token("third").verbs(Verbs::NONE);
        let all = keys(&[admin, limited]);
        let find = |token: &str| all.find(&TokenHash::of(token.as_bytes())).and_then(Principal::identity);
        for token in ["first", "second"] {
            let found = find(token).unwrap();
            assert_eq!((&*found.name, &*found.role, found.unrestricted), ("key:ops", "admin", true));
        }
        let found = find("third").unwrap();
        assert_eq!((&*found.name, found.unrestricted, found.verbs), ("key:dash", false, Verbs::NONE));
        assert!(find("fourth").is_none() && find("").is_none());
    }

    #[test]
    fn a_token_of_two_keys_and_a_key_without_tokens_are_refused() {
        let mut all = keys(&[Key::new("a", "x").token("one")]);
        assert!(matches!(all.add(&Key::new("b", "x").token("one")), Err(AuthConfigError::SameToken(_))));
        assert!(matches!(all.add(&Key::new("b", "x")), Err(AuthConfigError::NoToken(_))));
    }

    #[test]
    fn a_reload_revokes_what_is_gone_or_has_changed_and_keeps_the_rest() {
        let old = keys(&[
            Key::new("kept", "x").token("kept"),
            Key::new("gone", "x").token("gone"),
            Key::new("changed", "x").token("changed"),
        ]);
        let find = |keys: &Keys, token: &str| keys.find(&TokenHash::of(token.as_bytes())).cloned().unwrap();
        let open: Vec<Principal> = ["kept", "gone", "changed"].iter().map(|token| find(&old, token)).collect();
        let mut new = keys(&[Key::new("kept", "x").token("kept"), Key::new("changed", "y").token("changed")]);
        new.replace(&old);
        let valid: Vec<bool> = open.iter().map(|principal| principal.is_valid(SystemTime::now())).collect();
        assert_eq!(valid, [true, false, false]);
        assert!(find(&new, "kept").is_same(&open[0]) && find(&new, "changed").is_valid(SystemTime::now()));
        let mut third = keys(&[Key::new("other", "x").token("other")]);
        third.replace(&new);
        assert!(
            !open[0].is_valid(SystemTime::now()),
            "the principal that a reload kept can be revoked by the next one"
        );
    }

    #[test]
    fn a_certificate_is_of_one_key_and_a_certificate_without_a_name_of_none() {
        let mut all = keys(&[Key::new("a", "x").certificate("robot").certificate("").token("one")]);
        let name = |name: &str| all.find_certificate(name).and_then(Principal::name).map(ToString::to_string);
        assert_eq!((name("robot"), name("Robot"), name("")), (Some("key:a".into()), None, None));
        assert!(all.is_required() && keys(&[Key::new("b", "x").certificate("robot")]).is_required());
        let again = all.add(&Key::new("b", "x").certificate("robot"));
        assert_eq!(again, Err(AuthConfigError::SameCertificate("b".into())));
        let open = all.find_certificate("robot").cloned().unwrap();
        let mut same = keys(&[Key::new("a", "x").certificate("robot")]);
        same.replace(&all);
        assert!(same.find_certificate("robot").unwrap().is_same(&open) && open.is_valid(SystemTime::now()));
        keys(&[Key::new("a", "y").certificate("robot")]).replace(&same);
        assert!(!open.is_valid(SystemTime::now()), "another role");
    }

    #[test]
    fn a_hash_is_read_back_from_its_digits() {
        let hash = TokenHash::of(b"abc");
        assert_eq!(hash.hex(), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        assert_eq!(TokenHash::parse(&hash.hex().to_uppercase()), Some(hash));
        for wrong in ["", "ba78", &"g".repeat(64), &"é".repeat(32)] {
            assert_eq!(TokenHash::parse(wrong), None);
        }
    }

    #[test]
    fn random_tokens_differ_and_are_long() {
        let (one, other) = (Key::generate_token(), Key::generate_token());
        assert!(one != other && one.len() == 47 && one.starts_with("dio_"));
    }
}
