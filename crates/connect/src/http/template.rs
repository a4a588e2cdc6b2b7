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

/// Characters of a value in a query that are escaped, so that it remains one value.
const VALUE: &AsciiSet = &SEGMENT.add(b'&').add(b'+').add(b';').add(b'=');

/// Returns `path` with the id in the place of `{id}`, which may be in its query too.
///
/// # Errors
/// A segment would be empty, `.` or `..` by the id. Clients and servers resolve these, also if they are escaped, so that the request would be
/// about another row or about all of them.
pub(super) fn path(path: &str, id: &str) -> Result<String, String> {
    let (path, query) = path.split_once('?').map_or((path, None), |(path, query)| (path, Some(query)));
    let escaped = utf8_percent_encode(id, SEGMENT).to_string();
    let mut filled = String::with_capacity(path.len() + escaped.len());
    for (at, segment) in path.split('/').enumerate() {
        let own = segment.replace("{id}", &escaped);
        if segment.contains("{id}") && matches!(own.to_ascii_lowercase().replace("%2e", ".").as_str(), "" | "." | "..")
        {
            return Err(format!("the id {id:?} cannot be part of a path"));
        }
        if at > 0 {
            filled.push('/');
        }
        filled.push_str(&own);
    }
    if let Some(query) = query {
        filled.push('?');
        filled.push_str(&query.replace("{id}", &utf8_percent_encode(id, VALUE).to_string()));
    }
    Ok(filled)
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
/// Maximum size of a form in bytes before it is escaped. Each value repeats the names above it, so that a form can be larger than its row
/// many times over.
const MOST_FORM: usize = 16 << 20;

/// Returns a body in a media type: JSON, or a form whose nested values have names like `address[city]` and `items[0][price]`, as PHP,
/// Rails and Stripe read them. Null is an empty text.
///
/// # Errors
/// The form is too large.
pub(super) fn encode(body: &CborValue, content_type: &HeaderValue) -> Result<Vec<u8>, String> {
    if !content_type.as_bytes().starts_with(FORM.as_bytes()) {
        return Ok(value_to_json(body));
    }
    let mut form = Form { pairs: url::form_urlencoded::Serializer::new(String::new()), left: MOST_FORM };
    form.add(body, "")?;
    Ok(form.pairs.finish().into_bytes())
}

/// A form that is being written.
struct Form {
    pairs: url::form_urlencoded::Serializer<'static, String>,
    /// Number of bytes that it may still have.
    left: usize,
}

impl Form {
    fn add(&mut self, value: &CborValue, name: &str) -> Result<(), String> {
        match value {
            CborValue::Map(members) => {
                for (key, value) in members {
                    let below = self.below(name, key.as_text().unwrap_or_default())?;
                    self.add(value, &below)?;
                }
                Ok(())
            }
            CborValue::Array(items) => {
                for (at, item) in items.iter().enumerate() {
                    let below = self.below(name, &at.to_string())?;
                    self.add(item, &below)?;
                }
                Ok(())
            }
            CborValue::Null => self.pair(name, ""),
            CborValue::Text(text) => self.pair(name, text),
            value => self.pair(name, &String::from_utf8_lossy(&value_to_json(value))),
        }
    }

    /// Returns the name of a member or an element below `name`. It counts even if nothing is below it.
    fn below(&mut self, name: &str, part: &str) -> Result<String, String> {
        self.take(name.len() + part.len())?;
        Ok(if name.is_empty() { part.to_string() } else { format!("{name}[{part}]") })
    }

    fn pair(&mut self, name: &str, value: &str) -> Result<(), String> {
        self.take(value.len())?;
        self.pairs.append_pair(name, value);
        Ok(())
    }

    fn take(&mut self, bytes: usize) -> Result<(), String> {
        let left = self.left.checked_sub(bytes);
        self.left = left.ok_or_else(|| format!("the form of the row is larger than {MOST_FORM} bytes"))?;
        Ok(())
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
        let path = |text, id| path(text, id).unwrap();
        assert_eq!(path("/{id}", "a/b c?d#e"), "/a%2Fb%20c%3Fd%23e");
        assert_eq!(path("/x/{id}/y", "ü"), "/x/%C3%BC/y");
        assert_eq!(path("('{id}')", "1"), "('1')");
        assert_eq!((path("('{id}')", ".."), path("/x.{id}", ".")), ("('..')".into(), "/x..".into()));
        assert_eq!(path("/{id}", "..."), "/...");
        assert_eq!((path("/", ".."), path("/x", "")), ("/".into(), "/x".into()));
        assert_eq!(path("/{id}?a={id}&b=1", "x&b=2+3"), "/x&b=2+3?a=x%26b%3D2%2B3&b=1");
    }

    #[test]
    fn an_id_that_clients_and_servers_resolve_is_refused() {
        for (text, id) in
            [("/{id}", ".."), ("/{id}", "."), ("/{id}", ""), ("/x/{id}/y", ".."), ("/.{id}", "."), ("/%2e{id}", ".")]
        {
            assert!(path(text, id).is_err(), "{text} {id:?}");
        }
    }

    #[test]
    fn a_form_has_the_names_of_nested_values() {
        let body = json(r#"{"name":"a b","tax":null,"address":{"city":"x&y"},"items":[{"n":1},{"n":2.5}],"on":true}"#);
        let form = encode(&body, &HeaderValue::from_static(FORM)).unwrap();
        let expected = "name=a+b&tax=&address%5Bcity%5D=x%26y&items%5B0%5D%5Bn%5D=1&items%5B1%5D%5Bn%5D=2.5&on=true";
        assert_eq!(String::from_utf8(form).unwrap(), expected);
    }

    #[test]
    fn a_form_that_repeats_a_long_name_for_each_value_is_refused() {
        let name = "n".repeat(100_000);
        let row = |values: usize| json(&format!(r#"{{"{name}":[{}1]}}"#, "1,".repeat(values - 1)));
        assert!(encode(&row(100), &HeaderValue::from_static(FORM)).is_ok());
        let problem = encode(&row(1_000), &HeaderValue::from_static(FORM)).unwrap_err();
        assert!(problem.contains("larger than"), "{problem}");
        assert!(encode(&row(1_000), &HeaderValue::from_static("application/json")).is_ok());
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
