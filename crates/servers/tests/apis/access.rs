//! Credentials and required headers as documented.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use diorama_servers::apis::{GitLab, Stripe};
use serde_json::json;

use crate::client::Ask;
use crate::kinds::{KINDS, Kind};

#[tokio::test]
async fn requests_without_a_valid_credential_are_refused_as_documented() {
    for kind in KINDS {
        let api = kind.start(3).await;
        let (name, missing, pointer, text) = match kind {
            Kind::GitHub => ("authorization", 404, "/message", "Bad credentials"),
            Kind::GitLab | Kind::GitLabKeyset => ("private-token", 401, "/message", "401 Unauthorized"),
            Kind::Stripe => ("authorization", 401, "/error/type", "invalid_request_error"),
            Kind::Shopify => {
                let text = "[API] Invalid API key or access token (unrecognized login or wrong password)";
                ("x-shopify-access-token", 401, "/errors", text)
            }
            Kind::Airtable => ("authorization", 401, "/error/type", "AUTHENTICATION_REQUIRED"),
            Kind::Notion => ("authorization", 401, "/code", "unauthorized"),
            Kind::HubSpot => ("authorization", 401, "/category", "INVALID_AUTHENTICATION"),
            Kind::JsonApi => ("authorization", 401, "/errors/0/status", "401"),
            Kind::OData => ("authorization", 401, "/error/code", "Unauthorized"),
            Kind::Strapi => ("authorization", 403, "/error/name", "UnauthorizedError"),
        };
        let ask = kind.first(&api, None);
        ask.clone().with(name, "").send().expect(missing);
        let wrong = if name == "authorization" { "Bearer wrong" } else { "wrong" };
        let reply = ask.clone().with(name, wrong).send().expect(401);
        assert_eq!(reply.json().pointer(pointer), Some(&json!(text)), "{kind:?}");
        ask.send().expect(200);
        assert_eq!((api.count(), api.refused()), (3, 0));
    }
}

#[tokio::test]
async fn other_documented_forms_of_the_credential_are_accepted() {
    let api = Kind::GitHub.start(1).await;
    Kind::GitHub.first(&api, None).with("authorization", "token github_pat_double").send().expect(200);
    let api = Kind::GitLab.start(1).await;
    let bare = Ask::new("GET", api.list_url());
    bare.clone().with("authorization", &format!("Bearer {}", GitLab::TOKEN)).send().expect(200);
    Ask::new("GET", format!("{}?private_token={}", api.list_url(), GitLab::TOKEN)).send().expect(200);
    let api = Kind::Stripe.start(1).await;
    let bare = Ask::new("GET", api.list_url());
    bare.clone().with("authorization", &format!("Bearer {}", Stripe::KEY)).send().expect(200);
    bare.with("authorization", &format!("Basic {}", STANDARD.encode("sk_test_other:"))).send().expect(401);
}

#[tokio::test]
async fn required_headers_are_required() {
    let api = Kind::Notion.start(1).await;
    let ask = Kind::Notion.first(&api, None);
    let reply = ask.clone().with("notion-version", "").send().expect(400);
    assert_eq!(reply.json()["code"], "missing_version");
    let before = ask.clone().with("notion-version", "2022-06-28");
    assert_eq!(before.send().expect(400).json()["code"], "invalid_request_url");
    let database = before
        .url
        .replace("data_sources/248104cd477e80afbc30000bd28de8f9", "databases/248104cd477e80fdb757e945d38000bd");
    Ask { url: database, ..before }.send().expect(200);

    let api = Kind::GitHub.start(1).await;
    let ask = Kind::GitHub.first(&api, None);
    ask.clone().with("user-agent", "").send().expect(403);
    ask.clone().with("x-github-api-version", "2022-11-28").send().expect(200);
    ask.with("x-github-api-version", "1999-01-01").send().expect(400);

    let api = Kind::JsonApi.start(1).await;
    let ask = Kind::JsonApi.first(&api, None);
    ask.clone().with("accept", "application/vnd.api+json; charset=utf-8").send().expect(406);
    ask.clone().with("accept", "application/vnd.api+json; charset=utf-8, application/vnd.api+json").send().expect(200);
    let reply = ask.with("accept", "*/*").send().expect(200);
    assert_eq!(reply.header("content-type"), Some("application/vnd.api+json"));
}
