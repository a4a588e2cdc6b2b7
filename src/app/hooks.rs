//! Builds the gateway's webhooks from the configuration.

use axum::http::HeaderName;

use crate::config::{AuthScheme, EventsSpec, FeedSpec, HookAuth, HookSpec, InboxSpec, IntakeSpec, OutboxSpec, Secret};
use diorama_connect::FeedFormat;
use diorama_core::dio::Settings;
use diorama_core::journal::{InboxLimits, OutboxLimits};
use diorama_gateway::webhook::{Hook, HookOptions};
use diorama_inbound::signature::{
    Contentful, Gitlab, Graph, Mailgun, Message, Sns, Standard, TimedHeader, Twilio, UrlToken,
};
use diorama_inbound::{self as inbound, Algorithm, Encoding, Format, Hmac, Key, Map, Problem, Scheme};

/// Default tolerance for Contentful in seconds.
const CONTENTFUL_TOLERANCE: u64 = 30;
/// Default tolerance for Twitch in seconds.
const TWITCH_TOLERANCE: u64 = 600;

/// Builds the webhook that `spec` describes.
///
/// # Errors
/// The setting that is not valid.
pub(super) fn hook(spec: &HookSpec) -> Result<Hook, String> {
    let inbound = inbound(spec)?;
    Ok(Hook::new(spec.name.clone(), spec.dio.clone(), inbound).with(options(&spec.intake)))
}

fn options(spec: &IntakeSpec) -> HookOptions {
    let default = HookOptions::default();
    HookOptions {
        rate: spec.rate.unwrap_or(default.rate),
        in_hand: spec.in_hand.unwrap_or(default.in_hand),
        answer_within: spec.answer_within.unwrap_or(default.answer_within),
        reject_undecodable: spec.reject_undecodable,
    }
}

/// Builds the limits for stored deliveries.
pub(super) fn inbox(spec: &InboxSpec) -> InboxLimits {
    let default = InboxLimits::default();
    InboxLimits {
        count: spec.count.unwrap_or(default.count),
        bytes: spec.bytes.map_or(default.bytes, |bytes| bytes as u64),
        age: spec.age.unwrap_or(default.age),
        claims: spec.claims.unwrap_or(default.claims),
    }
}

/// Builds the limits for deliveries to send.
pub(super) fn outbox(spec: &OutboxSpec) -> OutboxLimits {
    let default = OutboxLimits::default();
    OutboxLimits {
        count: spec.count.unwrap_or(default.count),
        bytes: spec.bytes.map_or(default.bytes, |bytes| bytes as u64),
        age: spec.age.unwrap_or(default.age),
    }
}

/// Applies the limits for stored events.
pub(super) fn events(spec: &EventsSpec, settings: &mut Settings) {
    settings.keep_events = spec.count.map_or(settings.keep_events, |count| count as u64);
    settings.keep_bytes = spec.bytes.map_or(settings.keep_bytes, |bytes| bytes as u64);
    settings.keep_for = spec.age.unwrap_or(settings.keep_for);
}

/// Builds the format of a feed's messages.
///
/// # Errors
/// The setting that is not valid.
pub(super) fn feed_format(spec: &FeedSpec) -> diorama_core::vista::Result<FeedFormat> {
    match &spec.format {
        Some(format) => Ok(FeedFormat::Inbound(Box::new(inbound(format).map_err(diorama_core::vista::Error::Config)?))),
        None => Ok(FeedFormat::Diorama),
    }
}

/// Builds verification and decoding of the webhook that `spec` describes.
///
/// # Errors
/// The setting that is not valid.
pub(super) fn inbound(spec: &HookSpec) -> Result<inbound::Hook, String> {
    let named = |error: String| format!("[webhook.{}] {error}", spec.name);
    let delivery = spec.auth.delivery.as_deref().map(header).transpose().map_err(named)?;
    let scheme = scheme(&spec.auth).map_err(named)?;
    let default_tolerance = match spec.auth.scheme {
        AuthScheme::Contentful => CONTENTFUL_TOLERANCE,
        AuthScheme::Twitch => TWITCH_TOLERANCE,
        _ => inbound::signature::TOLERANCE,
    };
    let tokens = spec.auth.verify_tokens.iter().map(|token| Key::plain(token.reveal()));
    let tokens: Vec<Key> = tokens.collect::<Result<_, _>>().map_err(named)?;
    Ok(inbound::Hook::new(scheme)
        .tolerance(spec.auth.tolerance.unwrap_or(default_tolerance))
        .format(format(spec)?)
        .delivery_header(delivery)
        .bytes(spec.body.unwrap_or(inbound::MOST_BYTES))
        .verify_tokens(tokens)
        .abort_on_item_error(spec.abort)
        .versions_of(spec.clock.as_deref().map(Into::into))
        .origins(spec.origins.clone()))
}

fn format(spec: &HookSpec) -> Result<Format, String> {
    let text = spec.map.as_ref().map_or("", |map| &*map.text);
    let path: &[&str] = match spec.feed {
        true => &["dio", &spec.name, "feed", "map"],
        false => &["webhook", &spec.name, "map"],
    };
    let fill_in = |text: &str| spec.map.as_ref().map_or_else(|| Ok(text.to_string()), |map| map.fill_in(text));
    let map = match spec.format {
        "native" => return Ok(Format::Native),
        "cloudevents" => return Ok(Format::CloudEvents { batches: spec.accept_batch }),
        "map" => Map::read_filled(text, path, None, &fill_in),
        preset => inbound::preset_filled(preset, spec.only.as_deref(), text, path, &fill_in),
    };
    map.map(Format::Map).map_err(|problems| described(spec, problems))
}

/// Formats mistakes with their positions in the file, or with the hook's name if they have no position.
fn described(spec: &HookSpec, problems: Vec<Problem>) -> String {
    let named = |message: String| format!("[webhook.{}] {message}", spec.name);
    match &spec.map {
        Some(map) => {
            let position = |at| if at == 0 { spec.at } else { at };
            map.error(problems.into_iter().map(|problem| (position(problem.at), named(problem.message)))).to_string()
        }
        None => problems.into_iter().map(|problem| named(problem.message)).collect::<Vec<_>>().join("\n"),
    }
}

/// Builds the authentication scheme. Each variant is matched by name, so that a new one is a compile error instead of no
/// authentication.
fn scheme(auth: &HookAuth) -> Result<Scheme, String> {
    let secrets = || auth.secrets.iter().map(Secret::reveal);
    let keys = |key: fn(&str) -> Result<Key, String>| -> Result<Vec<Key>, String> { secrets().map(key).collect() };
    let plain = || keys(Key::plain);
    let parameter = || auth.parameter.clone();
    Ok(match auth.scheme {
        AuthScheme::Standard | AuthScheme::Svix => Scheme::Standard(Standard::new(secrets())?),
        AuthScheme::Github => Scheme::Hmac(Hmac::github(plain()?)),
        AuthScheme::Stripe => Scheme::Timed(TimedHeader::stripe(plain()?)),
        AuthScheme::Shopify => Scheme::Hmac(Hmac::shopify(plain()?)),
        AuthScheme::Slack => Scheme::Hmac(Hmac::slack(plain()?)),
        AuthScheme::Gitlab => Scheme::Gitlab(Gitlab::new(secrets())?),
        AuthScheme::Sanity => Scheme::Timed(TimedHeader::sanity(plain()?)),
        AuthScheme::Airtable => Scheme::Hmac(Hmac::airtable(keys(Key::base64)?)),
        AuthScheme::Contentful => {
            Scheme::Contentful(Contentful { secrets: plain()?, public_path: auth.public_path.clone() })
        }
        AuthScheme::Asana => Scheme::Hmac(Hmac::asana(plain()?)),
        AuthScheme::Dropbox => Scheme::Hmac(Hmac::dropbox(plain()?)),
        AuthScheme::EventGrid => Scheme::Url(UrlToken::event_grid(parameter(), plain()?)),
        AuthScheme::Graph => Scheme::Graph(Graph::new(secrets())?),
        AuthScheme::Mailgun => Scheme::Mailgun(Mailgun { secrets: plain()? }),
        AuthScheme::Meta => Scheme::Hmac(Hmac::meta(plain()?)),
        AuthScheme::Sns => Scheme::Sns(Sns::new(parameter(), plain()?, auth.topics.clone())),
        AuthScheme::Twilio => Scheme::Twilio(Twilio { secrets: plain()?, public_url: auth.public_url.clone() }),
        AuthScheme::Twitch => Scheme::Hmac(Hmac::twitch(plain()?)),
        AuthScheme::Zoom => Scheme::Hmac(Hmac::zoom(plain()?)),
        AuthScheme::Hmac => Scheme::Hmac(hmac(auth, keys)?),
        AuthScheme::Bearer => Scheme::Bearer(plain()?),
        AuthScheme::Header => Scheme::Header(header(&auth.header)?, plain()?),
        AuthScheme::Query => Scheme::Url(UrlToken::new(parameter(), plain()?)),
        AuthScheme::Basic => Scheme::Basic(plain()?),
        AuthScheme::None => Scheme::None,
    })
}

type Keys = fn(&str) -> Result<Key, String>;

fn hmac(auth: &HookAuth, keys: impl Fn(Keys) -> Result<Vec<Key>, String>) -> Result<Hmac, String> {
    let secrets = match auth.secret_encoding {
        "hex" => keys(Key::hex)?,
        "base64" => keys(Key::base64)?,
        _ => keys(Key::plain)?,
    };
    Ok(Hmac {
        prefix: auth.prefix.clone(),
        encoding: match auth.encoding {
            "base64" => Encoding::Base64,
            "base64url" => Encoding::Base64Url,
            _ => Encoding::Hex,
        },
        algorithm: match auth.algorithm {
            "sha512" => Algorithm::Sha512,
            "sha1" => Algorithm::Sha1,
            _ => Algorithm::Sha256,
        },
        timestamp: auth.timestamp_header.as_deref().map(header).transpose()?,
        message: Message::parse(&auth.message)?,
        ..Hmac::new(secrets, header(&auth.header)?)
    })
}

fn header(name: &str) -> Result<HeaderName, String> {
    name.parse().map_err(|_| format!("{name:?} is not a valid header name"))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use axum::http::HeaderValue;
    use axum::http::header::CONTENT_TYPE;

    use super::*;
    use crate::config::{Config, FORMATS};
    use diorama_inbound::PRESETS;

    fn config(hook: &str) -> Config {
        let text = format!("[dio.a]\nsource = {{ csv = \"a.csv\" }}\n{hook}");
        let env = |name: &str| {
            let plain = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
            Some(match name {
                "USER" => format!("user:{plain}"),
                "BASE64" => plain.to_string(),
                "STATE" => "0123456789abcdef".to_string(),
                _ => format!("whsec_{plain}"),
            })
        };
        Config::parse(&text, Path::new("diorama.toml"), &env).unwrap()
    }

    #[test]
    fn every_format_of_the_configuration_is_supported() {
        assert_eq!(FORMATS[3..], PRESETS);
        for format in FORMATS {
            let without = ["native", "cloudevents", "map", "airtable", "dropbox", "mailgun", "row", "twilio"];
            let only = if without.contains(&format) { "" } else { "only = \"b\"\n" };
            let map = if format == "map" { "map = { op = \"invalidate\" }\n" } else { "" };
            let config =
                config(&format!("[webhook.a]\nauth = {{ scheme = \"none\" }}\nformat = \"{format}\"\n{only}{map}"));
            assert!(inbound(&config.webhooks[0]).is_ok(), "{format}: {:?}", inbound(&config.webhooks[0]));
        }
    }

    #[test]
    fn every_scheme_of_the_configuration_is_supported() {
        for scheme in AuthScheme::ALL.into_iter().filter(|scheme| *scheme != AuthScheme::None) {
            let more = match scheme {
                AuthScheme::Hmac | AuthScheme::Header => "header = \"X-S\", ",
                AuthScheme::Meta => "verify_tokens = [\"env:A\"], ",
                AuthScheme::Sns => "topics = [\"arn:aws:sns:eu-west-1:123456789012:a\"], ",
                _ => "",
            };
            let (word, variable) = (
                scheme.as_str(),
                match scheme {
                    AuthScheme::Basic => "USER",
                    AuthScheme::Airtable => "BASE64",
                    AuthScheme::Graph => "STATE",
                    _ => "A",
                },
            );
            let text = format!("[webhook.a]\nauth = {{ scheme = \"{word}\", {more}secrets = [\"env:{variable}\"] }}\n");
            let hook = inbound(&config(&text).webhooks[0]).unwrap();
            assert!(!matches!(hook.scheme(), Scheme::None), "{word}");
        }
    }

    #[test]
    fn environment_variables_are_expanded_in_maps() {
        let text = "[dio.a]\nsource = { csv = \"a.csv\" }\n[webhook.a]\nauth = { scheme = \"none\" }\n[webhook.a.map]\n\
                    when = [{ sel = \"/kind\", in = [\"x\", \"${KIND}\"] }]\nop = \"upsert\"\nid = \"${ID}\"\n\
                    row = { sel = \"/row\", set = { price = \"const:$${P}\" } }\n";
        let env =
            |name: &str| [("KIND", "cake"), ("ID", "/n")].iter().find(|own| own.0 == name).map(|own| own.1.into());
        let config = Config::parse(text, Path::new("diorama.toml"), &env).unwrap();
        let hook = inbound(&config.webhooks[0]).unwrap();
        let headers = axum::http::HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static("application/json"))]);
        let body = br#"{"kind":"cake","n":"7","row":{}}"#;
        let (method, now) = (&axum::http::Method::POST, jiff::Timestamp::UNIX_EPOCH);
        let request = inbound::Request { method, path: "/", query: None, headers: &headers, body, now };
        let decoded = hook.decode(&request, &crate::Schema::new("id", Vec::new())).unwrap();
        let new = crate::Record::from_iter([("price".to_string(), "${P}".into())]);
        let change = decoded.changes[0].clone().unwrap();
        assert_eq!(change.event, crate::ChangeEvent::Updated { id: "7".into(), new: Some(new) });
        let config = Config::parse(text, Path::new("diorama.toml"), &|_| None).unwrap();
        let error = inbound(&config.webhooks[0]).unwrap_err();
        let lines: Vec<&str> = error.lines().collect();
        assert!(
            lines[0].starts_with("diorama.toml:6:") && lines[0].ends_with("the environment variable KIND is not set"),
            "{error}"
        );
        assert!(
            lines[1].starts_with("diorama.toml:8:") && lines[1].ends_with("the environment variable ID is not set"),
            "{error}"
        );
    }

    #[test]
    fn mistakes_in_a_map_are_reported_with_their_lines() {
        let config = config(
            "[webhook.a]\nauth = { scheme = \"none\" }\n[webhook.a.map]\nop = \"upsert\"\nid = \"oops\"\nwehn = 1\n",
        );
        let error = inbound(&config.webhooks[0]).unwrap_err();
        let lines: Vec<&str> = error.lines().collect();
        assert!(lines[0].starts_with("diorama.toml:7:6: [webhook.a] \"oops\" is not a valid selector"), "{error}");
        assert!(lines[1].starts_with("diorama.toml:8:1: [webhook.a] map has no key \"wehn\""), "{error}");
    }

    #[test]
    fn the_examples_of_all_senders_work() {
        let page = include_str!("../../docs/webhooks.md").split("\n## Senders\n").nth(1).unwrap();
        let examples: Vec<&str> =
            page.split("```toml\n").skip(1).map(|rest| rest.split("```").next().unwrap()).collect();
        assert_eq!(examples.len(), 11);
        for example in examples {
            let text = format!("[dio.products]\nsource = {{ csv = \"a.csv\" }}\n{example}");
            let env = |_: &str| Some("0123456789abcdef".to_string());
            let config = Config::parse(&text, Path::new("diorama.toml"), &env).unwrap();
            let hook = inbound(&config.webhooks[0]);
            assert!(hook.is_ok_and(|hook| !matches!(hook.scheme(), Scheme::None)), "{example}");
        }
    }

    #[test]
    fn a_preset_without_its_required_only_is_refused() {
        let config = config("[webhook.a]\nauth = { scheme = \"none\" }\nformat = \"stripe\"\n");
        let error = inbound(&config.webhooks[0]).unwrap_err();
        assert!(error.contains("[webhook.a] format \"stripe\" requires only"), "{error}");
    }
}
