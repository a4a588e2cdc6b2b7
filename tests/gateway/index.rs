//! `GET /`: a page for people, a document for programs.

use base64::Engine as _;
use diorama::gateway::{Gateway, MountOptions};
use diorama::{Column, ColumnType, Schema};
use sha2::Digest as _;

use crate::harness::{Answer, App, products, rows};

const BROWSER: [(&str, &str); 1] = [("Accept", "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8")];

async fn page(app: &App, path: &str) -> Answer {
    let page = app.send("GET", path, &BROWSER, "").await;
    assert_eq!((page.status, page.header("content-type")), (200, "text/html; charset=utf-8"), "{page:?}");
    page
}

#[tokio::test]
async fn programs_get_json_and_browsers_a_page() {
    let app = App::start().await;
    for accept in ["*/*", "application/json", "application/json, text/html;q=0.5", "text/html;q=0", "image/png"] {
        let index = app.send("GET", "/", &[("Accept", accept)], "").await;
        assert_eq!(index.json()["resources"]["products"]["list"], "/products", "{accept}");
        assert_eq!(index.header("vary"), "Accept");
    }
    assert_eq!(app.get("/").await.json()["resources"]["products"]["schema"], "/products/_schema");
    let page = page(&app, "/").await;
    assert_eq!(page.header("vary"), "Accept");
    for part in [
        "<html lang=\"en\">",
        "href=\"/products\"",
        ">7</td>",
        "href=\"/products/_schema\"",
        "/products/events",
        "href=\"/openapi.json\"",
        "href=\"/metrics\"",
        "href=\"/readyz\"",
        "href=\"/operations\"",
        "id, name, price, meta",
        "just now",
    ] {
        assert!(page.text().contains(part), "{part} is not in\n{}", page.text());
    }
    let head = app.send("HEAD", "/", &BROWSER, "").await;
    assert_eq!((head.status, head.body.len()), (200, 0));
}

#[tokio::test]
async fn the_page_runs_nothing_and_its_policy_allows_its_own_style_only() {
    let app = App::start().await;
    let page = page(&app, "/").await;
    let text = page.text();
    assert!(!text.contains("<script") && !text.contains("style="), "{text}");
    assert!(!text.split_whitespace().any(|word| word.starts_with("on") && word.contains('=')), "{text}");
    assert!(!text.contains("http://") && !text.contains("https://"), "nothing from elsewhere");
    let style = text.split_once("<style>").unwrap().1.split_once("</style>").unwrap().0;
    let hash = base64::engine::general_purpose::STANDARD.encode(sha2::Sha256::digest(style));
    let policy = page.header("content-security-policy");
    assert!(policy.starts_with("default-src 'none'; "), "{policy}");
    assert!(policy.contains(&format!("style-src 'sha256-{hash}';")) && !policy.contains("unsafe"), "{policy}");
    assert!(policy.contains("frame-ancestors 'none'"), "{policy}");
    assert_eq!(page.header("x-content-type-options"), "nosniff");
    assert_eq!(page.header("cache-control"), "no-store");
}

#[tokio::test]
async fn links_of_the_page_know_where_the_gateway_is() {
    let at = |gateway: Gateway| gateway.base_path("/api/v1");
    let app = App::with(products(), rows(1), |lens| lens, MountOptions::default(), at).await;
    let slash = app.get("/api/v1/").await;
    assert_eq!((slash.status, slash.header("location")), (308, "/api/v1"));
    assert_eq!(app.get("/api/v1").await.json()["resources"]["products"]["list"], "/api/v1/products");
    let page = page(&app, "/api/v1").await;
    let links: Vec<&str> = page.text().split("href=\"").skip(1).map(|rest| rest.split('"').next().unwrap()).collect();
    for link in links.iter().filter(|link| !link.starts_with("data:")) {
        assert!(link.starts_with("/api/v1/"), "{link}");
    }
    for link in ["/api/v1/products", "/api/v1/products/_schema", "/api/v1/readyz", "/api/v1/operations"] {
        assert!(links.contains(&link), "{links:?}");
        assert_eq!(app.get(link).await.status, 200, "{link}");
    }
    let example = links.iter().find(|link| link.contains('?')).unwrap().replace("&amp;", "&");
    assert_eq!(app.get(&example).await.json().as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn column_names_from_outside_stay_text() {
    let columns = vec![Column::new("id", ColumnType::String), Column::new("<img src=x>&\"", ColumnType::String)];
    let schema = Schema::new("id", columns);
    let app = App::with(schema, Vec::new(), |lens| lens, MountOptions::default(), |gateway| gateway).await;
    let page = page(&app, "/").await;
    assert!(page.text().contains("&lt;img src=x&gt;&amp;&quot;") && !page.text().contains("<img"), "{}", page.text());
}
