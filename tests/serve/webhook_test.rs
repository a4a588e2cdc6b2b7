//! `diorama webhook test`, and hooks of well-known senders, as the guide to webhooks sets them up.

use std::process::{Output, Stdio};

use crate::process::{Server, command, folder};

/// The guide's five lines for each of three senders, and something for them to feed.
fn senders() -> String {
    let guide = include_str!("../../docs/webhooks.md");
    let block = guide.split("```toml\n").find(|block| block.starts_with("[webhook.stripe]")).unwrap();
    let lines = block.split("```").next().unwrap();
    assert_eq!(lines.lines().filter(|line| !line.is_empty()).count(), 15, "five lines each");
    format!("[lens]\ncache = \"memory\"\n[dio.products]\nsource = {{ csv = \"products.csv\" }}\n{lines}")
}

fn tried(dir: &std::path::Path, arguments: &[&str]) -> (Option<i32>, String) {
    let mut command = command(dir, &[&["webhook", "test"], arguments].concat());
    command.env("STRIPE_SECRET", "whsec_test_secret_7").env("GITHUB_SECRET", "It's a Secret to Everybody");
    command.env("SHOPIFY_SECRET", "hush_7f9c1e2d3b4a");
    let Output { status, stdout, stderr } = command.stdin(Stdio::null()).output().unwrap();
    let text = format!("{}{}", String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
    (status.code(), text)
}

fn hmac(secret: &str, message: &str) -> Vec<u8> {
    use hmac::{KeyInit as _, Mac as _};
    let mut mac = hmac::Hmac::<sha2::Sha256>::new_from_slice(secret.as_bytes()).unwrap();
    mac.update(message.as_bytes());
    mac.finalize().into_bytes().to_vec()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

const PRODUCT: &str = r#"{"id":"evt_1","object":"event","type":"product.updated","created":1748779200,"data":{"object":{"id":"1","object":"product","name":"Muffin","price":180}}}"#;

#[test]
fn a_delivery_is_tried_out_step_by_step_and_nothing_changes() {
    let dir = folder();
    std::fs::write(dir.path().join("diorama.toml"), senders()).unwrap();
    std::fs::write(dir.path().join("body.json"), PRODUCT).unwrap();
    let signature = hex(&hmac("whsec_test_secret_7", &format!("1748779200.{PRODUCT}")));
    let header = format!("Stripe-Signature: t=1748779200,v1={signature}");
    let (code, text) = tried(dir.path(), &["stripe", "body.json", "-H", &header, "--at", "2025-06-01T12:00:10Z"]);
    assert_eq!(code, Some(0), "{text}");
    for line in [
        "webhook stripe: scheme \"stripe\", format \"stripe\", for products",
        "verified",
        "delivery evt_1",
        r#"would update 1 to {"id":1,"name":"Muffin","price":180,"object":"product"} (version 1748779200)"#,
        "nothing was changed",
    ] {
        assert!(text.contains(line), "{line:?} is not in\n{text}");
    }
    assert!(!dir.path().join("cache.redb").exists());
    let (code, text) = tried(dir.path(), &["stripe", "body.json", "-H", &header]);
    assert!(code == Some(1) && text.contains("not verified: the signed time"), "{text}");
    std::fs::write(dir.path().join("body.json"), PRODUCT.replace("180", "\"180\"")).unwrap();
    let (code, text) = tried(dir.path(), &["stripe", "body.json", "--unsigned"]);
    assert!(code == Some(0) && text.contains(r#""price":180,"#), "{text}");
    std::fs::write(dir.path().join("body.json"), PRODUCT.replace("180", "\"dear\"")).unwrap();
    let (code, text) = tried(dir.path(), &["stripe", "body.json", "--unsigned"]);
    assert!(code == Some(1) && text.contains(r#"column "price" must be a whole number"#), "{text}");
    std::fs::write(dir.path().join("body.json"), PRODUCT).unwrap();
    let (code, text) = tried(dir.path(), &["stripe", "body.json"]);
    assert!(code == Some(1) && text.contains("not verified: a header is missing"), "{text}");
    let (code, text) = tried(dir.path(), &["stripe", "body.json", "--unsigned"]);
    assert!(code == Some(0) && text.contains("would update 1"), "{text}");
    let (code, text) = tried(dir.path(), &["github", "body.json", "--unsigned", "-H", "X-GitHub-Event: ping"]);
    assert!(code == Some(0) && text.contains("handshake answered: 200 pong"), "{text}");
    let (code, text) = tried(dir.path(), &["shopify", "body.json", "--unsigned"]);
    assert!(code == Some(0) && text.contains("ignored: 1"), "{text}");
    std::fs::write(dir.path().join("body.json"), "{").unwrap();
    let (code, text) = tried(dir.path(), &["stripe", "body.json", "--unsigned"]);
    assert!(code == Some(1) && text.contains("not decoded: the body is not valid JSON: EOF"), "{text}");
    let (code, text) = tried(dir.path(), &["strip", "body.json"]);
    assert!(code == Some(78) && text.contains("the webhooks are stripe, github, shopify"), "{text}");
}

/// What is told is what a POST does, because it is done the same way.
#[test]
fn what_is_tried_out_is_what_a_delivery_does() {
    let dir = folder();
    let config = "[lens]\ncache = \"memory\"\n[dio.products]\nsource = { csv = \"products.csv\" }\nversion = \"price\"\n\
        [webhook.products]\nauth = { scheme = \"none\" }\n";
    std::fs::write(dir.path().join("diorama.toml"), config).unwrap();
    let server = Server::start(dir.path(), &[]);
    for (body, said, state) in [
        (r#"{"op":"upsert","id":"9","new":{"id":9,"name":"Pie","price":4}}"#, "would insert 9", "applied"),
        (r#"{"op":"upsert","id":"1","new":{"id":1,"name":"Pie","price":400}}"#, "would update 1 to", "applied"),
        (
            r#"{"op":"update","id":"2","new":{"id":2,"name":"Old","price":3}}"#,
            "older than the known version of 2",
            "stale",
        ),
        (r#"{"op":"upsert","id":"3","new":{"id":4,"name":"Bun","price":900}}"#, "not decoded", "undecodable"),
        (r#"{"op":"update","id":"3","new":{"id":3,"price":"dear"}}"#, "not decoded", "undecodable"),
        (r#"{"op":"delete","id":"77"}"#, "would", "applied"),
        (r#"{"rows":[]}"#, "not decoded", "undecodable"),
    ] {
        std::fs::write(dir.path().join("body.json"), body).unwrap();
        let (code, text) = tried(dir.path(), &["products", "body.json"]);
        assert!(text.contains(said), "{body}: {text}");
        let answer = server.post("/webhooks/products", body);
        assert_eq!(answer.json()["state"], state, "{body}: {}", answer.body);
        assert_eq!(code == Some(0), state != "undecodable", "{body}: {text}");
    }
}

#[test]
fn stripe_github_and_shopify_are_set_up_by_five_lines_each() {
    let dir = folder();
    std::fs::write(dir.path().join("diorama.toml"), senders()).unwrap();
    let mut command = crate::process::serving(dir.path(), &[]);
    command.env("STRIPE_SECRET", "whsec_test_secret_7").env("GITHUB_SECRET", "hub").env("SHOPIFY_SECRET", "hush");
    let mut server = Server::spawn(command.stderr(Stdio::inherit()));
    server.wait_for("ready");
    let post = |hook: &str, headers: &[(&str, &str)], body: &str| {
        let headers = [&[("content-type", "application/json")], headers].concat();
        server.request("POST", &format!("/webhooks/{hook}"), &headers, body)
    };
    // A webhook reports what the master has: it is asked again.
    std::fs::write(dir.path().join("products.csv"), crate::process::PRODUCTS.replace("175", "180")).unwrap();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let stripe = hex(&hmac("whsec_test_secret_7", &format!("{now}.{PRODUCT}")));
    let answer = post("stripe", &[("stripe-signature", &format!("t={now},v1={stripe}"))], PRODUCT);
    assert_eq!((answer.status, answer.json()["applied"].as_u64()), (200, Some(1)), "{}", answer.body);
    assert_eq!(server.get("/products/1").json()["price"], 180);
    assert_eq!(
        post("stripe", &[("stripe-signature", &format!("t={now},v1={stripe}"))], &PRODUCT.replace("180", "1")).status,
        401
    );

    let issue = r#"{"action":"opened","issue":{"id":7,"name":"Bug","price":1}}"#;
    let signed = format!("sha256={}", hex(&hmac("hub", issue)));
    let github = [("x-github-event", "issues"), ("x-github-delivery", "d-1"), ("x-hub-signature-256", signed.as_str())];
    let answer = post("github", &github, issue);
    assert_eq!((answer.status, answer.json()["applied"].as_u64()), (200, Some(1)), "{}", answer.body);

    use base64::Engine as _;
    let product = r#"{"id":788032119674292922,"name":"Shirt","price":1999}"#;
    let signed = base64::engine::general_purpose::STANDARD.encode(hmac("hush", product));
    let shopify = [("x-shopify-topic", "products/create"), ("x-shopify-hmac-sha256", signed.as_str())];
    let answer = post("shopify", &shopify, product);
    assert_eq!((answer.status, answer.json()["applied"].as_u64()), (200, Some(1)), "{}", answer.body);
    let document = server.get("/openapi.json").json();
    for (hook, about) in
        [("stripe", "stripe-signature"), ("github", "x-hub-signature-256"), ("shopify", "x-shopify-hmac-sha256")]
    {
        let own = &document["paths"][format!("/webhooks/{hook}")]["post"];
        assert!(own["description"].as_str().unwrap().contains("Feeds `products`"), "{own}");
        assert!(own["parameters"].as_array().unwrap().iter().any(|one| one["name"] == about), "{hook}: {own}");
    }
}
