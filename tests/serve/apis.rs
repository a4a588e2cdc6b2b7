//! The ten APIs of docs/connect/http.md, with the configurations as they stand there, against doubles that page, limit and fail as
//! the documentation of each says (crates/servers/src/apis).

use std::time::{Duration, Instant};

use diorama_servers::apis::{
    Airtable, Double, GitHub, GitLab, HubSpot, JsonApi, Limit, Notion, OData, Shopify, Strapi, Stripe,
};
use serde_json::{Value, json};

use crate::process::{PATIENCE, Server};

/// Rows that a double begins with: more than two pages of each API.
const ROWS: usize = 310;

/// An API of the page.
struct Api {
    /// Heading in the page.
    name: &'static str,
    double: Double,
    /// The credential.
    token: &'static str,
    /// The resource in the page's configuration.
    dio: &'static str,
    /// Column with a text that can be changed.
    column: &'static str,
    /// Value of the column for a text.
    value: fn(&str) -> Value,
    /// Column with the id.
    id: &'static str,
    deletes: bool,
}

fn text(text: &str) -> Value {
    text.into()
}

fn title(text: &str) -> Value {
    json!({"title": [{"text": {"content": text}}]})
}

/// A test of each API: its heading, double and credential, and the resource, a column with text and the id column of its configuration.
macro_rules! apis {
    ($($test:ident: $name:literal, $double:ident, $token:ident, $dio:literal, $column:literal, $id:literal, $value:ident;)*) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() {
                check(&Api {
                    name: $name,
                    double: $double::start($double::rows(ROWS)).await,
                    token: $double::$token,
                    dio: $dio,
                    column: $column,
                    value: $value,
                    id: $id,
                    deletes: $name != "GitHub",
                });
            }
        )*
    };
}

apis! {
    github_is_served_live_and_writable: "GitHub", GitHub, TOKEN, "issues", "title", "number", text;
    gitlab_is_served_live_and_writable: "GitLab", GitLab, TOKEN, "issues", "title", "iid", text;
    stripe_is_served_live_and_writable: "Stripe", Stripe, KEY, "customers", "name", "id", text;
    shopify_is_served_live_and_writable: "Shopify", Shopify, TOKEN, "products", "title", "id", text;
    airtable_is_served_live_and_writable: "Airtable", Airtable, TOKEN, "orders", "Name", "id", text;
    notion_is_served_live_and_writable: "Notion", Notion, TOKEN, "pages", "Name", "id", title;
    hubspot_is_served_live_and_writable: "HubSpot", HubSpot, TOKEN, "contacts", "firstname", "id", text;
    json_api_is_served_live_and_writable: "JSON:API", JsonApi, TOKEN, "articles", "title", "id", text;
    odata_is_served_live_and_writable: "OData", OData, TOKEN, "products", "Name", "ID", text;
    strapi_is_served_live_and_writable: "Strapi", Strapi, TOKEN, "articles", "title", "documentId", text;
}

impl Api {
    /// Returns the configuration of the page for this double.
    fn configuration(&self) -> String {
        let page = include_str!("../../docs/connect/http.md");
        let (_, section) = page.split_once(&format!("\n### {}\n", self.name)).expect("a section");
        let (_, block) = section.split_once("```toml\n").expect("a block");
        let (block, _) = block.split_once("```").expect("the end of the block");
        assert!(block.lines().count() <= 14, "{}: the configuration is short", self.name);
        let url = self.double.list_url();
        let version = url.split('/').find(|part| part.starts_with("20")).unwrap_or("2025-10");
        let source = url.rsplit('/').nth(1).unwrap_or_default();
        let replaced = |line: &str| match line.starts_with("http = ") {
            true => format!("http = {url:?}\n"),
            false => {
                let line = line.replace("2025-10", version).replace("DATA_SOURCE", source);
                // Its rate limit is what the test sets.
                let begin = line.find("\"env:").map(|at| at + 1);
                let end = begin.and_then(|begin| Some(begin + line[begin..].find('"')?));
                match (begin, end) {
                    (Some(begin), Some(end)) => format!("{}file:token{}\n", &line[..begin], &line[end..]),
                    _ => format!("{line}\n"),
                }
            }
        };
        block.lines().map(replaced).collect()
    }

    fn serve(&self, dir: &std::path::Path) -> Server {
        std::fs::write(dir.join("token"), self.token).unwrap();
        let cache = "[lens]\ncache = \"cache.redb\"\n";
        std::fs::write(dir.join("diorama.toml"), format!("{cache}{}", self.configuration())).unwrap();
        Server::start(dir, &[])
    }

    fn path(&self, rest: &str) -> String {
        format!("/{}{rest}", self.dio)
    }

    /// Text of the changed column in a row of Diorama.
    fn shown(&self, row: &Value) -> String {
        match &row[self.column] {
            Value::String(text) => text.clone(),
            value => value["title"][0]["text"]["content"].as_str().unwrap_or_default().to_string(),
        }
    }

    /// True if the API has this row with this text.
    fn has(&self, id: &str, wanted: &str) -> bool {
        self.double.row(id).is_some_and(|row| row.to_string().contains(&format!("{wanted:?}")))
    }
}

/// Waits for a condition.
fn until(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

const JSON: (&str, &str) = ("content-type", "application/json");
const WAIT: (&str, &str) = ("prefer", "wait=15");

/// Serves the API and checks that it is filtered, sorted, live and writable.
fn check(api: &Api) {
    let dir = tempfile::tempdir().unwrap();
    let server = api.serve(dir.path());
    let name = api.name;
    let list = |query: &str| server.get(&api.path(query)).json().as_array().cloned().unwrap_or_default();

    // Every row, sorted, and one by its value.
    let rows = list(&format!("?limit=1000&order={}.desc", api.id));
    assert_eq!(rows.len(), api.double.rows().len(), "{name}");
    let id = |row: &Value| row[api.id].as_str().map_or_else(|| row[api.id].to_string(), str::to_string);
    let sorted = rows.windows(2).all(|pair| match (pair[0][api.id].as_u64(), pair[1][api.id].as_u64()) {
        (Some(first), Some(second)) => first > second,
        _ => id(&pair[0]) > id(&pair[1]),
    });
    assert!(sorted, "{name}");
    let one = id(&rows[7]);
    let found = list(&format!("?{}={one}", api.id));
    assert_eq!(found, [rows[7].clone()], "{name}");

    // A change at the API arrives with the next refresh.
    let changed = json!({api.column: (api.value)("Changed outside")});
    let content = match name {
        "Airtable" => json!({"fields": changed}),
        "Notion" | "HubSpot" => json!({"properties": changed}),
        "JSON:API" => json!({"attributes": changed}),
        _ => changed,
    };
    assert!(api.double.change(&one, &content), "{name}");
    let refreshed = server.request("POST", &api.path("/_refresh"), &[], "");
    assert_eq!(refreshed.status, 200, "{name}: {}", refreshed.body);
    let row = server.get(&api.path(&format!("/{one}"))).json();
    assert_eq!(api.shown(&row), "Changed outside", "{name}: {row}");

    // So does a delete, also from an API that is asked for changes between whole lists.
    let gone = id(&rows[11]);
    if api.deletes {
        assert!(api.double.delete(&gone), "{name}");
        let refreshed = server.request("POST", &api.path("/_refresh"), &[], "");
        assert_eq!(refreshed.status, 200, "{name}: {}", refreshed.body);
        assert_eq!(server.get(&api.path(&format!("/{gone}"))).status, 404, "{name}");
    }
    let count = list("?limit=1000").len();

    // A new row gets the API's id.
    let new = json!({api.column: (api.value)("Made by Diorama")}).to_string();
    let answer = server.request("POST", &api.path(""), &[JSON, WAIT], &new);
    assert_eq!(answer.status, 201, "{name}: {}", answer.body);
    let row = answer.json();
    let own = id(&row);
    until(&format!("{name}: the API has the new row {own}: {row}"), || api.has(&own, "Made by Diorama"));
    assert_eq!(list("?limit=1000").len(), count + 1, "{name}");

    // A change, and a delete.
    let patch = json!({api.column: (api.value)("Changed by Diorama")}).to_string();
    let answer = server.request("PATCH", &api.path(&format!("/{own}")), &[JSON, WAIT], &patch);
    assert_eq!(answer.status, 200, "{name}: {}", answer.body);
    until(&format!("{name}: the API has the change"), || api.has(&own, "Changed by Diorama"));
    let answer = server.request("DELETE", &api.path(&format!("/{own}")), &[WAIT], "");
    match api.deletes {
        true => {
            assert!(matches!(answer.status, 200 | 204), "{name}: {} {}", answer.status, answer.body);
            until(&format!("{name}: the API has deleted the row"), || {
                api.double.row(&own).is_none_or(|row| row["in_trash"] == true)
            });
            assert_eq!(server.get(&api.path(&format!("/{own}"))).status, 404, "{name}");
        }
        false => assert_eq!(answer.status, 405, "{name}"),
    }
}

/// Requests that the budget test permits in a second; `DIORAMA_BUDGET=5` takes a minute and a half.
fn permitted() -> u64 {
    std::env::var("DIORAMA_BUDGET").ok().and_then(|number| number.parse().ok()).unwrap_or(25)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_list_writes_and_doubts_share_the_limit_and_readers_do_not_notice() {
    const WRITES: usize = 200;
    const DOUBTS: usize = 50;
    let api = GitHub::start(GitHub::rows(10_000)).await;
    let rate = permitted();
    api.set_limit(Limit::new(u32::try_from(rate).unwrap(), Duration::from_secs(1)));
    let dir = tempfile::tempdir().unwrap();
    let configuration = format!(
        "[dio.issues]\nid = \"number\"\nwrite_order = \"row\"\nwrite_concurrency = 4\nwrite.http = {{ patch = \"PATCH /{{id}}\" }}\n\
         [dio.issues.source]\nhttp = {:?}\nquery = {{ state = \"all\", per_page = \"100\" }}\none = \"/{{id}}\"\n\
         auth = {{ bearer = {:?} }}\nrate = {{ per_second = {rate} }}\n\
         [webhook.github]\ndio = \"issues\"\nauth = {{ scheme = \"none\" }}\n",
        api.list_url(),
        GitHub::TOKEN
    );
    std::fs::write(dir.path().join("diorama.toml"), configuration).unwrap();
    let server = Server::launch(dir.path(), &[]);
    let patience = Duration::from_secs(600);
    let ready = || server.get("/issues?limit=1").status == 200;
    let deadline = Instant::now() + patience;
    while !ready() {
        assert!(Instant::now() < deadline, "there is no first copy");
        std::thread::sleep(Duration::from_millis(100));
    }

    // Another list, the writes and the doubts at the same time.
    let (began, requests) = (Instant::now(), api.count());
    let refresh = std::thread::scope(|scope| {
        let refresh = scope.spawn(|| server.request("POST", "/issues/_refresh", &[("prefer", "wait=600")], "").status);
        for number in 1..=WRITES {
            let body = format!("{{\"title\":\"Title {number}\"}}");
            let path = format!("/issues/{number}");
            let answer = server.request("PATCH", &path, &[JSON, ("prefer", "respond-async")], &body);
            assert_eq!(answer.status, 202, "{}", answer.body);
        }
        let doubts: Vec<Value> = (5_000..5_000 + DOUBTS).map(|id| json!({"op": "update", "id": id})).collect();
        let answer = server.post("/webhooks/github", &Value::from(doubts).to_string());
        assert!(answer.status < 300, "{} {}", answer.status, answer.body);
        // Readers meanwhile.
        for id in 1..=200 {
            assert_eq!(server.get(&format!("/issues/{id}")).status, 200);
        }
        refresh.join().unwrap()
    });
    assert!(matches!(refresh, 200 | 202 | 204), "{refresh}");
    let settled = || {
        let waiting = server.get("/operations?state=queued&limit=1").json();
        let has_all = (1..=WRITES)
            .all(|number| api.row(&number.to_string()).is_some_and(|row| row["title"] == format!("Title {number}")));
        has_all && waiting.as_array().is_none_or(Vec::is_empty)
    };
    let deadline = Instant::now() + patience;
    while !settled() {
        assert!(Instant::now() < deadline, "the writes are not settled");
        std::thread::sleep(Duration::from_millis(100));
    }
    let (sent, took) = (api.count() - requests, began.elapsed().as_secs_f64());
    println!(
        "{sent} requests in {took:.1} s, of {rate} a second: {:.2} of what the limit permits",
        took * rate as f64 / sent as f64
    );
    assert_eq!(api.refused(), 0, "the API has refused requests");
    assert!(api.most_within(Duration::from_secs(1)) <= rate as usize);
    assert_eq!(server.get("/issues?limit=1&number=200").json()[0]["title"], "Title 200");
}

#[test]
fn another_diorama_gives_its_rows_and_events_and_takes_writes_once() {
    let first_dir = crate::process::folder();
    let table = "[dio.orders]\nsource = { sqlite = \"shop.db\", table = \"orders\" }\n[lens]\ncache = \"cache.redb\"\n\
         [server]\nauth = { tokens = [\"env:TOKEN\"] }\n";
    std::fs::write(first_dir.path().join("diorama.toml"), table).unwrap();
    let mut first = Server::start(first_dir.path(), &[]);
    let authorized = ("authorization", &*format!("Bearer {}", crate::process::TOKEN));
    let put = |server: &Server, id: &str, item: &str| {
        let body = json!({"item": item, "price": 3}).to_string();
        let answer = server.request("PUT", &format!("/orders/{id}"), &[JSON, WAIT, authorized], &body);
        assert!(answer.status < 300, "{} {}", answer.status, answer.body);
    };
    (1..=30).for_each(|number| put(&first, &number.to_string(), "Bun"));

    let dir = tempfile::tempdir().unwrap();
    let source = format!(
        "[dio.orders]\nsource = {{ diorama = \"http://{}/orders\", token = \"env:TOKEN\" }}\nfeed = \"auto\"\n\
         [lens]\ncache = \"cache.redb\"\n",
        first.address
    );
    std::fs::write(dir.path().join("diorama.toml"), source).unwrap();
    let second = Server::start(dir.path(), &[]);
    let rows = |server: &Server| {
        let mut rows = server.request("GET", "/orders?limit=100", &[authorized], "").json().as_array().unwrap().clone();
        rows.sort_by_key(|row| row["id"].as_str().map(str::to_string));
        rows
    };
    assert_eq!(rows(&second), rows(&first));
    let schema =
        |server: &Server| server.request("GET", "/orders/_schema", &[authorized], "").json()["columns"].clone();
    let types = |columns: Value| -> Vec<Value> {
        columns.as_array().unwrap().iter().map(|column| json!([column["name"], column["type"]])).collect()
    };
    assert_eq!(types(schema(&second)), types(schema(&first)));

    // Events of the first arrive at the second, and writes at the second reach the first.
    put(&first, "7", "Muffin");
    until("the change arrives by the feed", || second.get("/orders/7").json()["item"] == "Muffin");
    put(&second, "31", "Scone");
    until("the write reaches the first", || rows(&first).len() == 31);
    let patch = second.request("PATCH", "/orders/31", &[JSON, WAIT], "{\"price\":9}");
    assert_eq!(patch.status, 200, "{}", patch.body);
    assert_eq!(second.request("DELETE", "/orders/2", &[WAIT], "").status, 200);
    until("the delete reaches the first", || rows(&first).len() == 30);

    // Writes while the first is away are sent when it is back, each with one effect, and the events continue.
    let address = first.address.clone();
    first.kill();
    let body = json!({"item": "Late", "price": 1}).to_string();
    let answer = second.request("PUT", "/orders/99", &[JSON, ("prefer", "respond-async")], &body);
    assert_eq!(answer.status, 202, "{}", answer.body);
    assert_eq!(rows(&second).len(), 31, "reads go on");
    let first = Server::start_as(first_dir.path(), &["serve", "--listen", &address]);
    until("the waiting write arrives", || rows(&first).len() == 31);
    put(&first, "5", "Tart");
    until("the feed continues", || second.get("/orders/5").json()["item"] == "Tart");
    assert_eq!(rows(&second), rows(&first));
}
