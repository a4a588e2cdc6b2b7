//! Handshakes, forms and compressed bodies of webhook senders, over HTTP.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::process::Stdio;
use std::time::Instant;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use flate2::Compression;
use flate2::write::GzEncoder;
use hmac::{KeyInit as _, Mac as _};
use serde_json::{Value, json};

use crate::process::{Answer, PATIENCE, Server, TOKEN, command, folder, serving};

/// A secret of every hook but those that send it as it is.
const SECRET: &str = "secretValueTest";

const CONFIG: &str = r#"
[lens]
cache = "memory"

[dio.orders]
source = { csv = "orders.csv" }

[webhook.graph]
dio = "orders"
auth = { scheme = "graph", secrets = ["env:TOKEN"] }
format = "graph"
only = "message"

[webhook.meta]
dio = "orders"
auth = { scheme = "meta", secrets = ["env:SECRET"], verify_tokens = ["env:TOKEN"] }
format = "meta"
only = "page"

[webhook.dropbox]
dio = "orders"
auth = { scheme = "dropbox", secrets = ["env:SECRET"] }
format = "dropbox"

[webhook.zoom]
dio = "orders"
auth = { scheme = "zoom", secrets = ["env:SECRET"] }
format = "zoom"
only = "meeting"
rate = 1

[webhook.twitch]
dio = "orders"
auth = { scheme = "twitch", secrets = ["env:SECRET"] }
format = "twitch"
only = "channel"

[webhook.asana]
dio = "orders"
auth = { scheme = "asana" }
format = "asana"
only = "task"

[webhook.grid]
dio = "orders"
auth = { scheme = "eventgrid", parameter = "code", secrets = ["env:TOKEN"] }
format = "eventgrid"
only = "Microsoft.Storage.Blob"

[webhook.sns]
dio = "orders"
auth = { scheme = "sns", secrets = ["env:TOKEN", "env:USER_AND_PASSWORD"], topics = ["arn:aws:sns:us-west-2:123456789012:MyTopic"] }

[webhook.slack]
dio = "orders"
auth = { scheme = "slack", secrets = ["env:SECRET"] }

[webhook.slack.map]
op = "upsert"
id = ["/actions/0/value", "/text"]
row = { sel = "", pick = ["channel_name"], rename = { channel_name = "name" } }
row_mode = "partial"

[webhook.twilio]
dio = "orders"
auth = { scheme = "twilio", secrets = ["env:SECRET"], public_url = "https://shop.example/webhooks/twilio" }

[webhook.twilio.map]
op = "upsert"
id = "/MessageSid"
row = { sel = "", pick = ["Body"], rename = { Body = "name" } }

[webhook.mailgun]
dio = "orders"
auth = { scheme = "mailgun", secrets = ["env:SECRET"] }

[webhook.mailgun.map]
op = "upsert"
id = "/event-data/id"
row = { sel = "/event-data", pick = ["event"], rename = { event = "name" } }

[webhook.github]
dio = "orders"
auth = { scheme = "github", secrets = ["env:SECRET"] }
"#;

fn start(dir: &std::path::Path) -> Server {
    std::fs::write(dir.join("diorama.toml"), CONFIG).unwrap();
    std::fs::write(dir.join("orders.csv"), "id,name\nm1,Muffin\n").unwrap();
    let mut command = serving(dir, &[]);
    let log = std::fs::File::create(dir.join("log.txt")).unwrap();
    command.env("SECRET", SECRET).env("USER_AND_PASSWORD", "sns:0123456789abcdef").stderr(Stdio::from(log));
    let mut server = Server::spawn(&mut command);
    server.wait_for("ready");
    server
}

fn now() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn sha256(message: &[u8]) -> String {
    let mut mac = hmac::Hmac::<sha2::Sha256>::new_from_slice(SECRET.as_bytes()).unwrap();
    mac.update(message);
    hex(&mac.finalize().into_bytes())
}

/// A `POST` with JSON.
fn post(server: &Server, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
    let all: Vec<_> = [("content-type", "application/json")].iter().chain(headers).copied().collect();
    server.request("POST", path, &all, body)
}

/// Deliveries of a hook that are kept.
fn kept(server: &Server, hook: &str) -> Vec<Value> {
    let answer = server.get(&format!("/webhooks/{hook}/deliveries"));
    assert_eq!(answer.status, 200, "{}", answer.body);
    serde_json::from_str(&answer.body).unwrap()
}

/// Waits until the row is there: what is only told of is read from the source first.
fn row(server: &Server, id: &str) -> Value {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let answer = server.get(&format!("/orders/{id}"));
        if answer.status == 200 {
            return answer.json();
        }
        assert!(Instant::now() < deadline, "{}", answer.body);
    }
}

fn is_plain_text(answer: &Answer, body: &str) -> bool {
    answer.status == 200
        && answer.body == body
        && answer.raw_header("content-type") == Some("text/plain; charset=utf-8")
        && answer.raw_header("x-content-type-options") == Some("nosniff")
}

#[test]
fn microsoft_graph_gets_its_token_and_strangers_get_nothing_else() {
    let dir = folder();
    let server = start(dir.path());
    let token = "/webhooks/graph?validationToken=Validation%3a+Testing+client%3Cb%3E";
    let answer = server.request("POST", token, &[("content-type", "text/plain; charset=utf-8")], "");
    assert!(is_plain_text(&answer, "Validation: Testing client<b>"), "{answer:?}");
    let body = |state: &str| {
        json!({ "value": [{ "clientState": state, "changeType": "updated", "resource": "me/messages/1",
            "resourceData": { "@odata.type": "#Microsoft.Graph.Message", "id": "1" } }] })
        .to_string()
    };
    let refused = post(&server, "/webhooks/graph", &[], &body("s3cr3t-0123456788"));
    assert_eq!((refused.status, refused.json()["code"].as_str()), (401, Some("signature-invalid")));
    let taken = post(&server, "/webhooks/graph", &[], &body(TOKEN));
    assert_eq!(taken.status, 200, "{}", taken.body);
    let kept = kept(&server, "graph");
    assert_eq!(kept.len(), 1, "the handshake is no delivery: {kept:?}");
    let whole = server.get(kept[0]["links"]["self"].as_str().unwrap());
    assert!(!whole.body.contains(TOKEN) && whole.body.contains("Microsoft.Graph.Message"), "{}", whole.body);
    let id = kept[0]["id"].as_str().unwrap();
    let replayed = server.post(&format!("/webhooks/graph/deliveries/{id}/replay"), "");
    assert_eq!(replayed.status, 200, "it can be applied again: {}", replayed.body);
}

#[test]
fn meta_and_dropbox_ask_by_get() {
    let dir = folder();
    let server = start(dir.path());
    let ask = |token: &str| {
        let query = format!("hub.mode=subscribe&hub.challenge=1158201444&hub.verify_token={token}");
        server.get(&format!("/webhooks/meta?{query}"))
    };
    assert!(is_plain_text(&ask(TOKEN), "1158201444"));
    let wrong = ask("s3cr3t-0123456788");
    assert_eq!((wrong.status, wrong.json()["code"].as_str()), (401, Some("signature-invalid")));
    assert!(!wrong.body.contains("1158201444"));
    let none = server.get("/webhooks/meta");
    assert_eq!((none.status, none.raw_header("allow")), (405, Some("GET, HEAD, POST, OPTIONS")));
    assert!(is_plain_text(&server.get("/webhooks/dropbox?challenge=abc123"), "abc123"));
    assert!(is_plain_text(&server.get("/webhooks/dropbox/?challenge=abc123"), "abc123"));
    let other = server.get("/webhooks/zoom?challenge=abc123");
    assert_eq!((other.status, other.raw_header("allow")), (405, Some("POST, OPTIONS")));
    assert_eq!(server.get("/webhooks/nothing?challenge=abc123").status, 404);
    let body = r#"{"object":"page","entry":[{"id":"1","time":1520383571,"changes":[]}]}"#;
    let signature = format!("sha256={}", sha256(body.as_bytes()));
    assert_eq!(post(&server, "/webhooks/meta", &[("x-hub-signature-256", &signature)], body).status, 200);
    let body = r#"{"list_folder":{"accounts":["dbid:AAH4f99T0taONIb"]}}"#;
    let signature = sha256(body.as_bytes());
    assert_eq!(post(&server, "/webhooks/dropbox/", &[("x-dropbox-signature", &signature)], body).status, 200);
    assert_eq!(post(&server, "/webhooks/dropbox", &[("x-dropbox-signature", &signature)], "{}").status, 401);
    assert_eq!((kept(&server, "meta").len(), kept(&server, "dropbox").len()), (1, 1));
}

#[test]
fn zoom_is_answered_when_its_deliveries_are_too_many() {
    let dir = folder();
    let server = start(dir.path());
    let send = |body: &str, at: u64| {
        let signature = format!("v0={}", sha256(format!("v0:{at}:{body}").as_bytes()));
        post(
            &server,
            "/webhooks/zoom",
            &[("x-zm-signature", &signature), ("x-zm-request-timestamp", &at.to_string())],
            body,
        )
    };
    let event = |id: u64| format!(r#"{{"event":"meeting.updated","payload":{{"object":{{"id":{id}}}}}}}"#);
    assert_eq!(send(&event(1), now()).status, 200);
    let full = (2..60).map(|id| send(&event(id), now())).any(|answer| answer.status == 429);
    assert!(full, "one delivery a second");
    let body = r#"{"payload":{"plainToken":"qgg8vlvZRS6UYooatFL8Aw"},"event_ts":1654503849680,"event":"endpoint.url_validation"}"#;
    let answer = send(body, now());
    let encrypted = "70c1f2e2e6ca2d39297490d1f9142c7d701415ea8e6151f6562a08fa657a40ff";
    assert_eq!(answer.status, 200);
    assert_eq!(answer.json(), json!({ "plainToken": "qgg8vlvZRS6UYooatFL8Aw", "encryptedToken": encrypted }));
    assert_eq!(send(body, now() - 400).status, 401);
    let unsigned = post(&server, "/webhooks/zoom", &[], body);
    assert!(unsigned.status == 401 && !unsigned.body.contains("encryptedToken"));
    assert!(kept(&server, "zoom").iter().all(|delivery| delivery["state"] != "undecodable"));
}

#[test]
fn twitch_gets_its_challenge_and_a_revocation_is_in_the_log() {
    let dir = folder();
    let server = start(dir.path());
    let send = |kind: &str, id: &str, body: &str| {
        let at = jiff::Timestamp::now().to_string();
        let signature = format!("sha256={}", sha256(format!("{id}{at}{body}").as_bytes()));
        let headers = [
            ("twitch-eventsub-message-id", id),
            ("twitch-eventsub-message-timestamp", &at),
            ("twitch-eventsub-message-signature", &signature),
            ("twitch-eventsub-message-type", kind),
        ];
        post(&server, "/webhooks/twitch", &headers, body)
    };
    let subscription = r#""subscription":{"status":"authorization_revoked","type":"channel.follow"}"#;
    let challenge = format!(r#"{{"challenge":"pogchamp-kappa-360noscope-vohiyo",{subscription}}}"#);
    let answer = send("webhook_callback_verification", "a", &challenge);
    assert!(is_plain_text(&answer, "pogchamp-kappa-360noscope-vohiyo"), "{answer:?}");
    assert_eq!(send("revocation", "b", &format!("{{{subscription}}}")).status, 204);
    assert!(kept(&server, "twitch").is_empty());
    let event = format!(r#"{{{subscription},"event":{{"broadcaster_user_id":"1","user_id":"2"}}}}"#);
    assert_eq!(send("notification", "c", &event).json()["duplicate"], false);
    assert_eq!(send("notification", "c", &event).json()["duplicate"], true);
    let unsigned = post(&server, "/webhooks/twitch", &[("twitch-eventsub-message-type", "revocation")], "{}");
    assert_eq!(unsigned.status, 401);
    let log = std::fs::read_to_string(dir.path().join("log.txt")).unwrap();
    assert!(log.contains("Twitch has revoked") && log.contains("authorization_revoked"), "{log}");
}

#[test]
fn asana_is_greeted_and_not_believed_until_its_secret_is_configured() {
    let dir = folder();
    let server = start(dir.path());
    let secret = "b537207f20cbfa02357cf448134da559e8bd39d61597dcd5631b8012eae53e81";
    let answer = post(&server, "/webhooks/asana", &[("x-hook-secret", secret)], "{}");
    assert_eq!((answer.status, answer.raw_header("x-hook-secret")), (200, Some(secret)));
    let body = r#"{"events":[{"action":"changed","resource":{"gid":"1","resource_type":"task"}}]}"#;
    let mut mac = hmac::Hmac::<sha2::Sha256>::new_from_slice(secret.as_bytes()).unwrap();
    mac.update(body.as_bytes());
    let signature = hex(&mac.finalize().into_bytes());
    assert_eq!(post(&server, "/webhooks/asana", &[("x-hook-signature", &signature)], body).status, 401);
    assert!(kept(&server, "asana").is_empty());
    let log = std::fs::read_to_string(dir.path().join("log.txt")).unwrap();
    assert!(log.contains("auth.secrets") && !log.contains(secret), "{log}");
    drop(server);
    let config = CONFIG.replace(r#"scheme = "asana" }"#, r#"scheme = "asana", secrets = ["env:ASANA"] }"#);
    std::fs::write(dir.path().join("diorama.toml"), config).unwrap();
    let mut command = serving(dir.path(), &[]);
    command.env("SECRET", SECRET).env("USER_AND_PASSWORD", "sns:0123456789abcdef").env("ASANA", secret);
    let mut server = Server::spawn(command.stderr(Stdio::null()));
    server.wait_for("ready");
    assert_eq!(post(&server, "/webhooks/asana", &[("x-hook-signature", &signature)], body).status, 200);
    assert_eq!(post(&server, "/webhooks/asana", &[("x-hook-signature", &signature)], "{}").status, 401);
}

#[test]
fn azure_event_grid_gets_its_code_with_the_secret_in_the_url() {
    let dir = folder();
    let server = start(dir.path());
    let body = r#"[{"id":"2d1781af","eventType":"Microsoft.EventGrid.SubscriptionValidationEvent","data":{"validationCode":"512d38b6-c7b8-40c8-89fe-f46f9e9622b6"}}]"#;
    let kind = [("aeg-event-type", "SubscriptionValidation")];
    let own = format!("/webhooks/grid?code={TOKEN}");
    let answer = post(&server, &own, &kind, body);
    assert_eq!(answer.json(), json!({ "validationResponse": "512d38b6-c7b8-40c8-89fe-f46f9e9622b6" }));
    let stranger = post(&server, "/webhooks/grid?code=wrong", &kind, body);
    assert!(stranger.status == 401 && !stranger.body.contains("512d38b6"));
    let asking = [("webhook-request-origin", "eventgrid.azure.net")];
    let allowed = |path: &str| server.request("OPTIONS", path, &asking, "");
    assert_eq!(allowed(&own).raw_header("webhook-allowed-origin"), Some("eventgrid.azure.net"));
    assert_eq!(allowed("/webhooks/grid").raw_header("webhook-allowed-origin"), None);
    let event = r#"[{"id":"1","subject":"1","eventType":"Microsoft.Storage.BlobRenamed","data":{}}]"#;
    assert_eq!(post(&server, &own, &[("aeg-event-type", "Notification")], event).status, 200);
    let kept = kept(&server, "grid");
    let whole = server.get(kept[0]["links"]["self"].as_str().unwrap());
    assert!(kept.len() == 1 && !whole.body.contains(TOKEN), "{}", whole.body);
    assert_eq!(whole.json()["uri"], "/webhooks/grid?code=[redacted]");
}

#[test]
fn amazon_sns_is_confirmed_by_a_person_and_read_without_its_envelope() {
    let dir = folder();
    let server = start(dir.path());
    let topic = "arn:aws:sns:us-west-2:123456789012:MyTopic";
    let url = "https://sns.us-west-2.amazonaws.com/?Action=ConfirmSubscription&TopicArn=arn:aws:sns:us-west-2:123456789012:MyTopic&Token=2336412f37";
    let message = |kind: &str, more: Value| {
        let mut message = json!({ "Type": kind, "MessageId": "165545c9", "TopicArn": topic });
        message.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        message.to_string()
    };
    let send = |path: &str, headers: &[(&str, &str)], body: &str| {
        let own = [
            ("content-type", "text/plain; charset=UTF-8"),
            ("x-amz-sns-topic-arn", topic),
            ("x-amz-sns-message-id", "165545c9"),
        ];
        let all: Vec<_> = own.iter().chain(headers).copied().collect();
        server.request("POST", path, &all, body)
    };
    let own = format!("/webhooks/sns?token={TOKEN}");
    let confirm = message("SubscriptionConfirmation", json!({ "SubscribeURL": url, "Token": "2336412f37" }));
    let stranger = send("/webhooks/sns", &[], &confirm);
    assert_eq!((stranger.status, stranger.raw_header("www-authenticate")), (401, Some("Basic realm=\"webhook\"")));
    assert!(server.get("/").json()["webhooks"]["sns"].get("confirm").is_none());
    let answer = send(&own, &[], &confirm);
    assert_eq!((answer.status, answer.body.as_str()), (200, ""));
    assert_eq!(server.get("/").json()["webhooks"]["sns"]["confirm"], json!([url]));
    assert!(std::fs::read_to_string(dir.path().join("log.txt")).unwrap().contains(url));
    let elsewhere = message("SubscriptionConfirmation", json!({ "SubscribeURL": "https://evil.example/" }));
    assert_eq!(send(&own, &[], &elsewhere).status, 401);
    assert!(kept(&server, "sns").is_empty());
    let change = json!({ "Message": r#"{"op":"upsert","id":"7","new":{"name":"Bun"}}"# });
    let password = format!("Basic {}", STANDARD.encode("sns:0123456789abcdef"));
    let taken = send("/webhooks/sns", &[("authorization", &password)], &message("Notification", change.clone()));
    assert_eq!((taken.status, taken.json()["received"].as_u64()), (200, Some(1)), "{}", taken.body);
    assert!(server.get("/").json()["webhooks"]["sns"].get("confirm").is_none(), "its messages come");
    let again = send(&own, &[], &message("Notification", change));
    assert_eq!(again.json()["duplicate"], true, "{}", again.body);
}

#[test]
fn forms_of_slack_and_twilio_are_read_and_acknowledged_as_they_need_it() {
    let dir = folder();
    let server = start(dir.path());
    let form = ("content-type", "application/x-www-form-urlencoded");
    let slack = |body: &str| {
        let at = now().to_string();
        let signature = format!("v0={}", sha256(format!("v0:{at}:{body}").as_bytes()));
        let headers = [form, ("x-slack-signature", &signature), ("x-slack-request-timestamp", &at)];
        server.request("POST", "/webhooks/slack", &headers, body)
    };
    // A slash command, and what a button sends.
    let answer =
        slack("command=%2Fweather&text=94070&channel_name=test&response_url=https%3A%2F%2Fhooks.slack.com%2F1");
    assert!(is_plain_text(&answer, ""), "{answer:?}");
    assert_eq!(answer.raw_header("dio-durable"), Some("memory"));
    let interactive =
        "payload=%7B%22type%22%3A%22block_actions%22%2C%22actions%22%3A%5B%7B%22value%22%3A%221%22%7D%5D%7D";
    assert!(is_plain_text(&slack(interactive), ""));
    assert!(is_plain_text(&slack("ssl_check=1&token=x"), ""));
    let states: Vec<Value> = kept(&server, "slack").iter().map(|delivery| delivery["state"].clone()).collect();
    assert_eq!(states.len(), 2, "{states:?}");
    assert!(!states.contains(&json!("undecodable")), "{states:?}");
    let twilio = |body: &str, signed: &str| {
        let mut mac = hmac::Hmac::<sha1::Sha1>::new_from_slice(SECRET.as_bytes()).unwrap();
        mac.update(format!("https://shop.example/webhooks/twilio?a=1{signed}").as_bytes());
        let signature = STANDARD.encode(mac.finalize().into_bytes());
        server.request("POST", "/webhooks/twilio?a=1", &[form, ("x-twilio-signature", &signature)], body)
    };
    let answer = twilio("MessageSid=SM1&Body=Crois%C3%A9e+1", "BodyCroisée 1MessageSidSM1");
    assert_eq!((answer.status, answer.body.as_str()), (200, "<Response></Response>"));
    assert_eq!(answer.raw_header("content-type"), Some("text/xml; charset=utf-8"));
    assert_eq!(row(&server, "SM1")["name"], "Croisée 1");
    assert_eq!(twilio("MessageSid=SM1&Body=other", "BodyCroisée 1MessageSidSM1").status, 401);
}

#[test]
fn mailgun_signs_in_the_body_and_a_token_counts_once() {
    let dir = folder();
    let server = start(dir.path());
    let body = |id: &str| {
        let (at, token) = (now().to_string(), "a8ce0edb2dd8301dee6c2405235584e45aa91d1e9f979f3de0");
        let signature =
            json!({ "timestamp": at, "token": token, "signature": sha256(format!("{at}{token}").as_bytes()) });
        json!({ "signature": signature, "event-data": { "id": id, "event": "opened" } }).to_string()
    };
    let taken = post(&server, "/webhooks/mailgun", &[], &body("DACSsAdVSeGpLid7TN03WA"));
    assert_eq!(taken.status, 200, "{}", taken.body);
    assert_eq!(row(&server, "DACSsAdVSeGpLid7TN03WA")["name"], "opened");
    let forged = post(&server, "/webhooks/mailgun", &[], &body("another"));
    assert_eq!(forged.json()["duplicate"], true, "the event is not signed: {}", forged.body);
    assert_eq!(post(&server, "/webhooks/mailgun", &[], &body("x").replace("a8ce", "a8cf")).status, 401);
}

/// A `POST` of bytes.
fn post_bytes(server: &Server, path: &str, headers: &[(&str, &str)], body: &[u8]) -> (u16, String) {
    let mut stream = TcpStream::connect(&server.address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut head = format!("POST {path} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n", server.address);
    head += &format!("content-type: application/json\r\ncontent-length: {}\r\n", body.len());
    for (name, value) in headers {
        head += &format!("{name}: {value}\r\n");
    }
    stream.write_all(format!("{head}\r\n").as_bytes()).unwrap();
    stream.write_all(body).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
    (status, answer)
}

#[test]
fn gzip_is_signed_as_it_is_sent_and_a_bomb_is_refused() {
    let dir = folder();
    let server = start(dir.path());
    let gzip = |text: &[u8]| {
        let mut coder = GzEncoder::new(Vec::new(), Compression::best());
        coder.write_all(text).unwrap();
        coder.finish().unwrap()
    };
    let send = |body: &[u8], coding: &str| {
        let signature = format!("sha256={}", sha256(body));
        post_bytes(
            &server,
            "/webhooks/github",
            &[("x-hub-signature-256", &signature), ("content-encoding", coding)],
            body,
        )
    };
    let body = gzip(br#"{"op":"upsert","id":"7","new":{"name":"Bun"}}"#);
    let (status, answer) = send(&body, "gzip");
    assert_eq!(status, 200, "{answer}");
    let kept = kept(&server, "github");
    let id = kept[0]["id"].as_str().unwrap();
    let replayed = server.post(&format!("/webhooks/github/deliveries/{id}/replay"), "");
    assert_eq!((replayed.status, replayed.json()["changes"]["received"].as_u64()), (200, Some(1)), "{}", replayed.body);
    let (status, answer) = send(&body, "br");
    assert!(status == 415 && answer.to_ascii_lowercase().contains("accept-encoding: gzip, identity"), "{answer}");
    let (status, answer) = send(&gzip(&vec![b' '; 64 << 20]), "gzip");
    assert_eq!(status, 413, "{answer}");
    let signature = format!("sha256={}", sha256(br#"{"op":"upsert","id":"7","new":{"name":"Bun"}}"#));
    let signed_before = [("x-hub-signature-256", signature.as_str()), ("content-encoding", "gzip")];
    assert_eq!(post_bytes(&server, "/webhooks/github", &signed_before, &body).0, 401);
}

#[test]
fn a_handshake_can_be_tried_out_without_a_server() {
    let dir = folder();
    std::fs::write(dir.path().join("diorama.toml"), CONFIG).unwrap();
    std::fs::write(dir.path().join("orders.csv"), "id,name\nm1,Muffin\n").unwrap();
    std::fs::write(dir.path().join("body.json"), "{}").unwrap();
    let run = |query: &str| {
        let mut command = command(dir.path(), &["webhook", "test", "graph", "body.json", "--query", query]);
        command.env("SECRET", SECRET).env("USER_AND_PASSWORD", "sns:0123456789abcdef");
        let done = command.stdin(Stdio::null()).output().unwrap();
        (done.status.success(), String::from_utf8_lossy(&done.stdout).into_owned())
    };
    let (good, text) = run("validationToken=abc%20123");
    assert!(good && text.contains("handshake answered: 200 abc 123"), "{text}");
    assert!(!run("").0, "nothing proves the body");
}
