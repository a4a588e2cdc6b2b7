//! `GET /`: the resources and where they are, as JSON, or as a page for who asks for HTML.
//!
//! `GET /docs`: the OpenAPI document as a page, read by Swagger UI.
//!
//! The page is filled in here, so that it says what there is without a script; with one it becomes the explorer. Its policy allows
//! the server's own files and answers, and nothing that stands in the page itself.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use serde::Serialize;
use utoipa::ToSchema;

use crate::http::extract::Prefix;
use crate::http::problem::{ApiError, Code};
use crate::http::route::Route;
use crate::http::{negotiate, response};
use crate::pages::explorer::{self, Explorer};
use crate::state::{GatewayState, Resource};
use crate::webhook::Hook;
use diorama_core::vista::query::url::segment;

const PAGE: &str = include_str!("../../../../static/index.html");
const DOCS: &str = include_str!("../../../../static/docs.html");
/// A page may use the server's files and answers, and nothing may use the page.
pub(crate) const POLICY: &str = "default-src 'self'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; \
     object-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
/// Columns that are named on the page.
const MOST_COLUMNS: usize = 12;

/// The resources and where they are.
pub(crate) async fn index(
    State(gateway): State<Arc<GatewayState>>,
    Prefix(prefix): Prefix,
    headers: HeaderMap,
) -> Response {
    let wants_page = gateway.has_page(Route::Index) && negotiate::prefers_html(&headers);
    let mut response = match wants_page {
        true => {
            let known = gateway.auth.check(&headers).is_ok();
            match template(&gateway.explorer).await {
                Ok(template) => page(render(&template, &gateway, &prefix, known), known),
                Err(error) => error.into_response(),
            }
        }
        false => response::json(&document(&gateway, &prefix)),
    };
    response.headers_mut().insert(header::VARY, HeaderValue::from_static("Accept"));
    response
}

/// The page before it is filled in.
async fn template(explorer: &Explorer) -> Result<Cow<'static, str>, ApiError> {
    let Explorer::Folder(folder) = explorer else { return Ok(PAGE.into()) };
    let page = explorer::read(folder, &["index.html"]).await?;
    let missing = || ApiError::new(Code::NotFound, "the page's folder has no index.html").hint("see server.explorer");
    page.map(|page| String::from_utf8_lossy(&page).into_owned().into()).ok_or_else(missing)
}

/// URLs of everything that the gateway serves.
#[derive(Serialize, ToSchema)]
pub(crate) struct Index {
    #[schema(inline)]
    resources: BTreeMap<String, ResourceLinks>,
    #[schema(inline)]
    webhooks: BTreeMap<String, HookLinks>,
    ready: String,
}

#[derive(Serialize, ToSchema)]
struct ResourceLinks {
    list: String,
    schema: String,
    events: String,
}

#[derive(Serialize, ToSchema)]
struct HookLinks {
    /// The resource that it feeds.
    dio: String,
    receive: String,
    deliveries: String,
    /// Addresses that a person is to open so that subscriptions begin; absent if there are none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    confirm: Vec<String>,
}

fn document(gateway: &GatewayState, prefix: &str) -> Index {
    let links = |name: &str| {
        let own = format!("{prefix}/{name}");
        ResourceLinks { schema: format!("{own}/_schema"), events: format!("{own}/events"), list: own }
    };
    let hook_links = |hook: &Hook| {
        let own = format!("{prefix}/webhooks/{}", hook.name);
        let deliveries = format!("{own}/deliveries");
        HookLinks { dio: hook.dio.clone(), receive: own, deliveries, confirm: hook.confirmations() }
    };
    Index {
        resources: gateway.dios.keys().map(|name| (name.to_string(), links(name))).collect(),
        webhooks: gateway.hooks.values().map(|hook| (hook.name.clone(), hook_links(hook))).collect(),
        ready: format!("{prefix}/readyz"),
    }
}

/// The OpenAPI document as a page.
pub(crate) async fn docs(
    State(gateway): State<Arc<GatewayState>>,
    Prefix(prefix): Prefix,
    headers: HeaderMap,
) -> Response {
    let known = gateway.auth.check(&headers).is_ok();
    let prefix = escape(&prefix);
    let status = match known {
        true => "This page needs its script.",
        false => "A token is required: give it to the explorer (Diorama, above), which keeps it for this tab.",
    };
    let text = fill(DOCS, |name| match name {
        "prefix" => Some(&prefix),
        "asks" => Some(if known { "" } else { "token" }),
        "status" => Some(status),
        _ => None,
    });
    page(text, known)
}

/// A page; without what is `known` to those with a token only, for a browser, which has no other way to ask for one.
fn page(text: String, known: bool) -> Response {
    let mut response = Response::new(Body::from(text));
    for (name, value) in [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (header::CACHE_CONTROL, "no-store"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    ] {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    if !known {
        *response.status_mut() = StatusCode::UNAUTHORIZED;
        response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    response
}

fn render(template: &str, gateway: &GatewayState, prefix: &str, known: bool) -> String {
    let prefix = escape(prefix);
    let ready = gateway.dios.values().all(|resource| resource.dio.is_ready());
    let status = match (gateway.closing.is_cancelled(), ready) {
        _ if !known => "A token is required.",
        (true, _) => "This server is about to stop.",
        (false, true) => "Every resource is ready.",
        (false, false) => "Some resources are still being read.",
    };
    let dios = || gateway.dios.iter().filter(|_| known);
    let resources: String = dios().map(|(name, at)| row(&prefix, &escape(name), at)).collect();
    let example = dios().next().map(|(name, at)| example(&prefix, &escape(name), at)).unwrap_or_default();
    let hooks = gateway.hooks.keys().filter(|_| known);
    let hooks: Vec<_> = hooks.map(|n| format!("<code>POST {prefix}/webhooks/{}</code>", escape(n))).collect();
    let webhooks = match hooks.is_empty() {
        true => String::new(),
        false => format!("<p>Upstream systems tell of changes by {}.</p>", hooks.join(", ")),
    };
    let version = env!("CARGO_PKG_VERSION");
    fill(template, |name| match name {
        "status" => Some(status),
        "resources" => Some(&resources),
        "example" => Some(&example),
        "webhooks" => Some(&webhooks),
        "prefix" => Some(&prefix),
        "version" => Some(version),
        _ => None,
    })
}

fn row(prefix: &str, name: &str, resource: &Resource) -> String {
    let status = resource.dio.status();
    let age = status.age.map(ago);
    let (class, state) = match (status.ready, status.refresh_failed.is_some(), status.stale) {
        (false, true, _) => ("bad", "cannot be read, is tried again".to_string()),
        (false, false, _) => ("soft", "the first copy is being read".to_string()),
        (true, true, _) => ("bad", format!("the last refresh failed; read {}", age.as_deref().unwrap_or("earlier"))),
        (true, false, true) => ("bad", format!("stale: read {}", age.as_deref().unwrap_or("by an earlier process"))),
        (true, false, false) => ("good", age.unwrap_or_else(|| "by an earlier process".to_string())),
    };
    let columns: Vec<_> =
        resource.schema.columns().iter().take(MOST_COLUMNS).map(|column| escape(&column.name)).collect();
    let more = if resource.schema.columns().len() > MOST_COLUMNS { ", …" } else { "" };
    let columns = columns.join(", ");
    let own = format!("{prefix}/{name}");
    format!(
        "<tr><th scope=\"row\"><a href=\"{own}\">{name}</a><span class=\"columns\">{columns}{more}</span></th>\
         <td class=\"number\">{rows}</td><td class=\"{class}\">{state}</td>\
         <td><a href=\"{own}/_schema\" aria-label=\"schema of {name}\">schema</a><br>\
         <span class=\"soft\">live: <code>{own}/events</code></span></td></tr>\n",
        rows = thousands(status.rows),
    )
}

/// Two things to do with a resource.
fn example(prefix: &str, name: &str, resource: &Resource) -> String {
    let last = resource.schema.columns().last().map(|column| segment(&column.name)).unwrap_or_default();
    let url = format!("{prefix}/{name}?limit=3&amp;order={last}.desc");
    format!(
        "<p><a href=\"{url}\"><code>{url}</code></a></p>\n<p>Each change is told to who subscribes:</p>\n\
         <pre>new WebSocket(\"{prefix}/{name}/events\").onmessage = (frame) =&gt; console.log(frame.data)</pre>"
    )
}

/// `template` with what `value` says in place of each `{{name}}` that it knows; values are not looked into.
fn fill<'a>(template: &'a str, value: impl Fn(&str) -> Option<&'a str>) -> String {
    let mut parts = template.split("{{");
    let mut out = parts.next().unwrap_or_default().to_string();
    for part in parts {
        match part.split_once("}}").and_then(|(name, rest)| value(name).map(|value| (value, rest))) {
            Some((value, rest)) => out.extend([value, rest]),
            None => out.extend(["{{", part]),
        }
    }
    out
}

/// `text` as HTML text or attribute.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            _ => out.push(c),
        }
    }
    out
}

fn ago(age: Duration) -> String {
    match age.as_secs() {
        0 => "just now".to_string(),
        seconds @ 1..60 => format!("{seconds} s ago"),
        seconds @ 60..3_600 => format!("{} min ago", seconds / 60),
        seconds @ 3_600..172_800 => format!("{} h ago", seconds / 3_600),
        seconds => format!("{} days ago", seconds / 86_400),
    }
}

/// `number` in groups of three.
fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::with_capacity(digits.len() * 2);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            let _ = write!(out, "\u{202f}");
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_from_outside_stay_text() {
        assert_eq!(escape("<a href='x' & \"y\">"), "&lt;a href=&#39;x&#39; &amp; &quot;y&quot;&gt;");
    }

    #[test]
    fn values_are_not_templates() {
        let value = |name: &str| if name == "a" { Some("{{b}}") } else { None };
        assert_eq!(fill("1 {{a}} 2 {{ c }} {{", value), "1 {{b}} 2 {{ c }} {{");
    }

    #[test]
    fn every_place_of_the_page_is_filled() {
        let gateway = GatewayState::default();
        assert!(!render(PAGE, &gateway, "", true).contains("{{"));
        assert!(render(PAGE, &gateway, "/a\"b", true).contains("href=\"/a&quot;b/readyz\""));
    }

    #[test]
    fn numbers_and_ages_read_well() {
        assert_eq!(thousands(7), "7");
        assert_eq!(thousands(1_234_567), "1\u{202f}234\u{202f}567");
        let of = |seconds| ago(Duration::from_secs(seconds));
        assert_eq!((of(0), of(59), of(61)), ("just now".into(), "59 s ago".into(), "1 min ago".into()));
        assert_eq!((of(7_300), of(200_000)), ("2 h ago".into(), "2 days ago".into()));
    }
}
