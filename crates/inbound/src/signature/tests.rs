//! Vectors of the vendors' own libraries, and everything that must not pass.

use http::Method;
use http::header::{AUTHORIZATION, HeaderValue};
use proptest::prelude::*;
use proptest::sample::Index;
use serde_json::Value;

use super::*;

const VECTORS: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/data/webhook-vectors.json"));

/// The header with the signature of each scheme that signs.
const SIGNATURES: [&str; 12] = [
    "webhook-signature",
    "x-hub-signature-256",
    "stripe-signature",
    "x-shopify-hmac-sha256",
    "shopify-hmac-sha256",
    "x-slack-signature",
    "sanity-webhook-signature",
    "x-airtable-content-mac",
    "x-contentful-signature",
    "x-signature",
    "x-gitlab-token",
    "authorization",
];

/// What a check of the whole body at once comes to, after it was seen that checks of its single bytes come to the same.
pub(super) fn verified(scheme: &Scheme, request: &Request<'_>) -> Result<(), Refusal> {
    let whole = scheme.verify(request, TOLERANCE);
    assert_eq!(in_pieces(scheme, request, 1..request.body.len()), whole);
    whole
}

/// What a check of the body comes to that arrives cut at these places, in order.
fn in_pieces(scheme: &Scheme, request: &Request<'_>, cuts: impl IntoIterator<Item = usize>) -> Result<(), Refusal> {
    let mut verifier = scheme.begin(&Request { body: b"still to come", ..*request }, TOLERANCE)?;
    let end = cuts.into_iter().fold(0, |from, to| {
        verifier.update(&request.body[from..to]);
        to
    });
    verifier.update(&request.body[end..]);
    verifier.finish()?.check(request.body)
}

proptest! {
    #[test]
    fn a_body_in_pieces_is_judged_as_the_whole_body(
        at in any::<Index>(),
        cuts in proptest::collection::vec(any::<Index>(), 0..9),
        flipped in proptest::option::of((any::<Index>(), 1_u8..)),
        late in prop_oneof![Just(0_i64), Just(301)],
    ) {
        let cases: Vec<_> = cases().into_iter().map(|case| ((case.make)(&[&case.secret]), case.sent())).collect();
        let all = [cases, sender_tests::examples()].concat();
        let (scheme, mut sent) = at.get(&all).clone();
        let fits = flipped.is_none() && late == 0;
        if let Some((at, bits)) = flipped.filter(|_| !sent.body.is_empty()) {
            let at = at.index(sent.body.len());
            sent.body[at] ^= bits;
        }
        sent.at += late * 1_000;
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(sent.body.len() + 1)).collect();
        cuts.sort_unstable();
        let (whole, pieces) = sent.request(|request| (scheme.verify(request, TOLERANCE), in_pieces(&scheme, request, cuts)));
        prop_assert_eq!(whole, pieces);
        prop_assert!(!fits || whole.is_ok());
    }
}

/// The parts of a request.
#[derive(Clone)]
pub(super) struct Parts {
    pub(super) headers: Vec<(&'static str, String)>,
    pub(super) path: &'static str,
    pub(super) query: Option<String>,
    pub(super) body: Vec<u8>,
    /// Unix milliseconds.
    pub(super) at: i64,
}

impl Parts {
    /// Asks `what` of the request that has these parts.
    pub(super) fn request<T>(&self, what: impl FnOnce(&Request<'_>) -> T) -> T {
        let mut headers = HeaderMap::new();
        for (name, value) in &self.headers {
            headers.append(*name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        let (query, now) = (self.query.as_deref(), Timestamp::from_millisecond(self.at).unwrap());
        what(&Request { method: &Method::POST, path: self.path, query, headers: &headers, body: &self.body, now })
    }
}

/// How a scheme is made of its secrets.
type Make = fn(&[&str]) -> Scheme;

/// A delivery as a vector describes it.
#[derive(Clone)]
struct Case {
    make: Make,
    secret: String,
    headers: Vec<(&'static str, String)>,
    body: String,
    /// Unix milliseconds.
    at: i64,
    path: &'static str,
    query: Option<&'static str>,
}

impl Case {
    fn verify(&self) -> Result<(), Refusal> {
        self.verify_as(&(self.make)(&[&self.secret]))
    }

    fn verify_as(&self, scheme: &Scheme) -> Result<(), Refusal> {
        self.sent().request(|request| verified(scheme, request))
    }

    fn sent(&self) -> Parts {
        let (headers, body) = (self.headers.clone(), self.body.clone().into_bytes());
        Parts { headers, path: self.path, query: self.query.map(str::to_string), body, at: self.at }
    }

    fn signature(&mut self) -> &mut String {
        &mut self.headers.iter_mut().find(|(own, _)| SIGNATURES.contains(own)).unwrap().1
    }

    fn is_timed(&self) -> bool {
        let says = |name: &str, value: &str| {
            name.contains("timestamp") || name.contains("airtable") || value.starts_with("t=")
        };
        self.headers.iter().any(|(name, value)| says(name, value))
    }

    /// Whether the proof says nothing of the body.
    fn is_token(&self) -> bool {
        self.headers.iter().any(|(name, _)| ["x-gitlab-token", "authorization"].contains(name))
    }
}

fn keys(secrets: &[&str], key: fn(&str) -> Result<Key, String>) -> Vec<Key> {
    secrets.iter().map(|secret| key(secret).unwrap()).collect()
}

fn plain(secrets: &[&str]) -> Vec<Key> {
    keys(secrets, Key::plain)
}

fn standard(secrets: &[&str]) -> Scheme {
    Scheme::Standard(Standard::new(secrets.iter().copied()).unwrap())
}

fn generic(secrets: &[&str], algorithm: Algorithm) -> Scheme {
    Scheme::Hmac(Hmac { algorithm, ..Hmac::new(plain(secrets), HeaderName::from_static("x-signature")) })
}

fn make(scheme: &str) -> Make {
    match scheme {
        "standard" | "standard-ed25519" => standard,
        "github" => |secrets| Scheme::Hmac(Hmac::github(plain(secrets))),
        "stripe" => |secrets| Scheme::Timed(TimedHeader::stripe(plain(secrets))),
        "shopify" => |secrets| Scheme::Hmac(Hmac::shopify(plain(secrets))),
        "slack" => |secrets| Scheme::Hmac(Hmac::slack(plain(secrets))),
        "airtable" => |secrets| {
            Scheme::Hmac(Hmac::airtable(
                secrets.iter().map(|own| Key::base64(own).unwrap_or(Key::plain(own).unwrap())).collect(),
            ))
        },
        "sanity" => |secrets| Scheme::Timed(TimedHeader::sanity(plain(secrets))),
        "contentful" => |secrets| Scheme::Contentful(Contentful { secrets: plain(secrets), public_path: None }),
        "gitlab" => |secrets| Scheme::Gitlab(Gitlab::new(secrets.iter().copied()).unwrap()),
        "basic" => |secrets| Scheme::Basic(plain(secrets)),
        other => panic!("{other}"),
    }
}

fn cases() -> Vec<Case> {
    let all: Value = serde_json::from_str(VECTORS).unwrap();
    let mut cases = Vec::new();
    for vector in all["vectors"].as_array().unwrap() {
        let text = |name: &str| vector[name].as_str().unwrap_or_default().to_string();
        let body = match vector["body"].as_str() {
            Some(name) => all["bodies"][name].as_str().unwrap().to_string(),
            None => text("body_text"),
        };
        let secret = ["secret", "public", "secret_base64"].map(text).concat();
        let at = vector["timestamp"].as_i64().unwrap_or(1_748_779_200);
        let (seconds, header) = (at.to_string(), text("header"));
        let mut case = |make: Make, headers: Vec<(&'static str, String)>| {
            let (path, query) = ("/webhooks/a", None);
            cases.push(Case { make, secret: secret.clone(), headers, body: body.clone(), at: at * 1_000, path, query });
        };
        match vector["scheme"].as_str().unwrap() {
            scheme @ ("standard" | "standard-ed25519") => case(
                make(scheme),
                vec![("webhook-id", text("id")), ("webhook-timestamp", seconds), ("webhook-signature", header)],
            ),
            "slack" => {
                case(make("slack"), vec![("x-slack-signature", header), ("x-slack-request-timestamp", seconds)]);
            }
            "shopify" => {
                case(make("shopify"), vec![("x-shopify-hmac-sha256", header.clone())]);
                case(make("shopify"), vec![("shopify-hmac-sha256", header)]);
            }
            "hmac" => {
                let sha256: Make = |secrets| generic(secrets, Algorithm::Sha256);
                case(sha256, vec![("x-signature", text("sha256_hex"))]);
                case(sha256, vec![("x-signature", text("sha256_hex").to_uppercase())]);
                case(|secrets| generic(secrets, Algorithm::Sha512), vec![("x-signature", text("sha512_hex"))]);
                case(|secrets| generic(secrets, Algorithm::Sha1), vec![("x-signature", text("sha1_hex"))]);
            }
            "contentful" => {
                let of = |name: &'static str| (name, vector["headers"][name].as_str().unwrap().to_string());
                let headers = [
                    "x-contentful-signature",
                    "x-contentful-signed-headers",
                    "x-contentful-timestamp",
                    "x-contentful-topic",
                ];
                case(make("contentful"), headers.map(of).to_vec());
                let case = cases.last_mut().unwrap();
                (case.path, case.query) = ("/webhooks/a%20b", Some("q=%20x"));
            }
            scheme => {
                let name = SIGNATURES
                    .into_iter()
                    .find(|name| name.contains(scheme) || scheme == "github" && name.contains("hub"));
                case(make(scheme), vec![(name.unwrap(), header)]);
            }
        }
    }
    let body = || "{}".to_string();
    let token = |make, name, secret: &str, sent: &str| Case {
        make,
        secret: secret.into(),
        headers: vec![(name, sent.into())],
        body: body(),
        at: 0,
        path: "/",
        query: None,
    };
    cases.push(token(make("gitlab"), "x-gitlab-token", "glt-7", "glt-7"));
    cases.push(token(make("basic"), "authorization", "hook:s3cr3t", "Basic aG9vazpzM2NyM3Q="));
    cases
}

#[test]
fn every_vector_verifies() {
    let cases = cases();
    assert!(cases.len() >= 27, "{}", cases.len());
    for case in cases {
        assert_eq!(case.verify(), Ok(()), "{:?}", case.headers);
    }
}

#[test]
fn a_changed_body_is_refused() {
    for mut case in cases().into_iter().filter(|case| !case.is_token()) {
        case.body.push(' ');
        assert_eq!(case.verify(), Err(Refusal::Signature), "{:?}", case.headers);
        case.body.clear();
        assert_eq!(case.verify(), Err(Refusal::Signature));
    }
}

/// A secret that fits nothing, in every scheme's writing.
fn foreign(case: &Case) -> &'static str {
    match case.secret.get(..5) {
        Some("whpk_") => "whpk_1f5pqkdJ8bN1GxJ4PmMcmIrSoXMrIHKJ1wCUNKMfuo8=",
        _ => "whsec_////////////////////////////////",
    }
}

#[test]
fn a_foreign_secret_is_refused() {
    for case in cases() {
        let Some(foreign) = Some(foreign(&case)).filter(|key| !key.starts_with("whpk_")) else { continue };
        let result = case.verify_as(&(case.make)(&[foreign]));
        // GitLab's signing tokens want headers of their own.
        assert!(matches!(result, Err(Refusal::Signature | Refusal::Missing)), "{:?}", case.headers);
    }
}

#[test]
fn any_of_several_secrets_will_do() {
    for case in cases() {
        let newer = "whsec_////////////////////////////////";
        assert_eq!(case.verify_as(&(case.make)(&[newer, &case.secret])), Ok(()), "{:?}", case.headers);
        assert_eq!(case.verify_as(&(case.make)(&[&case.secret, newer])), Ok(()), "{:?}", case.headers);
    }
}

#[test]
fn missing_doubled_and_mangled_headers_are_refused() {
    for at in 0..4 {
        for mut case in cases() {
            if at >= case.headers.len() {
                continue;
            }
            let taken = case.headers.remove(at);
            assert_eq!(case.verify(), Err(Refusal::Missing), "without {taken:?}");
            case.headers.extend([taken.clone(), taken.clone()]);
            assert_eq!(case.verify(), Err(Refusal::Malformed), "twice {taken:?}");
            *case.headers.last_mut().unwrap() = (taken.0, "x".repeat(MOST_HEADER + 1));
            case.headers.remove(case.headers.len() - 2);
            assert_eq!(case.verify(), Err(Refusal::Malformed), "long {:?}", taken.0);
        }
    }
    // Of several signatures, those that are mangled do not spoil the one that fits.
    let single =
        cases().into_iter().filter(|case| case.headers.iter().all(|(_, value)| value.matches("v1").count() < 2));
    for mut case in single {
        let good = case.signature().clone();
        let shorter = good[..good.len() - 1].to_string();
        for bad in [format!("{good}0"), shorter, format!("{good}="), "v1,%%%".into(), "t=1,v1=".into(), String::new()] {
            *case.signature() = bad.clone();
            assert!(case.verify().is_err(), "{bad:?}");
        }
    }
}

#[test]
fn signed_times_hold_for_five_minutes_in_both_directions() {
    let timed: Vec<_> = cases().into_iter().filter(Case::is_timed).collect();
    assert!(timed.len() >= 12);
    let tolerance = 1_000 * i64::try_from(TOLERANCE).unwrap();
    for mut case in timed {
        let at = case.at;
        for off in [at - tolerance, at + tolerance] {
            case.at = off;
            assert_eq!(case.verify(), Ok(()), "{:?}", case.headers);
        }
        for off in [at - tolerance - 1_000, at + tolerance + 1_000] {
            case.at = off;
            assert_eq!(case.verify(), Err(Refusal::Stale), "{:?}", case.headers);
        }
    }
}

#[test]
fn times_in_milliseconds_are_exact() {
    for mut case in cases().into_iter().filter(|case| case.headers[0].0.contains("sanity") || case.headers.len() == 4) {
        let (at, tolerance) = (case.at, 1_000 * i64::try_from(TOLERANCE).unwrap());
        case.at = at + tolerance + 1;
        assert_eq!(case.verify(), Err(Refusal::Stale));
    }
}

#[test]
fn svix_names_are_understood_but_not_both_at_once() {
    let mut case = cases().remove(0);
    let standard = case.headers.clone();
    for (name, _) in &mut case.headers {
        *name = match *name {
            "webhook-id" => "svix-id",
            "webhook-timestamp" => "svix-timestamp",
            _ => "svix-signature",
        };
    }
    assert_eq!(case.verify(), Ok(()));
    case.headers.extend(standard);
    assert_eq!(case.verify(), Err(Refusal::Malformed));
}

#[test]
fn only_the_first_ten_signatures_of_a_header_are_tried() {
    let mut case = cases().remove(0);
    let good = case.signature().clone();
    *case.signature() = format!("{}{good}", "v1,AAAA ".repeat(MOST_SIGNATURES - 1));
    assert_eq!(case.verify(), Ok(()));
    *case.signature() = format!("{}{good}", "v1,AAAA ".repeat(MOST_SIGNATURES));
    assert_eq!(case.verify(), Err(Refusal::Signature));
    let mut case = cases().into_iter().find(|case| case.headers[0].0 == "stripe-signature").unwrap();
    let (time, good) =
        case.signature().clone().split_once(',').map(|(time, good)| (time.to_string(), good.to_string())).unwrap();
    *case.signature() = format!("{time}{},{good}", ",v1=00".repeat(MOST_SIGNATURES));
    assert_eq!(case.verify(), Err(Refusal::Signature));
}

#[test]
fn a_gitlab_signing_token_signs_as_standard_webhooks_do() {
    let case = cases().remove(0);
    assert_eq!(case.verify_as(&make("gitlab")(&[&case.secret])), Ok(()));
    assert_eq!(case.verify_as(&make("gitlab")(&[&case.secret, "glt-7"])), Ok(()));
    let mut forged = case.clone();
    forged.body.push(' ');
    forged.headers.push(("x-gitlab-token", "glt-7".into()));
    // The token does not make up for a signature that does not fit.
    assert_eq!(forged.verify_as(&make("gitlab")(&[&case.secret, "glt-7"])), Err(Refusal::Signature));
}

#[test]
fn a_message_is_made_of_what_it_names() {
    let message = Message::parse("{method} {path} {header:X-Id}|{body}|{timestamp}").unwrap();
    let scheme = |message| {
        let timestamp = Some(HeaderName::from_static("x-time"));
        Scheme::Hmac(Hmac { message, timestamp, ..Hmac::new(plain(&["k"]), HeaderName::from_static("x-signature")) })
    };
    let key = Key::plain("k").unwrap();
    let mac = mac::Mac::new(&key, Algorithm::Sha256).unwrap().feed(b"POST /webhooks/a id-1|{}|1748779200");
    let mac::Mac::Sha256(mac) = mac else { panic!() };
    use ::hmac::Mac as _;
    let signature: String = mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
    let headers = vec![("x-signature", signature), ("x-id", "id-1".into()), ("x-time", "1748779200".into())];
    let path = "/webhooks/a";
    let make: Make = |_| Scheme::None;
    let case =
        Case { make, secret: String::new(), headers, body: "{}".into(), at: 1_748_779_200_000, path, query: None };
    assert_eq!(case.verify_as(&scheme(message)), Ok(()));
    assert_eq!(case.verify_as(&scheme(Message::body())), Err(Refusal::Signature));
    for wrong in ["{timestamp}", "{body", "{body}{cookie}", "{body}{header:a b}", "{body}.{body}"] {
        assert!(Message::parse(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn tokens_are_compared_whole() {
    let bearer = Scheme::Bearer(plain(&["old", "s3cr3t"]));
    let header = Scheme::Header(AUTHORIZATION, plain(&["s3cr3t"]));
    let gitlab = make("gitlab")(&["glt-7"]);
    let basic = Scheme::Basic(plain(&["u:p"]));
    for (scheme, name, sent, result) in [
        (&bearer, "authorization", "Bearer s3cr3t", Ok(())),
        (&bearer, "authorization", "bearer s3cr3t", Ok(())),
        (&bearer, "authorization", "Bearer old", Ok(())),
        (&bearer, "authorization", "Bearer s3cr3t ", Err(Refusal::Signature)),
        (&bearer, "authorization", "Bearer s3cr3", Err(Refusal::Signature)),
        (&bearer, "authorization", "Bearer ", Err(Refusal::Signature)),
        (&bearer, "authorization", "Basic s3cr3t", Err(Refusal::Malformed)),
        (&bearer, "authorization", "Be", Err(Refusal::Malformed)),
        (&header, "authorization", "s3cr3t", Ok(())),
        (&header, "authorization", "Bearer s3cr3t", Err(Refusal::Signature)),
        (&gitlab, "x-gitlab-token", "glt-7", Ok(())),
        (&gitlab, "x-gitlab-token", "glt-8", Err(Refusal::Signature)),
        (&gitlab, "x-gitlab-token", "glt-77", Err(Refusal::Signature)),
        (&gitlab, "x-gitlab-token", "", Err(Refusal::Signature)),
        (&basic, "authorization", "basic dTpw", Ok(())),
        (&basic, "authorization", "Basic dTpx", Err(Refusal::Signature)),
        (&basic, "authorization", "Basic u:p", Err(Refusal::Malformed)),
    ] {
        let make: Make = |_| Scheme::None;
        let headers = vec![(name, sent.to_string())];
        let case = Case { make, secret: String::new(), headers, body: String::new(), at: 0, path: "/", query: None };
        assert_eq!(case.verify_as(scheme), result, "{sent:?}");
        assert_eq!(Case { headers: Vec::new(), ..case }.verify_as(scheme), Err(Refusal::Missing));
    }
}

#[test]
fn secrets_that_protect_nothing_are_refused_and_none_is_printed() {
    for bad in ["", "whsec_", "whsec_AAECAwQFBgcICQ==", "whsec_%%%", "whsk_AAAA", "whpk_AAAA", "whpk_"] {
        assert!(Standard::new([bad]).is_err(), "{bad}");
    }
    // A point of small order fits signatures that nobody made.
    let weak = "whpk_AQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
    assert!(Standard::new([weak]).is_err());
    assert!(Key::plain("").is_err() && Key::base64("").is_err() && Key::hex("").is_err() && Key::hex("0").is_err());
    let printed = [
        format!("{:?}", Scheme::Hmac(Hmac::github(plain(&["hush"])))),
        format!("{:?}", make("gitlab")(&["hush", "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="])),
        format!("{:?}", Scheme::Basic(plain(&["u:hush"]))),
    ];
    assert!(printed.iter().all(|text| text.contains("Key(..)") && !text.contains("hush")), "{printed:?}");
}

#[test]
fn what_the_head_proves_or_fails_to_prove_needs_no_body() {
    let begun = |scheme: &Scheme, sent: &Parts| sent.request(|request| scheme.begin(request, TOLERANCE).map(drop));
    for case in cases() {
        let (scheme, sent) = ((case.make)(&[&case.secret]), case.sent());
        let without = Parts { headers: Vec::new(), ..sent.clone() };
        assert_eq!(begun(&scheme, &without), Err(Refusal::Missing), "{:?}", case.headers);
        assert_eq!(begun(&scheme, &sent), Ok(()), "{:?}", case.headers);
        if case.is_timed() && !case.headers.iter().any(|(name, _)| name.contains("airtable")) {
            let late = Parts { at: sent.at + 1_000_000, ..sent };
            assert_eq!(begun(&scheme, &late), Err(Refusal::Stale), "{:?}", case.headers);
        } else if case.is_token() {
            let other = Parts { headers: vec![(case.headers[0].0, "Basic eDp5".into())], ..sent };
            assert_eq!(begun(&scheme, &other), Err(Refusal::Signature), "{:?}", case.headers);
        }
    }
    let short = Parts { headers: vec![("x-signature", "00".into())], ..cases().remove(0).sent() };
    assert_eq!(begun(&generic(&["k"], Algorithm::Sha256), &short), Err(Refusal::Signature));
}

#[test]
fn a_signature_with_a_point_of_small_order_is_refused() {
    let case = cases().into_iter().find(|case| case.secret.starts_with("whpk_")).unwrap();
    let mut forged = case.clone();
    let mut signature = [0; 64];
    signature[0] = 1;
    use base64::Engine as _;
    *forged.signature() = format!("v1a,{}", base64::engine::general_purpose::STANDARD.encode(signature));
    let begun = forged.sent().request(|request| (case.make)(&[&case.secret]).begin(request, TOLERANCE).map(drop));
    assert_eq!(begun, Err(Refusal::Signature));
}
