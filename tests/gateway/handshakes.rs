//! Handshakes of webhooks that are busy, stopping, or asked by strangers.

use diorama::gateway::webhook::{Hook, HookOptions};
use diorama::gateway::{Gateway, MountOptions};
use diorama::inbound::signature::Graph;
use diorama::inbound::{self, Hmac, Key, Scheme};

use crate::harness::{App, products, rows};

fn key(secret: &str) -> Vec<Key> {
    vec![Key::plain(secret).unwrap()]
}

async fn start() -> App {
    let meta = inbound::Hook::new(Scheme::Hmac(Hmac::meta(key("app-secret")))).verify_tokens(key("verify-token"));
    let graph = inbound::Hook::new(Scheme::Graph(Graph::new(["client-state"]).unwrap()));
    let asana = inbound::Hook::new(Scheme::Hmac(Hmac::asana(Vec::new())));
    let gateway = |gateway: Gateway| {
        [("meta", meta), ("graph", graph), ("asana", asana)].into_iter().fold(gateway, |gateway, (name, inbound)| {
            let options = HookOptions { rate: 1, in_hand: 1, ..HookOptions::default() };
            gateway.try_hook(Hook::new(name, "products", inbound).with(options)).unwrap()
        })
    };
    App::with(products(), rows(7), |lens| lens, MountOptions::default(), gateway).await
}

#[tokio::test]
async fn any_number_of_handshakes_is_answered_and_none_is_kept() {
    let app = start().await;
    for number in 0..20 {
        let graph = app.send("POST", &format!("/webhooks/graph?validationToken=t{number}"), &[], "").await;
        assert_eq!((graph.status, graph.text()), (200, &*format!("t{number}")));
        let secret = format!("s{number}");
        let asana = app.send("POST", "/webhooks/asana", &[("X-Hook-Secret", &secret)], "{}").await;
        assert_eq!((asana.status, asana.header("x-hook-secret")), (200, &*secret));
        let query = format!("hub.mode=subscribe&hub.verify_token=verify-token&hub.challenge={number}");
        let meta = app.get(&format!("/webhooks/meta?{query}")).await;
        assert_eq!((meta.status, meta.text()), (200, &*number.to_string()));
    }
    for hook in ["graph", "asana", "meta"] {
        let kept = app.get(&format!("/webhooks/{hook}/deliveries")).await;
        assert_eq!(kept.text(), "[]", "{hook}");
    }
    let metrics = app.get("/metrics").await;
    assert!(metrics.text().contains(r#"diorama_webhook_deliveries_total{hook="graph",dio="products"} 0"#));
}

#[tokio::test]
async fn a_wrong_verify_token_is_counted_and_told_like_any_refusal() {
    let app = start().await;
    let query = "hub.mode=subscribe&hub.verify_token=wrong&hub.challenge=1";
    let refused = app.get(&format!("/webhooks/meta?{query}")).await;
    assert_eq!(refused.refusal(), (401, "signature-invalid".into()));
    let unsigned = app.json("POST", "/webhooks/meta", "{}").await;
    assert_eq!(unsigned.json()["detail"], refused.json()["detail"]);
    let metrics = app.get("/metrics").await;
    let line = r#"diorama_webhook_refused_total{hook="meta",dio="products",reason="signature-invalid"} 2"#;
    assert!(metrics.text().contains(line), "{}", metrics.text());
}

#[tokio::test]
async fn challenges_are_in_the_document() {
    let document = start().await.get("/openapi.json").await.json();
    assert!(document["paths"]["/webhooks/meta"]["get"].is_object());
    assert!(document["paths"]["/webhooks/graph"]["get"].is_null());
    assert!(document["paths"]["/webhooks/graph"]["post"]["responses"]["401"].is_object());
}
