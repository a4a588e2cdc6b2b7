//! Parser of forms (`application/x-www-form-urlencoded`) to values that mappings can read.

use indexmap::IndexMap;

use super::body::{json, unescape};
use super::{DecodeError, MOST_CHANGES};
use diorama_core::record::CborValue;

/// Maximum number of fields of one form.
const MOST_FIELDS: usize = MOST_CHANGES;
/// Field with a JSON document in forms of GitHub and Slack.
const PAYLOAD: &str = "payload";

/// Meaning of a sender's forms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Forms {
    /// Forms are refused: the sender sends none.
    Refused,
    /// The JSON document in its field `payload`.
    Payload,
    /// An object of the form's fields.
    Fields,
    /// The JSON document in the field `payload`, or an object of the form's fields if there is no such field.
    PayloadOrFields,
}

/// Parses the form `body` to one value.
pub(super) fn document(body: &[u8], forms: Forms) -> Result<CborValue, DecodeError> {
    if forms == Forms::Refused {
        return Err(DecodeError::MediaType(
            "forms are accepted only by a mapping and from senders that are known to send them",
        ));
    }
    let fields =
        fields(body).ok_or_else(|| DecodeError::Syntax("the form is not valid percent-encoded UTF-8".into()))?;
    let payload = fields.iter().find(|(name, _)| name == PAYLOAD).map(|(_, text)| text);
    match (forms, payload) {
        (Forms::Payload | Forms::PayloadOrFields, Some(text)) => json(text.as_bytes()),
        (Forms::Payload, None) => Err(DecodeError::Syntax("the form has no field payload with a JSON document".into())),
        _ => Ok(object(fields)),
    }
}

/// Returns names and values in the order of the form; `None` if they cannot be decoded or are too many.
pub(super) fn fields(body: &[u8]) -> Option<Vec<(String, String)>> {
    let text = |text: &[u8]| String::from_utf8(unescape(text, true)?).ok();
    let mut fields = Vec::new();
    for pair in body.split(|byte| *byte == b'&').filter(|pair| !pair.is_empty()) {
        if fields.len() == MOST_FIELDS {
            return None;
        }
        let at = pair.iter().position(|byte| *byte == b'=');
        let (name, value) = at.map_or((pair, &[][..]), |at| (&pair[..at], &pair[at + 1..]));
        fields.push((text(name)?, text(value)?));
    }
    Some(fields)
}

/// Returns an object of texts. A repeated name has an array.
fn object(fields: Vec<(String, String)>) -> CborValue {
    let mut members: IndexMap<String, Vec<String>> = IndexMap::new();
    for (name, value) in fields {
        members.entry(name).or_default().push(value);
    }
    let value = |mut values: Vec<String>| match (values.pop(), values.is_empty()) {
        (Some(only), true) => CborValue::Text(only),
        (last, _) => CborValue::Array(values.into_iter().chain(last).map(CborValue::Text).collect()),
    };
    CborValue::Map(members.into_iter().map(|(name, values)| (CborValue::Text(name), value(values))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use diorama_core::record::parse_json;

    fn read(body: &str, forms: Forms) -> Result<CborValue, DecodeError> {
        document(body.as_bytes(), forms)
    }

    #[test]
    fn a_form_is_an_object_of_texts_and_of_arrays_where_names_repeat() {
        let expected = parse_json(br#"{"a b":"1+2","tag":["x","","z"],"empty":""}"#, Default::default()).unwrap();
        assert_eq!(read("a+b=1%2B2&tag=x&tag&&tag=z&empty=", Forms::Fields).unwrap(), expected);
        assert_eq!(read("", Forms::Fields).unwrap(), CborValue::Map(Vec::new()));
    }

    #[test]
    fn a_payload_is_the_document_itself() {
        let seven = parse_json(br#"{"id":7}"#, Default::default()).unwrap();
        for forms in [Forms::Payload, Forms::PayloadOrFields] {
            assert_eq!(read("x=1&payload=%7B%22id%22%3A+7%7D", forms).unwrap(), seven);
            assert!(matches!(read("payload=%7B", forms), Err(DecodeError::Syntax(_))));
        }
        assert!(matches!(read("x=1", Forms::Payload), Err(DecodeError::Syntax(_))));
        assert!(read("x=1", Forms::PayloadOrFields).is_ok());
        assert!(matches!(read("x=1", Forms::Refused), Err(DecodeError::MediaType(_))));
    }

    #[test]
    fn a_form_that_is_invalid_or_too_large_is_an_error() {
        for bad in ["a=%7", "a=%FF", "%=1", &"a&".repeat(MOST_FIELDS + 1)] {
            assert!(matches!(read(bad, Forms::Fields), Err(DecodeError::Syntax(_))));
        }
        assert!(read(&"a&".repeat(MOST_FIELDS), Forms::Fields).is_ok());
    }
}
