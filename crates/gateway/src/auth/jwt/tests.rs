use proptest::prelude::*;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _};

use super::testing::{claims, object, signed, signed_with};
use super::*;
use crate::auth::issuer::testing::{SECRET, secret_issuer};
use crate::auth::{JwkSet, KeySource};

/// Verifies a token as one of the issuer with the secret.
fn verified(token: &str) -> Result<Identity, TokenError> {
    verified_by(secret_issuer("main"), token)
}

fn verified_by(issuer: Issuer, token: &str) -> Result<Identity, TokenError> {
    verify(&[Arc::new(issuer)], token.as_bytes(), SystemTime::now()).map(|(identity, ..)| identity)
}

/// Returns the claims with `name` set to a JSON text, or removed.
fn with(name: &'static str, value: Option<&str>) -> Vec<(&'static str, String)> {
    let mut members = claims();
    members.retain(|(own, _)| *own != name);
    members.extend(value.map(|value| (name, value.to_string())));
    members
}

fn refusal_of(name: &'static str, value: &str) -> Option<TokenError> {
    verified(&signed(&with(name, Some(value)))).err()
}

fn seconds(from_now: i64) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    (i64::try_from(now).unwrap() + from_now).to_string()
}

#[test]
fn a_valid_token_has_the_identity_of_its_claims() {
    let identity = verified(&signed(&with("role", Some("\"admin\"")))).unwrap();
    assert_eq!((&*identity.name, &*identity.role), ("jwt:main:u1", "admin"));
    assert!(!identity.unrestricted, "a role of a token is somebody else's statement");
    assert_eq!(member(&identity.claims, "aud").and_then(CborValue::as_text), Some("diorama"));
    let left = identity.expires.unwrap().duration_since(SystemTime::now()).unwrap().as_secs();
    assert!((620..=630).contains(&left), "the leeway counts: {left}");
}

#[test]
fn times_are_checked_with_the_leeway() {
    for fine in [("exp", seconds(-20)), ("nbf", seconds(20)), ("iat", seconds(20)), ("exp", seconds(5) + ".5")] {
        assert_eq!(refusal_of(fine.0, &fine.1), None, "{fine:?}");
    }
    for (name, value, error) in [
        ("exp", seconds(-31), TokenError::Expired),
        ("exp", "0".into(), TokenError::Expired),
        ("nbf", seconds(40), TokenError::TooEarly),
        ("iat", seconds(40), TokenError::TooEarly),
        ("exp", "-1".into(), TokenError::NoExpiry),
        ("exp", "1e300".into(), TokenError::NoExpiry),
        ("exp", "99999999999999999999999999".into(), TokenError::NoExpiry),
        ("exp", "\"4102444800\"".into(), TokenError::NoExpiry),
        ("exp", "null".into(), TokenError::NoExpiry),
        ("nbf", "\"1\"".into(), TokenError::Malformed),
    ] {
        assert_eq!(refusal_of(name, &value), Some(error), "{name} {value}");
    }
    assert_eq!(verified(&signed(&with("exp", None))).unwrap_err(), TokenError::NoExpiry);
}

#[test]
fn audience_issuer_and_subject_must_be_the_configured_ones() {
    assert_eq!(refusal_of("aud", r#"["other","diorama"]"#), None);
    for value in [r#""other""#, "[]", r#"["other"]"#, r#"["diorama",7]"#, "7", "null", r#"{"diorama":1}"#] {
        assert_eq!(refusal_of("aud", value), Some(TokenError::Audience), "{value}");
    }
    assert_eq!(verified(&signed(&with("aud", None))).unwrap_err(), TokenError::Audience);
    for value in [r#""https://evil.example""#, r#""https://idp.example/""#, "7", r#"["https://idp.example"]"#] {
        assert_eq!(refusal_of("iss", value), Some(TokenError::Issuer), "{value}");
    }
    assert_eq!(verified(&signed(&with("iss", None))).unwrap_err(), TokenError::Issuer);
    for value in ["\"\"", "7", "null", r#""a\u0000b""#, r#""a\nb""#, &format!("\"{}\"", "x".repeat(256))] {
        assert_eq!(refusal_of("sub", value), Some(TokenError::Subject), "{value}");
    }
    assert_eq!(verified(&signed(&with("sub", None))).unwrap_err(), TokenError::Subject);
}

#[test]
fn the_role_is_a_claim_at_a_path_and_an_accepted_one() {
    let role = |path: &str, roles: &[&str], default: Option<&str>, claims: &[(&'static str, String)]| {
        let settings = IssuerSettings {
            role_claim: path.into(),
            roles: roles.iter().map(|role| role.to_string()).collect(),
            default_role: default.map(Into::into),
            ..secret_issuer("main").settings().clone()
        };
        let issuer = Issuer::new(settings, KeySource::Secret(SECRET.to_vec())).unwrap();
        verified_by(issuer, &signed(claims)).map(|identity| identity.role.to_string())
    };
    let is = |role: &str| Ok(role.to_string());
    let one = with("role", Some("\"member\""));
    assert_eq!(role("role", &[], None, &one), is("member"));
    assert_eq!(role("role", &["admin"], Some("guest"), &one), Err(TokenError::Role), "not an accepted one");
    assert_eq!(role("role", &["admin", "member"], None, &one), is("member"));
    assert_eq!(role("role", &[], None, &claims()), Err(TokenError::NoRole));
    assert_eq!(role("role", &[], Some("guest"), &claims()), is("guest"));
    assert_eq!(role("role", &[], Some("guest"), &with("role", Some("null"))), is("guest"));
    for wrong in ["7", "{}", "true"] {
        assert_eq!(role("role", &[], Some("guest"), &with("role", Some(wrong))), Err(TokenError::Role), "{wrong}");
    }
    assert_eq!(role("role", &[], None, &with("role", Some("\"\""))), Err(TokenError::NoRole));
    let keycloak = with("realm_access", Some(r#"{"roles":["offline_access","member","editor"]}"#));
    assert_eq!(
        role("realm_access.roles", &["editor", "member"], None, &keycloak),
        is("editor"),
        "the first accepted one"
    );
    assert_eq!(role("realm_access.roles", &[], None, &keycloak), Err(TokenError::Role), "several");
    assert_eq!(role("realm_access.roles", &["x"], Some("guest"), &keycloak), is("guest"));
    let auth0 = with("https://shop.example/app", Some(r#"{"role":"member"}"#));
    assert_eq!(role("https://shop.example/app.role", &[], None, &auth0), is("member"), "names may have dots");
}

#[test]
fn unsigned_tokens_and_other_algorithms_are_refused() {
    let token = |header: &str| verified(&signed_with(SECRET, header, &object(&claims()))).unwrap_err();
    for name in ["none", "None", "NONE", "nOnE", "hs256", "HS384", "HS512", "RS256", "ES256", "", "HS256\\u0000"] {
        assert_eq!(token(&format!(r#"{{"alg":"{name}"}}"#)), TokenError::Algorithm, "{name}");
    }
    for malformed in [r#"{}"#, r#"{"alg":7}"#, r#"{"alg":["HS256"]}"#, r#"{"alg":null}"#] {
        assert_eq!(token(malformed), TokenError::Malformed, "{malformed}");
    }
    let unsigned =
        |header: &str| format!("{}.{}.", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(object(&claims())));
    assert_eq!(verified(&unsigned(r#"{"alg":"none"}"#)).unwrap_err(), TokenError::Algorithm);
    assert_eq!(verified(&unsigned(r#"{"alg":"HS256"}"#)).unwrap_err(), TokenError::Signature);
}

#[test]
fn extensions_and_duplicated_members_are_refused() {
    let token = |header: &str| verified(&signed_with(SECRET, header, &object(&claims()))).err();
    for header in [
        r#"{"alg":"HS256","crit":["exp"],"exp":1}"#,
        r#"{"alg":"HS256","crit":[]}"#,
        r#"{"alg":"HS256","b64":false,"crit":["b64"]}"#,
        r#"{"alg":"HS256","b64":false}"#,
        r#"{"alg":"HS256","enc":"A128GCM"}"#,
        r#"{"alg":"HS256","zip":"DEF"}"#,
    ] {
        assert_eq!(token(header), Some(TokenError::Critical), "{header}");
    }
    assert_eq!(token(r#"{"alg":"none","alg":"HS256"}"#), Some(TokenError::Malformed));
    assert_eq!(token(r#"{"alg":"HS256"} "#), None);
    assert_eq!(token(r#"{"alg":"HS256"}x"#), Some(TokenError::Malformed));
    let mut twice = claims();
    twice.push(("sub", "\"u2\"".into()));
    assert_eq!(verified(&signed(&twice)).unwrap_err(), TokenError::Malformed);
}

#[test]
fn keys_that_the_header_names_are_not_looked_at() {
    let jwk = r#"{"kty":"oct","k":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"}"#;
    for member in [
        r#""jku":"https://evil.example/keys""#.to_string(),
        r#""x5u":"https://evil.example/cert""#.into(),
        format!(r#""jwk":{jwk}"#),
        r#""x5c":["AAAA"]"#.into(),
        r#""kid":"../../../dev/null""#.into(),
        r#""kid":"x' UNION SELECT 'AAAA"#.to_string() + "\"",
    ] {
        let header = format!(r#"{{"alg":"HS256",{member}}}"#);
        let forged = signed_with(&[0; 32], &header, &object(&claims()));
        assert_eq!(verified(&forged).unwrap_err(), TokenError::Signature, "{member}");
        assert!(verified(&signed_with(SECRET, &header, &object(&claims()))).is_ok(), "{member}");
    }
}

#[test]
fn malformed_tokens_are_refused() {
    let good = signed(&claims());
    let parts: Vec<&str> = good.split('.').collect();
    let (header, claims, signature) = (parts[0], parts[1], parts[2]);
    for token in [
        "".to_string(),
        ".".into(),
        "..".into(),
        "...".into(),
        format!("{header}.{claims}"),
        format!("{good}."),
        format!("{good}.{signature}"),
        format!("{header}=.{claims}.{signature}"),
        format!("{header}.{claims}.{signature}="),
        format!(" {good}"),
        format!("{good}\0"),
        format!("{header}.{}.{signature}", URL_SAFE_NO_PAD.encode("[1]")),
        format!("{}.{claims}.{signature}", URL_SAFE_NO_PAD.encode("7")),
        format!("{}.{claims}.{signature}", URL_SAFE_NO_PAD.encode([0xff])),
        format!("{header}.{}.{signature}", URL_SAFE_NO_PAD.encode("[".repeat(1_000))),
    ] {
        assert_eq!(verified(&token).unwrap_err(), TokenError::Malformed, "{token}");
    }
    for end in 0..signature.len() {
        let cut = format!("{header}.{claims}.{}", &signature[..end]);
        assert!(matches!(verified(&cut), Err(TokenError::Signature | TokenError::Malformed)), "{end}");
    }
    let long = with("more", Some(&format!("\"{}\"", "x".repeat(MOST_TOKEN))));
    assert_eq!(verified(&signed(&long)).unwrap_err(), TokenError::TooLong);
}

#[test]
fn a_required_type_is_compared_without_its_prefix() {
    let settings = IssuerSettings { typ: Some("at+jwt".into()), ..secret_issuer("main").settings().clone() };
    let check = |header: &str| {
        let issuer = Issuer::new(settings.clone(), KeySource::Secret(SECRET.to_vec())).unwrap();
        verified_by(issuer, &signed_with(SECRET, header, &object(&claims()))).err()
    };
    assert_eq!(check(r#"{"alg":"HS256","typ":"at+jwt"}"#), None);
    assert_eq!(check(r#"{"alg":"HS256","typ":"application/AT+JWT"}"#), None);
    assert_eq!(check(r#"{"alg":"HS256","typ":"JWT"}"#), Some(TokenError::Type));
    assert_eq!(check(r#"{"alg":"HS256"}"#), Some(TokenError::Type));
}

/// Pair of keys, one of Ed25519 and one of P-256, and their set.
struct Pairs {
    ed: Ed25519KeyPair,
    ec: EcdsaKeyPair,
}

impl Pairs {
    fn generate() -> Pairs {
        let random = SystemRandom::new();
        let ed = Ed25519KeyPair::generate_pkcs8(&random).unwrap();
        let ec = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).unwrap();
        Pairs {
            ed: Ed25519KeyPair::from_pkcs8(ed.as_ref()).unwrap(),
            ec: EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, ec.as_ref(), &random).unwrap(),
        }
    }

    fn ed_jwk(&self, more: &str) -> String {
        let x = URL_SAFE_NO_PAD.encode(self.ed.public_key());
        format!(r#"{{"kty":"OKP","crv":"Ed25519","x":"{x}"{more}}}"#)
    }

    fn ec_jwk(&self, more: &str) -> String {
        let (x, y) = self.ec.public_key().as_ref()[1..].split_at(32);
        let (x, y) = (URL_SAFE_NO_PAD.encode(x), URL_SAFE_NO_PAD.encode(y));
        format!(r#"{{"kty":"EC","crv":"P-256","x":"{x}","y":"{y}"{more}}}"#)
    }

    fn signed(&self, header: &str) -> String {
        let message = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(object(&claims())));
        let signature = match header.contains("EdDSA") {
            true => self.ed.sign(message.as_bytes()).as_ref().to_vec(),
            false => self.ec.sign(&SystemRandom::new(), message.as_bytes()).unwrap().as_ref().to_vec(),
        };
        format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature))
    }
}

/// Returns the issuer of the tests with a set of keys.
fn set_issuer(jwks: &[String]) -> Issuer {
    let algorithms = Algorithm::ALL.into_iter().filter(|own| *own != Algorithm::Hs256).collect();
    let settings = IssuerSettings { algorithms, ..secret_issuer("main").settings().clone() };
    let set = JwkSet::parse(format!(r#"{{"keys":[{}]}}"#, jwks.join(",")).as_bytes()).unwrap();
    Issuer::new(settings, KeySource::Set(set)).unwrap()
}

#[test]
fn a_key_is_chosen_by_its_name_and_kind_or_as_the_only_one_that_fits() {
    let (own, other) = (Pairs::generate(), Pairs::generate());
    let named =
        || set_issuer(&[own.ed_jwk(r#","kid":"ed""#), own.ec_jwk(r#","kid":"ec""#), other.ed_jwk(r#","kid":"b""#)]);
    let token = |header: &str| own.signed(header);
    assert!(verified_by(named(), &token(r#"{"alg":"EdDSA","kid":"ed"}"#)).is_ok());
    assert!(verified_by(named(), &token(r#"{"alg":"ES256","kid":"ec"}"#)).is_ok());
    assert!(verified_by(named(), &token(r#"{"alg":"ES256"}"#)).is_ok(), "only one key fits");
    for (header, error) in [
        (r#"{"alg":"EdDSA"}"#, TokenError::UnknownKey),
        (r#"{"alg":"EdDSA","kid":"ec"}"#, TokenError::UnknownKey),
        (r#"{"alg":"ES256","kid":"ed"}"#, TokenError::UnknownKey),
        (r#"{"alg":"EdDSA","kid":"b"}"#, TokenError::Signature),
        (r#"{"alg":"EdDSA","kid":"../ed"}"#, TokenError::UnknownKey),
        (r#"{"alg":"EdDSA","kid":"ed' OR '1'='1"}"#, TokenError::UnknownKey),
        (r#"{"alg":"EdDSA","kid":7}"#, TokenError::Malformed),
        (r#"{"alg":"RS256","kid":"ed"}"#, TokenError::UnknownKey),
        (r#"{"alg":"HS256","kid":"ed"}"#, TokenError::Algorithm),
    ] {
        assert_eq!(verified_by(named(), &token(header)).unwrap_err(), error, "{header}");
    }
    assert!(verified_by(set_issuer(&[own.ed_jwk("")]), &token(r#"{"alg":"EdDSA"}"#)).is_ok());
    let unnamed = verified_by(set_issuer(&[own.ed_jwk("")]), &token(r#"{"alg":"EdDSA","kid":"ed"}"#));
    assert_eq!(unnamed.unwrap_err(), TokenError::UnknownKey, "a name that no key has");
}

#[test]
fn a_public_key_is_not_a_secret() {
    let own = Pairs::generate();
    let issuer = || set_issuer(&[own.ec_jwk(r#","kid":"ec""#)]);
    let jwk = own.ec_jwk(r#","kid":"ec""#);
    for secret in [own.ec.public_key().as_ref(), &own.ec.public_key().as_ref()[1..], jwk.as_bytes()] {
        for algorithm in ["HS256", "ES256"] {
            let header = format!(r#"{{"alg":"{algorithm}","kid":"ec"}}"#);
            assert!(verified_by(issuer(), &signed_with(secret, &header, &object(&claims()))).is_err());
        }
    }
    let settings =
        IssuerSettings { algorithms: vec![Algorithm::Hs256, Algorithm::Es256], ..issuer().settings().clone() };
    assert!(Issuer::new(settings.clone(), KeySource::Url("https://x.example".into())).is_err(), "both kinds at once");
    assert!(Issuer::new(settings, KeySource::Secret(SECRET.to_vec())).is_err());
    let short = secret_issuer("main").settings().clone();
    assert!(Issuer::new(short, KeySource::Secret(vec![7; 31])).is_err());
}

/// Verifies a signed message of an RFC by the key of the RFC.
fn is_signed_by(jwk: &str, algorithm: Algorithm, token: &str) -> bool {
    let set = JwkSet::parse(format!(r#"{{"keys":[{jwk}]}}"#).as_bytes()).unwrap();
    let (message, signature) = token.rsplit_once('.').unwrap();
    let signature = URL_SAFE_NO_PAD.decode(signature).unwrap();
    let key = &set.keys[0];
    let forged = message.replace('e', "f");
    assert!(!key.verify(algorithm, forged.as_bytes(), &signature));
    key.fits(algorithm) && key.verify(algorithm, message.as_bytes(), &signature)
}

/// Payload of the examples A.1 to A.3 of RFC 7515.
const JOE: &str = "eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ";

#[test]
fn the_examples_of_the_rfcs_are_verified() {
    // RFC 7515, A.1: HS256. It has no sub and no aud, and has expired.
    let secret = "AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow";
    let token = format!("eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9.{JOE}.dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk");
    let settings = IssuerSettings { issuer: "joe".into(), ..secret_issuer("main").settings().clone() };
    let joe = |secret: Vec<u8>| Issuer::new(settings.clone(), KeySource::Secret(secret)).unwrap();
    let secret = URL_SAFE_NO_PAD.decode(secret).unwrap();
    assert_eq!(verified_by(joe(secret), &token).unwrap_err(), TokenError::Expired, "its signature is valid");
    assert_eq!(verified_by(joe(vec![7; 64]), &token).unwrap_err(), TokenError::Signature);
    // RFC 7515, A.2: RS256.
    let jwk = r#"{"kty":"RSA","n":"ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ","e":"AQAB"}"#;
    let token = format!(
        "eyJhbGciOiJSUzI1NiJ9.{JOE}.cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5jujGbds9uJdbF9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K0GarZRmB_eSN9383LcOLn6_dO--xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywlVmtVrBp0igcN_IoypGlUPQGe77Rw"
    );
    assert!(is_signed_by(jwk, Algorithm::Rs256, &token));
    assert!(!is_signed_by(jwk, Algorithm::Ps256, &token));
    // RFC 7515, A.3: ES256.
    let jwk = r#"{"kty":"EC","crv":"P-256","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}"#;
    let token = format!(
        "eyJhbGciOiJFUzI1NiJ9.{JOE}.DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q"
    );
    assert!(is_signed_by(jwk, Algorithm::Es256, &token));
    // RFC 8037, A.4: EdDSA.
    let jwk = r#"{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}"#;
    let token = "eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc.hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg";
    assert!(is_signed_by(jwk, Algorithm::EdDsa, token));
}

proptest! {
    #[test]
    fn a_token_with_any_byte_changed_is_refused(at in 0_usize..10_000, bit in 0_u32..8) {
        let good = signed(&claims());
        let mut bytes = good.into_bytes();
        let at = at % bytes.len();
        bytes[at] ^= 1 << bit;
        let issuers = [Arc::new(secret_issuer("main"))];
        prop_assert!(verify(&issuers, &bytes, SystemTime::now()).is_err());
    }

    #[test]
    fn any_bytes_are_refused_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let issuers = [Arc::new(secret_issuer("main"))];
        prop_assert!(verify(&issuers, &bytes, SystemTime::now()).is_err());
    }
}
