//! HMACs, and the encodings of signatures.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use hmac::{KeyInit as _, Mac as _};
use sha1::Sha1;
use sha2::{Sha256, Sha512};
use subtle::{Choice, ConstantTimeEq as _};

use super::Key;

/// Encoding of a signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// Hexadecimal, in either case.
    Hex,
    /// Base64 with padding.
    Base64,
    /// Base64 for URLs, without padding.
    Base64Url,
}

impl Encoding {
    /// Decodes a signature. An invalid text gives no bytes, which match nothing.
    pub(super) fn decode(self, text: &str) -> Vec<u8> {
        match self {
            Encoding::Hex => hex(text).unwrap_or_default(),
            Encoding::Base64 => STANDARD.decode(text).unwrap_or_default(),
            Encoding::Base64Url => URL_SAFE_NO_PAD.decode(text).unwrap_or_default(),
        }
    }
}

pub(super) fn hex(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| (byte as char).to_digit(16).map(|digit| digit as u8);
    let (pairs, []) = text.as_bytes().as_chunks::<2>() else { return None };
    pairs.iter().map(|[high, low]| Some(digit(*high)? << 4 | digit(*low)?)).collect()
}

/// Hash algorithm of an HMAC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// SHA-1, for senders without a newer hash.
    Sha1,
    /// SHA-256, which most senders use.
    Sha256,
    /// SHA-512.
    Sha512,
}

impl Algorithm {
    /// Length of a signature in bytes.
    pub(super) fn length(self) -> usize {
        match self {
            Algorithm::Sha1 => 20,
            Algorithm::Sha256 => 32,
            Algorithm::Sha512 => 64,
        }
    }
}

/// An HMAC in progress.
pub(super) enum Mac {
    Sha1(hmac::Hmac<Sha1>),
    Sha256(hmac::Hmac<Sha256>),
    Sha512(hmac::Hmac<Sha512>),
}

impl Mac {
    /// Creates an HMAC. `None` for a key that HMAC does not accept, which does not occur.
    pub(super) fn new(key: &Key, algorithm: Algorithm) -> Option<Mac> {
        Some(match algorithm {
            Algorithm::Sha1 => Mac::Sha1(hmac::Hmac::new_from_slice(&key.0).ok()?),
            Algorithm::Sha256 => Mac::Sha256(hmac::Hmac::new_from_slice(&key.0).ok()?),
            Algorithm::Sha512 => Mac::Sha512(hmac::Hmac::new_from_slice(&key.0).ok()?),
        })
    }

    pub(super) fn update(&mut self, bytes: &[u8]) {
        match self {
            Mac::Sha1(mac) => mac.update(bytes),
            Mac::Sha256(mac) => mac.update(bytes),
            Mac::Sha512(mac) => mac.update(bytes),
        }
    }

    pub(super) fn feed(mut self, bytes: &[u8]) -> Mac {
        self.update(bytes);
        self
    }

    pub(super) fn bytes(self) -> Vec<u8> {
        match self {
            Mac::Sha1(mac) => mac.finalize().into_bytes().to_vec(),
            Mac::Sha256(mac) => mac.finalize().into_bytes().to_vec(),
            Mac::Sha512(mac) => mac.finalize().into_bytes().to_vec(),
        }
    }

    /// Returns the result in hexadecimal digits.
    pub(super) fn hex(self) -> String {
        self.bytes().iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Compares the result with all of `presented`.
    fn fits(self, presented: &[Vec<u8>]) -> Choice {
        let own = self.bytes();
        presented.iter().fold(Choice::from(0), |known, presented| known | own.ct_eq(presented))
    }
}

/// Returns true if one of `macs` matches one of `presented`. All pairs are compared.
pub(super) fn any(macs: impl IntoIterator<Item = Mac>, presented: &[Vec<u8>]) -> Choice {
    macs.into_iter().fold(Choice::from(0), |known, mac| known | mac.fits(presented))
}
