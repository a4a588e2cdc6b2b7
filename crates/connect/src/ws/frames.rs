//! The event frames of another Diorama, understood.

use diorama_core::record::{CborValue, JsonLimits, Record, id_from_value, parse_json};
use diorama_core::vista::ChangeEvent;

/// Bounds on one frame.
const LIMITS: JsonLimits = JsonLimits { nodes: 100_000, depth: 64 };

/// What a frame says.
#[derive(Debug, Default, PartialEq)]
pub(super) struct FrameContent {
    /// The change it speaks of.
    pub(super) event: Option<ChangeEvent>,
    /// Everything up to here was sent.
    pub(super) place: Option<FeedPosition>,
    /// Something may have been missed: read again.
    pub(super) gap: bool,
}

/// A place in the other's history.
#[derive(Debug, PartialEq)]
pub(super) enum FeedPosition {
    /// `epoch:seq`
    Position(String),
    /// Within the epoch that is known.
    Seq(u64),
}

/// Reads one frame.
///
/// # Errors
/// What is wrong with it.
pub(super) fn read(text: &[u8]) -> Result<FrameContent, String> {
    let frame = parse_json(text, LIMITS).map_err(|error| error.to_string())?;
    let CborValue::Map(frame) = frame else { return Err("a frame is an object".into()) };
    let member = |name: &str| frame.iter().find(|(own, _)| own.as_text() == Some(name)).map(|(_, value)| value);
    let text = |name: &str| member(name).and_then(CborValue::as_text);
    let kind = text("type").ok_or("a frame has a type")?;
    let id = || member("id").and_then(id_from_value).ok_or(format!("{kind} has an id"));
    let row = || match member("record") {
        Some(CborValue::Map(members)) => {
            let named = members.iter().filter_map(|(name, value)| Some((name.as_text()?.to_string(), value.clone())));
            Some(named.collect::<Record>())
        }
        _ => None,
    };
    let is = |name: &str| matches!(member(name), Some(CborValue::Bool(true)));
    let mut heard = FrameContent::default();
    match kind {
        "RecordInserted" => heard.event = Some(ChangeEvent::Inserted { id: id()?, new: row() }),
        "RecordChanged" => heard.event = Some(ChangeEvent::Updated { id: id()?, new: row() }),
        // It only left the other's filter: what it is now is not said.
        "RecordRemoved" if is("left") => heard.event = Some(ChangeEvent::Updated { id: id()?, new: None }),
        "RecordRemoved" => heard.event = Some(ChangeEvent::Deleted { id: id()? }),
        "Invalidated" => heard.gap = !is("covered"),
        "hello" => heard.gap = !is("resumed"),
        "reset" => heard.gap = true,
        _ => {}
    }
    heard.place = match (text("position"), member("seq")) {
        (Some(position), _) => Some(FeedPosition::Position(position.to_string())),
        (None, Some(CborValue::Integer(seq))) => u64::try_from(i128::from(*seq)).ok().map(FeedPosition::Seq),
        _ => None,
    };
    Ok(heard)
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        #[test]
        fn nothing_that_is_sent_panics(bytes: Vec<u8>, kind in "[A-Z][a-z]{0,5}|RecordChanged|hello", rest in "[{}\\[\\]:,\"a-e0-9]{0,40}") {
            let _ = read(&bytes);
            let _ = read(format!(r#"{{"type":"{kind}",{rest}}}"#).as_bytes());
            let _ = read(format!(r#"{{"type":"{kind}","id":"7","record":{{{rest}}},"position":"{rest}"}}"#).as_bytes());
        }
    }

    #[test]
    fn frames_say_what_changed_where_they_stand_and_whether_something_was_missed() {
        let of = |frame: &str| read(frame.as_bytes()).unwrap();
        let hello = of(r#"{"type":"hello","position":"E:4","resumed":false,"seq":4}"#);
        assert_eq!(hello, FrameContent { gap: true, place: Some(FeedPosition::Position("E:4".into())), event: None });
        assert!(!of(r#"{"type":"hello","position":"E:4","resumed":true}"#).gap);
        let changed = of(r#"{"type":"RecordChanged","seq":5,"id":"7","record":{"price":175},"etag":"x"}"#);
        let row = Record::from_iter([("price".to_string(), 175.into())]);
        assert_eq!(changed.event, Some(ChangeEvent::Updated { id: "7".into(), new: Some(row) }));
        assert_eq!(changed.place, Some(FeedPosition::Seq(5)));
        let thin = of(r#"{"type":"RecordInserted","seq":6,"id":"8"}"#);
        assert_eq!(thin.event, Some(ChangeEvent::Inserted { id: "8".into(), new: None }));
        assert_eq!(
            of(r#"{"type":"RecordRemoved","seq":7,"id":"8"}"#).event,
            Some(ChangeEvent::Deleted { id: "8".into() })
        );
        assert!(of(r#"{"type":"Invalidated","seq":8,"covered":false}"#).gap);
        assert!(!of(r#"{"type":"Invalidated","seq":8,"covered":true}"#).gap);
        assert!(of(r#"{"type":"reset","reason":"epoch","position":"F:1"}"#).gap);
        assert_eq!(of(r#"{"type":"somethingNew","n":1}"#), FrameContent::default());
        for wrong in ["", "[]", "{}", r#"{"type":"RecordChanged"}"#, r#"{"type":7}"#] {
            assert!(read(wrong.as_bytes()).is_err(), "{wrong}");
        }
    }
}
