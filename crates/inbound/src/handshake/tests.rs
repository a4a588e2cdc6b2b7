//! Handshakes as the senders' documentation shows them, and what strangers get.

use http::{HeaderMap, Method};
use jiff::Timestamp;

use super::*;
use crate::signature::{Graph, Hmac, Key, Sns, Twilio, UrlToken};

const NOW: i64 = 1_748_779_200;

fn keys(secret: &str) -> Vec<Key> {
    vec![Key::plain(secret).unwrap()]
}

fn headers(of: &[(&'static str, &str)]) -> HeaderMap {
    of.iter().map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap())).collect()
}

fn request<'a>(headers: &'a HeaderMap, query: Option<&'a str>, body: &'a str) -> Request<'a> {
    let now = Timestamp::from_second(NOW).unwrap();
    Request { method: &Method::POST, path: "/webhooks/a", query, headers, body: body.as_bytes(), now }
}

fn is_plain_text(reply: &Reply) -> bool {
    reply.status == StatusCode::OK
        && reply.headers[0] == (CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"))
}

fn signed(secret: &str, message: &str) -> String {
    use ::hmac::{KeyInit as _, Mac as _};
    let mut mac = ::hmac::Hmac::<sha2::Sha256>::new_from_slice(secret.as_bytes()).unwrap();
    mac.update(message.as_bytes());
    mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn graph_gets_its_token_decoded() {
    // Microsoft's page "Receive change notifications through webhooks", with a token as the service sends it.
    let hook = Hook::new(Scheme::Graph(Graph::new(["0123456789abcdef"]).unwrap()));
    let none = HeaderMap::new();
    let query =
        "validationToken=Validation%3a+Testing+client+application+reachability+for+subscription+Request-Id%3a+522a8e7e";
    let reply = hook.answer_before_verifying(&request(&none, Some(query), "whatever")).unwrap();
    let token = "Validation: Testing client application reachability for subscription Request-Id: 522a8e7e";
    assert!(is_plain_text(&reply) && reply.body == token, "{reply:?}");
    let long = format!("validationToken={}", "a".repeat(MOST_ECHO + 1));
    for other in [None, Some(""), Some("validationToken="), Some("validationToken=a%0D%0Ab"), Some(&*long)] {
        assert_eq!(hook.answer_before_verifying(&request(&none, other, "")), None, "{other:?}");
    }
    // Nobody else's hook gives it back.
    let other = Hook::new(Scheme::Hmac(Hmac::github(keys("a"))));
    assert_eq!(other.answer_before_verifying(&request(&none, Some(query), "")), None);
}

#[test]
fn asana_gets_its_secret_back_and_a_person_is_told_once_it_is_unknown() {
    // The handshake of Asana's page "Establish a webhook".
    let secret = "b537207f20cbfa02357cf448134da559e8bd39d61597dcd5631b8012eae53e81";
    let given = headers(&[("x-hook-secret", secret)]);
    let unset = Hook::new(Scheme::Hmac(Hmac::asana(Vec::new())));
    let reply = unset.answer_before_verifying(&request(&given, None, "{}")).unwrap();
    let echoed = reply.headers.iter().find(|(name, _)| *name == HOOK_SECRET).unwrap();
    assert!(reply.status == StatusCode::OK && reply.body.is_empty() && echoed.1 == secret && echoed.1.is_sensitive());
    assert_eq!(reply.notice, Some(Notice::UnknownSecret));
    assert!(!format!("{reply:?}").contains(secret));
    let set = Hook::new(Scheme::Hmac(Hmac::asana(keys(secret))));
    assert_eq!(set.answer_before_verifying(&request(&given, None, "{}")).unwrap().notice, None);
    // A delivery that shows a secret is a delivery.
    let both = headers(&[("x-hook-secret", secret), ("x-hook-signature", "00")]);
    assert_eq!(set.answer_before_verifying(&request(&both, None, "{}")), None);
    assert!(set.verify(&request(&both, None, "{}")).is_err());
    let long = headers(&[("x-hook-secret", &"a".repeat(MOST_SECRET + 1))]);
    assert_eq!(unset.answer_before_verifying(&request(&long, None, "")), None);
    assert_eq!(unset.answer_before_verifying(&request(&HeaderMap::new(), None, "")), None);
}

#[test]
fn meta_gets_its_challenge_only_with_the_verify_token() {
    // The request of Meta's page "Webhooks: getting started", with a longer token.
    let hook = Hook::new(Scheme::Hmac(Hmac::meta(keys("app-secret")))).verify_tokens(keys("meatyhamhock-0123456"));
    let none = HeaderMap::new();
    let ask = |query: &str| hook.challenge(&request(&none, Some(query), ""));
    let good = "hub.mode=subscribe&hub.challenge=1158201444&hub.verify_token=meatyhamhock-0123456";
    let reply = ask(good).unwrap().unwrap();
    assert!(is_plain_text(&reply) && reply.body == "1158201444");
    for (query, refused) in [
        (good.replace("subscribe", "unsubscribe"), Refusal::Signature),
        (good.replace("0123456", "012345"), Refusal::Signature),
        // The secret of the signatures is another.
        (good.replace("meatyhamhock-0123456", "app-secret"), Refusal::Signature),
        (good.replace("hub.verify_token", "verify_token"), Refusal::Missing),
        (good.replace("hub.challenge", "challenge"), Refusal::Missing),
        (good.replace("1158201444", "%3Cscript%3E%0A"), Refusal::Malformed),
    ] {
        assert_eq!(ask(&query), Some(Err(refused)), "{query}");
    }
    assert_eq!(ask("a=b"), None);
    assert_eq!(hook.challenge(&request(&none, None, "")), None);
    let unset = Hook::new(Scheme::Hmac(Hmac::meta(keys("app-secret"))));
    assert_eq!(unset.challenge(&request(&none, Some(good), "")), Some(Err(Refusal::Signature)));
    let empty = "hub.mode=subscribe&hub.challenge=1&hub.verify_token=";
    assert_eq!(unset.challenge(&request(&none, Some(empty), "")), Some(Err(Refusal::Signature)));
}

#[test]
fn dropbox_gets_its_challenge() {
    // The request of Dropbox's page "Webhooks".
    let hook = Hook::new(Scheme::Hmac(Hmac::dropbox(keys("a"))));
    let none = HeaderMap::new();
    let reply = hook.challenge(&request(&none, Some("challenge=abc123"), "")).unwrap().unwrap();
    assert!(is_plain_text(&reply) && reply.body == "abc123");
    assert_eq!(hook.challenge(&request(&none, Some("challenge=%00"), "")), Some(Err(Refusal::Malformed)));
    assert_eq!(hook.challenge(&request(&none, None, "")), None);
    let other = Hook::new(Scheme::Hmac(Hmac::github(keys("a"))));
    assert!(hook.has_challenge() && !other.has_challenge());
    assert_eq!(other.challenge(&request(&none, Some("challenge=abc123"), "")), None);
}

#[test]
fn zoom_gets_its_token_signed_with_the_secret_that_it_used() {
    // The request of Zoom's page "Using webhooks". The page does not tell the secret of its answer; secret and answer are those
    // of the Zoom test of Elastic's http_endpoint input.
    let body = r#"{"payload":{"plainToken":"qgg8vlvZRS6UYooatFL8Aw"},"event_ts":1654503849680,"event":"endpoint.url_validation"}"#;
    let expected = "70c1f2e2e6ca2d39297490d1f9142c7d701415ea8e6151f6562a08fa657a40ff";
    let secrets = ["old-secret", "secretValueTest"].map(|secret| Key::plain(secret).unwrap()).to_vec();
    let hook = Hook::new(Scheme::Hmac(Hmac::zoom(secrets)));
    let ask = |body: &str| {
        let signature = format!("v0={}", signed("secretValueTest", &format!("v0:{NOW}:{body}")));
        let given = headers(&[("x-zm-signature", &signature), ("x-zm-request-timestamp", &NOW.to_string())]);
        let request = request(&given, None, body);
        assert_eq!(hook.verify(&request), Ok(()));
        hook.answer_before_decoding(&request)
    };
    let reply = ask(body).unwrap();
    let told: serde_json::Value = serde_json::from_str(&reply.body).unwrap();
    assert_eq!(told, json!({ "plainToken": "qgg8vlvZRS6UYooatFL8Aw", "encryptedToken": expected }));
    assert_eq!(reply.headers[0].1, "application/json");
    assert_eq!(ask(&body.replace("url_validation", "other")), None);
    // What is signed for a sender must not be a delivery's signature.
    assert_eq!(ask(&body.replace("qgg8", &format!("v0:{NOW}:"))), None);
    let stranger = headers(&[("x-zm-signature", "v0=00"), ("x-zm-request-timestamp", &NOW.to_string())]);
    assert_eq!(hook.answer_before_decoding(&request(&stranger, None, body)), None);
}

#[test]
fn twitch_gets_its_challenge_and_its_revocations_are_told() {
    // Bodies of Twitch's page "Getting events using webhook callbacks".
    let challenge = r#"{"challenge":"pogchamp-kappa-360noscope-vohiyo","subscription":{"id":"f1c2a387","status":"webhook_callback_verification_pending","type":"channel.follow","version":"1"}}"#;
    let revoked =
        r#"{"subscription":{"id":"f1c2a387","status":"authorization_revoked","type":"channel.follow","cost":1}}"#;
    let hook = Hook::new(Scheme::Hmac(Hmac::twitch(keys("a"))));
    let ask = |kind: &str, body: &str| {
        let given = headers(&[("twitch-eventsub-message-type", kind)]);
        hook.answer_before_decoding(&request(&given, None, body))
    };
    let reply = ask("webhook_callback_verification", challenge).unwrap();
    assert!(is_plain_text(&reply) && reply.body == "pogchamp-kappa-360noscope-vohiyo");
    let reply = ask("revocation", revoked).unwrap();
    let notice = Notice::Revoked { subscription: "channel.follow".into(), reason: "authorization_revoked".into() };
    assert_eq!((reply.status, reply.notice), (StatusCode::NO_CONTENT, Some(notice)));
    assert_eq!(ask("notification", challenge), None);
    assert_eq!(ask("webhook_callback_verification", "{}"), None);
}

/// The body of Microsoft's page "Endpoint validation with Event Grid event schema".
const VALIDATION: &str = r#"[{
    "id": "2d1781af-3a4c-4d7c-bd0c-e34b19da4e66",
    "topic": "/subscriptions/aaaa0a0a-bb1b-cc2c-dd3d-eeeeee4e4e4e",
    "subject": "",
    "data": {
      "validationCode": "512d38b6-c7b8-40c8-89fe-f46f9e9622b6",
      "validationUrl": "https://rp-eastus2.eventgrid.azure.net:553/eventsubscriptions/myeventsub/validate?id=0&t=2018"
    },
    "eventType": "Microsoft.EventGrid.SubscriptionValidationEvent",
    "eventTime": "2018-01-25T22:12:19.4556811Z",
    "metadataVersion": "1",
    "dataVersion": "1"
}]"#;

#[test]
fn event_grid_gets_its_code_in_both_of_its_ways() {
    let hook = Hook::new(Scheme::Url(UrlToken::event_grid("code", keys("0123456789abcdef"))));
    let validation = headers(&[("aeg-event-type", "SubscriptionValidation")]);
    let reply = hook.answer_before_decoding(&request(&validation, None, VALIDATION)).unwrap();
    assert_eq!(reply.body, r#"{"validationResponse":"512d38b6-c7b8-40c8-89fe-f46f9e9622b6"}"#);
    assert_eq!(reply.headers[0].1, "application/json");
    let event = headers(&[("aeg-event-type", "Notification")]);
    assert_eq!(hook.answer_before_decoding(&request(&event, None, VALIDATION)), None);
    let other = VALIDATION.replace("SubscriptionValidationEvent", "SubscriptionDeletedEvent");
    assert_eq!(hook.answer_before_decoding(&request(&validation, None, &other)), None);
    // CloudEvents: OPTIONS, with the secret in the URL.
    let asking = headers(&[("webhook-request-origin", EVENT_GRID), ("webhook-request-rate", "120")]);
    let reply = hook.handshake(&request(&asking, Some("code=0123456789abcdef"), "")).unwrap();
    assert_eq!(reply.headers[0].1, EVENT_GRID);
    assert_eq!(hook.handshake(&request(&asking, Some("code=0123456789abcdeg"), "")), None);
    assert_eq!(hook.handshake(&request(&asking, None, "")), None);
    let evil = headers(&[("webhook-request-origin", "evil.example")]);
    assert_eq!(hook.handshake(&request(&evil, Some("code=0123456789abcdef"), "")), None);
}

#[test]
fn sns_is_confirmed_by_a_person() {
    // The message of AWS's page "HTTP/HTTPS subscription confirmation JSON format".
    let url = "https://sns.us-west-2.amazonaws.com/?Action=ConfirmSubscription&TopicArn=arn:aws:sns:us-west-2:123456789012:MyTopic&Token=2336412f37";
    let topic = "arn:aws:sns:us-west-2:123456789012:MyTopic";
    let body = format!(
        r#"{{"Type":"SubscriptionConfirmation","MessageId":"165545c9-2a5c-472c-8df2-7ff2be2b3b1b","Token":"2336412f37","TopicArn":"{topic}","Message":"You have chosen to subscribe to the topic {topic}.\nTo confirm the subscription, visit the SubscribeURL included in this message.","SubscribeURL":"{url}","Timestamp":"2012-04-26T20:45:04.751Z","SignatureVersion":"1"}}"#
    );
    let hook = Hook::new(Scheme::Sns(Sns::new("token", keys("0123456789abcdef"), vec![topic.into()])));
    let given = headers(&[("content-type", "text/plain; charset=UTF-8")]);
    let ask = |body: &str| {
        let request = request(&given, Some("token=0123456789abcdef"), body);
        assert_eq!(hook.verify(&request), Ok(()));
        hook.answer_before_decoding(&request)
    };
    let reply = ask(&body).unwrap();
    assert_eq!((reply.status, reply.body.as_str()), (StatusCode::OK, ""));
    assert_eq!(reply.notice, Some(Notice::Confirm { topic: topic.into(), url: url.into() }));
    let ended = ask(&body.replace("SubscriptionConfirmation", "UnsubscribeConfirmation")).unwrap();
    assert_eq!(ended.notice, Some(Notice::Unsubscribed { topic: topic.into() }));
    assert_eq!(ask(&body.replace("SubscriptionConfirmation", "Notification")), None);
}

#[test]
fn slack_tries_the_connection_of_a_command_out() {
    let hook = Hook::new(Scheme::Hmac(Hmac::slack(keys("a"))));
    let form = headers(&[("content-type", "application/x-www-form-urlencoded")]);
    let reply = hook.answer_before_decoding(&request(&form, None, "ssl_check=1&token=x")).unwrap();
    assert!(is_plain_text(&reply) && reply.body.is_empty());
    assert_eq!(hook.answer_before_decoding(&request(&form, None, "command=%2Fa&text=ssl_check")), None);
}

#[test]
fn forms_are_acknowledged_as_their_senders_show_it() {
    let (form, json) = ("application/x-www-form-urlencoded", "application/json");
    let slack = Hook::new(Scheme::Hmac(Hmac::slack(keys("a"))));
    let twilio = Hook::new(Scheme::Twilio(Twilio { secrets: keys("a"), public_url: None }));
    let shown = |hook: &Hook, kind: &str| {
        let given = headers(&[("content-type", kind)]);
        hook.acknowledgement(&request(&given, None, "")).map(|reply| reply.body)
    };
    assert_eq!(shown(&slack, form).as_deref(), Some(""));
    assert_eq!(shown(&twilio, form).as_deref(), Some("<Response></Response>"));
    assert_eq!((shown(&slack, json), shown(&twilio, json)), (None, None));
}
