//! Keys: shared secrets, and the public keys of senders that sign with private ones.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use ed25519_dalek::VerifyingKey;
use sha2::{Digest as _, Sha256};
use subtle::{Choice, ConstantTimeEq as _};

/// A secret, which is never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Key(pub(super) Vec<u8>);

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Key(..)")
    }
}

impl Key {
    /// Parses the secret of a Standard Webhooks sender: base64 after `whsec_`, 24 to 64 bytes.
    ///
    /// # Errors
    /// The expected form of a secret, without the secret.
    pub fn standard(secret: &str) -> Result<Key, String> {
        let encoded = secret.strip_prefix("whsec_").unwrap_or(secret);
        let key = STANDARD.decode(encoded).or_else(|_| STANDARD_NO_PAD.decode(encoded));
        let key = key.map_err(|_| "a secret of scheme \"standard\" must be base64, usually after whsec_")?;
        if !(24..=64).contains(&key.len()) {
            return Err(format!("a secret of scheme \"standard\" must have 24 to 64 bytes, not {}", key.len()));
        }
        Ok(Key(key))
    }

    /// Creates a secret from its text.
    ///
    /// # Errors
    /// If it is empty.
    pub fn plain(secret: &str) -> Result<Key, String> {
        if secret.is_empty() { Err("a secret must not be empty".into()) } else { Ok(Key(secret.into())) }
    }

    /// Parses a secret in base64.
    ///
    /// # Errors
    /// If it is not valid, or empty.
    pub fn base64(secret: &str) -> Result<Key, String> {
        let key = STANDARD.decode(secret).or_else(|_| STANDARD_NO_PAD.decode(secret)).ok();
        key.filter(|key| !key.is_empty()).map(Key).ok_or_else(|| "the secret is not valid base64".into())
    }

    /// Parses a secret in hexadecimal digits.
    ///
    /// # Errors
    /// If it is not valid, or empty.
    pub fn hex(secret: &str) -> Result<Key, String> {
        let key = super::mac::hex(secret).filter(|key| !key.is_empty());
        key.map(Key).ok_or_else(|| "the secret is not an even number of hexadecimal digits".into())
    }

    /// Compares the secret with `credential`. Hashes are compared, because they have the same length for every input.
    pub(super) fn matches(&self, credential: &[u8]) -> Choice {
        Sha256::digest(&self.0).ct_eq(&Sha256::digest(credential))
    }
}

/// Parses the public key of a Standard Webhooks sender: base64 after `whpk_`.
pub(super) fn public(key: &str) -> Result<VerifyingKey, String> {
    let encoded = key.strip_prefix("whpk_").unwrap_or(key);
    let bytes = STANDARD.decode(encoded).or_else(|_| STANDARD_NO_PAD.decode(encoded)).ok();
    let bytes: Option<[u8; 32]> = bytes.and_then(|bytes| bytes.try_into().ok());
    let key = bytes.and_then(|bytes| VerifyingKey::from_bytes(&bytes).ok()).filter(|key| !key.is_weak());
    key.ok_or_else(|| "a public key must be whpk_ and 32 bytes in base64".into())
}
