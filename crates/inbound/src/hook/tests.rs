//! What a hook does beside the parts it is made of; and that nothing that is sent makes it panic or work for long.

use std::time::{Duration, Instant};

use http::StatusCode;
use http::header::HeaderValue;
use proptest::prelude::*;

use super::*;
use crate::signature::{Contentful, Gitlab, Graph, Mailgun, Sns, Standard, TimedHeader, Twilio, UrlToken};
use crate::{Hmac, Key, Map, PRESETS, preset};

fn headers(of: &[(&str, &str)]) -> HeaderMap {
    of.iter().map(|(name, value)| (name.parse::<HeaderName>().unwrap(), value.parse().unwrap())).collect()
}

fn request<'a>(headers: &'a HeaderMap, body: &'a [u8]) -> Request<'a> {
    let now = Timestamp::from_second(1_748_779_200).unwrap();
    Request { method: &Method::POST, path: "/webhooks/a", query: Some("a=b"), headers, body, now }
}

fn keys() -> Vec<Key> {
    vec![Key::plain("secret").unwrap()]
}

fn schema() -> Schema {
    Schema::new("id", Vec::new())
}

fn by_id() -> Format {
    Format::Map(Map::read("op = \"upsert\"\nid = \"/id\"", &[], None).unwrap())
}

#[test]
fn a_ping_and_a_challenge_are_answered_at_once() {
    let github = Hook::new(Scheme::Hmac(Hmac::github(keys())));
    let ping = headers(&[("content-type", "application/json"), ("x-github-event", "ping")]);
    assert_eq!(github.answer_before_decoding(&request(&ping, b"{}")).unwrap().body, "pong");
    let push = headers(&[("content-type", "application/json"), ("x-github-event", "push")]);
    assert_eq!(github.answer_before_decoding(&request(&push, b"{}")), None);
    let json = headers(&[("content-type", "application/json")]);
    let slack = Hook::new(Scheme::Hmac(Hmac::slack(keys())));
    let challenge = br#"{"token":"x","challenge":"3eZb","type":"url_verification"}"#;
    let reply = slack.answer_before_decoding(&request(&json, challenge)).unwrap();
    assert_eq!((reply.status, reply.body.as_str()), (StatusCode::OK, "3eZb"));
    assert_eq!(reply.headers[0].1, "text/plain; charset=utf-8");
    assert_eq!(slack.answer_before_decoding(&request(&json, br#"{"type":"event_callback","challenge":"x"}"#)), None);
    assert_eq!(github.answer_before_decoding(&request(&json, challenge)), None);
}

#[test]
fn only_listed_origins_may_ask_to_deliver() {
    let hook = Hook::new(Scheme::None).origins(vec!["events.example".into()]);
    let asking = headers(&[("webhook-request-origin", "events.example")]);
    let reply = hook.handshake(&request(&asking, b"")).unwrap();
    assert_eq!(
        reply.headers[0],
        (HeaderName::from_static("webhook-allowed-origin"), HeaderValue::from_static("events.example"))
    );
    assert_eq!(hook.handshake(&request(&headers(&[("webhook-request-origin", "evil.example")]), b"")), None);
    assert_eq!(hook.handshake(&request(&HeaderMap::new(), b"")), None);
    assert_eq!(Hook::new(Scheme::None).handshake(&request(&asking, b"")), None);
}

#[test]
fn github_sends_its_documents_in_forms_and_mappings_read_the_forms_of_others() {
    let form = headers(&[("content-type", "application/x-www-form-urlencoded")]);
    let body = b"payload=%7B%22id%22%3A+7%7D&x=1";
    let github = Hook::new(Scheme::Hmac(Hmac::github(keys()))).format(by_id());
    let decoded = github.decode(&request(&form, body), &schema()).unwrap();
    assert_eq!(decoded.changes[0].as_ref().unwrap().event.id(), Some("7"));
    assert!(matches!(github.decode(&request(&form, b"payload=%7"), &schema()), Err(DecodeError::Syntax(_))));
    let native = Hook::new(Scheme::None);
    assert!(matches!(native.decode(&request(&form, body), &schema()), Err(DecodeError::MediaType(_))));
    let mapped = Hook::new(Scheme::None).format(by_id());
    let decoded = mapped.decode(&request(&form, b"id=a+b&x=1&x=2"), &schema()).unwrap();
    assert_eq!(decoded.changes[0].as_ref().unwrap().event.id(), Some("a b"));
}

#[test]
fn a_delivery_has_the_id_that_is_signed_before_any_other() {
    let json = [
        ("content-type", "application/json"),
        ("x-delivery", "unsigned"),
        ("webhook-id", "w"),
        ("webhook-signature", "s"),
    ];
    let given = headers(&json);
    let configured = Some(HeaderName::from_static("x-delivery"));
    let body = br#"{"id":"evt_1","event_id":"Ev1"}"#;
    let delivery = |scheme, format| {
        let hook = Hook::new(scheme).format(format).delivery_header(configured.clone());
        hook.decode(&request(&given, body), &schema()).unwrap().delivery.unwrap()
    };
    let standard = Standard::new(["whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="]).unwrap();
    assert_eq!(delivery(Scheme::Standard(standard), by_id()), "w");
    assert_eq!(delivery(Scheme::Timed(TimedHeader::stripe(keys())), by_id()), "evt_1");
    assert_eq!(delivery(Scheme::Hmac(Hmac::slack(keys())), by_id()), "Ev1");
    assert_eq!(delivery(Scheme::Bearer(keys()), by_id()), "unsigned");
    let long = "x".repeat(1_000);
    let mut given = given.clone();
    given.insert("x-delivery", long.parse().unwrap());
    let hook = Hook::new(Scheme::Bearer(keys())).format(by_id()).delivery_header(configured);
    assert_eq!(hook.decode(&request(&given, body), &schema()).unwrap().delivery.unwrap().len(), 64);
}

#[test]
fn one_bad_item_is_one_error_or_the_end_of_all_as_the_hook_says() {
    let json = headers(&[("content-type", "application/json")]);
    let body = br#"[{"op":"delete","id":"1"},{"op":"frob"}]"#;
    let hook = Hook::new(Scheme::None);
    let decoded = hook.decode(&request(&json, body), &schema()).unwrap();
    assert!(decoded.changes[0].is_ok() && decoded.changes[1].is_err());
    let error = hook.abort_on_item_error(true).decode(&request(&json, body), &schema()).unwrap_err();
    assert!(matches!(error, DecodeError::Item(ItemError { number: 2, .. })));
    let none = Hook::new(Scheme::None).decode(&request(&json, br#"{"op":"frob"}"#), &schema());
    assert!(matches!(none, Err(DecodeError::Item(_))), "nothing of it is understood");
}

#[test]
fn bodies_in_cbor_are_read_too_and_must_be_unambiguous() {
    let cbor = headers(&[("content-type", "application/cbor")]);
    let hook = Hook::new(Scheme::None);
    // {"op":"delete","id":7}
    let body = b"\xa2\x62op\x66delete\x62id\x07";
    assert_eq!(
        hook.decode(&request(&cbor, body), &schema()).unwrap().changes[0].as_ref().unwrap().event.id(),
        Some("7")
    );
    let twice = b"\xa3\x62op\x66delete\x62id\x07\x62id\x08";
    for bad in [&twice[..], b"\xa1", b"\x01\x02", b""] {
        assert!(hook.decode(&request(&cbor, bad), &schema()).is_err());
    }
    let deep = [vec![0x81_u8; 100_000], vec![0x01]].concat();
    assert!(matches!(hook.decode(&request(&cbor, &deep), &schema()), Err(DecodeError::Syntax(_))));
}

#[test]
fn gzip_is_verified_as_it_was_sent_and_decoded_afterwards() {
    use std::io::Write as _;
    let mut coder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    coder.write_all(br#"{"op":"delete","id":7}"#).unwrap();
    let body = coder.finish().unwrap();
    let signature = |bytes: &[u8]| {
        use ::hmac::{KeyInit as _, Mac as _};
        let mut mac = ::hmac::Hmac::<Sha256>::new_from_slice(b"secret").unwrap();
        mac.update(bytes);
        let digits: String = mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
        format!("sha256={digits}")
    };
    let sent = |signature: &str, coding: &str| {
        let kind = ("content-type", "application/json");
        headers(&[kind, ("content-encoding", coding), ("x-hub-signature-256", signature)])
    };
    let hook = Hook::new(Scheme::Hmac(Hmac::github(keys())));
    let given = sent(&signature(&body), "gzip");
    let request = |given| request(given, &body);
    assert_eq!(hook.verify(&request(&given)), Ok(()));
    let decoded = hook.decode(&request(&given), &schema()).unwrap();
    assert_eq!(decoded.changes[0].as_ref().unwrap().event.id(), Some("7"));
    let plain = sent(&signature(br#"{"op":"delete","id":7}"#), "gzip");
    assert_eq!(hook.verify(&request(&plain)), Err(Refusal::Signature));
    assert_eq!(hook.decode(&request(&sent("", "br")), &schema()), Err(DecodeError::Coding));
}

#[test]
fn sns_is_read_without_its_envelope() {
    let sns = Sns::new("token", keys(), vec!["arn:aws:sns:a:1:b".into()]);
    let hook = Hook::new(Scheme::Sns(sns)).format(by_id());
    let given = headers(&[("content-type", "text/plain; charset=UTF-8"), ("x-amz-sns-message-id", "22b80b92")]);
    let id = |given: &HeaderMap, hook: &Hook, body: &str| {
        let decoded = hook.decode(&request(given, body.as_bytes()), &schema()).unwrap();
        assert_eq!(decoded.delivery.as_deref(), Some("22b80b92"));
        decoded.changes[0].as_ref().unwrap().event.id().map(str::to_string)
    };
    let envelope = r#"{"Type":"Notification","MessageId":"22b80b92","Message":"{\"id\":7}"}"#;
    assert_eq!(id(&given, &hook, envelope).as_deref(), Some("7"));
    // What is not JSON stays in its envelope.
    let text = hook.clone().format(Format::Map(Map::read("op = \"upsert\"\nid = \"/Message\"", &[], None).unwrap()));
    let envelope = r#"{"Type":"Notification","MessageId":"22b80b92","Message":"Hello world!"}"#;
    assert_eq!(id(&given, &text, envelope).as_deref(), Some("Hello world!"));
    let mut raw = given.clone();
    raw.insert("x-amz-sns-rawdelivery", "true".parse().unwrap());
    assert_eq!(id(&raw, &hook, r#"{"id":8,"Message":"{}"}"#).as_deref(), Some("8"));
    assert!(hook.decode(&request(&given, b"Hello"), &schema()).is_err());
}

#[test]
fn a_token_of_mailgun_is_the_id_of_its_delivery() {
    let hook = Hook::new(Scheme::Mailgun(Mailgun { secrets: keys() }));
    let hook = hook.format(Format::Map(preset("mailgun", None, "", &["map"]).unwrap()));
    let json = headers(&[("content-type", "application/json")]);
    let body = br#"{"signature":{"timestamp":"1","token":"a8ce","signature":""},"event-data":{"id":"x"}}"#;
    assert_eq!(hook.decode(&request(&json, body), &schema()).unwrap().delivery.as_deref(), Some("a8ce"));
}

/// A hook of every scheme and every format.
fn everything() -> Vec<Hook> {
    let standard =
        ["whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=", "whpk_A6EHv/POEL4dcN0Y50vAmWfk1jCbpQ1fHdyGZBJVMbg="];
    let schemes = [
        Scheme::Standard(Standard::new(standard).unwrap()),
        Scheme::Hmac(Hmac::github(keys())),
        Scheme::Hmac(Hmac::shopify(keys())),
        Scheme::Hmac(Hmac::slack(keys())),
        Scheme::Hmac(Hmac::airtable(keys())),
        Scheme::Timed(TimedHeader::stripe(keys())),
        Scheme::Timed(TimedHeader::sanity(keys())),
        Scheme::Contentful(Contentful { secrets: keys(), public_path: None }),
        Scheme::Gitlab(Gitlab::new(["glt-7", standard[0]]).unwrap()),
        Scheme::Bearer(keys()),
        Scheme::Basic(keys()),
        Scheme::Hmac(Hmac::zoom(keys())),
        Scheme::Hmac(Hmac::twitch(keys())),
        Scheme::Hmac(Hmac::asana(keys())),
        Scheme::Hmac(Hmac::meta(keys())),
        Scheme::Url(UrlToken::event_grid("token", keys())),
        Scheme::Sns(Sns::new("token", keys(), vec!["a".into()])),
        Scheme::Twilio(Twilio { secrets: keys(), public_url: None }),
        Scheme::Mailgun(Mailgun { secrets: keys() }),
        Scheme::Graph(Graph::new(["secret"]).unwrap()),
    ];
    let presets = PRESETS.iter().map(|name| {
        let only = crate::presets::needs_only(name).then_some("a");
        Format::Map(preset(name, only, "", &["map"]).unwrap())
    });
    let formats = [Format::Native, Format::CloudEvents { batches: true }].into_iter().chain(presets);
    let formats: Vec<Format> = formats.collect();
    formats
        .iter()
        .enumerate()
        .map(|(at, format)| Hook::new(schemes[at % schemes.len()].clone()).format(format.clone()))
        .collect()
}

fn try_all(hooks: &[Hook], headers: &HeaderMap, body: &[u8]) {
    let request = request(headers, body);
    let schema = schema();
    for hook in hooks {
        assert!(hook.verify(&request).is_err(), "{:?}", hook.scheme());
        let _ = (hook.answer_before_verifying(&request), hook.challenge(&request), hook.acknowledgement(&request));
        let _ = (hook.answer_before_decoding(&request), hook.handshake(&request));
        if let Ok(decoded) = hook.decode(&request, &schema) {
            assert!(decoded.changes.len() + decoded.ignored <= 2 * crate::MOST_CHANGES);
        }
    }
}

const KINDS: [&str; 6] = [
    "application/json",
    "application/x-ndjson",
    "application/cbor",
    "application/x-www-form-urlencoded",
    "application/cloudevents+json",
    "application/cloudevents-batch+json",
];

/// Megabytes that are hard to read, and what they claim to be.
fn megabytes() -> Vec<(&'static str, Vec<u8>)> {
    let (million, json, cbor) = (1 << 20, KINDS[0], KINDS[2]);
    let keys = [b"{\"keys\":[".to_vec(), b"1,".repeat(9_999), b"1]".to_vec()].concat();
    let update = b",\"event\":\"update\",\"collection\":\"a\",\"payload\":{\"a\":\"";
    vec![
        (json, b"[".repeat(million)),
        (json, b"{\"a\":".repeat(million / 5)),
        (json, [b"[".to_vec(), b"1,".repeat(million / 2), b"1]".to_vec()].concat()),
        (json, [keys, update.to_vec(), b"x".repeat(million), b"\"}}".to_vec()].concat()),
        (KINDS[5], [b"[".to_vec(), b"{},".repeat(9_999), b"{}]".to_vec()].concat()),
        (KINDS[1], b"{}\n".repeat(million / 3)),
        (KINDS[3], [b"payload=".to_vec(), b"%7B".repeat(million / 3)].concat()),
        (cbor, b"\x9f".repeat(million)),
        (cbor, [b"\x9b\xff\xff\xff\xff\xff\xff\xff\xff".to_vec(), vec![0; million]].concat()),
    ]
}

#[test]
fn a_megabyte_of_any_shape_is_done_with_soon() {
    let hooks = everything();
    let schema = schema();
    let long = "v1,".repeat(2_000);
    for (kind, body) in megabytes() {
        let mut given = headers(&[("content-type", kind), ("ce-specversion", "1.0"), ("webhook-id", "a")]);
        for name in ["webhook-signature", "x-hub-signature-256", "stripe-signature", "x-slack-signature"] {
            given.insert(name, long.parse().unwrap());
        }
        given.insert("webhook-timestamp", "1748779200".parse().unwrap());
        let request = request(&given, &body);
        let started = Instant::now();
        assert!(hooks[0].verify(&request).is_err());
        // Native, CloudEvents, and the mappings with the most rules, one of which makes many rows of one value.
        let mapped = ["debezium", "directus"].map(|name| 2 + PRESETS.iter().position(|own| *own == name).unwrap());
        for at in [0, 1, mapped[0], mapped[1]] {
            let _ = hooks[at].decode(&request, &schema);
        }
        // Without optimisation, on a busy machine; what is not bounded takes minutes.
        assert!(started.elapsed() < Duration::from_secs(30), "{kind}: {:?}", started.elapsed());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

    #[test]
    fn bytes_of_any_kind_make_no_panic(
        kind in 0..KINDS.len(),
        body in prop_oneof![
            proptest::collection::vec(any::<u8>(), 0..200),
            r#"[\[\]{}":,a-z0-9\\. \n]{0,100}"#.prop_map(String::into_bytes),
        ],
        values in proptest::collection::vec("[ -~]{0,80}", 11),
    ) {
        let names = ["webhook-signature", "webhook-id", "webhook-timestamp", "stripe-signature", "authorization", "ce-type",
            "x-twilio-signature", "x-zm-signature", "x-hook-secret", "twitch-eventsub-message-type", "content-encoding"];
        let mut given = headers(&[("content-type", KINDS[kind]), ("ce-specversion", "1.0")]);
        for (name, value) in names.iter().zip(&values) {
            given.insert(*name, value.trim().parse().unwrap());
        }
        try_all(&everything(), &given, &body);
    }

    #[test]
    fn selectors_of_any_kind_make_no_panic(selector in r#"[$/a-z0-9\[\]'".|:~*{}-]{0,40}"#, body in r#"[\[\]{}":,a-c0-9]{0,40}"#) {
        let quoted = toml::Value::String(selector).to_string();
        let map = format!("op = \"upsert\"\nid = {quoted}\nrow = {{ sel = \"\", set = {{ a = {{ template = {quoted} }} }} }}");
        for map in [map.as_str(), &format!("each = {quoted}\nop = \"delete\"\nid = \"key\"")] {
            if let Ok(map) = Map::read(map, &[], None) {
                let given = headers(&[("content-type", "application/json")]);
                let hook = Hook::new(Scheme::None).format(Format::Map(map));
                let _ = hook.decode(&request(&given, body.as_bytes()), &schema());
            }
        }
    }

    #[test]
    fn what_is_signed_verifies_and_what_is_changed_does_not(body in proptest::collection::vec(any::<u8>(), 0..300), at in 0_usize..300, bit in 0_u8..8) {
        use ::hmac::{KeyInit as _, Mac as _};
        let mut mac = ::hmac::Hmac::<Sha256>::new_from_slice(b"secret").unwrap();
        mac.update(&body);
        let signature: String = mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
        let given = headers(&[("x-hub-signature-256", &format!("sha256={signature}"))]);
        let hook = Hook::new(Scheme::Hmac(Hmac::github(keys())));
        prop_assert_eq!(hook.verify(&request(&given, &body)), Ok(()));
        let mut changed = body.clone();
        match changed.get_mut(at) {
            Some(byte) => *byte ^= 1 << bit,
            None => changed.push(0),
        }
        prop_assert_eq!(hook.verify(&request(&given, &changed)), Err(Refusal::Signature));
    }

    #[test]
    fn the_native_form_says_again_what_it_was_told(id in "[a-z0-9]{1,12}", price in any::<i64>(), partial in any::<bool>(), version in any::<i64>()) {
        let body = serde_json::json!([{"op": "update", "id": id, "new": {"price": price}, "partial": partial, "version": version}]);
        let given = headers(&[("content-type", "application/json")]);
        let decoded = Hook::new(Scheme::None).decode(&request(&given, body.to_string().as_bytes()), &schema()).unwrap();
        let new = diorama_core::record::Record::from_iter([("price".to_string(), price.into())]);
        let event = diorama_core::vista::ChangeEvent::Updated { id, new: Some(new) };
        let (version, coercion) = (Some(version.into()), diorama_core::vista::Coercion::Typed);
        prop_assert_eq!(decoded.changes[0].clone().unwrap(), Change { event, version, partial, delivery: None, coercion });
    }
}
