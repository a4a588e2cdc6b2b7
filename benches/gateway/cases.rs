//! What is asked: each case as the requests to our servers and to the bare one.

use std::sync::Arc;

use crate::client::Ask;
use crate::products::id;
use crate::servers::Prebuilt;

/// Requests of one case, asked again and again.
const POOL: usize = 1_000;
/// Rows of a page.
const PAGE: usize = 50;

/// Work to compare.
#[derive(Debug)]
pub(crate) struct Case {
    pub(crate) name: &'static str,
    /// The bare server's path for it, as long as `products`.
    pub(crate) bare: &'static str,
    /// The ratio that the design asks for.
    pub(crate) target: Option<f64>,
    pub(crate) connections: usize,
    pub(crate) method: &'static str,
    pub(crate) status: u16,
    /// After `/products`, and the bytes of the answer's body.
    asked: Vec<(String, Option<usize>)>,
    headers: &'static str,
    body: &'static str,
}

impl Case {
    fn get(name: &'static str, bare: &'static str, asked: Vec<(String, Option<usize>)>) -> Case {
        let (method, status) = ("GET", 200);
        Case { name, bare, target: None, connections: 32, method, status, asked, headers: "", body: "" }
    }

    fn target(self, target: f64) -> Case {
        Case { target: Some(target), ..self }
    }

    /// Whether it is about what the client has already.
    pub(crate) fn is_conditional(&self) -> bool {
        self.status == 304
    }

    /// Whether it changes rows.
    pub(crate) fn writes(&self) -> bool {
        self.method == "POST"
    }

    /// The path in the bare server's router.
    pub(crate) fn route(&self) -> String {
        match self.asked[0].0.starts_with('/') {
            true => format!("/{}/{{id}}", self.bare),
            false => format!("/{}", self.bare),
        }
    }

    /// The requests to ours; a conditional case has the version `etag`.
    pub(crate) fn ours(&self, etag: Option<&str>) -> Arc<[Ask]> {
        self.asked.iter().map(|(path, length)| Ask { length: *length, ..self.ask("products", path, etag) }).collect()
    }

    /// The requests to the bare server, which answers all with as many bytes.
    pub(crate) fn bare(&self, answer: &Prebuilt) -> Arc<[Ask]> {
        let etag = answer.headers.iter().find(|(name, _)| self.is_conditional() && name == "etag");
        let ask = |path: &String| self.ask(self.bare, path, etag.map(|(_, value)| value.as_str()));
        self.asked.iter().map(|(path, _)| Ask { length: Some(answer.length), ..ask(path) }).collect()
    }

    /// The first request without a version.
    pub(crate) fn plain(&self) -> Ask {
        self.ask("products", &self.asked[0].0, None)
    }

    /// The path that tells how the first of its lists is answered, if it is one that needs an index.
    pub(crate) fn explained(&self) -> Option<String> {
        let path = &self.asked[0].0;
        let needs = ["order=", "category_id=", "q="].iter().any(|word| path.contains(word));
        (needs && self.status == 200).then(|| format!("/products{path}&explain=true"))
    }

    fn ask(&self, resource: &str, path: &str, etag: Option<&str>) -> Ask {
        let known = etag.map_or(String::new(), |etag| format!("if-none-match: {etag}\r\n"));
        Ask::new(self.method, &format!("/{resource}{path}"), &(known + self.headers), self.body, self.status)
    }
}

/// All cases, over rows whose JSON is as long as `lengths` says.
pub(crate) fn all(lengths: &[usize]) -> Vec<Case> {
    let rows = lengths.len();
    // Prime steps visit everything in no order that a cache would like.
    let random = move |number: usize, most: usize| (number * 7919 + 31_337) % most.max(1);
    let run = |from: usize, count: usize| {
        let bytes: usize = lengths[from..from + count].iter().sum();
        Some(bytes + count + 1)
    };
    let records = || -> Vec<(String, Option<usize>)> {
        let chosen = (0..POOL).map(|number| random(number, rows));
        chosen.map(|at| (format!("/{}", id(at)), Some(lengths[at]))).collect()
    };
    let page = |count: usize| -> Vec<(String, Option<usize>)> {
        let offsets = (0..POOL).map(|number| random(number, rows - count));
        offsets.map(|at| (format!("?limit={count}&offset={at}"), run(at, count))).collect()
    };
    let sorted = |number: usize| {
        let (category, offset) = (number % 50, random(number, rows / 50 - PAGE));
        (format!("?category_id={category}&order=price.desc&limit={PAGE}&offset={offset}"), None)
    };
    let other = |number: usize| (format!("?order=price&limit={PAGE}&offset={}", random(number, rows - PAGE)), None);
    let equal = |number: usize| (format!("?category_id={}&limit={PAGE}", number % 50), None);
    let range = |number: usize| {
        let from = random(number, 9_000);
        (format!("?price=gte.{from}&price=lt.{}&order=price&limit={PAGE}", from + 500), None)
    };
    let among = |number: usize| {
        let (a, b, c) = (number % 50, (number + 17) % 50, (number + 31) % 50);
        (format!("?category_id=in.({a},{b},{c})&order=price&limit={PAGE}"), None)
    };
    let counted = |number: usize| {
        let (category, from) = (number % 50, random(number, 9_000));
        (format!("?category_id={category}&price=gte.{from}&limit=0"), Some(2))
    };
    let words = |number: usize| (format!("?q=shelf+{}th&limit={PAGE}", random(number, rows / 16)), None);
    let part = |number: usize| (format!("?q={:03}&limit={PAGE}", random(number, 1_000)), None);
    let one = |path: &str, length| vec![(path.to_string(), length)];
    vec![
        Case::get("one record", "record00", records()).target(0.85),
        Case::get("page of 50, any offset", "page0000", page(PAGE)).target(0.80),
        Case::get("first page of 50", "first000", one("?limit=50", run(0, PAGE))).target(0.80),
        Case::get("1,000 rows, any offset", "thousand", page(1_000)).target(0.85),
        Case { method: "HEAD", ..Case::get("exact count (HEAD)", "head0000", one("?limit=1", None)) }.target(0.95),
        Case::get("exact count (limit=0)", "count000", one("?limit=0", Some(2))).target(0.95),
        known(Case::get("304 of a page", "same0000", one("?limit=50&offset=5000", None))),
        known(Case::get("304 of a record", "same0001", one(&format!("/{}", id(rows / 2)), None))),
        Case::get("page of 50, filtered and sorted", "sorted00", (0..POOL).map(sorted).collect()).target(0.65),
        Case::get("page of 50, another order, any offset", "ordered0", (0..POOL).map(other).collect()).target(0.75),
        Case::get("page of 50, filtered by equality", "equal000", (0..POOL).map(equal).collect()).target(0.60),
        Case::get("page of 50, range", "range000", (0..POOL).map(range).collect()).target(0.60),
        Case::get("page of 50, in, sorted", "among000", (0..POOL).map(among).collect()).target(0.60),
        Case::get("count of a filter", "counted0", (0..POOL).map(counted).collect()).target(0.95),
        Case::get("search of two words", "words000", (0..POOL).map(words).collect()).target(0.30),
        Case::get("search of three characters", "part0000", (0..POOL).map(part).collect()).target(0.30),
        Case { status: 404, ..Case::get("404 of a record", "missing0", one("/nowhere", None)) },
        insert(64),
    ]
}

/// What the client has already.
fn known(case: Case) -> Case {
    Case { status: 304, ..case.target(0.95) }
}

/// A durable insert; the id is the server's to choose.
pub(crate) fn insert(clients: usize) -> Case {
    let body = r#"{"name":"Posted product","category_id":7,"price":1234,"stock":56,"description":"A round bun of the 77th batch, baked in the morning, kept on the 12th shelf, sold by weight"}"#;
    let headers = "content-type: application/json\r\n";
    let get = Case::get("insert, durable, 64 clients", "insert00", vec![(String::new(), None)]).target(0.25);
    Case { method: "POST", status: 202, connections: clients, headers, body, ..get }
}
