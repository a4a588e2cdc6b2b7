//! Reader of `[dio.NAME.feed]`.

use std::sync::Arc;

use diorama_connect::{Connector, Feed, FollowMode, Source};
use toml::Spanned;
use toml::de::DeValue;

use super::connection::{Connected, Connections};
use super::dio::{ChosenConnector, alternatives, build_or_report, choose_connector};
use super::value::Reader;
use super::webhook::HookSpec;

/// A source of changes besides webhooks.
#[derive(Clone, Debug)]
pub struct FeedSpec {
    /// The sender.
    pub feed: Arc<dyn Feed>,
    /// Format of its messages, as for a webhook; `None` for the events of another Diorama.
    pub format: Option<HookSpec>,
}

impl FeedSpec {
    /// Reads `feed = "auto"`, the feed of the source's own changes; `None` if there is a mistake.
    pub(super) fn of_source(dio: &str, reader: &Reader<'_>, source: &dyn Source) -> Option<FeedSpec> {
        let expected = format!("a table, or one of {}", FollowMode::WORDS.join(", "));
        let mode = FollowMode::of(reader.word_as("feed", &FollowMode::WORDS, &expected)?);
        let feed = source.follow(dio, mode);
        if feed.is_none() {
            let at = reader.position("feed").unwrap_or(reader.at);
            let detail = "the source does not report its changes in this way: databases and another Diorama do; a file has watch = true";
            reader.problem(at, detail);
        }
        Some(FeedSpec { feed: feed?, format: None })
    }

    /// Reads the table; `None` if it has a mistake.
    pub(super) fn read(dio: &str, reader: Reader<'_>, connections: &Connections<'_>) -> Option<FeedSpec> {
        let registry = reader.context.registry;
        let connection = connections.of(&reader);
        let connectors = registry.connectors().filter(|connector| connector.feed_form().is_some());
        let feed = match choose_connector(connection.unwrap_or(&reader), connectors) {
            ChosenConnector::One(connector) => build_or_report(&reader, connector, || match connection {
                Some(connection) => connector.feed(&Connected { own: &reader, connection }),
                None => connector.feed(&reader),
            }),
            ChosenConnector::LeftOut => None,
            ChosenConnector::NoneOrSeveral => {
                let forms = alternatives(registry.connectors().filter_map(Connector::feed_form));
                reader.problem(reader.at, format!("[dio.{dio}.feed] must be {forms}"));
                None
            }
        };
        let is_native = feed.as_ref().is_some_and(|feed| !feed.reads_events());
        let other = is_native || reader.position("map").is_some() || reader.value("format").is_some_and(is_other);
        let mut format = HookSpec { feed: true, at: reader.at, ..HookSpec::open(dio) };
        if other {
            format.format(&reader);
            format.abort = reader.word("on_item_error", &["skip", "abort"]) == Some("abort");
        }
        reader.finish();
        Some(FeedSpec { feed: feed?, format: other.then_some(format) })
    }
}

fn is_other(format: &Spanned<DeValue<'_>>) -> bool {
    format.get_ref().as_str() != Some("diorama")
}
