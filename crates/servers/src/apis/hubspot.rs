//! HubSpot: contacts.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::answer::Answer;
use super::api::Api;
use super::double::Double;
use super::filter::{Operator, literal};
use super::limit::{Limit, Pace, Usage};
use super::page::take;
use super::request::Request;
use super::rows::Content;
use super::rows::hubspot::{CONTENT, create, row, update};
use super::sample;
use super::store::{Row, Store};

const CONTACTS: &str = "/crm/v3/objects/contacts";
const DEFAULT: [&str; 6] = ["createdate", "email", "firstname", "hs_object_id", "lastmodifieddate", "lastname"];
const FIELDS: [&str; 8] = ["email", "firstname", "lastname", "phone", "company", "website", "lifecyclestage", "city"];
/// Results that a search gives at most.
const SEARCHED: usize = 10_000;

/// The CRM API v3 of HubSpot, with contacts.
///
/// From developers.hubspot.com: [contacts] (and HubSpot's OpenAPI description of them), [search], [usage guidelines], [errors]. Values of
/// properties are text or null. An answer has the default properties, and those that the client asks for. The rate limit is a rolling
/// window; a 429 has no `Retry-After`, and searches have no `X-HubSpot-RateLimit-*` headers.
///
/// Read whole: the OpenAPI description; the usage guidelines only as others quote them. Not verified: 400 for a `limit` above the maximum
/// (100 in lists, 200 in searches); that a list takes `after` as opaque, and a search as a number; the wording of messages; 409 for an
/// address that another contact has. The batch endpoints and `propertiesWithHistory` are missing. A search takes the operators EQ, NEQ,
/// GT, GTE, LT and LTE, and one sort.
///
/// [contacts]: https://developers.hubspot.com/docs/api-reference/crm-contacts-v3/guide
/// [search]: https://developers.hubspot.com/docs/api-reference/search/guide
/// [usage guidelines]: https://developers.hubspot.com/docs/developer-tooling/platform/usage-guidelines
/// [errors]: https://developers.hubspot.com/docs/api-reference/error-handling
#[derive(Debug)]
pub struct HubSpot(());

impl HubSpot {
    /// Token that is accepted after `Bearer`.
    pub const TOKEN: &str = "pat-eu1-double";

    /// Starts a double.
    pub async fn start(rows: Vec<Value>) -> Double {
        Double::start(HubSpot(()), rows).await
    }

    /// So many contacts.
    pub fn rows(count: usize) -> Vec<Value> {
        (1..=count as u64).map(row).collect()
    }

    fn list(request: &Request, store: &Store) -> Result<Answer, Answer> {
        let size = size(request.query.number("limit", 10), 100)?;
        let position = match request.query.get("after") {
            None => None,
            Some(after) => Some(store.read_position(after).ok_or_else(|| invalid("The after cursor is invalid"))?),
        };
        let properties = asked(request);
        let (page, more) = take(store.iter().filter(|row| position.is_none_or(|position| row.order > position)), size);
        let mut body = json!({"results": page.iter().map(|row| contact(row, &properties)).collect::<Value>()});
        if let Some(last) = page.last().filter(|_| more) {
            let after = store.cursor(&last.order.to_string());
            let link = request.url_with(&request.query.with("after", &after));
            body["paging"] = json!({"next": {"after": after, "link": link}});
        }
        Ok(Answer::json(200, &body))
    }

    fn search(request: &Request, store: &Store) -> Result<Answer, Answer> {
        let body = request.object().ok_or_else(invalid_body)?;
        let size = size(body["limit"].as_u64().unwrap_or(10) as usize, 200)?;
        let start = match &body["after"] {
            Value::String(text) => text.parse().map_err(|_| invalid("after must be a number"))?,
            number => number.as_u64().unwrap_or(0) as usize,
        };
        if start + size > SEARCHED {
            return Err(invalid(&format!("A search has at most {SEARCHED} results")));
        }
        let groups = body["filterGroups"].as_array().cloned().unwrap_or_default();
        let mut rows = Vec::new();
        for row in store.iter() {
            let mut is_found = groups.is_empty();
            for group in &groups {
                let filters = group["filters"].as_array().into_iter().flatten();
                is_found |= filters
                    .map(|filter| holds(row, filter))
                    .collect::<Result<Vec<_>, _>>()?
                    .into_iter()
                    .all(|holds| holds);
            }
            rows.extend(is_found.then_some(row));
        }
        if let Some(sort) = body.pointer("/sorts/0") {
            let name = sort.as_str().or_else(|| sort["propertyName"].as_str()).unwrap_or_default();
            let pointer = format!("/properties/{}", name.trim_start_matches('-'));
            rows.sort_by(|a, b| a.text(&pointer).cmp(b.text(&pointer)));
            if sort["direction"] == "DESCENDING" || name.starts_with('-') {
                rows.reverse();
            }
        }
        let properties: Vec<_> =
            body["properties"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        let total = rows.len();
        let (page, more) = take(rows.into_iter().skip(start), size);
        let results: Value = page.iter().map(|row| contact(row, &properties)).collect();
        let mut answer = json!({"total": total, "results": results});
        if more {
            answer["paging"] = json!({"next": {"after": (start + page.len()).to_string()}});
        }
        Ok(Answer::json(200, &answer))
    }

    fn write(request: &Request, store: &mut Store, id: Option<&str>) -> Result<Answer, Answer> {
        let body = request.object().ok_or_else(invalid_body)?;
        let properties = body["properties"].as_object().ok_or_else(invalid_body)?;
        if let Some(name) = properties.keys().find(|name| !FIELDS.contains(&name.as_str())) {
            return Err(invalid_property(
                name,
                "PROPERTY_DOESNT_EXIST",
                &format!("Property \"{name}\" does not exist"),
            ));
        }
        if let Some(email) = properties.get("email").and_then(Value::as_str).filter(|email| !email.is_empty()) {
            if !email.contains('@') {
                return Err(invalid_property("email", "INVALID_EMAIL", &format!("Email address {email} is invalid")));
            }
            if let Some(other) =
                store.iter().find(|row| row.text("/properties/email") == email && Some(row.id.as_str()) != id)
            {
                return Err(failure(409, "CONFLICT", &format!("Contact already exists. Existing ID: {}", other.id)));
            }
        }
        if let Some(id) = id {
            store.change(id, |row| update(row, &body, Timestamp::now()));
            return store.get(id).map(|row| Answer::json(200, &contact(row, &FIELDS))).ok_or_else(not_found);
        }
        let row = create(store.next_number(), &body, Timestamp::now());
        let id = row["id"].as_str().unwrap_or_default().to_owned();
        store.insert(id.clone(), row);
        store.get(&id).map(|row| Answer::json(201, &contact(row, &FIELDS))).ok_or_else(not_found)
    }
}

impl Api for HubSpot {
    fn list_path(&self) -> &'static str {
        CONTACTS
    }

    fn headers(&self) -> Vec<(&'static str, String)> {
        vec![("authorization", format!("Bearer {}", HubSpot::TOKEN))]
    }

    fn limit(&self) -> Limit {
        Limit::new(100, Duration::from_secs(10))
    }

    fn pace(&self) -> Pace {
        Pace::Rolling
    }

    fn content(&self) -> Content {
        CONTENT
    }

    fn authorize(&self, request: &Request) -> Result<(), Answer> {
        let message = "Authentication credentials not found. This API supports OAuth 2.0 authentication";
        let is_known = request.credential(&["Bearer"]) == Some(HubSpot::TOKEN);
        is_known.then_some(()).ok_or_else(|| failure(401, "INVALID_AUTHENTICATION", message))
    }

    fn answer(&self, request: &Request, store: &mut Store) -> Result<Answer, Answer> {
        let path = request.path();
        let (["crm", "v3", "objects", "contacts", rest @ ..], method) = (path.as_slice(), request.method.as_str())
        else {
            return Err(failure(404, "OBJECT_NOT_FOUND", "resource not found"));
        };
        match (method, rest) {
            ("GET", []) => HubSpot::list(request, store),
            ("POST", []) => HubSpot::write(request, store, None),
            ("POST", ["search"]) => HubSpot::search(request, store),
            ("GET", [id]) => {
                let by_email = |row: &&Row| row.text("/properties/email") == *id;
                let row = if request.query.get("idProperty") == Some("email") {
                    store.iter().find(by_email)
                } else {
                    store.get(id)
                };
                row.map(|row| Answer::json(200, &contact(row, &asked(request)))).ok_or_else(not_found)
            }
            ("PATCH", [id]) => HubSpot::write(request, store, Some(id)),
            ("DELETE", [id]) => store.delete(id).map(|_| Answer::empty(204)).ok_or_else(not_found),
            _ => Err(failure(405, "METHOD_NOT_ALLOWED", "Method not allowed")),
        }
    }

    fn refuse(&self, _: &Usage) -> Answer {
        Answer::json(
            429,
            &json!({
                "status": "error", "message": "You have reached your ten_secondly_rolling limit.", "errorType": "RATE_LIMIT",
                "correlationId": sample::uuid(429), "policyName": "TEN_SECONDLY_ROLLING", "requestId": "41ad62ce9cbb4c40b5ae1ab4aaa59e3c",
            }),
        )
    }

    fn label(&self, answer: Answer, request: &Request, usage: &Usage) -> Answer {
        if request.path().last() == Some(&"search") {
            return answer;
        }
        answer
            .with("x-hubspot-ratelimit-daily", 250_000)
            .with("x-hubspot-ratelimit-daily-remaining", 249_000)
            .with("x-hubspot-ratelimit-interval-milliseconds", usage.limit.window.as_millis())
            .with("x-hubspot-ratelimit-max", usage.limit.requests)
            .with("x-hubspot-ratelimit-remaining", usage.remaining())
    }

    fn error(&self, status: u16, message: &str) -> Answer {
        failure(status, "INTERNAL_ERROR", message)
    }
}

fn size(asked: usize, most: usize) -> Result<usize, Answer> {
    let is_valid = (1..=most).contains(&asked);
    is_valid.then_some(asked).ok_or_else(|| invalid(&format!("limit must be between 1 and {most}")))
}

/// Names of the properties that the client asks for beside the default ones.
fn asked(request: &Request) -> Vec<&str> {
    request.query.all("properties").flat_map(|names| names.split(',')).collect()
}

/// The contact with the properties that are in an answer.
fn contact(row: &Row, asked: &[&str]) -> Value {
    let names = DEFAULT.iter().chain(asked).map(|name| name.trim());
    let properties: Map<_, _> = names.map(|name| (name.to_owned(), row.value["properties"][name].clone())).collect();
    let mut contact = row.value.clone();
    contact["properties"] = Value::Object(properties);
    contact
}

/// True if a filter of a search holds. Times are compared as milliseconds, and may be given so or as text.
fn holds(row: &Row, filter: &Value) -> Result<bool, Answer> {
    let name = filter["propertyName"].as_str().ok_or_else(|| invalid("A filter needs a propertyName"))?;
    let wanted = match &filter["value"] {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let operator = filter["operator"].as_str().and_then(Operator::read);
    let operator = operator.ok_or_else(|| invalid(&format!("The operator {} is not known", filter["operator"])))?;
    Ok(operator.holds(&comparable(row.text(&format!("/properties/{name}"))), &comparable(&wanted)))
}

/// Milliseconds of a time, a number, or the text itself.
fn comparable(text: &str) -> Value {
    text.parse::<Timestamp>().map_or_else(|_| literal(text), |time| time.as_millisecond().into())
}

fn failure(status: u16, category: &str, message: &str) -> Answer {
    let correlation = sample::uuid(u64::from(status));
    Answer::json(
        status,
        &json!({"status": "error", "message": message, "correlationId": correlation, "category": category}),
    )
}

fn invalid(message: &str) -> Answer {
    failure(400, "VALIDATION_ERROR", message)
}

fn invalid_property(name: &str, error: &str, message: &str) -> Answer {
    let problem = json!([{"isValid": false, "message": message, "error": error, "name": name}]);
    invalid(&format!("Property values were not valid: {problem}"))
}

fn invalid_body() -> Answer {
    invalid("Invalid input JSON")
}

fn not_found() -> Answer {
    failure(404, "OBJECT_NOT_FOUND", "Object not found.  objectId are usually numeric.")
}
