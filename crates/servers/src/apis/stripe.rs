//! Stripe: customers.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
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
use super::rows::stripe::{CONTENT, FIELDS, create, row, update};
use super::sample;
use super::store::{Kept, Row, Store};

const CUSTOMERS: &str = "/v1/customers";

/// The API of Stripe, with customers.
///
/// From docs.stripe.com: [pagination], [authentication], [errors], [idempotent requests], [rate limits], [customers]. A list has the
/// newest customer first. A 429 has `Stripe-Rate-Limited-Reason`; no `Retry-After` is documented. Bodies are forms, updates are POST.
///
/// Read in part: all of these but the page of customers, which was not at hand. Not verified, therefore: the fields of a customer, the
/// answers after a deletion, that an empty text unsets a field. Not documented: 400 for a `limit` outside of 1 to 100; that the id of a
/// deleted customer is still valid in `starting_after`; 400 for a body in JSON; the header `Idempotent-Replayed`; the wording of
/// messages. Idempotency keys are kept as long as the double lives. A failed validation is not kept, as documented.
///
/// [pagination]: https://docs.stripe.com/api/pagination
/// [authentication]: https://docs.stripe.com/api/authentication
/// [errors]: https://docs.stripe.com/api/errors
/// [idempotent requests]: https://docs.stripe.com/api/idempotent_requests
/// [rate limits]: https://docs.stripe.com/rate-limits
/// [customers]: https://docs.stripe.com/api/customers
#[derive(Debug)]
pub struct Stripe(());

impl Stripe {
    /// Key that is accepted as the user name of basic authentication, or after `Bearer`.
    pub const KEY: &str = "sk_test_double";

    /// Starts a double.
    pub async fn start(rows: Vec<Value>) -> Double {
        Double::start(Stripe(()), rows).await
    }

    /// So many customers.
    pub fn rows(count: usize) -> Vec<Value> {
        (1..=count as u64).map(row).collect()
    }

    fn list(request: &Request, store: &Store) -> Result<Answer, Answer> {
        let query = &request.query;
        let size =
            query.get("limit").map_or(Some(10), |text| text.parse().ok().filter(|size| (1..=100).contains(size)));
        let size = size.ok_or_else(|| invalid("limit", "This value must be between 1 and 100.", None))?;
        let (after, before) = (query.get("starting_after"), query.get("ending_before"));
        if after.is_some() && before.is_some() {
            return Err(invalid(
                "ending_before",
                "You cannot parameterize starting_after and ending_before together.",
                None,
            ));
        }
        let position = match (after, before) {
            (Some(id), _) => Some(store.order(id).ok_or_else(|| missing(400, "starting_after", id))?),
            (_, Some(id)) => Some(store.order(id).ok_or_else(|| missing(400, "ending_before", id))?),
            _ => None,
        };
        let is_listed = |row: &&Row| {
            query.get("email").is_none_or(|email| row.text("/email") == email) && is_created_in(row, query)
        };
        let (mut page, more) = match before {
            // The page right before the position, in the order of the list.
            Some(_) => take(store.iter().filter(is_listed).filter(|row| Some(row.order) > position), size),
            None => {
                let rows = store.iter().rev().filter(is_listed);
                take(rows.filter(|row| position.is_none_or(|position| row.order < position)), size)
            }
        };
        if before.is_some() {
            page.reverse();
        }
        let data: Value = page.iter().map(|row| &row.value).cloned().collect();
        Ok(Answer::json(200, &json!({"object": "list", "url": CUSTOMERS, "has_more": more, "data": data})))
    }

    fn one(store: &Store, id: &str) -> Result<Answer, Answer> {
        match store.get(id) {
            Some(row) => Ok(Answer::json(200, &row.value)),
            None if store.was_deleted(id) => {
                Ok(Answer::json(200, &json!({"id": id, "object": "customer", "deleted": true})))
            }
            None => Err(missing(404, "id", id)),
        }
    }

    /// Runs a POST once for each idempotency key.
    fn write_once(request: &Request, store: &mut Store, id: Option<&str>) -> Result<Answer, Answer> {
        let Some(key) = request.header("idempotency-key") else { return Stripe::write(request, store, id) };
        if key.len() > 255 {
            return Err(failure(400, "idempotency_error", "Idempotency keys may be at most 255 characters long."));
        }
        let sent = (request.target.clone(), request.body.to_vec());
        if let Some(kept) = store.kept.get(key) {
            if kept.request != sent {
                let message =
                    "Keys for idempotent requests can only be used with the same parameters they were first used with.";
                return Err(failure(400, "idempotency_error", message));
            }
            return Ok(kept.answer.clone().with("idempotent-replayed", "true"));
        }
        let answer = Stripe::write(request, store, id)?;
        store.kept.insert(key.to_owned(), Kept { request: sent, answer: answer.clone() });
        Ok(answer.with("idempotency-key", key))
    }

    fn write(request: &Request, store: &mut Store, id: Option<&str>) -> Result<Answer, Answer> {
        if request.header("content-type").is_some_and(|kind| kind.starts_with("application/json")) {
            return Err(failure(400, "invalid_request_error", "Request bodies must be form-encoded."));
        }
        let content = nested(&Params::parse(&request.body));
        if let Some(name) = sample::object(&content).keys().find(|name| !FIELDS.contains(&name.as_str())) {
            return Err(invalid(name, &format!("Received unknown parameter: {name}"), Some("parameter_unknown")));
        }
        if content["email"].as_str().is_some_and(|email| !email.is_empty() && !email.contains('@')) {
            return Err(invalid(
                "email",
                &format!("Invalid email address: {}", content["email"]),
                Some("email_invalid"),
            ));
        }
        match id {
            Some(id) => {
                let row = store
                    .change(id, |row| update(row, &content, Timestamp::now()))
                    .ok_or_else(|| missing(404, "id", id))?;
                Ok(Answer::json(200, &row.value))
            }
            None => {
                let row = create(store.next_number(), &content, Timestamp::now());
                store.insert((CONTENT.id)(&row), row.clone());
                Ok(Answer::json(200, &row))
            }
        }
    }
}

impl Api for Stripe {
    fn list_path(&self) -> &'static str {
        CUSTOMERS
    }

    fn headers(&self) -> Vec<(&'static str, String)> {
        vec![("authorization", format!("Basic {}", STANDARD.encode(format!("{}:", Stripe::KEY))))]
    }

    fn limit(&self) -> Limit {
        Limit::new(25, Duration::from_secs(1))
    }

    fn pace(&self) -> Pace {
        Pace::Rolling
    }

    fn content(&self) -> Content {
        CONTENT
    }

    fn authorize(&self, request: &Request) -> Result<(), Answer> {
        let basic = request.credential(&["Basic"]).and_then(|text| STANDARD.decode(text).ok()).unwrap_or_default();
        let basic = String::from_utf8_lossy(&basic).into_owned();
        let key = request.credential(&["Bearer"]).or_else(|| basic.split(':').next()).unwrap_or_default();
        match key {
            Stripe::KEY => Ok(()),
            "" => Err(failure(401, "invalid_request_error", "You did not provide an API key.")),
            _ => Err(failure(401, "invalid_request_error", "Invalid API Key provided: sk_test_****")),
        }
    }

    fn answer(&self, request: &Request, store: &mut Store) -> Result<Answer, Answer> {
        match (request.method.as_str(), request.path().as_slice()) {
            ("GET", ["v1", "customers"]) => Stripe::list(request, store),
            ("POST", ["v1", "customers"]) => Stripe::write_once(request, store, None),
            ("GET", ["v1", "customers", id]) => Stripe::one(store, id),
            ("POST", ["v1", "customers", id]) => Stripe::write_once(request, store, Some(id)),
            ("DELETE", ["v1", "customers", id]) => {
                store.delete(id).ok_or_else(|| missing(404, "id", id))?;
                Ok(Answer::json(200, &json!({"id": id, "object": "customer", "deleted": true})))
            }
            (method, _) => Err(failure(
                404,
                "invalid_request_error",
                &format!("Unrecognized request URL ({method}: {})", request.target),
            )),
        }
    }

    fn refuse(&self, _: &Usage) -> Answer {
        let message =
            "Request rate limit exceeded. Learn more about rate limits here https://docs.stripe.com/rate-limits.";
        let error = json!({"type": "invalid_request_error", "code": "rate_limit", "message": message});
        Answer::json(429, &json!({"error": error})).with("stripe-rate-limited-reason", "global-rate")
    }

    fn label(&self, answer: Answer, _: &Request, _: &Usage) -> Answer {
        answer.with("stripe-version", "2026-08-26.dahlia")
    }

    fn error(&self, status: u16, message: &str) -> Answer {
        failure(status, "api_error", message)
    }
}

/// True if the time of creation is the one asked for: `created`, or `created[gt]`, `[gte]`, `[lt]`, `[lte]`.
fn is_created_in(row: &Row, query: &Params) -> bool {
    let created = row.value["created"].as_i64().unwrap_or(0);
    let holds = |name: &str, is_right: fn(&i64, &i64) -> bool| {
        query.get(name).and_then(|text| text.parse().ok()).is_none_or(|bound| is_right(&created, &bound))
    };
    holds("created", i64::eq)
        && holds("created[gt]", i64::gt)
        && holds("created[gte]", i64::ge)
        && holds("created[lt]", i64::lt)
        && holds("created[lte]", i64::le)
}

/// Form fields as an object: `metadata[size]=7` is a member of `metadata`, `x[]=1` one of a list.
fn nested(fields: &Params) -> Value {
    let mut content = json!({});
    for (name, value) in &fields.0 {
        match name.split_once('[') {
            None => content[name] = value.as_str().into(),
            Some((list, "]")) => match &mut content[list] {
                Value::Array(list) => list.push(value.as_str().into()),
                first => *first = json!([value]),
            },
            Some((object, member)) => content[object][member.trim_end_matches(']')] = value.as_str().into(),
        }
    }
    content
}

fn failure(status: u16, kind: &str, message: &str) -> Answer {
    Answer::json(status, &json!({"error": {"type": kind, "message": message}}))
}

fn invalid(param: &str, message: &str, code: Option<&str>) -> Answer {
    let mut error = json!({"type": "invalid_request_error", "message": message, "param": param});
    if let Some(code) = code {
        error["code"] = code.into();
        error["doc_url"] = format!("https://docs.stripe.com/error-codes/{}", code.replace('_', "-")).into();
    }
    Answer::json(400, &json!({"error": error}))
}

fn missing(status: u16, param: &str, id: &str) -> Answer {
    invalid(param, &format!("No such customer: '{id}'"), Some("resource_missing")).with_status(status)
}
