//! Proofs of senders with the examples of their own documentation, and what must not pass.

use super::tests::{Parts, verified};
use super::*;

const FORM: &str = "application/x-www-form-urlencoded";
const NOW: i64 = 1_748_779_200;

fn keys(secret: &str) -> Vec<Key> {
    vec![Key::plain("another-secret").unwrap(), Key::plain(secret).unwrap()]
}

/// A delivery to try.
#[derive(Clone)]
struct Sent {
    headers: Vec<(&'static str, String)>,
    query: Option<String>,
    body: String,
    at: i64,
}

impl Sent {
    fn new(headers: &[(&'static str, &str)], query: Option<&str>, body: &str) -> Sent {
        let headers = headers.iter().map(|(name, value)| (*name, value.to_string())).collect();
        Sent { headers, query: query.map(str::to_string), body: body.into(), at: NOW }
    }

    fn verify(&self, scheme: &Scheme) -> Result<(), Refusal> {
        self.parts().request(|request| verified(scheme, request))
    }

    fn parts(&self) -> Parts {
        let (headers, query) = (self.headers.clone(), self.query.clone());
        Parts { headers, path: "/myapp.php", query, body: self.body.clone().into_bytes(), at: self.at * 1_000 }
    }

    fn with(&self, change: impl FnOnce(&mut Sent)) -> Sent {
        let mut other = self.clone();
        change(&mut other);
        other
    }
}

/// A delivery of each sender, and a scheme that it fits.
pub(super) fn examples() -> Vec<(Scheme, Parts)> {
    let (zoom, twitch_at) = (format!("v0={}", hex_of("k", &format!("v0:{NOW}:{{}}"))), "2025-06-01T12:00:00Z");
    let twitch = format!("sha256={}", hex_of("k", &format!("id{twitch_at}{{}}")));
    let airtable = r#"{"timestamp":"2025-06-01T12:00:00Z"}"#;
    let signed = hex_of("k", &format!("{NOW}t"));
    let mailgun = format!("timestamp={NOW}&token=t&signature={signed}");
    let mailgun_json = format!(r#"{{"signature":{{"timestamp":"{NOW}","token":"t","signature":"{signed}"}}}}"#);
    let topic = "arn:aws:sns:us-west-2:123456789012:MyTopic";
    let around = Message::parse("a{body}b{header:x-id}").unwrap();
    let around = Hmac { message: around, ..Hmac::new(keys("k"), HeaderName::from_static("x-signature")) };
    let sent = [
        (twilio(None), twilio_form()),
        (twilio(None), twilio_json()),
        (Scheme::Hmac(Hmac::zoom(keys("k"))), {
            Sent::new(&[("x-zm-signature", &zoom), ("x-zm-request-timestamp", &NOW.to_string())], None, "{}")
        }),
        (Scheme::Hmac(Hmac::twitch(keys("k"))), {
            let (id, at) = (("twitch-eventsub-message-id", "id"), ("twitch-eventsub-message-timestamp", twitch_at));
            Sent::new(&[id, at, ("twitch-eventsub-message-signature", &twitch)], None, "{}")
        }),
        (Scheme::Hmac(Hmac::airtable(keys("k"))), {
            let signature = format!("hmac-sha256={}", hex_of("k", airtable));
            Sent::new(&[("x-airtable-content-mac", &signature)], None, airtable)
        }),
        (Scheme::Hmac(around), { Sent::new(&[("x-signature", &hex_of("k", "a{}b7")), ("x-id", "7")], None, "{}") }),
        (Scheme::Mailgun(Mailgun { secrets: keys("k") }), Sent::new(&[("content-type", FORM)], None, &mailgun)),
        (Scheme::Mailgun(Mailgun { secrets: keys("k") }), Sent::new(&[], None, &mailgun_json)),
        (Scheme::Graph(Graph::new(["k"]).unwrap()), Sent::new(&[], None, r#"{"value":[{"clientState":"k"}]}"#)),
        (Scheme::Url(UrlToken::new("key", keys("k"))), Sent::new(&[], Some("key=k"), "{}")),
        (Scheme::Sns(Sns::new("token", keys("k"), vec![topic.into()])), Sent::new(&[], Some("token=k"), NOTIFICATION)),
    ];
    sent.into_iter().map(|(scheme, sent)| (scheme, sent.parts())).collect()
}

fn hex_of(secret: &str, message: &str) -> String {
    let key = Key::plain(secret).unwrap();
    mac::Mac::new(&key, Algorithm::Sha256).unwrap().feed(message.as_bytes()).hex()
}

/// The example of Twilio's page "Webhooks security", also in the tests of its libraries.
fn twilio_form() -> Sent {
    let body = "CallSid=CA1234567890ABCDE&Caller=%2B12349013030&Digits=1234&From=%2B12349013030&To=%2B18005551212";
    let headers =
        [("content-type", FORM), ("host", "mycompany.com"), ("x-twilio-signature", "0/KCTR6DLpKmkAf8muzZqo1nDgQ=")];
    Sent::new(&headers, Some("foo=1&bar=2"), body)
}

fn twilio(public_url: Option<&str>) -> Scheme {
    Scheme::Twilio(Twilio { secrets: keys("12345"), public_url: public_url.map(str::to_string) })
}

#[test]
fn twilio_signs_the_url_and_the_sorted_form() {
    let sent = twilio_form();
    assert_eq!(sent.verify(&twilio(None)), Ok(()));
    // The order of the form does not matter, its content does.
    let (first, rest) = sent.body.split_once('&').unwrap();
    assert_eq!(sent.with(|sent| sent.body = format!("{rest}&{first}")).verify(&twilio(None)), Ok(()));
    for (what, other) in [
        ("a field", sent.with(|sent| sent.body = sent.body.replace("1234&", "1235&"))),
        ("one more field", sent.with(|sent| sent.body += "&Z=1")),
        ("the query", sent.with(|sent| sent.query = Some("foo=1&bar=3".into()))),
        ("no query", sent.with(|sent| sent.query = None)),
        ("the host", sent.with(|sent| sent.headers[1].1 = "evil.example".into())),
        // What is not a form is not in the signature.
        ("the type", sent.with(|sent| sent.headers[0].1 = "application/json".into())),
        ("broken form", sent.with(|sent| sent.body += "&%")),
        ("two signatures", sent.with(|sent| sent.headers.push(sent.headers[2].clone()))),
        ("no signature", sent.with(|sent| drop(sent.headers.pop()))),
    ] {
        assert!(other.verify(&twilio(None)).is_err(), "{what}");
    }
    let other = Scheme::Twilio(Twilio { secrets: keys("12346"), public_url: None });
    assert_eq!(sent.verify(&other), Err(Refusal::Signature));
}

#[test]
fn twilio_knows_the_url_from_the_configuration_behind_a_proxy() {
    let sent = twilio_form().with(|sent| sent.headers[1].1 = "10.0.0.7:8080".into());
    assert_eq!(sent.verify(&twilio(None)), Err(Refusal::Signature));
    assert_eq!(sent.verify(&twilio(Some("https://mycompany.com/myapp.php"))), Ok(()));
    // Twilio's libraries try the URL with its port and without.
    assert_eq!(sent.verify(&twilio(Some("https://mycompany.com:443/myapp.php"))), Ok(()));
    assert!(sent.verify(&twilio(Some("http://mycompany.com/myapp.php"))).is_err());
}

/// From the tests of Twilio's libraries ("validate with body").
fn twilio_json() -> Sent {
    let query = "foo=1&bar=2&bodySHA256=0a1ff7634d9ab3b95db5c9a2dfe9416e41502b283a80c7cf19632632f96e6620";
    let headers = [
        ("content-type", "application/json"),
        ("host", "mycompany.com"),
        ("x-twilio-signature", "a9nBmqA0ju/hNViExpshrM61xv4="),
    ];
    Sent::new(&headers, Some(query), r#"{"property": "value", "boolean": true}"#)
}

#[test]
fn twilio_signs_the_hash_of_other_bodies() {
    let sent = twilio_json();
    assert_eq!(sent.verify(&twilio(None)), Ok(()));
    assert!(sent.with(|sent| sent.body = sent.body.replace("true", "null")).verify(&twilio(None)).is_err());
    assert!(sent.with(|sent| sent.query = Some("foo=1&bar=2".into())).verify(&twilio(None)).is_err());
}

#[test]
fn slack_signs_the_forms_of_commands() {
    // The example of Slack's page "Verifying requests from Slack".
    let body = "token=xyzz0WbapA4vBCDEFasx0q6G&team_id=T1DC2JH3J&team_domain=testteamnow&channel_id=G8PSS9T3V\
                &channel_name=foobar&user_id=U2CERLKJA&user_name=roadrunner&command=%2Fwebhook-collect&text=\
                &response_url=https%3A%2F%2Fhooks.slack.com%2Fcommands%2FT1DC2JH3J%2F397700885554%2F96rGlfmibIGlgcZRskXaIFfN\
                &trigger_id=398738663015.47445629121.803a0bc887a14d10d2c447fce8b6703c";
    let headers = [
        ("content-type", FORM),
        ("x-slack-signature", "v0=a2114d57b48eac39b9ad189dd8316235a7b4a8d21a10bd27519666489c69b503"),
        ("x-slack-request-timestamp", "1531420618"),
    ];
    let sent = Sent::new(&headers, None, body).with(|sent| sent.at = 1_531_420_618);
    let scheme = Scheme::Hmac(Hmac::slack(keys("8f742231b10e8888abcd99yyyzzz85a5")));
    assert_eq!(sent.verify(&scheme), Ok(()));
    assert_eq!(sent.with(|sent| sent.at += 301).verify(&scheme), Err(Refusal::Stale));
    assert_eq!(sent.with(|sent| sent.body += "&text=x").verify(&scheme), Err(Refusal::Signature));
}

#[test]
fn meta_signs_as_github_does() {
    // GitHub's page "Validating webhook deliveries": Meta uses the same header and the same hash with the app secret.
    let signature = "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17";
    let sent = Sent::new(&[("x-hub-signature-256", signature)], None, "Hello, World!");
    let scheme = Scheme::Hmac(Hmac::meta(keys("It's a Secret to Everybody")));
    assert_eq!(sent.verify(&scheme), Ok(()));
    assert_eq!(sent.with(|sent| sent.body += " ").verify(&scheme), Err(Refusal::Signature));
    assert_eq!(sent.with(|sent| sent.headers.clear()).verify(&scheme), Err(Refusal::Missing));
}

#[test]
fn dropbox_and_asana_sign_the_body_in_plain_digits() {
    // Bodies of Dropbox's page "Webhooks" and of Asana's guide; neither publishes a signature, so they are signed here.
    let dropbox = r#"{"list_folder": {"accounts": ["dbid:AAH4f99T0taONIb-OurWxbNQ6ywGRopQngc"]}, "delta": {"users": [12345678]}}"#;
    let asana = r#"{"events":[{"action":"changed","resource":{"gid":"1337","resource_type":"task"},"parent":null,"created_at":"2020-08-21T18:20:37.972Z","user":{"gid":"1123","resource_type":"user"},"change":{"field":"assignee","action":"changed","new_value":{"gid":"12345","resource_type":"user"}}}]}"#;
    let secret = "b537207f20cbfa02357cf448134da559e8bd39d61597dcd5631b8012eae53e81";
    for (scheme, name, body) in [
        (Hmac::dropbox(keys(secret)), "x-dropbox-signature", dropbox),
        (Hmac::asana(keys(secret)), "x-hook-signature", asana),
    ] {
        let scheme = Scheme::Hmac(scheme);
        let sent = Sent::new(&[(name, &hex_of(secret, body))], None, body);
        assert_eq!(sent.verify(&scheme), Ok(()));
        assert_eq!(sent.with(|sent| sent.body += " ").verify(&scheme), Err(Refusal::Signature));
        assert_eq!(sent.with(|sent| sent.headers[0].1.push('0')).verify(&scheme), Err(Refusal::Signature));
    }
    // Without a secret nothing is believed, whatever signs.
    let unset = Scheme::Hmac(Hmac::asana(Vec::new()));
    let sent = Sent::new(&[("x-hook-signature", &hex_of(secret, asana))], None, asana);
    assert_eq!(sent.verify(&unset), Err(Refusal::Signature));
}

#[test]
fn zoom_signs_time_and_body() {
    // The body of Zoom's page "Using webhooks"; its signature is made as the page says.
    let body = r#"{"payload":{"account_id":"D8cJuqWVQ623CI4Q8yQK0Q","object":{"uuid":"c1oqHLTYS5ynxV4KCjy/aQ==","id":86323839251}},"event_ts":1658940994914,"event":"meeting.updated"}"#;
    let signature = format!("v0={}", hex_of("zoom-secret", &format!("v0:{NOW}:{body}")));
    let headers = [("x-zm-signature", &*signature), ("x-zm-request-timestamp", "1748779200")];
    let (sent, scheme) = (Sent::new(&headers, None, body), Scheme::Hmac(Hmac::zoom(keys("zoom-secret"))));
    assert_eq!(sent.verify(&scheme), Ok(()));
    assert_eq!(sent.with(|sent| sent.body += " ").verify(&scheme), Err(Refusal::Signature));
    assert_eq!(sent.with(|sent| sent.headers[1].1 = "1748779201".into()).verify(&scheme), Err(Refusal::Signature));
    assert_eq!(sent.with(|sent| sent.at += 301).verify(&scheme), Err(Refusal::Stale));
    assert_eq!(sent.with(|sent| drop(sent.headers.pop())).verify(&scheme), Err(Refusal::Missing));
}

#[test]
fn twitch_signs_id_time_and_body() {
    // Headers as on Twitch's page "Getting events using webhook callbacks"; their signature is made as the page says.
    let (id, at) = ("e76c6bd4-55c9-4987-8304-da1588d8988b", "2019-11-16T10:11:12.634234626Z");
    let body = r#"{"subscription":{"type":"channel.follow"},"event":{"user_id":"1337","broadcaster_user_id":"12826"}}"#;
    let signature = format!("sha256={}", hex_of("s3cRe7", &format!("{id}{at}{body}")));
    let headers = [
        ("twitch-eventsub-message-id", id),
        ("twitch-eventsub-message-timestamp", at),
        ("twitch-eventsub-message-signature", &signature),
    ];
    let at = "2019-11-16T10:11:12Z".parse::<Timestamp>().unwrap().as_second();
    let sent = Sent::new(&headers, None, body).with(|sent| sent.at = at);
    let scheme = Scheme::Hmac(Hmac::twitch(keys("s3cRe7")));
    assert_eq!(sent.verify(&scheme), Ok(()));
    assert_eq!(sent.with(|sent| sent.at += 301).verify(&scheme), Err(Refusal::Stale));
    assert_eq!(sent.with(|sent| sent.at -= 301).verify(&scheme), Err(Refusal::Stale));
    let other = sent.with(|sent| sent.headers[0].1 = "another".into());
    assert_eq!(other.verify(&scheme), Err(Refusal::Signature));
    let other = sent.with(|sent| sent.headers[1].1 = "2019-11-16T10:11:13Z".into());
    assert_eq!(other.verify(&scheme), Err(Refusal::Signature));
    assert_eq!(sent.with(|sent| sent.headers.truncate(2)).verify(&scheme), Err(Refusal::Missing));
}

#[test]
fn mailgun_signs_a_time_and_a_token_in_the_body() {
    // Time and token of Mailgun's page "Securing webhooks", whose key is not published, so that they are signed here.
    let (time, token, key) = ("1529006854", "a8ce0edb2dd8301dee6c2405235584e45aa91d1e9f979f3de0", "key-of-mailgun");
    let signature = hex_of(key, &format!("{time}{token}"));
    let json = format!(
        r#"{{"signature":{{"timestamp":"{time}","token":"{token}","signature":"{signature}"}},"event-data":{{"event":"opened"}}}}"#
    );
    let form = format!("recipient=a%40b.example&timestamp={time}&token={token}&signature={signature}");
    let scheme = Scheme::Mailgun(Mailgun { secrets: keys(key) });
    for (kind, body) in [("application/json", &json), (FORM, &form)] {
        let sent = Sent::new(&[("content-type", kind)], None, body).with(|sent| sent.at = 1_529_006_854);
        assert_eq!(sent.verify(&scheme), Ok(()), "{kind}");
        assert_eq!(sent.with(|sent| sent.at += 301).verify(&scheme), Err(Refusal::Stale), "{kind}");
        let other = sent.with(|sent| sent.body = sent.body.replace("a8ce", "a8cf"));
        assert_eq!(other.verify(&scheme), Err(Refusal::Signature), "{kind}");
        let other = sent.with(|sent| sent.body = sent.body.replace("token", "nekot"));
        assert_eq!(other.verify(&scheme), Err(Refusal::Malformed), "{kind}");
    }
    let twice = Sent::new(&[("content-type", FORM)], None, &format!("{form}&token=x"));
    assert_eq!(twice.verify(&scheme), Err(Refusal::Malformed));
}

#[test]
fn graph_repeats_the_client_state_in_every_notification() {
    // The notification of Microsoft's page "Receive change notifications through webhooks", with another clientState.
    let notification = |state: &str| {
        format!(
            r##"{{"id":"lsgTZMr9KwAAA","subscriptionId":"76619225-ff6b-4489-96ca-4ef547e78b22","subscriptionExpirationDateTime":"2016-03-20T11:00:00.0000000Z",{state}"changeType":"created","resource":"users/ddfcd489/messages/AAMkADMxZmEtODk3My","resourceData":{{"@odata.type":"#Microsoft.Graph.Message","id":"AAMkADMxZmEtODk3My"}}}}"##
        )
    };
    let good = notification(r#""clientState":"secret-client-value","#);
    let body = |items: &[&str]| format!(r#"{{"value":[{}]}}"#, items.join(","));
    let scheme = Scheme::Graph(Graph::new(["another-client-value", "secret-client-value"]).unwrap());
    let verify = |body: &str| Sent::new(&[("content-type", "application/json")], None, body).verify(&scheme);
    assert_eq!(verify(&body(&[&good, &good])), Ok(()));
    let wrong = notification(r#""clientState":"secret-client-valuE","#);
    assert_eq!(verify(&body(&[&good, &wrong])), Err(Refusal::Signature));
    assert_eq!(verify(&body(&[&good, &notification("")])), Err(Refusal::Signature));
    assert_eq!(verify(&body(&[&notification(r#""clientState":null,"#)])), Err(Refusal::Signature));
    assert_eq!(verify(&body(&[])), Err(Refusal::Missing));
    for bad in ["", "{}", "[]", r#"{"value":[{"clientState":"secret-client-value","clientState":"x"}]}"#] {
        assert_eq!(verify(bad), Err(Refusal::Malformed), "{bad}");
    }
    assert!(Graph::new(["a\"b"]).is_err() && Graph::new([&*"a".repeat(129)]).is_err());
    let mut kept = body(&[&good, &good]).into_bytes();
    let length = kept.len();
    scheme.redact(&mut kept);
    let kept = String::from_utf8(kept).unwrap();
    assert!(!kept.contains("secret-client") && kept.matches("*******************").count() == 2, "{kept}");
    assert_eq!(kept.len(), length);
}

#[test]
fn a_secret_in_the_url_is_compared_decoded() {
    let scheme = Scheme::Url(UrlToken::new("key", keys("s3cr3t/0123456789")));
    let verify = |query: Option<&str>| Sent::new(&[], query, "{}").verify(&scheme);
    assert_eq!(verify(Some("a=1&key=s3cr3t%2F0123456789")), Ok(()));
    assert_eq!(verify(Some("key=s3cr3t/0123456789")), Ok(()));
    assert_eq!(verify(Some("key=s3cr3t%2F012345678")), Err(Refusal::Signature));
    assert_eq!(verify(Some("key=")), Err(Refusal::Signature));
    for none in [None, Some(""), Some("Key=s3cr3t/0123456789"), Some("key=%FF")] {
        assert_eq!(verify(none), Err(Refusal::Missing), "{none:?}");
    }
}

/// The message of AWS's page "HTTP/HTTPS notification JSON format".
const NOTIFICATION: &str = r#"{
  "Type" : "Notification",
  "MessageId" : "22b80b92-fdea-4c2c-8f9d-bdfb0c7bf324",
  "TopicArn" : "arn:aws:sns:us-west-2:123456789012:MyTopic",
  "Subject" : "My First Message",
  "Message" : "Hello world!",
  "Timestamp" : "2012-05-02T00:54:06.655Z",
  "SignatureVersion" : "1",
  "Signature" : "EXAMPLEw6JRN...",
  "SigningCertURL" : "https://sns.us-west-2.amazonaws.com/SimpleNotificationService-f3ecfb7224c7233fe7bb5f59f96de52f.pem",
  "UnsubscribeURL" : "https://sns.us-west-2.amazonaws.com/?Action=Unsubscribe&SubscriptionArn=arn:aws:sns:us-west-2:123456789012:MyTopic:c9135db0-26c4-47ec-8998-413945fb5a96"
}"#;

#[test]
fn sns_has_a_secret_in_the_url_and_expected_topics() {
    let topic = "arn:aws:sns:us-west-2:123456789012:MyTopic";
    let scheme = |secret| Scheme::Sns(Sns::new("token", keys(secret), vec![topic.into()]));
    let headers = [("content-type", "text/plain; charset=UTF-8"), ("x-amz-sns-topic-arn", topic)];
    let sent = Sent::new(&headers, Some("token=0123456789abcdef"), NOTIFICATION);
    let own = scheme("0123456789abcdef");
    assert_eq!(sent.verify(&own), Ok(()));
    assert_eq!(sent.with(|sent| drop(sent.headers.pop())).verify(&own), Ok(()));
    assert_eq!(sent.with(|sent| sent.query = None).verify(&own), Err(Refusal::Missing));
    assert_eq!(sent.verify(&scheme("0123456789abcdeg")), Err(Refusal::Signature));
    assert_eq!(
        sent.with(|sent| sent.body = NOTIFICATION.replace("MyTopic\"", "Mine\"")).verify(&own),
        Err(Refusal::Topic)
    );
    assert_eq!(sent.with(|sent| sent.headers[1].1 += "2").verify(&own), Err(Refusal::Topic));
    assert_eq!(sent.with(|sent| sent.body = "{}".into()).verify(&own), Err(Refusal::Malformed));
    // SNS sends user and password of the URL as Basic, after a 401 that asks for it.
    let basic = sent.with(|sent| {
        sent.query = None;
        sent.headers.push(("authorization", "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==".into()));
    });
    // User and password of RFC 7617's first draft, RFC 2617.
    assert_eq!(basic.verify(&scheme("Aladdin:open sesame")), Ok(()));
    assert_eq!(basic.verify(&scheme("Aladdin:open sesam")), Err(Refusal::Signature));
    assert_eq!(own.authenticate(), Some("Basic realm=\"webhook\""));
    let raw = sent.with(|sent| {
        sent.headers.push(("x-amz-sns-rawdelivery", "true".into()));
        sent.body = "anything".into();
    });
    assert_eq!(raw.verify(&own), Ok(()));
    assert_eq!(raw.with(|sent| drop(sent.headers.remove(1))).verify(&own), Err(Refusal::Missing));
}

#[test]
fn sns_is_not_believed_to_live_elsewhere() {
    let own = Scheme::Sns(Sns::new("token", keys("0123456789abcdef"), vec!["arn:aws:sns:a:1:b".into()]));
    let verify = |url: &str| {
        let body = format!(r#"{{"Type":"SubscriptionConfirmation","TopicArn":"arn:aws:sns:a:1:b"{url}}}"#);
        Sent::new(&[], Some("token=0123456789abcdef"), &body).verify(&own)
    };
    assert_eq!(verify(r#","SubscribeURL":"https://sns.us-west-2.amazonaws.com/?Action=ConfirmSubscription""#), Ok(()));
    assert_eq!(verify(r#","SubscribeURL":"https://sns.us-west-2.evil.example/""#), Err(Refusal::Address));
    assert_eq!(verify(""), Err(Refusal::Malformed));
}

#[test]
fn secrets_are_not_printed() {
    let secret = "s3cr3t-0123456789";
    let schemes = [
        Scheme::Url(UrlToken::new("token", keys(secret))),
        Scheme::Sns(Sns::new("token", keys(secret), Vec::new())),
        Scheme::Twilio(Twilio { secrets: keys(secret), public_url: None }),
        Scheme::Mailgun(Mailgun { secrets: keys(secret) }),
        Scheme::Graph(Graph::new([secret]).unwrap()),
        Scheme::Hmac(Hmac::asana(keys(secret))),
    ];
    assert!(!format!("{schemes:?}").contains("s3cr3t"));
}
