//! Certificate by which a client authenticated itself to the server (mutual TLS).

use std::fmt::Write as _;
use std::sync::Arc;

use sha2::{Digest as _, Sha256};

/// Verified certificate of a client.
///
/// The server inserts it into the extensions of each request of a connection whose client has proved that it holds the
/// certificate's key. Nothing that a request contains can set it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientCertificate {
    /// Common name of the subject, or else the first of its alternative names; empty if there is neither.
    pub name: Arc<str>,
    /// SHA-256 of the certificate in DER format, as 64 lowercase hexadecimal digits.
    pub fingerprint: Arc<str>,
}

impl ClientCertificate {
    /// Creates the certificate of `name` from its DER format.
    pub fn new(name: &str, der: &[u8]) -> ClientCertificate {
        let digits = Sha256::digest(der).iter().fold(String::with_capacity(64), |mut digits, byte| {
            // Writing to a text does not fail.
            let _ = write!(digits, "{byte:02x}");
            digits
        });
        ClientCertificate { name: name.into(), fingerprint: digits.into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fingerprint_is_the_sha_256_of_the_certificate() {
        let certificate = ClientCertificate::new("robot", b"abc");
        let expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!((&*certificate.name, &*certificate.fingerprint), ("robot", expected));
    }
}
