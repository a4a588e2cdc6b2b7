//! Headers and a body to every scheme and every format. The first byte chooses both, the second the body's type, the third says
//! how long the headers' common value is.
#![no_main]

use std::sync::LazyLock;

use diorama::Schema;
use diorama::inbound::signature::{Contentful, Gitlab, Graph, Mailgun, Sns, Standard, TimedHeader, Twilio, UrlToken};
use diorama::inbound::{Format, Hmac, Hook, Key, PRESETS, Request, Scheme, preset};
use hyper::Method;
use hyper::header::{HeaderMap, HeaderName, HeaderValue};
use jiff::Timestamp;
use libfuzzer_sys::fuzz_target;

const KINDS: [&str; 6] = [
    "application/json",
    "application/x-ndjson",
    "application/cbor",
    "application/x-www-form-urlencoded",
    "application/cloudevents+json",
    "application/cloudevents-batch+json",
];

const NAMES: [&str; 14] = [
    "webhook-id",
    "webhook-timestamp",
    "webhook-signature",
    "x-hub-signature-256",
    "stripe-signature",
    "x-shopify-hmac-sha256",
    "x-slack-signature",
    "sanity-webhook-signature",
    "x-airtable-content-mac",
    "x-contentful-signature",
    "x-gitlab-token",
    "authorization",
    "ce-type",
    "ce-id",
];

fn keys() -> Vec<Key> {
    vec![Key::plain("0f6e1f2d-a-secret-that-nobody-guesses").expect("it is not empty")]
}

static HOOKS: LazyLock<Vec<Hook>> = LazyLock::new(|| {
    let standard =
        ["whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=", "whpk_A6EHv/POEL4dcN0Y50vAmWfk1jCbpQ1fHdyGZBJVMbg="];
    let schemes = [
        Scheme::Standard(Standard::new(standard).expect("keys")),
        Scheme::Hmac(Hmac::github(keys())),
        Scheme::Hmac(Hmac::shopify(keys())),
        Scheme::Hmac(Hmac::slack(keys())),
        Scheme::Hmac(Hmac::airtable(keys())),
        Scheme::Timed(TimedHeader::stripe(keys())),
        Scheme::Timed(TimedHeader::sanity(keys())),
        Scheme::Contentful(Contentful { secrets: keys(), public_path: None }),
        Scheme::Gitlab(Gitlab::new(standard[..1].iter().copied()).expect("keys")),
        Scheme::Bearer(keys()),
        Scheme::Basic(keys()),
        Scheme::Hmac(Hmac::zoom(keys())),
        Scheme::Hmac(Hmac::twitch(keys())),
        Scheme::Hmac(Hmac::asana(keys())),
        Scheme::Url(UrlToken::event_grid("token", keys())),
        Scheme::Sns(Sns::new("token", keys(), vec!["arn".into()])),
        Scheme::Twilio(Twilio { secrets: keys(), public_url: None }),
        Scheme::Mailgun(Mailgun { secrets: keys() }),
        Scheme::Graph(Graph::new(["0f6e1f2d-a-secret-that-nobody-guesses"]).expect("a client state")),
    ];
    let presets = PRESETS.iter().map(|name| {
        let only = (!["airtable", "dropbox", "mailgun", "row", "twilio"].contains(name)).then_some("a");
        Format::Map(preset(name, only, "", &["map"]).expect("presets load"))
    });
    let formats: Vec<_> = [Format::Native, Format::CloudEvents { batches: true }].into_iter().chain(presets).collect();
    let scheme = |at: usize| schemes[at % schemes.len()].clone();
    formats.into_iter().enumerate().map(|(at, format)| Hook::new(scheme(at)).format(format)).collect()
});

fuzz_target!(|data: &[u8]| {
    let [hook, kind, length, rest @ ..] = data else { return };
    let (value, body) = rest.split_at(rest.len().min(usize::from(*length)));
    let mut headers = HeaderMap::new();
    headers.insert("content-type", HeaderValue::from_static(KINDS[usize::from(*kind) % KINDS.len()]));
    headers.insert("ce-specversion", HeaderValue::from_static("1.0"));
    if let Ok(value) = HeaderValue::from_bytes(value) {
        for name in NAMES {
            headers.insert(HeaderName::from_static(name), value.clone());
        }
    }
    let now = Timestamp::UNIX_EPOCH;
    let request =
        Request { method: &Method::POST, path: "/webhooks/a", query: Some("a=b"), headers: &headers, body, now };
    let hook = &HOOKS[usize::from(*hook) % HOOKS.len()];
    assert!(hook.verify(&request).is_err());
    let _ = (hook.answer_before_verifying(&request), hook.challenge(&request), hook.acknowledgement(&request));
    let _ = (hook.answer_before_decoding(&request), hook.handshake(&request));
    let _ = hook.decode(&request, &Schema::new("id", Vec::new()));
});
