//! Signing of messages as Standard Webhooks.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use ed25519_dalek::{Signer as _, SigningKey};

use super::mac::Mac;
use super::{Algorithm, Key, MOST_SECRETS};

/// Signer of messages as the [Standard Webhooks specification](https://www.standardwebhooks.com) says, with one signature for each secret,
/// so that secrets can be rotated without a gap.
#[derive(Clone, Debug)]
pub struct Signer {
    secrets: Vec<SenderSecret>,
}

#[derive(Clone)]
enum SenderSecret {
    /// Shared with the receiver (`v1`).
    Shared(Key),
    /// Private; the receiver has the public key (`v1a`).
    Private(SigningKey),
}

impl std::fmt::Debug for SenderSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SenderSecret(..)")
    }
}

impl Signer {
    /// Creates a signer from one to five secrets, newest first: shared ones (`whsec_` and 24 to 64 bytes in base64) or private Ed25519 keys
    /// (`whsk_` and 32 or 64 bytes in base64).
    ///
    /// # Errors
    /// The expected form of a secret, without the secret.
    pub fn new<'s>(secrets: impl IntoIterator<Item = &'s str>) -> Result<Signer, String> {
        let secrets: Vec<_> = secrets.into_iter().map(secret).collect::<Result<_, _>>()?;
        match secrets.len() {
            1..=MOST_SECRETS => Ok(Signer { secrets }),
            0 => Err("a secret is required: whsec_ and 24 to 64 random bytes in base64".into()),
            _ => Err(format!("at most {MOST_SECRETS} secrets are supported: remove old ones")),
        }
    }

    /// Returns the value of `webhook-signature` for the message `id` with this `body`, sent at `timestamp` (Unix seconds).
    pub fn sign(&self, id: &str, timestamp: u64, body: &[u8]) -> String {
        let timestamp = timestamp.to_string();
        let pieces = [id.as_bytes(), b".", timestamp.as_bytes(), b".", body];
        let signatures = self.secrets.iter().filter_map(|secret| secret.sign(&pieces));
        signatures.collect::<Vec<_>>().join(" ")
    }
}

impl SenderSecret {
    /// `None` if the algorithm does not take the key, which [`Key::standard`] excludes.
    fn sign(&self, pieces: &[&[u8]]) -> Option<String> {
        match self {
            SenderSecret::Shared(key) => {
                let mac = pieces.iter().fold(Mac::new(key, Algorithm::Sha256)?, |mac, piece| mac.feed(piece));
                Some(format!("v1,{}", STANDARD.encode(mac.bytes())))
            }
            SenderSecret::Private(key) => {
                Some(format!("v1a,{}", STANDARD.encode(key.sign(&pieces.concat()).to_bytes())))
            }
        }
    }
}

fn secret(text: &str) -> Result<SenderSecret, String> {
    let Some(encoded) = text.strip_prefix("whsk_") else {
        if text.starts_with("whpk_") {
            return Err(
                "whpk_ is a public key, which the receiver has: use the private key, which begins with whsk_".into()
            );
        }
        return Key::standard(text).map(SenderSecret::Shared);
    };
    let bytes = STANDARD.decode(encoded).or_else(|_| STANDARD_NO_PAD.decode(encoded)).unwrap_or_default();
    // 64 bytes are the seed and the public key.
    let seed = bytes.first_chunk::<32>().filter(|_| matches!(bytes.len(), 32 | 64));
    let key = seed.map(|seed| SenderSecret::Private(SigningKey::from_bytes(seed)));
    key.ok_or_else(|| "a private key must be whsk_ and 32 or 64 bytes in base64".into())
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, Method};
    use jiff::Timestamp;

    use super::*;
    use crate::Request;
    use crate::signature::{Refusal, Scheme, Standard, TOLERANCE};

    const FIRST: &str = "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";
    const SECOND: &str = "whsec_enl4d3Z1dHNycXBvbm1sa2ppaGdmZWRjYmFaWVhXVlU=";

    fn check(signer: &Signer, receiver: &str, body: &[u8]) -> Result<(), Refusal> {
        let now = Timestamp::now();
        let at = u64::try_from(now.as_second()).unwrap();
        let mut headers = HeaderMap::new();
        headers.insert("webhook-id", "E:7".parse().unwrap());
        headers.insert("webhook-timestamp", at.to_string().parse().unwrap());
        headers.insert("webhook-signature", signer.sign("E:7", at, b"{}").parse().unwrap());
        let request = Request { method: &Method::POST, path: "/", query: None, headers: &headers, body, now };
        Scheme::Standard(Standard::new([receiver]).unwrap()).verify(&request, TOLERANCE)
    }

    #[test]
    fn the_example_of_the_specification_has_its_signature() {
        // standard-webhooks/libraries: the vector that all of them test.
        let signer = Signer::new(["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"]).unwrap();
        let signed = signer.sign("msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, br#"{"test": 2432232314}"#);
        assert_eq!(signed, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn each_secret_of_a_rotation_verifies_and_no_other_does() {
        let signer = Signer::new([FIRST, SECOND]).unwrap();
        assert!(check(&signer, FIRST, b"{}").is_ok() && check(&signer, SECOND, b"{}").is_ok());
        assert!(check(&signer, FIRST, b"{ }").is_err());
        assert!(check(&Signer::new([FIRST]).unwrap(), SECOND, b"{}").is_err());
    }

    #[test]
    fn a_private_key_is_verified_with_its_public_key() {
        let seed = [7_u8; 32];
        let signer = Signer::new([&*format!("whsk_{}", STANDARD.encode(seed))]).unwrap();
        let public = SigningKey::from_bytes(&seed).verifying_key();
        let public = format!("whpk_{}", STANDARD.encode(public.as_bytes()));
        assert!(check(&signer, &public, b"{}").is_ok());
        assert!(check(&signer, &public, b"[]").is_err());
    }

    #[test]
    fn wrong_secrets_are_described_and_not_printed() {
        for wrong in ["short", "whsec_c2hvcnQ=", "whsk_c2hvcnQ=", "whpk_c2hvcnQ="] {
            let problem = Signer::new([wrong]).unwrap_err();
            assert!(!problem.contains("c2hvcnQ") && !problem.contains("short,"), "{problem}");
        }
        assert!(Signer::new([]).is_err() && Signer::new([FIRST; 6]).is_err());
        assert!(!format!("{:?}", Signer::new([FIRST])).contains("MDEy"));
    }
}
