//! Strapi 5: articles.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::answer::Answer;
use super::api::Api;
use super::double::Double;
use super::filter::{Operator, literal, sorted};
use super::limit::{Limit, Pace, Usage};
use super::request::Request;
use super::rows::Content;
use super::rows::strapi::{CONTENT, FIELDS, create, row, update};
use super::sample;
use super::store::{Row, Store};

const ARTICLES: &str = "/api/articles";

/// The REST API of Strapi 5, with the content type `article`.
///
/// From docs.strapi.io: [REST API], [sort and pagination], [filters], [errors], [API tokens], [configuration] (25 rows, at most 100).
/// Documents are addressed by `documentId`. Pages go by `pagination[page]` and `[pageSize]`, or by `[start]` and `[limit]`; a mix is a
/// 400.
///
/// Read whole: REST API, sort and pagination, errors, configuration; the others not. Not verified: the operators of filters; 403 without
/// a token and 401 with a wrong one; that `id` changes with each update, as the published version is written anew; 204 for a deletion;
/// the wording of messages. A created document is answered with 200 in an example of the documentation, so also here. Strapi has no
/// documented rate limit for content: the 429 has the form of its errors and no `Retry-After`. Filters are
/// `filters[field][$eq|$ne|$gt|$gte|$lt|$lte]`; `populate`, `fields`, drafts and locales are missing.
///
/// [REST API]: https://docs.strapi.io/cms/api/rest
/// [sort and pagination]: https://docs.strapi.io/cms/api/rest/sort-pagination
/// [filters]: https://docs.strapi.io/cms/api/rest/filters
/// [errors]: https://docs.strapi.io/cms/error-handling
/// [API tokens]: https://docs.strapi.io/cms/features/api-tokens
/// [configuration]: https://docs.strapi.io/cms/configurations/api
#[derive(Debug)]
pub struct Strapi(());

impl Strapi {
    /// Token that is accepted after `Bearer`.
    pub const TOKEN: &str = "strapi-double";

    /// Starts a double.
    pub async fn start(rows: Vec<Value>) -> Double {
        Double::start(Strapi(()), rows).await
    }

    /// So many articles.
    pub fn rows(count: usize) -> Vec<Value> {
        (1..=count as u64).map(row).collect()
    }

    fn list(request: &Request, store: &Store) -> Result<Answer, Answer> {
        let query = &request.query;
        let filters: Vec<_> = query.0.iter().filter(|(name, _)| name.starts_with("filters[")).collect();
        let mut rows = Vec::new();
        for row in store.iter() {
            let holds = filters.iter().map(|(name, value)| holds(row, name, value)).collect::<Result<Vec<_>, _>>()?;
            rows.extend(holds.into_iter().all(|holds| holds).then_some(row));
        }
        let sorts = query.0.iter().filter(|(name, _)| name == "sort" || name.starts_with("sort["));
        let sorts: Vec<_> = sorts.flat_map(|(_, value)| value.split(',')).collect();
        for sort in sorts.into_iter().rev() {
            let (name, direction) = sort.split_once(':').unwrap_or((sort, "asc"));
            if rows.first().is_some_and(|row| row.value.get(name).is_none()) {
                return Err(failure(
                    400,
                    "ValidationError",
                    &format!("Invalid key {name}"),
                    json!({"key": name, "path": name, "source": "query"}),
                ));
            }
            let order = |a: &&Row, b: &&Row| sorted(&a.value[name], &b.value[name]);
            rows.sort_by(|a, b| if direction == "desc" { order(b, a) } else { order(a, b) });
        }
        let has = |name: &str| query.has(&format!("pagination[{name}]"));
        let number = |name: &str, default: usize| query.number(&format!("pagination[{name}]"), default);
        let by_offset = has("start") || has("limit");
        if by_offset && (has("page") || has("pageSize")) {
            return Err(failure(
                400,
                "ValidationError",
                "Invalid pagination parameters. Expected either page or offset",
                json!({}),
            ));
        }
        let size = number(if by_offset { "limit" } else { "pageSize" }, 25).clamp(1, 100);
        let page = number("page", 1).max(1);
        let start = if by_offset { number("start", 0) } else { (page - 1).saturating_mul(size) };
        let total = rows.len();
        let mut pagination =
            if by_offset { json!({"start": start, "limit": size}) } else { json!({"page": page, "pageSize": size}) };
        if !query.get("pagination[withCount]").is_some_and(|with| ["false", "0", "f"].contains(&with)) {
            pagination["total"] = total.into();
            if !by_offset {
                pagination["pageCount"] = total.div_ceil(size).into();
            }
        }
        let data: Value = rows.into_iter().skip(start).take(size).map(|row| row.value.clone()).collect();
        Ok(Answer::json(200, &json!({"data": data, "meta": {"pagination": pagination}})))
    }

    fn write(request: &Request, store: &mut Store, id: Option<&str>) -> Result<Answer, Answer> {
        let body = request.object().unwrap_or_default();
        let data = body.get("data").filter(|data| data.is_object());
        let data = data.ok_or_else(|| {
            failure(400, "ValidationError", "Missing \"data\" payload in the request body", json!({}))
        })?;
        let names = sample::object(data);
        if let Some(name) = names.keys().find(|name| !FIELDS.contains(&name.as_str())) {
            return Err(failure(
                400,
                "ValidationError",
                &format!("Invalid key {name}"),
                json!({"key": name, "path": name, "source": "body"}),
            ));
        }
        if data.get("title").map_or(id.is_none(), |title| title.as_str().is_none_or(str::is_empty)) {
            let message = "title must be defined.";
            let details = json!({"errors": [{"path": ["title"], "message": message, "name": "ValidationError"}]});
            return Err(failure(400, "ValidationError", message, details));
        }
        if let Some(id) = id {
            let row = store.change(id, |row| update(row, data, Timestamp::now())).ok_or_else(not_found)?;
            return Ok(Answer::json(200, &json!({"data": row.value, "meta": {}})));
        }
        let row = create(store.next_number(), data, Timestamp::now());
        store.insert(row["documentId"].as_str().unwrap_or_default().to_owned(), row.clone());
        Ok(Answer::json(200, &json!({"data": row, "meta": {}})))
    }
}

impl Api for Strapi {
    fn list_path(&self) -> &'static str {
        ARTICLES
    }

    fn headers(&self) -> Vec<(&'static str, String)> {
        vec![("authorization", format!("Bearer {}", Strapi::TOKEN))]
    }

    fn limit(&self) -> Limit {
        Limit::new(60, Duration::from_secs(60))
    }

    fn pace(&self) -> Pace {
        Pace::Fixed
    }

    fn content(&self) -> Content {
        CONTENT
    }

    fn authorize(&self, request: &Request) -> Result<(), Answer> {
        match (request.header("authorization"), request.credential(&["Bearer"])) {
            (_, Some(Strapi::TOKEN)) => Ok(()),
            (None, _) => Err(failure(403, "ForbiddenError", "Forbidden", json!({}))),
            _ => Err(failure(401, "UnauthorizedError", "Missing or invalid credentials", json!({}))),
        }
    }

    fn answer(&self, request: &Request, store: &mut Store) -> Result<Answer, Answer> {
        match (request.method.as_str(), request.path().as_slice()) {
            ("GET", ["api", "articles"]) => Strapi::list(request, store),
            ("POST", ["api", "articles"]) => Strapi::write(request, store, None),
            ("GET", ["api", "articles", id]) => store
                .get(id)
                .map(|row| Answer::json(200, &json!({"data": row.value, "meta": {}})))
                .ok_or_else(not_found),
            ("PUT", ["api", "articles", id]) => Strapi::write(request, store, Some(id)),
            ("DELETE", ["api", "articles", id]) => store.delete(id).map(|_| Answer::empty(204)).ok_or_else(not_found),
            (_, ["api", "articles"] | ["api", "articles", _]) => {
                Err(failure(405, "MethodNotAllowedError", "Method Not Allowed", json!({})))
            }
            _ => Err(not_found()),
        }
    }

    fn refuse(&self, _: &Usage) -> Answer {
        failure(429, "RateLimitError", "Too many requests, please try again later.", json!({}))
    }

    fn error(&self, status: u16, message: &str) -> Answer {
        failure(status, "InternalServerError", message, json!({}))
    }
}

/// True if a filter such as `filters[title][$eq]` holds; the operator may be left out.
fn holds(row: &Row, name: &str, wanted: &str) -> Result<bool, Answer> {
    let mut parts = name.trim_start_matches("filters[").trim_end_matches(']').split("][");
    let (field, operator) = (parts.next().unwrap_or_default(), parts.next().unwrap_or("$eq"));
    let value = row.value.get(field);
    let value =
        value.ok_or_else(|| failure(400, "ValidationError", &format!("Invalid key {field}"), json!({"key": field})))?;
    let wanted = if value.is_string() { wanted.into() } else { literal(wanted) };
    let operator = Operator::read(operator);
    let operator = operator
        .ok_or_else(|| failure(400, "ValidationError", &format!("Invalid operator {operator:?}"), json!({})))?;
    Ok(operator.holds(value, &wanted))
}

fn failure(status: u16, name: &str, message: &str, details: Value) -> Answer {
    let mut error = json!({"status": status, "name": name, "message": message});
    error["details"] = details;
    Answer::json(status, &json!({"data": null, "error": error}))
}

fn not_found() -> Answer {
    failure(404, "NotFoundError", "Not Found", json!({}))
}
