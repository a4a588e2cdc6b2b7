//! `[dio.NAME.feed]`

use std::path::PathBuf;
use std::time::Duration;

use toml::Spanned;
use toml::de::DeValue;

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
    /// The certificates to trust instead of the public ones.
    pub ca: Option<PathBuf>,
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
        // Without a word it is another Diorama.
        let other = reader.place("map").is_some() || reader.value("format").is_some_and(is_other);
        let mut format = HookSpec { feed: true, at: reader.at, ..HookSpec::open(dio) };
        if other {
            format.format(&reader);
            format.abort = reader.word("on_item_error", &["skip", "abort"]) == Some("abort");
        }
        let spec = FeedSpec {
            ws: ws.unwrap_or_default(),
            format: other.then_some(format),
            headers: reader.secret_texts("headers"),
            ca: reader.path("ca"),
            subscribe: reader.text("subscribe"),
            idle: reader.duration("idle"),
            max_message: reader.size("max_message", 1 << 10..=64 << 20),
        };
        reader.finish();
        Some(spec).filter(|spec| known(&spec.ws))
    }
}

fn is_other(format: &Spanned<DeValue<'_>>) -> bool {
    format.get_ref().as_str() != Some("diorama")
}
