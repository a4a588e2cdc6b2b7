//! Credentials of callers, and the paths of tickets, sessions and rights.

use utoipa::openapi::Required;
use utoipa::openapi::content::ContentBuilder;
use utoipa::openapi::path::HttpMethod;
use utoipa::openapi::request_body::RequestBodyBuilder;
use utoipa::openapi::security::{
    ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme,
};

use super::shapes::{derived, text};
use super::{Api, answers};
use crate::auth::rights::Rights;
use crate::auth::routes::{IssuedTicket, TicketRequest};
use crate::auth::sessions::COOKIE;

/// Name of the security scheme of tokens in the header `Authorization`.
pub(super) const BEARER: &str = "bearer";
/// Name of the security scheme of the cookie of a session.
const SESSION: &str = "session";
const SERVER: &str = "server";

/// Adds the security schemes, if callers are authenticated.
pub(super) fn schemes(api: &mut Api) {
    if !api.guarded {
        return;
    }
    let about = "Token of the server, token of a key, or token of an issuer (JWT). What cannot set the header uses a ticket in the \
        parameter `ticket`: see `POST /_ticket`.";
    let bearer = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).description(Some(about));
    api.securities.insert(BEARER.to_string(), SecurityScheme::Http(bearer.build()));
    let about = "Session of a browser: see `POST /_session`. Counts for requests of the server's own pages only.";
    let session = ApiKey::Cookie(ApiKeyValue::with_description(COOKIE, about));
    api.securities.insert(SESSION.to_string(), SecurityScheme::ApiKey(session));
}

/// Returns the requirements of all operations but those that are open: one of them is enough.
pub(super) fn requirements(anonymous: bool) -> Vec<SecurityRequirement> {
    let no_scopes: [&str; 0] = [];
    let named = [BEARER, SESSION].map(|name| SecurityRequirement::new(name, no_scopes));
    named.into_iter().chain(anonymous.then(SecurityRequirement::default)).collect()
}

/// Adds the paths of credentials and rights.
pub(super) fn add(api: &mut Api) {
    let about = "Issues a substitute for the token that counts once, within 30 seconds, for a GET of the path, with any query. It is \
        added to the URL as the parameter `ticket`. For event sources and downloads of browsers, which cannot set headers.";
    let ticket = api.operation("issueTicket", SERVER, "Get a ticket for a URL", &HttpMethod::Post);
    let content = ContentBuilder::new().schema(Some(derived::<TicketRequest>())).build();
    let body = RequestBodyBuilder::new().required(Some(Required::True)).content("application/json", content);
    let ticket = ticket.description(Some(about)).request_body(Some(body.build()));
    let issued = answers::json("The ticket.", derived::<IssuedTicket>());
    let ticket = answers::refusals(ticket.response("200", issued.build()), &[400, 401, 408, 413, 415]);
    api.add("/_ticket", HttpMethod::Post, ticket);

    let about = "Begins a session of the caller, whose token is in the header `Authorization`. The session ends with the token, or \
        after twelve hours.";
    let begin = api.operation("beginSession", SERVER, "Begin a session of a browser", &HttpMethod::Post);
    let cookie = |about: &'static str| answers::header(answers::empty(about), "Set-Cookie", "The cookie.", text());
    let begin = begin.description(Some(about)).response("204", cookie("The session has begun.").build());
    api.add("/_session", HttpMethod::Post, answers::refusals(begin, &[401, 503]));
    let end = api.operation("endSession", SERVER, "End the session of the browser", &HttpMethod::Delete);
    let end = end.response("204", cookie("There is no session any more.").build());
    api.add("/_session", HttpMethod::Delete, answers::refusals(end, &[401]));

    let about = "The name, the role and the rights of the caller in each resource that it may use. Access rules may restrict a right to \
        some of the rows.";
    let rights = api.operation("getRights", SERVER, "Get the rights of the caller", &HttpMethod::Get);
    let rights =
        rights.description(Some(about)).response("200", answers::json("The rights.", derived::<Rights>()).build());
    api.add("/_access", HttpMethod::Get, rights);
}
