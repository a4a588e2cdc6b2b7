//! From the configuration's webhooks to the gateway's.

use axum::http::{HeaderName, HeaderValue};

use crate::config::{FeedSpec, HookAuth, HookSpec, InboxSpec, IntakeSpec, Secret};
use crate::feeds::{FeedFormat, WsFeed};
use crate::gateway::webhook::{Hook, HookOptions};
use crate::inbound::{self, Encoding, Hmac, Key, Scheme};
use crate::journal::InboxLimits;

/// The webhook that `spec` describes.
///
/// # Errors
/// Says which of its words cannot be.
pub(super) fn hook(spec: &HookSpec) -> Result<Hook, String> {
    let named = |error: String| format!("[webhook.{}] {error}", spec.name);
    let delivery = spec.auth.delivery.as_deref().map(header).transpose().map_err(named)?;
    let scheme = scheme(&spec.auth).map_err(named)?;
    let inbound = inbound::Hook::new(scheme).delivery_header(delivery);
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

/// What is kept of deliveries.
pub(super) fn inbox(spec: &InboxSpec) -> InboxLimits {
    let default = InboxLimits::default();
    InboxLimits {
        count: spec.count.unwrap_or(default.count),
        bytes: spec.bytes.map_or(default.bytes, |bytes| bytes as u64),
        age: spec.age.unwrap_or(default.age),
    }
}

/// The feed that `spec` describes.
///
/// # Errors
/// Says which of its words cannot be.
pub(super) fn feed(spec: &FeedSpec) -> crate::vista::Result<WsFeed> {
    let config = crate::vista::Error::Config;
    let format = match &spec.format {
        Some(format) => FeedFormat::Inbound(hook(format).map_err(config)?.inbound),
        None => FeedFormat::Diorama,
    };
    let mut feed = WsFeed::new(spec.ws.clone(), format);
    for (name, value) in &spec.headers {
        let mut value = HeaderValue::from_str(value.reveal())
            .map_err(|_| config(format!("feed.headers.{name}: a header cannot hold that value")))?;
        value.set_sensitive(true);
        feed.headers.push((header(name).map_err(config)?, value));
    }
    feed.subscribe = spec.subscribe.clone();
    feed.idle = spec.idle.unwrap_or(feed.idle);
    feed.max_message = spec.max_message.unwrap_or(feed.max_message);
    Ok(feed)
}

fn scheme(auth: &HookAuth) -> Result<Scheme, String> {
    let keys = |key: fn(&str) -> Result<Key, String>| -> Result<Vec<Key>, String> {
        auth.secrets.iter().map(Secret::reveal).map(key).collect()
    };
    Ok(match auth.scheme {
        "standard" => Scheme::Standard(keys(Key::standard)?),
        "bearer" => Scheme::Bearer(keys(Key::plain)?),
        "hmac" => Scheme::Hmac(Hmac {
            secrets: keys(Key::plain)?,
            header: header(&auth.header)?,
            prefix: auth.prefix.clone(),
            encoding: match auth.encoding {
                "base64" => Encoding::Base64,
                "base64url" => Encoding::Base64Url,
                _ => Encoding::Hex,
            },
            sha512: auth.algorithm == "sha512",
            timestamp: auth.timestamp_header.as_deref().map(header).transpose()?,
            message: auth.message.clone(),
        }),
        _ => Scheme::None,
    })
}

fn header(name: &str) -> Result<HeaderName, String> {
    name.parse().map_err(|_| format!("{name:?} is no name of a header"))
}
