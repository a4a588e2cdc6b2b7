//! Templates of paths and bodies: `/{id}` in a path, `"{row}"` and `"{id}"` in a body.

use http::header::HeaderValue;

use super::pointer;
use diorama_core::record::{CborValue, value_to_json};
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};

/// Characters of a path segment that are escaped (RFC 3986, section 3.3), and `/`.
const SEGMENT: &AsciiSet = &CONTROLS
    .add(b' ')
    .add(b'"')
    .add(b'#')
    .add(b'%')
    .add(b'/')
    .add(b'<')
    .add(b'>')
    .add(b'?')
    .add(b'[')
    .add(b'\\')
    .add(b']')
    .add(b'^')
    .add(b'`')
    .add(b'{')
    .add(b'|')
    .add(b'}');

/// Returns `path` with the id in the place of `{id}`. `.` and `..` are escaped, because servers resolve them.
pub(super) fn path(path: &str, id: &str) -> String {
    let escaped = match id {
        "." => "%2E".to_string(),
        ".." => "%2E%2E".to_string(),
        id => utf8_percent_encode(id, SEGMENT).to_string(),
    };
    path.replace("{id}", &escaped)
}

/// Body of a write.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum BodyTemplate {
    /// The columns are placed at a JSON Pointer.
    At(String),
    /// `"{row}"` is replaced by the columns, `"{id}"` by the id.
    Json(CborValue),
}

impl BodyTemplate {
    /// A text is a JSON Pointer, anything else a document.
    pub(super) fn of(body: CborValue) -> BodyTemplate {
        match body {
            CborValue::Text(at) => BodyTemplate::At(at),
            template => BodyTemplate::Json(template),
        }
    }

    /// Returns the body with `cells`, the columns as an object.
    pub(super) fn fill(&self, id: Option<&CborValue>, cells: CborValue) -> CborValue {
        match self {
            BodyTemplate::At(at) => {
                let mut body = CborValue::Map(Vec::new());
                pointer::set(&mut body, at, cells);
                body
            }
            BodyTemplate::Json(template) => fill(template, id, &cells).unwrap_or(CborValue::Null),
        }
    }
}

/// Returns the filled value; `None` for an `{id}` without an id, whose member is left out.
fn fill(template: &CborValue, id: Option<&CborValue>, cells: &CborValue) -> Option<CborValue> {
    Some(match template {
        CborValue::Text(text) if text == "{row}" => cells.clone(),
        CborValue::Text(text) if text == "{id}" => id?.clone(),
        CborValue::Map(members) => {
            let member = |(key, value): &(CborValue, CborValue)| Some((key.clone(), fill(value, id, cells)?));
            CborValue::Map(members.iter().filter_map(member).collect())
        }
        CborValue::Array(items) => CborValue::Array(items.iter().filter_map(|item| fill(item, id, cells)).collect()),
        value => value.clone(),
    })
}

/// Media type of forms.
const FORM: &str = "application/x-www-form-urlencoded";

/// Returns a body in a media type: JSON, or a form whose nested values have names like `address[city]` and `items[0][price]`, as PHP,
/// Rails and Stripe read them. Null is an empty text.
pub(super) fn encode(body: &CborValue, content_type: &HeaderValue) -> Vec<u8> {
    if !content_type.as_bytes().starts_with(FORM.as_bytes()) {
        return value_to_json(body);
    }
    let mut pairs = Vec::new();
    flatten(body, String::new(), &mut pairs);
    url::form_urlencoded::Serializer::new(String::new()).extend_pairs(pairs).finish().into_bytes()
}

fn flatten(value: &CborValue, name: String, pairs: &mut Vec<(String, String)>) {
    let below = |part: &str| if name.is_empty() { part.to_string() } else { format!("{name}[{part}]") };
    match value {
        CborValue::Map(members) => {
            for (key, value) in members {
                flatten(value, below(key.as_text().unwrap_or_default()), pairs);
            }
        }
        CborValue::Array(items) => {
            for (at, item) in items.iter().enumerate() {
                flatten(item, below(&at.to_string()), pairs);
            }
        }
        CborValue::Null => pairs.push((name, String::new())),
        CborValue::Text(text) => pairs.push((name, text.clone())),
        value => pairs.push((name, String::from_utf8_lossy(&value_to_json(value)).into_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use diorama_core::record::{JsonLimits, parse_json};

    fn json(text: &str) -> CborValue {
        parse_json(text.as_bytes(), JsonLimits::default()).unwrap()
    }

    #[test]
    fn an_id_is_one_segment_of_the_path() {
        assert_eq!(path("/{id}", "a/b c?d#e"), "/a%2Fb%20c%3Fd%23e");
        assert_eq!(path("/x/{id}/y", "ü"), "/x/%C3%BC/y");
        assert_eq!((path("/{id}", ".."), path("/{id}", ".")), ("/%2E%2E".into(), "/%2E".into()));
        assert_eq!(path("('{id}')", "1"), "('1')");
    }

    #[test]
    fn a_form_has_the_names_of_nested_values() {
        let body = json(r#"{"name":"a b","tax":null,"address":{"city":"x&y"},"items":[{"n":1},{"n":2.5}],"on":true}"#);
        let form = encode(&body, &HeaderValue::from_static("application/x-www-form-urlencoded"));
        let expected = "name=a+b&tax=&address%5Bcity%5D=x%26y&items%5B0%5D%5Bn%5D=1&items%5B1%5D%5Bn%5D=2.5&on=true";
        assert_eq!(String::from_utf8(form).unwrap(), expected);
    }

    #[test]
    fn a_body_has_the_columns_where_the_api_expects_them() {
        let cells = json(r#"{"name":"x"}"#);
        assert_eq!(BodyTemplate::At("".into()).fill(None, cells.clone()), cells);
        assert_eq!(BodyTemplate::At("/data".into()).fill(None, cells.clone()), json(r#"{"data":{"name":"x"}}"#));
        let template = BodyTemplate::Json(json(r#"{"data":{"type":"a","id":"{id}","attributes":"{row}"}}"#));
        let whole = json(r#"{"data":{"type":"a","id":"7","attributes":{"name":"x"}}}"#);
        assert_eq!(template.fill(Some(&"7".into()), cells.clone()), whole);
        assert_eq!(template.fill(None, cells), json(r#"{"data":{"type":"a","attributes":{"name":"x"}}}"#));
    }
}
