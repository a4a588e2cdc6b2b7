//! `[dio.NAME.feed]`

use std::time::Duration;

use super::value::{Reader, Secret};
use super::webhook::HookSpec;

/// A WebSocket that tells of changes.
#[derive(Clone, Debug)]
pub struct FeedSpec {
    /// `ws://` or `wss://`
    pub ws: String,
    /// How its messages are written, as those of a webhook; `None` for the events of another Diorama.
    pub format: Option<HookSpec>,
    /// Headers of the request.
    pub headers: Vec<(String, Secret)>,
    /// What is sent first.
    pub subscribe: Option<String>,
    /// How long it may be silent.
    pub idle: Option<Duration>,
    /// Bytes of one message.
    pub max_message: Option<usize>,
}

impl FeedSpec {
    pub(super) fn read(dio: &str, reader: Reader<'_>) -> Option<FeedSpec> {
        let ws = reader.text("ws");
        let known = |ws: &String| ws.starts_with("ws://") || ws.starts_with("wss://");
        if !ws.as_ref().is_some_and(known) {
            let at = reader.place("ws").unwrap_or(reader.at);
            reader.problem(at, format!("[dio.{dio}.feed] needs ws = \"wss://HOST/PATH\""));
        }
        let native = reader.word("format", &["diorama", "native"]) == Some("native");
        let spec = FeedSpec {
            ws: ws.unwrap_or_default(),
            format: native.then(|| HookSpec::open(dio)),
            headers: reader.secret_texts("headers"),
            subscribe: reader.text("subscribe"),
            idle: reader.duration("idle"),
            max_message: reader.size("max_message", 1 << 10..=64 << 20),
        };
        reader.finish();
        Some(spec).filter(|spec| known(&spec.ws))
    }
}
