//! From the configuration's webhooks to the gateway's.

use axum::http::HeaderName;

use crate::config::{HookAuth, HookSpec, Secret};
use crate::gateway::webhook::Hook;
use crate::inbound::{self, Encoding, Hmac, Key, Scheme};

/// The webhook that `spec` describes.
///
/// # Errors
/// Says which of its words cannot be.
pub(super) fn hook(spec: &HookSpec) -> Result<Hook, String> {
    let named = |error: String| format!("[webhook.{}] {error}", spec.name);
    let delivery = spec.auth.delivery.as_deref().map(header).transpose().map_err(named)?;
    let scheme = scheme(&spec.auth).map_err(named)?;
    let inbound = inbound::Hook::new(scheme).delivery_header(delivery);
    Ok(Hook::new(spec.name.clone(), spec.dio.clone(), inbound))
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
