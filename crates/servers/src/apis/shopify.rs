//! Shopify: products.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::answer::Answer;
use super::api::Api;
use super::double::Double;
use super::limit::{Limit, Pace, Usage};
use super::page::take;
use super::params::Params;
use super::request::Request;
use super::rows::Content;
use super::rows::shopify::{CONTENT, create, row, update};
use super::sample;
use super::store::{Row, Store};

const PRODUCTS: &str = "/admin/api/2026-07/products.json";

/// The REST Admin API of Shopify, with products.
///
/// From shopify.dev: [pagination], [rate limits], [response codes], [authentication], [products]. A request with `page_info` may have no
/// other parameters than `limit` and `fields`; the filters of the first request go on to hold. The bucket has 40 places and loses two in
/// a second ([`Double::documented_limit`]).
///
/// Read in part: all of these; the body of the 422 is that of other resources. Not verified: `since_id`, `ids` and `fields`. Not
/// documented: that a `limit` above 250 is cut to 250; the order of the list (here by id); the bodies of the errors for an invalid
/// `page_info` and for a missing `product`; the format of `page_info`, and that [`Double::expire_cursors`] makes it a 400.
///
/// [pagination]: https://shopify.dev/docs/api/admin-rest/usage/pagination
/// [rate limits]: https://shopify.dev/docs/api/admin-rest/usage/rate-limits
/// [response codes]: https://shopify.dev/docs/api/usage/response-codes
/// [authentication]: https://shopify.dev/docs/api/admin-rest#authentication
/// [products]: https://shopify.dev/docs/api/admin-rest/latest/resources/product
#[derive(Debug)]
pub struct Shopify(());

impl Shopify {
    /// Token that is accepted in `X-Shopify-Access-Token`.
    pub const TOKEN: &str = "shpat_double";

    /// Starts a double.
    pub async fn start(rows: Vec<Value>) -> Double {
        Double::start(Shopify(()), rows).await
    }

    /// So many products with one or two variants each.
    pub fn rows(count: usize) -> Vec<Value> {
        (1..=count as u64).map(row).collect()
    }

    fn list(request: &Request, store: &Store) -> Result<Answer, Answer> {
        let query = &request.query;
        let size = query.number("limit", 50).clamp(1, 250);
        let Some(cursor) = query.get("page_info") else {
            let since = query.get("since_id").and_then(|id| store.order(id));
            return Ok(page(request, store, query, &Place { forward: true, position: since }, size));
        };
        if query.0.iter().any(|(name, _)| !["page_info", "limit", "fields"].contains(&name.as_str())) {
            return Err(errors(
                400,
                json!({"page_info": "Cannot be combined with other parameters than limit and fields"}),
            ));
        }
        let (place, filter) = read(store, cursor).ok_or_else(|| errors(400, json!({"page_info": "Invalid value."})))?;
        Ok(page(request, store, &filter, &place, size))
    }

    fn write(request: &Request, store: &mut Store, id: Option<&str>) -> Result<Answer, Answer> {
        let body =
            request.object().ok_or_else(|| errors(400, json!({"product": "Required parameter missing or invalid"})))?;
        let content = body.get("product").filter(|product| product.is_object());
        let content =
            content.ok_or_else(|| errors(400, json!({"product": "Required parameter missing or invalid"})))?;
        let is_blank = content.get("title").map_or(id.is_none(), |title| title.as_str().is_none_or(str::is_empty));
        if id.is_some_and(|id| store.get(id).is_none()) {
            return Err(not_found());
        }
        if is_blank {
            return Err(errors(422, json!({"title": ["can't be blank"]})));
        }
        if let Some(id) = id {
            let row = store.change(id, |row| update(row, content, Timestamp::now())).ok_or_else(not_found)?;
            return Ok(Answer::json(200, &json!({"product": row.value})));
        }
        let row = create(store.next_number(), content, Timestamp::now());
        store.insert(row["id"].to_string(), row.clone());
        Ok(Answer::json(201, &json!({"product": row})))
    }
}

impl Api for Shopify {
    fn list_path(&self) -> &'static str {
        PRODUCTS
    }

    fn headers(&self) -> Vec<(&'static str, String)> {
        vec![("x-shopify-access-token", Shopify::TOKEN.to_owned())]
    }

    fn limit(&self) -> Limit {
        Limit::new(40, Duration::from_secs(20))
    }

    fn pace(&self) -> Pace {
        Pace::Leaky
    }

    fn content(&self) -> Content {
        CONTENT
    }

    fn authorize(&self, request: &Request) -> Result<(), Answer> {
        let is_known = request.header("x-shopify-access-token") == Some(Shopify::TOKEN);
        let message = "[API] Invalid API key or access token (unrecognized login or wrong password)";
        is_known.then_some(()).ok_or_else(|| errors(401, message.into()))
    }

    fn answer(&self, request: &Request, store: &mut Store) -> Result<Answer, Answer> {
        let path = request.path();
        let (["admin", "api", _version, rest @ ..], method) = (path.as_slice(), request.method.as_str()) else {
            return Err(not_found());
        };
        if let ("POST" | "PUT", Some(kind)) = (method, request.header("content-type"))
            && !kind.starts_with("application/json")
        {
            return Err(errors(400, "The Content-Type is not application/json".into()));
        }
        match (method, rest) {
            ("GET", ["products.json"]) => Shopify::list(request, store),
            ("POST", ["products.json"]) => Shopify::write(request, store, None),
            ("GET", ["products", "count.json"]) => Ok(Answer::json(200, &json!({"count": store.len()}))),
            (_, ["products", file]) => {
                let id = file.strip_suffix(".json").ok_or_else(not_found)?;
                match method {
                    "GET" => {
                        store.get(id).map(|row| Answer::json(200, &json!({"product": row.value}))).ok_or_else(not_found)
                    }
                    "PUT" => Shopify::write(request, store, Some(id)),
                    "DELETE" => store.delete(id).map(|_| Answer::json(200, &json!({}))).ok_or_else(not_found),
                    _ => Err(not_found()),
                }
            }
            _ => Err(not_found()),
        }
    }

    fn refuse(&self, _: &Usage) -> Answer {
        let message =
            "Exceeded 2 calls per second for api client. Reduce request rates to resume uninterrupted service.";
        errors(429, message.into()).with("retry-after", "2.0")
    }

    fn label(&self, answer: Answer, _: &Request, usage: &Usage) -> Answer {
        answer.with("x-shopify-shop-api-call-limit", format!("{}/{}", usage.used, usage.limit.requests))
    }

    fn error(&self, status: u16, message: &str) -> Answer {
        errors(status, message.into())
    }
}

/// Place of a page: the rows after or before a position.
struct Place {
    forward: bool,
    position: Option<u64>,
}

fn page(request: &Request, store: &Store, filter: &Params, place: &Place, size: usize) -> Answer {
    let updated = filter.get("updated_at_min").and_then(|text| text.parse::<Timestamp>().ok());
    let is_listed = |row: &&Row| {
        updated.is_none_or(|min| row.text("/updated_at").parse::<Timestamp>().is_ok_and(|time| time >= min))
            && filter.get("status").is_none_or(|status| row.text("/status") == status)
            && filter.get("ids").is_none_or(|ids| ids.split(',').any(|id| id == row.id))
    };
    let (rows, more) = if place.forward {
        let after = |row: &&Row| place.position.is_none_or(|position| row.order > position);
        take(store.iter().filter(after).filter(is_listed), size)
    } else {
        let (mut rows, more) =
            take(store.iter().rev().filter(|row| Some(row.order) < place.position).filter(is_listed), size);
        rows.reverse();
        (rows, more)
    };
    let is_first = place.position.is_none() || (!place.forward && !more) || filter.has("since_id");
    let previous = rows.first().filter(|_| !is_first).map(|row| ("previous", false, row.order));
    let next = rows.last().filter(|_| more || !place.forward).map(|row| ("next", true, row.order));
    let filter = filter.without("limit").without("fields").without("since_id");
    let link = |(relation, forward, position): (&str, bool, u64)| {
        let cursor = store.cursor(&format!("{forward}|{position}|{filter}"));
        let mut query = Params::default().with("limit", size);
        if let Some(fields) = request.query.get("fields") {
            query = query.with("fields", fields);
        }
        format!("<{}>; rel=\"{relation}\"", request.url_with(&query.with("page_info", cursor)))
    };
    let links: Vec<_> = [previous, next].into_iter().flatten().map(link).collect();
    let products: Value = rows.iter().map(|row| chosen(&row.value, request.query.get("fields"))).collect();
    let answer = Answer::json(200, &json!({"products": products}));
    answer.with_some("link", (!links.is_empty()).then(|| links.join(", ")))
}

fn read(store: &Store, cursor: &str) -> Option<(Place, Params)> {
    let text = store.read_cursor(cursor)?;
    let mut parts = text.splitn(3, '|');
    let forward = parts.next()? == "true";
    let position = Some(parts.next()?.parse().ok()?);
    Some((Place { forward, position }, Params::parse(parts.next()?.as_bytes())))
}

fn chosen(product: &Value, fields: Option<&str>) -> Value {
    let Some(fields) = fields else { return product.clone() };
    let mut chosen = sample::object(product);
    chosen.retain(|name, _| fields.split(',').any(|field| field.trim() == name));
    Value::Object(chosen)
}

fn errors(status: u16, errors: Value) -> Answer {
    let mut body = json!({});
    body["errors"] = errors;
    Answer::json(status, &body)
}

fn not_found() -> Answer {
    errors(404, "Not Found".into())
}
