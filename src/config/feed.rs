//! `[dio.NAME.feed]`

use std::sync::Arc;

use diorama_connect::{Connector, Feed};
use toml::Spanned;
use toml::de::DeValue;

use super::dio::{ChosenConnector, chosen, told};
use super::value::Reader;
use super::webhook::HookSpec;

/// What tells of changes beside webhooks.
#[derive(Clone, Debug)]
pub struct FeedSpec {
    /// The sender.
    pub feed: Arc<dyn Feed>,
    /// How its messages are written, as those of a webhook; `None` for the events of another Diorama.
    pub format: Option<HookSpec>,
}

impl FeedSpec {
    /// `None` if there is a mistake in it.
    pub(super) fn read(dio: &str, reader: Reader<'_>) -> Option<FeedSpec> {
        let registry = reader.context.registry;
        let feed = match chosen(&reader, registry.connectors().filter(|connector| connector.feed_form().is_some())) {
            ChosenConnector::One(connector) => told(&reader, connector, || connector.feed(&reader)),
            ChosenConnector::LeftOut => None,
            ChosenConnector::NoneOrSeveral => {
                let form = registry.connectors().find_map(Connector::feed_form).unwrap_or_default();
                let form = form.trim_matches(['{', '}', ' ']);
                reader.problem(reader.at, format!("[dio.{dio}.feed] needs {form}"));
                None
            }
        };
        // Without a word it is another Diorama.
        let other = reader.place("map").is_some() || reader.value("format").is_some_and(is_other);
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
