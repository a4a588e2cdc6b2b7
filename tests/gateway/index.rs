//! `GET /`: a page for people, a document for programs.

use diorama::gateway::{Auth, Explorer, Gateway, MountOptions};
use diorama::{Column, ColumnType, Schema};

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
async fn the_page_uses_the_servers_own_files_only_and_has_no_script_or_style_in_it() {
    let app = App::start().await;
    let page = page(&app, "/").await;
    let text = page.text();
    assert!(!text.contains("<style") && !text.contains("style="), "{text}");
    assert!(!text.split_whitespace().any(|word| word.starts_with("on") && word.contains('=')), "{text}");
    assert!(!text.contains("http://") && !text.contains("https://"), "nothing from elsewhere");
    for script in text.split("<script").skip(1) {
        assert!(script.starts_with(" type=\"module\" src=\"/static/") && script.contains("></script>"), "{script}");
    }
    let policy = page.header("content-security-policy");
    assert!(policy.starts_with("default-src 'self'; script-src 'self'; style-src 'self'; "), "{policy}");
    assert!(!policy.contains("unsafe") && policy.contains("frame-ancestors 'none'"), "{policy}");
    assert_eq!(page.header("x-content-type-options"), "nosniff");
    assert_eq!(page.header("cache-control"), "no-store");
}

#[tokio::test]
async fn files_of_the_page_are_served_with_their_types_and_versions() {
    let at = |gateway: Gateway| gateway.base_path("/api").auth(Auth::tokens(["a-token-of-16-bytes"]));
    let app = App::with(products(), rows(1), |lens| lens, MountOptions::default(), at).await;
    for (file, kind) in [("diorama.js", "text/javascript; charset=utf-8"), ("explorer.css", "text/css; charset=utf-8")]
    {
        let path = format!("/api/static/{file}");
        let got = app.send("GET", &path, &[("Origin", "http://localhost:3000")], "").await;
        assert_eq!((got.status, got.header("content-type"), got.header("cache-control")), (200, kind, "no-cache"));
        let again = app.send("GET", &path, &[("If-None-Match", got.header("etag"))], "").await;
        assert_eq!((again.status, again.body.len()), (304, 0));
    }
    assert_eq!(app.get("/api/static/index.html").await.status, 404);
}

#[tokio::test]
async fn who_has_no_token_gets_a_page_that_says_nothing_but_that() {
    let at = |gateway: Gateway| gateway.auth(Auth::tokens(["a-token-of-16-bytes"]));
    let app = App::with(products(), rows(7), |lens| lens, MountOptions::default(), at).await;
    let page = app.send("GET", "/", &BROWSER, "").await;
    assert_eq!((page.status, page.header("www-authenticate")), (401, "Bearer"));
    assert!(page.text().contains("A key or token is required.") && page.text().contains("/static/explorer.js"));
    assert!(!page.text().contains("products"), "{}", page.text());
    assert_eq!(app.get("/").await.status, 401);
}

/// The client stays small without a tool that makes it unreadable.
#[tokio::test]
async fn the_browser_client_is_under_7_kb_gzipped() {
    let at = |gateway: Gateway| gateway.compression(true);
    let app = App::with(products(), rows(1), |lens| lens, MountOptions::default(), at).await;
    let packed = app.send("GET", "/static/diorama.js", &[("Accept-Encoding", "gzip")], "").await;
    assert_eq!(packed.header("content-encoding"), "gzip");
    assert!(packed.body.len() < 7_000, "{}", packed.body.len());
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

#[tokio::test]
async fn the_viewer_of_the_document_is_a_page_with_the_same_policy_and_the_same_guard() {
    let at = |gateway: Gateway| gateway.base_path("/api").auth(Auth::tokens(["a-token-of-16-bytes"]));
    let app = App::with(products(), rows(1), |lens| lens, MountOptions::default(), at).await;
    let asked = app.send("GET", "/api/docs", &BROWSER, "").await;
    assert_eq!((asked.status, asked.header("www-authenticate")), (401, "Bearer"));
    assert!(asked.text().contains("A key or token is required") && asked.text().contains("data-asks=\"token\""));
    assert_eq!(app.get("/api/docs").await.refusal(), (401, "unauthenticated".into()));
    let token = ("Authorization", "Bearer a-token-of-16-bytes");
    let page = app.send("GET", "/api/docs", &[token], "").await;
    assert_eq!((page.status, page.header("content-type")), (200, "text/html; charset=utf-8"));
    let policy = page.header("content-security-policy");
    assert!(policy.starts_with("default-src 'self'; script-src 'self'; ") && !policy.contains("unsafe"), "{policy}");
    for file in ["docs.css", "docs.js", "swagger-ui-bundle.js", "swagger-ui.css"] {
        let path = format!("/api/static/{file}");
        assert!(page.text().contains(&format!("\"{path}\"")), "{file}");
        assert_eq!(app.get(&path).await.status, 200, "{file}");
    }
    assert!(!page.text().contains("//"), "nothing from elsewhere: {}", page.text());
}

#[tokio::test]
async fn the_notice_names_the_files_of_others_that_are_served_and_their_version() {
    let app = App::with(products(), rows(1), |lens| lens, MountOptions::default(), |gateway| gateway).await;
    let notice = include_str!("../../THIRD-PARTY.md");
    let names: Vec<&str> =
        notice.split('`').filter(|name| name.starts_with("swagger-ui") && !name.contains('/')).collect();
    assert_eq!(names, ["swagger-ui-bundle.js", "swagger-ui.css"]);
    let script = app.get("/static/swagger-ui-bundle.js").await;
    let version = script.text().split("PACKAGE_VERSION:\"").nth(1).unwrap().split('"').next().unwrap();
    assert!(notice.contains(&format!("swagger-ui) {version},")), "{version}");
}

async fn with_explorer(explorer: Explorer) -> App {
    let at = |gateway: Gateway| gateway.base_path("/api").explorer(explorer);
    App::with(products(), rows(1), |lens| lens, MountOptions::default(), at).await
}

#[tokio::test]
async fn a_folder_takes_the_place_of_the_explorer() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    std::fs::create_dir(folder.path().join("assets")).unwrap();
    write(
        "index.html",
        "<title>Mine</title><script src=\"{{prefix}}/static/assets/my app.js\"></script>{{ untouched }}",
    );
    write("assets/my app.js", "mine()");
    write(".env", "secret");
    let app = with_explorer(Explorer::Folder(folder.path().into())).await;
    let shown = page(&app, "/api").await;
    let expected = "<title>Mine</title><script src=\"/api/static/assets/my app.js\"></script>{{ untouched }}";
    assert_eq!(shown.text(), expected);
    assert!(app.get("/api").await.json()["resources"]["products"].is_object(), "programs get what they got");

    let script = app.get("/api/static/assets/my%20app.js").await;
    assert_eq!((script.status, script.text()), (200, "mine()"));
    assert_eq!(script.header("content-type"), "text/javascript; charset=utf-8");
    assert!(script.header("content-security-policy").contains("frame-ancestors 'none'"));
    let again =
        app.send("GET", "/api/static/assets/my%20app.js", &[("If-None-Match", script.header("etag"))], "").await;
    assert_eq!(again.status, 304);
    write("assets/my app.js", "changed()");
    assert_eq!(app.get("/api/static/assets/my%20app.js").await.text(), "changed()", "read when it is asked for");

    for gone in [
        "explorer.js",
        ".env",
        "assets",
        "assets/",
        "assets/..%2f.env",
        "..%2fCargo.toml",
        "assets//my%20app.js",
        "%00",
    ] {
        assert_eq!(app.get(&format!("/api/static/{gone}")).await.status, 404, "{gone}");
    }
    for kept in ["diorama.js", "docs.js", "swagger-ui.css"] {
        assert_eq!(app.get(&format!("/api/static/{kept}")).await.status, 200, "{kept}");
    }
    write("diorama.js", "my own client");
    assert_eq!(app.get("/api/static/diorama.js").await.text(), "my own client");
    std::fs::remove_file(folder.path().join("index.html")).unwrap();
    assert_eq!(app.send("GET", "/api", &BROWSER, "").await.refusal(), (404, "not-found".into()));
}

#[tokio::test]
async fn without_an_explorer_browsers_get_what_programs_get() {
    let app = with_explorer(Explorer::Off).await;
    let index = app.send("GET", "/api", &BROWSER, "").await;
    assert_eq!((index.status, index.header("content-type")), (200, "application/json"));
    assert_eq!(app.get("/api/static/diorama.js").await.status, 200);
}
