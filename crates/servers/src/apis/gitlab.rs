//! GitLab: the issues of a project.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::answer::Answer;
use super::api::Api;
use super::double::Double;
use super::limit::{Limit, Pace, Usage};
use super::page::{Numbered, take};
use super::params::Params;
use super::request::Request;
use super::rows::Content;
use super::rows::gitlab::{CONTENT, create, row, update};
use super::sample;
use super::store::{Row, Store};

const ISSUES: &str = "/api/v4/projects/4/issues";
/// Lists longer than this are not counted for the client.
const COUNTED: usize = 10_000;

/// The REST API of GitLab, with the issues of the project 4, `my-group/my-project`.
///
/// From docs.gitlab.com: [pagination] by page and by keyset, [authentication], [status codes], [rate limit headers], [issues]. A keyset
/// list has a `Link` on each page that is not empty: documented is that the header is absent, and the array empty, at the end.
///
/// Read whole: all of these; of the issues an older edition. Not documented: that a `per_page` above 100 is cut to 100; the text of the
/// 404; 405 for a keyset by a column that has none (from a merge request); the form of the keyset cursor. The double knows the keysets of
/// `id`, `created_at`, `updated_at` and `title`.
///
/// [pagination]: https://docs.gitlab.com/api/rest/#pagination
/// [authentication]: https://docs.gitlab.com/api/rest/authentication/
/// [status codes]: https://docs.gitlab.com/api/rest/troubleshooting/#status-codes
/// [rate limit headers]: https://docs.gitlab.com/administration/settings/user_and_ip_rate_limits/#response-headers
/// [issues]: https://docs.gitlab.com/api/issues/
#[derive(Debug)]
pub struct GitLab(());

impl GitLab {
    /// Token that is accepted in `PRIVATE-TOKEN`, after `Bearer`, or as the parameter `private_token`.
    pub const TOKEN: &str = "glpat-double";

    /// Starts a double.
    pub async fn start(rows: Vec<Value>) -> Double {
        Double::start(GitLab(()), rows).await
    }

    /// So many issues, of which some are closed.
    pub fn rows(count: usize) -> Vec<Value> {
        (1..=count as u64).map(row).collect()
    }

    fn list(request: &Request, store: &Store) -> Result<Answer, Answer> {
        let query = &request.query;
        let state = query.get("state").unwrap_or("all");
        if !["opened", "closed", "all"].contains(&state) {
            return Err(error(400, "state does not have a valid value"));
        }
        let after = request.time("updated_after").map_err(|()| error(400, "updated_after is invalid"))?;
        let after = after.map(sample::millis).unwrap_or_default();
        let is_listed =
            |row: &&Row| (state == "all" || row.text("/state") == state) && row.text("/updated_at") >= after.as_str();
        let mut rows: Vec<_> = store.iter().filter(is_listed).collect();
        let column = query.get("order_by").unwrap_or("created_at");
        let pointer = format!("/{column}");
        match column {
            "id" | "created_at" => {}
            "updated_at" | "title" => rows.sort_by(|a, b| a.text(&pointer).cmp(b.text(&pointer))),
            _ if query.get("pagination") == Some("keyset") => return Err(message(405, "405 Method Not Allowed")),
            _ => return Err(error(400, "order_by does not have a valid value")),
        }
        if query.get("sort") != Some("asc") {
            rows.reverse();
        }
        let size = query.number("per_page", 20).clamp(1, 100);
        if query.get("pagination") == Some("keyset") {
            return GitLab::keyset(request, store, &rows, &pointer, size);
        }
        let page = Numbered::cut(rows, query.number("page", 1), size);
        let counted = (page.total <= COUNTED).then_some(());
        let text = |page: Option<usize>| page.map_or_else(String::new, |page| page.to_string());
        let query = query.with("per_page", size);
        Ok(Answer::json(200, &values(&page.rows))
            .with_some("link", page.links(request, &query, counted.is_some()))
            .with("x-page", page.number)
            .with("x-per-page", size)
            .with("x-next-page", text(page.next()))
            .with("x-prev-page", text(page.previous()))
            .with_some("x-total", counted.map(|()| page.total))
            .with_some("x-total-pages", counted.map(|()| page.last)))
    }

    /// A page after the row whose key stands in the cursor.
    fn keyset(request: &Request, store: &Store, rows: &[&Row], key: &str, size: usize) -> Result<Answer, Answer> {
        let ascending = request.query.get("sort") == Some("asc");
        let position = match request.query.get("cursor") {
            None => None,
            Some(cursor) => Some(store.read_cursor(cursor).ok_or_else(|| error(400, "cursor is invalid"))?),
        };
        let start = position.map_or(0, |position| {
            let (order, text) = position.split_once('|').unwrap_or_default();
            let last = (text, order.parse().unwrap_or(0));
            let place = |row: &&Row| {
                (row.text(key), row.order) <= last && ascending || (row.text(key), row.order) >= last && !ascending
            };
            rows.partition_point(place)
        });
        let (page, _) = take(rows[start..].iter().copied(), size);
        let next = page.last().map(|row| store.cursor(&format!("{}|{}", row.order, row.text(key))));
        let link =
            next.map(|cursor| format!("<{}>; rel=\"next\"", request.url_with(&request.query.with("cursor", cursor))));
        Ok(Answer::json(200, &values(&page)).with_some("link", link))
    }

    fn write(request: &Request, store: &mut Store, id: Option<&str>) -> Result<Answer, Answer> {
        let content = content(request)?;
        if content.get("title").is_some_and(|title| title.as_str().is_none_or(str::is_empty)) {
            return Err(Answer::json(400, &json!({"message": {"title": ["can't be blank"]}})));
        }
        if let Some(id) = id {
            let row = store.change(id, |row| update(row, &content, Timestamp::now())).ok_or_else(not_found)?;
            return Ok(Answer::json(200, &row.value));
        }
        if content.get("title").is_none() {
            return Err(message(400, "400 (Bad request) \"title\" not given"));
        }
        let row = create(store.next_number(), &content, Timestamp::now());
        store.insert(row["iid"].to_string(), row.clone());
        Ok(Answer::json(201, &row))
    }
}

impl Api for GitLab {
    fn list_path(&self) -> &'static str {
        ISSUES
    }

    fn headers(&self) -> Vec<(&'static str, String)> {
        vec![("private-token", GitLab::TOKEN.to_owned())]
    }

    fn limit(&self) -> Limit {
        Limit::new(7200, Duration::from_secs(3600))
    }

    fn pace(&self) -> Pace {
        Pace::Fixed
    }

    fn content(&self) -> Content {
        CONTENT
    }

    fn authorize(&self, request: &Request) -> Result<(), Answer> {
        let tokens =
            [request.header("private-token"), request.credential(&["Bearer"]), request.query.get("private_token")];
        let is_known = tokens.into_iter().flatten().next() == Some(GitLab::TOKEN);
        is_known.then_some(()).ok_or_else(|| message(401, "401 Unauthorized"))
    }

    fn answer(&self, request: &Request, store: &mut Store) -> Result<Answer, Answer> {
        let path = request.path();
        let (["api", "v4", "projects", "4" | "my-group/my-project", "issues", rest @ ..], method) =
            (path.as_slice(), request.method.as_str())
        else {
            return Err(not_found());
        };
        match (method, rest) {
            ("GET", []) => GitLab::list(request, store),
            ("POST", []) => GitLab::write(request, store, None),
            ("GET", [id]) => store.get(id).map(|row| Answer::json(200, &row.value)).ok_or_else(not_found),
            ("PUT", [id]) => GitLab::write(request, store, Some(id)),
            ("DELETE", [id]) => store.delete(id).map(|_| Answer::empty(204)).ok_or_else(not_found),
            (_, [] | [_]) => Err(message(405, "405 Method Not Allowed")),
            _ => Err(not_found()),
        }
    }

    fn refuse(&self, usage: &Usage) -> Answer {
        let reset = Timestamp::from_second(i64::try_from(usage.reset()).unwrap_or(i64::MAX)).unwrap_or(Timestamp::MAX);
        Answer::text(429, "text/plain", "Retry later\n")
            .with("retry-after", usage.seconds())
            .with("ratelimit-resettime", reset.strftime("%a, %d %b %Y %H:%M:%S GMT"))
    }

    fn label(&self, answer: Answer, _: &Request, usage: &Usage) -> Answer {
        answer
            .with("ratelimit-limit", usage.limit.requests)
            .with("ratelimit-name", "throttle_authenticated_api")
            .with("ratelimit-observed", usage.used)
            .with("ratelimit-remaining", usage.remaining())
            .with("ratelimit-reset", usage.reset())
    }

    fn error(&self, status: u16, text: &str) -> Answer {
        message(status, &format!("{status} {text}"))
    }
}

/// Fields of a write: in the query, as JSON, or as a form.
fn content(request: &Request) -> Result<Value, Answer> {
    let mut fields: Map<String, Value> =
        request.query.0.iter().map(|(name, value)| (name.clone(), value.as_str().into())).collect();
    if request.header("content-type").is_some_and(|kind| kind.starts_with("application/json")) {
        fields.extend(sample::object(&request.object().ok_or_else(|| message(400, "400 Bad request"))?));
    } else {
        fields.extend(Params::parse(&request.body).0.into_iter().map(|(name, value)| (name, value.into())));
    }
    Ok(Value::Object(fields))
}

fn values(rows: &[&Row]) -> Value {
    rows.iter().map(|row| &row.value).cloned().collect()
}

fn message(status: u16, text: &str) -> Answer {
    Answer::json(status, &json!({"message": text}))
}

fn error(status: u16, text: &str) -> Answer {
    Answer::json(status, &json!({"error": text}))
}

fn not_found() -> Answer {
    message(404, "404 Not found")
}
