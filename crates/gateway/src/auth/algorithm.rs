//! Signature algorithms of JSON Web Tokens (RFC 7518, RFC 8037), and keys that verify them (RFC 7517).

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::signature::{self, RsaParameters, RsaPublicKeyComponents, UnparsedPublicKey, VerificationAlgorithm};

use crate::access::member;
use diorama_core::record::{CborValue, JsonLimits, parse_json};

/// Maximum size of a key set in bytes.
pub const MOST_KEY_SET: usize = 256 << 10;
/// Maximum number of keys in a set.
const MOST_KEYS: usize = 200;
const LIMITS: JsonLimits = JsonLimits { nodes: 20_000, depth: 16 };

/// Signature algorithm of a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// HMAC with SHA-256, by a secret.
    Hs256,
    /// RSA PKCS #1 v1.5 with SHA-256.
    Rs256,
    /// RSA PKCS #1 v1.5 with SHA-384.
    Rs384,
    /// RSA PKCS #1 v1.5 with SHA-512.
    Rs512,
    /// RSA PSS with SHA-256.
    Ps256,
    /// RSA PSS with SHA-384.
    Ps384,
    /// RSA PSS with SHA-512.
    Ps512,
    /// ECDSA on the curve P-256.
    Es256,
    /// ECDSA on the curve P-384.
    Es384,
    /// Edwards curve 25519.
    EdDsa,
}

impl Algorithm {
    /// Every algorithm.
    pub const ALL: [Algorithm; 10] = {
        use Algorithm::*;
        [Hs256, Rs256, Rs384, Rs512, Ps256, Ps384, Ps512, Es256, Es384, EdDsa]
    };

    /// Name of the algorithm in the header of a token.
    pub const fn as_str(self) -> &'static str {
        match self {
            Algorithm::Hs256 => "HS256",
            Algorithm::Rs256 => "RS256",
            Algorithm::Rs384 => "RS384",
            Algorithm::Rs512 => "RS512",
            Algorithm::Ps256 => "PS256",
            Algorithm::Ps384 => "PS384",
            Algorithm::Ps512 => "PS512",
            Algorithm::Es256 => "ES256",
            Algorithm::Es384 => "ES384",
            Algorithm::EdDsa => "EdDSA",
        }
    }

    /// Parses the name of an algorithm. Upper and lower case differ.
    pub fn parse(name: &str) -> Option<Algorithm> {
        Algorithm::ALL.into_iter().find(|algorithm| algorithm.as_str() == name)
    }

    /// Returns the parameters of an algorithm of RSA keys, whose moduli must have 2,048 to 8,192 bits.
    fn rsa(self) -> Option<&'static RsaParameters> {
        Some(match self {
            Algorithm::Rs256 => &signature::RSA_PKCS1_2048_8192_SHA256,
            Algorithm::Rs384 => &signature::RSA_PKCS1_2048_8192_SHA384,
            Algorithm::Rs512 => &signature::RSA_PKCS1_2048_8192_SHA512,
            Algorithm::Ps256 => &signature::RSA_PSS_2048_8192_SHA256,
            Algorithm::Ps384 => &signature::RSA_PSS_2048_8192_SHA384,
            Algorithm::Ps512 => &signature::RSA_PSS_2048_8192_SHA512,
            _ => return None,
        })
    }
}

/// Public key of a set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PublicKey {
    /// Name of the key in the set.
    pub(super) kid: Option<String>,
    /// Only algorithm of the key; `None` if any that fits.
    algorithm: Option<Algorithm>,
    material: Material,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Material {
    Rsa {
        n: Vec<u8>,
        e: Vec<u8>,
    },
    /// Point of P-256 without compression.
    P256(Vec<u8>),
    /// Point of P-384 without compression.
    P384(Vec<u8>),
    Ed25519(Vec<u8>),
}

impl PublicKey {
    /// Reads a key of a set; `None` if it does not verify signatures of a known kind.
    fn read(key: &CborValue) -> Option<PublicKey> {
        let text = |name: &str| member(key, name).and_then(CborValue::as_text);
        let bytes = |name: &str| text(name).and_then(|text| URL_SAFE_NO_PAD.decode(text).ok());
        if text("use").is_some_and(|purpose| purpose != "sig") {
            return None;
        }
        let verifies = |operations: &CborValue| {
            operations.as_array().is_some_and(|all| all.iter().any(|one| one.as_text() == Some("verify")))
        };
        if !member(key, "key_ops").is_none_or(verifies) {
            return None;
        }
        let point = |size: usize| {
            let (x, y) = (bytes("x").filter(|x| x.len() == size)?, bytes("y").filter(|y| y.len() == size)?);
            Some([&[4][..], &x, &y].concat())
        };
        let material = match (text("kty")?, text("crv")) {
            ("RSA", _) => {
                let trimmed =
                    |name| bytes(name).map(|number| number.into_iter().skip_while(|byte| *byte == 0).collect());
                Material::Rsa { n: trimmed("n")?, e: trimmed("e")? }
            }
            ("EC", Some("P-256")) => Material::P256(point(32)?),
            ("EC", Some("P-384")) => Material::P384(point(48)?),
            ("OKP", Some("Ed25519")) => Material::Ed25519(bytes("x").filter(|x| x.len() == 32)?),
            _ => return None,
        };
        // A key of an algorithm that is not known here must not verify another one.
        let algorithm = match text("alg") {
            Some(name) => Some(Algorithm::parse(name)?),
            None => None,
        };
        Some(PublicKey { kid: text("kid").map(str::to_string), algorithm, material })
    }

    /// Returns true if the key can verify signatures of `algorithm`.
    pub(super) fn fits(&self, algorithm: Algorithm) -> bool {
        let kind = match &self.material {
            Material::Rsa { .. } => algorithm.rsa().is_some(),
            Material::P256(_) => algorithm == Algorithm::Es256,
            Material::P384(_) => algorithm == Algorithm::Es384,
            Material::Ed25519(_) => algorithm == Algorithm::EdDsa,
        };
        kind && self.algorithm.is_none_or(|own| own == algorithm)
    }

    /// Returns true if `signature` is one of this key by `algorithm`.
    pub(super) fn verify(&self, algorithm: Algorithm, message: &[u8], signature: &[u8]) -> bool {
        let plain = |kind: &'static dyn VerificationAlgorithm, key: &[u8]| {
            UnparsedPublicKey::new(kind, key).verify(message, signature).is_ok()
        };
        match (&self.material, algorithm) {
            (Material::Rsa { n, e }, algorithm) => algorithm.rsa().is_some_and(|parameters| {
                RsaPublicKeyComponents { n, e }.verify(parameters, message, signature).is_ok()
            }),
            (Material::P256(point), Algorithm::Es256) => plain(&signature::ECDSA_P256_SHA256_FIXED, point),
            (Material::P384(point), Algorithm::Es384) => plain(&signature::ECDSA_P384_SHA384_FIXED, point),
            (Material::Ed25519(key), Algorithm::EdDsa) => plain(&signature::ED25519, key),
            _ => false,
        }
    }
}

/// Set of public keys (a JWKS document).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct JwkSet {
    pub(super) keys: Vec<PublicKey>,
}

impl JwkSet {
    /// Reads a document. Keys that do not verify signatures, or are of a kind that is not supported, are left out.
    ///
    /// # Errors
    /// The reason why the document is not a set, or has no usable key.
    pub fn parse(document: &[u8]) -> Result<JwkSet, String> {
        if document.len() > MOST_KEY_SET {
            return Err(format!("the key set is larger than {MOST_KEY_SET} bytes"));
        }
        let value = parse_json(document, LIMITS).map_err(|error| format!("not valid JSON: {error}"))?;
        let keys = member(&value, "keys").and_then(CborValue::as_array).ok_or(r#"it has no array "keys""#)?;
        if keys.len() > MOST_KEYS {
            return Err(format!("it has more than {MOST_KEYS} keys"));
        }
        let keys: Vec<PublicKey> = keys.iter().filter_map(PublicKey::read).collect();
        if keys.is_empty() {
            return Err("it has no key that verifies RSA, P-256, P-384 or Ed25519 signatures".into());
        }
        Ok(JwkSet { keys })
    }

    /// Number of usable keys.
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Returns true if there is no usable key.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_for_other_purposes_and_of_other_kinds_are_left_out() {
        let x = URL_SAFE_NO_PAD.encode([7; 32]);
        let set = |members: &str| JwkSet::parse(format!(r#"{{"keys":[{{{members}}}]}}"#).as_bytes());
        let ed = format!(r#""kty":"OKP","crv":"Ed25519","x":"{x}""#);
        assert_eq!(set(&ed).unwrap().len(), 1);
        assert_eq!(set(&format!(r#"{ed},"use":"sig","key_ops":["verify"],"alg":"EdDSA","kid":"a""#)).unwrap().len(), 1);
        for wrong in [
            format!(r#"{ed},"use":"enc""#),
            format!(r#"{ed},"key_ops":["sign"]"#),
            format!(r#"{ed},"alg":"XS1""#),
            r#""kty":"oct","k":"c2VjcmV0""#.to_string(),
            format!(r#""kty":"OKP","crv":"X25519","x":"{x}""#),
            format!(r#""kty":"EC","crv":"P-256","x":"{x}""#),
            format!(r#""kty":"EC","crv":"P-384","x":"{x}","y":"{x}""#),
            r#""kty":"RSA","e":"AQAB""#.to_string(),
        ] {
            assert!(set(&wrong).is_err(), "{wrong}");
        }
        assert!(JwkSet::parse(b"[]").is_err() && JwkSet::parse(br#"{"keys":{}}"#).is_err());
        assert!(JwkSet::parse(&vec![b' '; MOST_KEY_SET + 1]).is_err());
    }

    #[test]
    fn a_key_fits_only_algorithms_of_its_kind() {
        let x = URL_SAFE_NO_PAD.encode([7; 32]);
        let document = format!(
            r#"{{"keys":[{{"kty":"EC","crv":"P-256","x":"{x}","y":"{x}"}},{{"kty":"RSA","n":"AQ","e":"AQAB","alg":"PS256"}}]}}"#
        );
        let set = JwkSet::parse(document.as_bytes()).unwrap();
        let fitting = |at: usize| Algorithm::ALL.into_iter().filter(|own| set.keys[at].fits(*own)).collect::<Vec<_>>();
        assert_eq!(fitting(0), [Algorithm::Es256]);
        assert_eq!(fitting(1), [Algorithm::Ps256]);
    }
}
