//! From the configuration's webhooks to the gateway's.

use axum::http::HeaderName;

use crate::config::{HookAuth, HookSpec, Secret};
use crate::gateway::webhook::Hook;
use crate::inbound::signature::{Contentful, Gitlab, Message, Standard, Timed};
use crate::inbound::{self, Algorithm, Encoding, Format, Hmac, Key, Map, Problem, Scheme};

/// Contentful's own tolerance, in seconds.
const CONTENTFUL_TOLERANCE: u64 = 30;

/// The webhook that `spec` describes.
///
/// # Errors
/// Says which of its words cannot be.
pub(super) fn hook(spec: &HookSpec) -> Result<Hook, String> {
    let inbound = inbound(spec)?;
    Ok(Hook::new(spec.name.clone(), spec.dio.clone(), inbound))
}

/// How the webhook that `spec` describes verifies and decodes.
///
/// # Errors
/// Says which of its words cannot be.
pub(super) fn inbound(spec: &HookSpec) -> Result<inbound::Hook, String> {
    let named = |error: String| format!("[webhook.{}] {error}", spec.name);
    let delivery = spec.auth.delivery.as_deref().map(header).transpose().map_err(named)?;
    let scheme = scheme(&spec.auth).map_err(named)?;
    let usual = match scheme {
        Scheme::Contentful(_) => CONTENTFUL_TOLERANCE,
        _ => inbound::signature::TOLERANCE,
    };
    Ok(inbound::Hook::new(scheme)
        .tolerance(spec.auth.tolerance.unwrap_or(usual))
        .format(format(spec)?)
        .delivery_header(delivery)
        .abort_on_item_error(spec.abort)
        .origins(spec.origins.clone()))
}

fn format(spec: &HookSpec) -> Result<Format, String> {
    let text = spec.map.as_ref().map_or("", |map| &*map.text);
    let path = ["webhook", spec.name.as_str(), "map"];
    let map = match spec.format {
        "native" => return Ok(Format::Native),
        "cloudevents" => return Ok(Format::CloudEvents { batches: spec.accept_batch }),
        "map" => Map::read(text, &path, None),
        preset => inbound::preset(preset, spec.only.as_deref(), text, &path),
    };
    map.map(Format::Map).map_err(|problems| told(spec, problems))
}

/// Mistakes at their places in the file, or with the hook's name if they have none.
fn told(spec: &HookSpec, problems: Vec<Problem>) -> String {
    let named = |message: String| format!("[webhook.{}] {message}", spec.name);
    match &spec.map {
        Some(map) => {
            let place = |at| if at == 0 { spec.at } else { at };
            map.error(problems.into_iter().map(|problem| (place(problem.at), named(problem.message)))).to_string()
        }
        None => problems.into_iter().map(|problem| named(problem.message)).collect::<Vec<_>>().join("\n"),
    }
}

fn scheme(auth: &HookAuth) -> Result<Scheme, String> {
    let secrets = || auth.secrets.iter().map(Secret::reveal);
    let keys = |key: fn(&str) -> Result<Key, String>| -> Result<Vec<Key>, String> { secrets().map(key).collect() };
    Ok(match auth.scheme {
        "standard" | "svix" => Scheme::Standard(Standard::new(secrets())?),
        "github" => Scheme::Hmac(Hmac::github(keys(Key::plain)?)),
        "stripe" => Scheme::Timed(Timed::stripe(keys(Key::plain)?)),
        "shopify" => Scheme::Hmac(Hmac::shopify(keys(Key::plain)?)),
        "slack" => Scheme::Hmac(Hmac::slack(keys(Key::plain)?)),
        "gitlab" => Scheme::Gitlab(Gitlab::new(secrets())?),
        "sanity" => Scheme::Timed(Timed::sanity(keys(Key::plain)?)),
        "airtable" => Scheme::Hmac(Hmac::airtable(keys(Key::base64)?)),
        "contentful" => {
            Scheme::Contentful(Contentful { secrets: keys(Key::plain)?, public_path: auth.public_path.clone() })
        }
        "hmac" => Scheme::Hmac(hmac(auth, keys)?),
        "bearer" => Scheme::Bearer(keys(Key::plain)?),
        "header" => Scheme::Header(header(&auth.header)?, keys(Key::plain)?),
        "basic" => Scheme::Basic(keys(Key::plain)?),
        _ => Scheme::None,
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
    name.parse().map_err(|_| format!("{name:?} is no name of a header"))
}
