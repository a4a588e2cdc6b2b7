//! `GET /`: the URLs of the resources, as JSON or as an HTML page. `GET /docs`: the OpenAPI document as a page of Swagger UI.
//!
//! The template of the page is filled in here, so that the page lists the resources without a script. With its script it becomes the
//! explorer. Its content security policy allows the server's own files and answers, and no inline scripts or styles.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Extension, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use serde::Serialize;
use utoipa::ToSchema;

use crate::access::{Grant, Principal, Verb};
use crate::auth::request::known;
use crate::http::client_certificate::ClientCertificate;
use crate::http::extract::Prefix;
use crate::http::problem::{ApiError, Code};
use crate::http::route::Route;
use crate::http::{negotiate, response};
use crate::pages::explorer::{self, Explorer};
use crate::state::{GatewayState, Resource};
use crate::webhook::Hook;
use diorama_core::vista::Schema;
use diorama_core::vista::query::url::segment;

const PAGE: &str = include_str!("../../../../static/index.html");
const DOCS: &str = include_str!("../../../../static/docs.html");
/// Content security policy: a page may use the server's files and answers, and other pages must not embed it.
pub(crate) const POLICY: &str = "default-src 'self'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; \
     object-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
/// Maximum number of columns of a resource that the page lists.
const MOST_COLUMNS: usize = 12;

/// Returns the URLs of the resources and webhooks.
pub(crate) async fn index(
    State(gateway): State<Arc<GatewayState>>,
    Prefix(prefix): Prefix,
    principal: Principal,
    certificate: Option<Extension<ClientCertificate>>,
    headers: HeaderMap,
) -> Response {
    let wants_page = gateway.has_page(Route::Index) && negotiate::prefers_html(&headers);
    let mut response = match wants_page {
        true => {
            let caller = match gateway.auth.is_required() {
                true => known(&gateway, &headers, certificate.as_deref()),
                false => Some(principal),
            };
            match template(&gateway.explorer).await {
                Ok(template) => page(render(&template, &gateway, &prefix, caller.as_ref()), caller.is_some()),
                Err(error) => error.into_response(),
            }
        }
        false => response::json(&document(&gateway, &prefix, &principal)),
    };
    response.headers_mut().insert(header::VARY, HeaderValue::from_static("Accept"));
    response
}

/// Returns the resources with which the caller may do anything, and the permissions.
fn visible<'a>(gateway: &'a GatewayState, principal: &Principal) -> Vec<(&'a Arc<str>, &'a Arc<Resource>, Arc<Grant>)> {
    let policy = gateway.policy.load();
    let all = gateway.dios.iter();
    let all = all.map(|(name, resource)| (name, resource, policy.grant(name, &resource.schema, principal)));
    all.filter(|(_, _, grant)| !grant.verbs().is_empty()).collect()
}

/// Returns the webhooks whose deliveries the caller may see.
fn visible_hooks<'a>(gateway: &'a GatewayState, dios: &[(&Arc<str>, &Arc<Resource>, Arc<Grant>)]) -> Vec<&'a Hook> {
    let of = |hook: &&Arc<Hook>| {
        dios.iter().any(|(name, _, grant)| *hook.dio == ***name && grant.verbs().has(Verb::Webhooks))
    };
    gateway.hooks.values().filter(of).map(|hook| &**hook).collect()
}

/// Returns the template of the page.
async fn template(explorer: &Explorer) -> Result<Cow<'static, str>, ApiError> {
    let Explorer::Folder(folder) = explorer else { return Ok(PAGE.into()) };
    let page = explorer::read(folder, &["index.html"]).await?;
    let missing = || {
        ApiError::new(Code::NotFound, "the folder of the page has no index.html")
            .hint("add the file, or change server.explorer")
    };
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
    /// Name of the resource that the webhook updates.
    dio: String,
    /// URL that receives deliveries.
    receive: String,
    /// URL of the list of received deliveries.
    deliveries: String,
    /// URLs that a person must open to confirm subscriptions; absent if there are none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    confirm: Vec<String>,
}

fn document(gateway: &GatewayState, prefix: &str, principal: &Principal) -> Index {
    let links = |name: &str| {
        let own = format!("{prefix}/{name}");
        ResourceLinks { schema: format!("{own}/_schema"), events: format!("{own}/events"), list: own }
    };
    let hook_links = |hook: &Hook| {
        let own = format!("{prefix}/webhooks/{}", hook.name);
        let deliveries = format!("{own}/deliveries");
        HookLinks { dio: hook.dio.clone(), receive: own, deliveries, confirm: hook.confirmations() }
    };
    let dios = visible(gateway, principal);
    let hooks = visible_hooks(gateway, &dios);
    Index {
        resources: dios.iter().map(|(name, ..)| (name.to_string(), links(name))).collect(),
        webhooks: hooks.iter().map(|hook| (hook.name.clone(), hook_links(hook))).collect(),
        ready: format!("{prefix}/readyz"),
    }
}

/// Returns the page that shows the OpenAPI document.
pub(crate) async fn docs(
    State(gateway): State<Arc<GatewayState>>,
    Prefix(prefix): Prefix,
    certificate: Option<Extension<ClientCertificate>>,
    headers: HeaderMap,
) -> Response {
    let known = known(&gateway, &headers, certificate.as_deref()).is_some();
    let prefix = escape(&prefix);
    let status = match known {
        true => "This page needs JavaScript.",
        false => "A key or token is required: sign in to the explorer (Diorama, above), and come back.",
    };
    let text = fill(DOCS, |name| match name {
        "prefix" => Some(&prefix),
        "asks" => Some(if known { "" } else { "token" }),
        "status" => Some(status),
        _ => None,
    });
    page(text, known)
}

/// Returns a page. It is a 401 unless the caller is `known`; its script then asks for a key or token, because a browser cannot.
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

fn render(template: &str, gateway: &GatewayState, prefix: &str, caller: Option<&Principal>) -> String {
    let prefix = escape(prefix);
    let ready = gateway.dios.values().all(|resource| resource.dio.is_ready());
    let status = match (gateway.closing.is_cancelled(), ready) {
        _ if caller.is_none() => "A key or token is required.",
        (true, _) => "The server is stopping.",
        (false, true) => "Every resource is ready.",
        (false, false) => "Some resources are still being read.",
    };
    let dios = caller.map(|caller| visible(gateway, caller)).unwrap_or_default();
    let resources: String = dios.iter().map(|(name, at, grant)| row(&prefix, &escape(name), at, grant)).collect();
    let example = dios
        .first()
        .map(|(name, at, grant)| example(&prefix, &escape(name), &grant.schema(&at.schema)))
        .unwrap_or_default();
    let hooks = visible_hooks(gateway, &dios).into_iter();
    let hooks: Vec<_> = hooks.map(|n| format!("<code>POST {prefix}/webhooks/{}</code>", escape(&n.name))).collect();
    let webhooks = match hooks.is_empty() {
        true => String::new(),
        false => format!("<p>Upstream systems report changes by {}.</p>", hooks.join(", ")),
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

fn row(prefix: &str, name: &str, resource: &Resource, grant: &Grant) -> String {
    let status = resource.dio.status();
    let age = status.age.map(ago);
    let (class, state) = match (status.ready, status.refresh_failed.is_some(), status.stale) {
        (false, true, _) => ("bad", "cannot be read, is retried".to_string()),
        (false, false, _) => ("soft", "the first copy is being read".to_string()),
        (true, true, _) => ("bad", format!("the last refresh failed; read {}", age.as_deref().unwrap_or("earlier"))),
        (true, false, true) => ("bad", format!("stale: read {}", age.as_deref().unwrap_or("by an earlier process"))),
        (true, false, false) => ("good", age.unwrap_or_else(|| "by an earlier process".to_string())),
    };
    // The number is that of all rows.
    let counts = grant.is_unrestricted() || grant.verbs().has(Verb::Read) && grant.view(Verb::Read).has_all_rows();
    let schema = grant.schema(&resource.schema);
    let columns: Vec<_> = schema.columns().iter().take(MOST_COLUMNS).map(|column| escape(&column.name)).collect();
    let more = if schema.columns().len() > MOST_COLUMNS { ", …" } else { "" };
    let columns = columns.join(", ");
    let own = format!("{prefix}/{name}");
    format!(
        "<tr><th scope=\"row\"><a href=\"{own}\">{name}</a><span class=\"columns\">{columns}{more}</span></th>\
         <td class=\"number\">{rows}</td><td class=\"{class}\">{state}</td>\
         <td><a href=\"{own}/_schema\" aria-label=\"schema of {name}\">schema</a><br>\
         <span class=\"soft\">live: <code>{own}/events</code></span></td></tr>\n",
        rows = if counts { thousands(status.rows) } else { String::new() },
    )
}

/// Renders two examples for a resource: a query and a subscription.
fn example(prefix: &str, name: &str, schema: &Schema) -> String {
    let last = schema.columns().last().map(|column| segment(&column.name)).unwrap_or_default();
    let url = format!("{prefix}/{name}?limit=3&amp;order={last}.desc");
    format!(
        "<p><a href=\"{url}\"><code>{url}</code></a></p>\n<p>Subscribers receive each change:</p>\n\
         <pre>new WebSocket(\"{prefix}/{name}/events\").onmessage = (frame) =&gt; console.log(frame.data)</pre>"
    )
}

/// Replaces each `{{name}}` in `template` by its `value`. Unknown names stay, and values are not expanded again.
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

/// Escapes `text` for HTML text or an attribute.
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

/// Formats `number` with its digits in groups of three.
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
    fn text_is_escaped_for_html() {
        assert_eq!(escape("<a href='x' & \"y\">"), "&lt;a href=&#39;x&#39; &amp; &quot;y&quot;&gt;");
    }

    #[test]
    fn values_are_not_expanded_again() {
        let value = |name: &str| if name == "a" { Some("{{b}}") } else { None };
        assert_eq!(fill("1 {{a}} 2 {{ c }} {{", value), "1 {{b}} 2 {{ c }} {{");
    }

    #[test]
    fn every_placeholder_of_the_page_is_replaced() {
        let gateway = GatewayState::default();
        assert!(!render(PAGE, &gateway, "", Some(&Principal::anonymous())).contains("{{"));
        assert!(render(PAGE, &gateway, "/a\"b", Some(&Principal::anonymous())).contains("href=\"/a&quot;b/readyz\""));
    }

    #[test]
    fn numbers_and_ages_are_formatted_for_people() {
        assert_eq!(thousands(7), "7");
        assert_eq!(thousands(1_234_567), "1\u{202f}234\u{202f}567");
        let of = |seconds| ago(Duration::from_secs(seconds));
        assert_eq!((of(0), of(59), of(61)), ("just now".into(), "59 s ago".into(), "1 min ago".into()));
        assert_eq!((of(7_300), of(200_000)), ("2 h ago".into(), "2 days ago".into()));
    }
}
