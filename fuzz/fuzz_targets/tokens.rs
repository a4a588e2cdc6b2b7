//! Tokens of callers, and the key sets of their issuers. The first byte says how they are made, zero bytes separate the parts.
//!
//! A token that is admitted has a signature that another verifier accepts, is of its issuer, for this audience, and has not expired.
//! With a changed byte it is refused.
#![no_main]

use std::sync::LazyLock;
use std::time::{SystemTime, UNIX_EPOCH};

use axum::body::Body;
use axum::http::header::{AUTHORIZATION, CONNECTION, HeaderValue, SEC_WEBSOCKET_PROTOCOL, UPGRADE};
use axum::http::{Request, StatusCode};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use diorama::Lens;
use diorama::cache::MemoryCache;
use diorama::connect::MemoryTable;
use diorama::gateway::auth::{Algorithm, Issuer, IssuerSettings, JwkSet, KeySource};
use diorama::gateway::{Auth, Gateway, GatewayService};
use libfuzzer_sys::fuzz_target;
use ring::hmac;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ED25519, Ed25519KeyPair, KeyPair as _,
    RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_2048_8192_SHA384, RSA_PKCS1_2048_8192_SHA512, RSA_PSS_2048_8192_SHA256,
    RSA_PSS_2048_8192_SHA384, RSA_PSS_2048_8192_SHA512, RsaPublicKeyComponents, UnparsedPublicKey,
    VerificationAlgorithm,
};
use serde_json::Value;
use tokio::runtime::{Builder, Runtime};

const SECRET: &[u8] = b"0123456789abcdef0123456789abcdef";
const AUDIENCE: &str = "diorama";
/// Tolerated difference of clocks in seconds.
const LEEWAY: f64 = 30.0;
/// Issuer of tokens that are signed with [`SECRET`].
const BY_SECRET: &str = "https://secret.example";
/// Issuer of tokens that are signed with a key of a set.
const BY_KEY: &str = "https://keys.example";

struct Server {
    runtime: Runtime,
    service: GatewayService,
    pair: Ed25519KeyPair,
}

static SERVER: LazyLock<Server> = LazyLock::new(|| {
    let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
    let dio = runtime.block_on(async {
        let lens = Lens::new().cache_source(MemoryCache::default()).build().expect("a lens");
        lens.make_dio(MemoryTable::vista("products", diorama_fuzz::schema(), diorama_fuzz::rows()))
            .await
            .expect("a Dio")
    });
    let service = {
        let _runtime = runtime.enter();
        Gateway::new().mount(dio).auth(Auth::tokens(["0123456789abcdef"])).into_service()
    };
    Server { runtime, service, pair: Ed25519KeyPair::from_seed_unchecked(&[7; 32]).expect("a pair of keys") }
});

/// The key set with the server's own key.
fn own_set(pair: &Ed25519KeyPair) -> Vec<u8> {
    let x = URL_SAFE_NO_PAD.encode(pair.public_key());
    format!(r#"{{"keys":[{{"kty":"OKP","crv":"Ed25519","x":"{x}","kid":"k"}}]}}"#).into_bytes()
}

fn issuer(name: &str, url: &str, algorithms: Vec<Algorithm>, keys: KeySource) -> Issuer {
    let settings = IssuerSettings {
        audience: vec![AUDIENCE.into()],
        algorithms,
        role_claim: "app.role".into(),
        default_role: Some("member".into()),
        ..IssuerSettings::new(name, url)
    };
    Issuer::new(settings, keys).expect("valid settings")
}

/// Accepts tokens of the secret and of a key set, if it is one.
fn accept(server: &Server, set: &[u8]) {
    let mut auth =
        Auth::builder().issuer(issuer("secret", BY_SECRET, vec![Algorithm::Hs256], KeySource::Secret(SECRET.to_vec())));
    if let Ok(set) = JwkSet::parse(set) {
        assert!(!set.is_empty());
        let all = Algorithm::ALL.into_iter().filter(|algorithm| *algorithm != Algorithm::Hs256).collect();
        auth = auth.issuer(issuer("keys", BY_KEY, all, KeySource::Set(set)));
    }
    server.service.reload_auth(&auth.build().expect("valid settings"));
}

/// Sends a request with `token`; true if its caller is admitted. `None` if no header can contain it.
fn is_admitted(server: &Server, token: &[u8], as_protocol: bool) -> Option<bool> {
    let value = |prefix: &str| HeaderValue::from_bytes(&[prefix.as_bytes(), token].concat()).ok();
    let request = Request::get("http://localhost/products?limit=1");
    let request = match as_protocol {
        false => request.header(AUTHORIZATION, value("Bearer ")?),
        true => request
            .header(UPGRADE, "websocket")
            .header(CONNECTION, "upgrade")
            .header(SEC_WEBSOCKET_PROTOCOL, value("diorama.v1+json, bearer.")?),
    };
    let request = request.body(Body::empty()).expect("a request");
    let answer = server.runtime.block_on(server.service.clone().answer(request));
    assert!(answer.status().as_u16() < 500 || answer.status() == StatusCode::SERVICE_UNAVAILABLE, "{answer:?}");
    Some(answer.status() == StatusCode::OK)
}

/// Verifies a token with another reading of its parts.
fn verify(token: &[u8], set: &[u8]) -> Result<(), String> {
    let text = std::str::from_utf8(token).map_err(|_| "no text")?;
    let (message, signature) = text.rsplit_once('.').ok_or("no signature")?;
    let (header, claims) = message.split_once('.').ok_or("no claims")?;
    let decoded = |part: &str| URL_SAFE_NO_PAD.decode(part).map_err(|_| "not base64url");
    let object = |part: &str| serde_json::from_slice::<Value>(&decoded(part)?).map_err(|_| "not JSON");
    let (header, claims, signature) = (object(header)?, object(claims)?, decoded(signature)?);
    let issuer = claims["iss"].as_str().ok_or("no issuer")?;
    let is_signed = match issuer {
        BY_SECRET => {
            let key = hmac::Key::new(hmac::HMAC_SHA256, SECRET);
            header["alg"] == "HS256" && hmac::verify(&key, message.as_bytes(), &signature).is_ok()
        }
        BY_KEY => {
            let set: Value = serde_json::from_slice(set).map_err(|_| "no key set")?;
            let keys = set["keys"].as_array().ok_or("no keys")?;
            keys.iter().any(|key| is_signed_by(key, &header["alg"], message.as_bytes(), &signature))
        }
        _ => return Err(format!("unknown issuer {issuer}")),
    };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock").as_secs_f64();
    let time = |name: &str| claims.get(name).map(|time| time.as_f64().unwrap_or(f64::NAN));
    let audience = &claims["aud"];
    let is_for_us =
        audience == AUDIENCE || audience.as_array().is_some_and(|all| all.iter().any(|one| one == AUDIENCE));
    match () {
        () if !is_signed => Err("not signed".into()),
        () if !time("exp").is_some_and(|end| now < end + LEEWAY + 1.0) => Err("expired".into()),
        () if !time("nbf").is_none_or(|start| start <= now + LEEWAY + 1.0) => Err("too early".into()),
        () if !is_for_us => Err("another audience".into()),
        () if ["crit", "b64", "enc", "zip"].iter().any(|name| header.get(name).is_some()) => Err("extended".into()),
        () if claims["sub"].as_str().is_none_or(str::is_empty) => Err("no subject".into()),
        () => Ok(()),
    }
}

fn is_signed_by(key: &Value, algorithm: &Value, message: &[u8], signature: &[u8]) -> bool {
    let bytes = |name: &str| key[name].as_str().and_then(|text| URL_SAFE_NO_PAD.decode(text).ok()).unwrap_or_default();
    let point = || [&[4][..], &bytes("x"), &bytes("y")].concat();
    let plain = |kind: &'static dyn VerificationAlgorithm, key: &[u8]| {
        UnparsedPublicKey::new(kind, key).verify(message, signature).is_ok()
    };
    let rsa = |parameters| {
        let number = |name| bytes(name).into_iter().skip_while(|byte| *byte == 0).collect::<Vec<u8>>();
        let key = RsaPublicKeyComponents { n: number("n"), e: number("e") };
        key.verify(parameters, message, signature).is_ok()
    };
    match algorithm.as_str().unwrap_or_default() {
        "EdDSA" => plain(&ED25519, &bytes("x")),
        "ES256" => plain(&ECDSA_P256_SHA256_FIXED, &point()),
        "ES384" => plain(&ECDSA_P384_SHA384_FIXED, &point()),
        "RS256" => rsa(&RSA_PKCS1_2048_8192_SHA256),
        "RS384" => rsa(&RSA_PKCS1_2048_8192_SHA384),
        "RS512" => rsa(&RSA_PKCS1_2048_8192_SHA512),
        "PS256" => rsa(&RSA_PSS_2048_8192_SHA256),
        "PS384" => rsa(&RSA_PSS_2048_8192_SHA384),
        "PS512" => rsa(&RSA_PSS_2048_8192_SHA512),
        _ => false,
    }
}

fn signed(header: &[u8], claims: &[u8], sign: impl FnOnce(&[u8]) -> Vec<u8>) -> Vec<u8> {
    let message = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
    let signature = sign(message.as_bytes());
    format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature)).into_bytes()
}

/// Checks that the token is refused with a bit of a byte changed.
fn check_changed(server: &Server, token: &[u8], at: usize) {
    let mut changed = token.to_vec();
    changed[at % token.len()] ^= 1;
    // The last character of base64 has bits that are not part of the signature, and must be zero.
    assert_ne!(is_admitted(server, &changed, false), Some(true), "{}", String::from_utf8_lossy(&changed));
}

/// Tokens with a signature of the server are admitted, or else nothing would be shown by the refusals.
static ADMITS: LazyLock<()> = LazyLock::new(|| {
    let server = &*SERVER;
    accept(server, &own_set(&server.pair));
    let claims = |issuer: &str| format!(r#"{{"iss":"{issuer}","aud":"{AUDIENCE}","sub":"u1","exp":4102444800}}"#);
    let by_secret = signed(br#"{"alg":"HS256"}"#, claims(BY_SECRET).as_bytes(), sign_by_secret);
    let by_key = signed(br#"{"alg":"EdDSA"}"#, claims(BY_KEY).as_bytes(), |message| sign_by_key(server, message));
    for token in [by_secret, by_key] {
        assert_eq!(is_admitted(server, &token, false), Some(true));
        assert_eq!(is_admitted(server, URL_SAFE_NO_PAD.encode(&token).as_bytes(), true), Some(true));
    }
});

fn sign_by_secret(message: &[u8]) -> Vec<u8> {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, SECRET), message).as_ref().to_vec()
}

fn sign_by_key(server: &Server, message: &[u8]) -> Vec<u8> {
    server.pair.sign(message).as_ref().to_vec()
}

fuzz_target!(|data: &[u8]| {
    LazyLock::force(&ADMITS);
    let Some((kind, rest)) = data.split_first() else { return };
    let server = &*SERVER;
    let mut parts = rest.splitn(3, |byte| *byte == 0);
    let mut part = || parts.next().unwrap_or_default();
    let (first, second, third) = (part(), part(), part());
    let own = own_set(&server.pair);
    let (token, set) = match kind % 4 {
        0 => (first.to_vec(), own),
        1 => (signed(first, second, sign_by_secret), own),
        2 => (signed(first, second, |message| sign_by_key(server, message)), third.to_vec()),
        _ => (first.to_vec(), second.to_vec()),
    };
    accept(server, &set);
    let as_protocol = kind & 0x40 != 0;
    let sent = match kind & 0x80 != 0 {
        true => URL_SAFE_NO_PAD.encode(&token).into_bytes(),
        false => token.clone(),
    };
    if is_admitted(server, &sent, as_protocol) == Some(true) {
        let token = admitted(&sent, as_protocol);
        assert_eq!(verify(&token, &set), Ok(()), "{}", String::from_utf8_lossy(&token));
        check_changed(server, &token, usize::from(*kind) * 31);
        check_changed(server, &token, token.len() - 1);
    }
});

/// The token of a header that was admitted: without white space, and of a subprotocol up to the next one, decoded if it was encoded.
fn admitted(sent: &[u8], as_protocol: bool) -> Vec<u8> {
    let first = sent.split(|byte| as_protocol && *byte == b',').next().unwrap_or_default().trim_ascii();
    match URL_SAFE_NO_PAD.decode(first) {
        Ok(decoded) if as_protocol => decoded,
        _ => first.to_vec(),
    }
}
