//! GitHub: the issues of a repository.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::answer::Answer;
use super::api::Api;
use super::double::Double;
use super::limit::{Limit, Pace, Usage};
use super::page::Numbered;
use super::request::Request;
use super::rows::Content;
use super::rows::github::{CONTENT, ISSUES, create, row, update};
use super::sample;
use super::store::{Row, Store};

const VERSIONS: [&str; 2] = ["2022-11-28", "2026-03-10"];

/// The REST API of GitHub, with the issues of the repository `octocat/hello-world`.
///
/// From docs.github.com: [pagination], [rate limits], [authentication], [best practices] (conditional requests), [troubleshooting] (errors),
/// [issues]. There is no endpoint that deletes an issue; one that [`Double::delete`] deletes is answered with 410, as documented.
///
/// Read whole: all of these but the page of issues, of which only quotes were at hand (410 for a deleted one is among them). Not
/// verified, therefore: the default values of `state`, `sort` and `direction`, the maximum of `per_page`, the fields of an issue. Not
/// documented: that a `per_page` above the maximum is cut to it; 403 for a missing `User-Agent` (documented is "rejected"); the wording of
/// messages other than those under "Troubleshooting". The primary limit answers 403 and the secondary one 429, where the documentation
/// has "403 or 429" for both.
///
/// [pagination]: https://docs.github.com/en/rest/using-the-rest-api/using-pagination-in-the-rest-api
/// [rate limits]: https://docs.github.com/en/rest/using-the-rest-api/rate-limits-for-the-rest-api
/// [authentication]: https://docs.github.com/en/rest/authentication/authenticating-to-the-rest-api
/// [best practices]: https://docs.github.com/en/rest/using-the-rest-api/best-practices-for-using-the-rest-api
/// [troubleshooting]: https://docs.github.com/en/rest/using-the-rest-api/troubleshooting-the-rest-api
/// [issues]: https://docs.github.com/en/rest/issues/issues
#[derive(Debug)]
pub struct GitHub {
    secondary: bool,
}

impl GitHub {
    /// Token that is accepted after `Bearer` or `token`.
    pub const TOKEN: &str = "github_pat_double";

    /// Starts a double whose limit is the primary one: 403 with `x-ratelimit-reset`.
    pub async fn start(rows: Vec<Value>) -> Double {
        Double::start(GitHub { secondary: false }, rows).await
    }

    /// Starts a double whose limit is the secondary one: 429 with `Retry-After`.
    pub async fn start_secondary(rows: Vec<Value>) -> Double {
        Double::start(GitHub { secondary: true }, rows).await
    }

    /// So many issues, of which some are closed and some are pull requests.
    pub fn rows(count: usize) -> Vec<Value> {
        (1..=count as u64).map(row).collect()
    }

    fn list(request: &Request, store: &Store) -> Result<Answer, Answer> {
        let query = &request.query;
        let state = query.get("state").unwrap_or("open");
        let sort = query.get("sort").unwrap_or("created");
        if !["open", "closed", "all"].contains(&state) || !["created", "updated", "comments"].contains(&sort) {
            return Err(invalid("Issue", if sort == "created" { "state" } else { "sort" }, "invalid"));
        }
        let since = request.time("since").map_err(|()| invalid("Issue", "since", "invalid"))?;
        let since = since.map(sample::seconds).unwrap_or_default();
        let is_listed =
            |row: &&Row| (state == "all" || row.text("/state") == state) && row.text("/updated_at") >= since.as_str();
        let mut rows: Vec<_> = store.iter().filter(is_listed).collect();
        match sort {
            "updated" => rows.sort_by(|a, b| a.text("/updated_at").cmp(b.text("/updated_at"))),
            "comments" => rows.sort_by_key(|row| row.value["comments"].as_u64()),
            _ => {}
        }
        if query.get("direction") != Some("asc") {
            rows.reverse();
        }
        let size = query.number("per_page", 30).clamp(1, 100);
        let page = Numbered::cut(rows, query.number("page", 1), size);
        let links = page.links(request, query, true);
        let body: Value = page.rows.iter().map(|row| &row.value).cloned().collect();
        Ok(cached(request, Answer::json(200, &body).with_some("link", links)))
    }

    fn write(request: &Request, store: &mut Store, id: Option<&str>) -> Result<Answer, Answer> {
        let content = serde_json::from_slice(&request.body).map_err(|_| problem(400, "Problems parsing JSON"))?;
        let content: Value = content;
        if !content.is_object() {
            return Err(problem(400, "Body should be a JSON object"));
        }
        let title = content.get("title");
        if title.is_some_and(|title| title.as_str().is_none_or(str::is_empty)) {
            return Err(invalid("Issue", "title", "invalid"));
        }
        if content.get("state").is_some_and(|state| state != "open" && state != "closed") {
            return Err(invalid("Issue", "state", "invalid"));
        }
        if let Some(id) = id {
            let row = store.change(id, |row| update(row, &content, Timestamp::now())).ok_or_else(not_found)?;
            return Ok(Answer::json(200, &row.value));
        }
        if title.is_none() {
            return Err(invalid("Issue", "title", "missing_field"));
        }
        let row = create(store.next_number(), &content, Timestamp::now());
        let number = row["number"].to_string();
        store.insert(number.clone(), row.clone());
        Ok(Answer::json(201, &row).with("location", request.url(&format!("{ISSUES}/{number}"))))
    }
}

impl Api for GitHub {
    fn list_path(&self) -> &'static str {
        ISSUES
    }

    fn headers(&self) -> Vec<(&'static str, String)> {
        vec![("authorization", format!("Bearer {}", GitHub::TOKEN)), ("user-agent", "test".to_owned())]
    }

    fn limit(&self) -> Limit {
        Limit::new(5000, Duration::from_secs(3600))
    }

    fn pace(&self) -> Pace {
        Pace::Fixed
    }

    fn content(&self) -> Content {
        CONTENT
    }

    fn authorize(&self, request: &Request) -> Result<(), Answer> {
        if request.header("user-agent").is_none_or(str::is_empty) {
            return Err(problem(
                403,
                "Request forbidden by administrative rules. Please make sure your request has a User-Agent header.",
            ));
        }
        if request.header("x-github-api-version").is_some_and(|version| !VERSIONS.contains(&version)) {
            return Err(problem(400, "The version given in X-GitHub-Api-Version is not supported"));
        }
        match (request.header("authorization"), request.credential(&["Bearer", "token"])) {
            // A private repository does not exist for those who may not see it.
            (None, _) => Err(not_found()),
            (_, Some(GitHub::TOKEN)) => Ok(()),
            _ => Err(problem(401, "Bad credentials")),
        }
    }

    fn answer(&self, request: &Request, store: &mut Store) -> Result<Answer, Answer> {
        match (request.method.as_str(), request.path().as_slice()) {
            ("GET", ["repos", "octocat", "hello-world", "issues"]) => GitHub::list(request, store),
            ("POST", ["repos", "octocat", "hello-world", "issues"]) => GitHub::write(request, store, None),
            ("GET", ["repos", "octocat", "hello-world", "issues", id]) => match store.get(id) {
                Some(row) => Ok(cached(request, Answer::json(200, &row.value))),
                None if store.was_deleted(id) => Err(problem(410, "This issue was deleted")),
                None => Err(not_found()),
            },
            ("PATCH", ["repos", "octocat", "hello-world", "issues", id]) => GitHub::write(request, store, Some(id)),
            _ => Err(not_found()),
        }
    }

    fn refuse(&self, usage: &Usage) -> Answer {
        if self.secondary {
            let message = "You have exceeded a secondary rate limit. Please wait a few minutes before you try again.";
            return problem(429, message).with("retry-after", usage.seconds());
        }
        problem(403, "API rate limit exceeded for user ID 1.")
    }

    fn label(&self, answer: Answer, _: &Request, usage: &Usage) -> Answer {
        // The state of the secondary limit is not told.
        let remaining = if self.secondary { 4999 } else { usage.remaining() };
        let limit = if self.secondary { 5000 } else { usage.limit.requests };
        let reset = if self.secondary { usage.reset() + 3600 } else { usage.reset() };
        answer
            .with("x-ratelimit-limit", limit)
            .with("x-ratelimit-remaining", remaining)
            .with("x-ratelimit-used", limit - remaining)
            .with("x-ratelimit-reset", reset)
            .with("x-ratelimit-resource", "core")
    }

    fn error(&self, status: u16, message: &str) -> Answer {
        problem(status, message)
    }
}

/// The answer with its ETag; 304 if the client has it already.
fn cached(request: &Request, answer: Answer) -> Answer {
    let mut hasher = DefaultHasher::new();
    answer.body.hash(&mut hasher);
    let etag = format!("W/\"{:016x}\"", hasher.finish());
    let known = request.header("if-none-match").unwrap_or_default();
    if known.split(',').any(|known| known.trim().trim_start_matches("W/") == etag.trim_start_matches("W/")) {
        return Answer::empty(304).with("etag", etag);
    }
    answer.with("etag", etag)
}

fn problem(status: u16, message: &str) -> Answer {
    let documentation = "https://docs.github.com/rest";
    Answer::json(status, &json!({"message": message, "documentation_url": documentation, "status": status.to_string()}))
}

fn not_found() -> Answer {
    problem(404, "Not Found")
}

fn invalid(resource: &str, field: &str, code: &str) -> Answer {
    let errors = json!([{"resource": resource, "field": field, "code": code}]);
    let documentation = "https://docs.github.com/rest/issues/issues";
    Answer::json(
        422,
        &json!({"message": "Validation Failed", "errors": errors, "documentation_url": documentation, "status": "422"}),
    )
}
