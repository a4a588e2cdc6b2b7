//! Reader of `[webhook.NAME.auth]`.

use crate::config::value::{LEAST_TOKEN, Reader, Secret};

/// Maximum number of secrets of one hook.
const MOST_SECRETS: usize = 5;

/// Authentication of senders: `[webhook.NAME.auth]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HookAuth {
    /// The scheme.
    pub scheme: AuthScheme,
    /// Secrets shared with the sender.
    pub secrets: Vec<Secret>,
    /// Maximum difference in seconds between a signed time and the time of arrival.
    pub tolerance: Option<u64>,
    /// `hmac`, `header`: the header with the signature or the token.
    pub header: String,
    /// `hmac`: prefix of the signature.
    pub prefix: String,
    /// `hmac`: encoding of the signature: `hex`, `base64` or `base64url`.
    pub encoding: &'static str,
    /// `hmac`: hash algorithm: `sha256`, `sha512` or `sha1`.
    pub algorithm: &'static str,
    /// `hmac`: encoding of the secrets: `text`, `hex` or `base64`.
    pub secret_encoding: &'static str,
    /// `hmac`: the header with the time.
    pub timestamp_header: Option<String>,
    /// `hmac`: the signed message.
    pub message: String,
    /// `contentful`: the path that senders see.
    pub public_path: Option<String>,
    /// `twilio`: the URL configured at Twilio, without its query.
    pub public_url: Option<String>,
    /// `meta`: tokens, one of which a challenge must present.
    pub verify_tokens: Vec<Secret>,
    /// `query`, `eventgrid`, `sns`: the query parameter with the secret.
    pub parameter: String,
    /// `sns`: ARNs of the topics whose messages are accepted.
    pub topics: Vec<String>,
    /// The header with the delivery's id.
    pub delivery: Option<String>,
}

/// Authentication scheme of senders.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuthScheme {
    /// Standard Webhooks.
    Standard,
    /// Standard Webhooks with Svix's header names.
    Svix,
    /// GitHub.
    Github,
    /// Stripe.
    Stripe,
    /// Shopify.
    Shopify,
    /// Slack.
    Slack,
    /// GitLab.
    Gitlab,
    /// Sanity.
    Sanity,
    /// Airtable.
    Airtable,
    /// Contentful.
    Contentful,
    /// Asana.
    Asana,
    /// Dropbox.
    Dropbox,
    /// Azure Event Grid.
    EventGrid,
    /// Microsoft Graph.
    Graph,
    /// Mailgun.
    Mailgun,
    /// Meta.
    Meta,
    /// Amazon SNS.
    Sns,
    /// Twilio.
    Twilio,
    /// Twitch EventSub.
    Twitch,
    /// Zoom.
    Zoom,
    /// Any other signature of the body.
    Hmac,
    /// A token in `Authorization`.
    Bearer,
    /// A token in a header.
    Header,
    /// A token in the URL.
    Query,
    /// User and password.
    Basic,
    /// No proof.
    None,
}

impl AuthScheme {
    /// All schemes, in the order of the documentation.
    pub const ALL: [AuthScheme; 26] = {
        use AuthScheme::*;
        [
            Standard, Svix, Github, Stripe, Shopify, Slack, Gitlab, Sanity, Airtable, Contentful, Asana, Dropbox,
            EventGrid, Graph, Mailgun, Meta, Sns, Twilio, Twitch, Zoom, Hmac, Bearer, Header, Query, Basic, None,
        ]
    };

    /// Returns the word in the file.
    pub const fn as_str(self) -> &'static str {
        match self {
            AuthScheme::Standard => "standard",
            AuthScheme::Svix => "svix",
            AuthScheme::Github => "github",
            AuthScheme::Stripe => "stripe",
            AuthScheme::Shopify => "shopify",
            AuthScheme::Slack => "slack",
            AuthScheme::Gitlab => "gitlab",
            AuthScheme::Sanity => "sanity",
            AuthScheme::Airtable => "airtable",
            AuthScheme::Contentful => "contentful",
            AuthScheme::Asana => "asana",
            AuthScheme::Dropbox => "dropbox",
            AuthScheme::EventGrid => "eventgrid",
            AuthScheme::Graph => "graph",
            AuthScheme::Mailgun => "mailgun",
            AuthScheme::Meta => "meta",
            AuthScheme::Sns => "sns",
            AuthScheme::Twilio => "twilio",
            AuthScheme::Twitch => "twitch",
            AuthScheme::Zoom => "zoom",
            AuthScheme::Hmac => "hmac",
            AuthScheme::Bearer => "bearer",
            AuthScheme::Header => "header",
            AuthScheme::Query => "query",
            AuthScheme::Basic => "basic",
            AuthScheme::None => "none",
        }
    }

    /// Returns true if secrets are sent in clear text, so that attackers can try to guess them.
    fn sends_secrets(self) -> bool {
        use AuthScheme::*;
        matches!(self, Bearer | Header | Basic | Gitlab | Query | EventGrid | Sns | Graph)
    }

    /// Returns true if a time is signed.
    fn signs_time(self) -> bool {
        use AuthScheme::*;
        matches!(self, Standard | Svix | Stripe | Slack | Gitlab | Sanity | Contentful | Mailgun | Twitch | Zoom | Hmac)
    }

    /// Returns true if the header with the delivery's id can be configured, because the scheme does not define one.
    fn names_delivery(self) -> bool {
        use AuthScheme::*;
        matches!(self, Hmac | Bearer | Header | Query | Basic | None)
    }
}

/// Names of all schemes.
pub const SCHEMES: [&str; AuthScheme::ALL.len()] = {
    let mut words = [""; AuthScheme::ALL.len()];
    let mut at = 0;
    while at < words.len() {
        words[at] = AuthScheme::ALL[at].as_str();
        at += 1;
    }
    words
};

impl HookAuth {
    /// Returns the setting without authentication, for loopback addresses only.
    pub(super) fn none() -> HookAuth {
        HookAuth {
            scheme: AuthScheme::None,
            secrets: Vec::new(),
            tolerance: None,
            header: String::new(),
            prefix: String::new(),
            encoding: "hex",
            algorithm: "sha256",
            secret_encoding: "text",
            timestamp_header: None,
            message: "{body}".into(),
            public_path: None,
            public_url: None,
            verify_tokens: Vec::new(),
            parameter: "token".into(),
            topics: Vec::new(),
            delivery: None,
        }
    }
}

/// Reads the table and reports its mistakes.
pub(super) fn read(table: Reader<'_>, loopback: bool) -> Option<HookAuth> {
    let at = table.position("scheme").unwrap_or(table.at);
    if table.position("scheme").is_none() {
        table.problem(at, format!("auth requires scheme: one of {}", SCHEMES.join(", ")));
    }
    let word = table.word("scheme", &SCHEMES);
    let scheme = word.and_then(|word| AuthScheme::ALL.into_iter().find(|scheme| scheme.as_str() == word));
    let least = if scheme.is_some_and(AuthScheme::sends_secrets) { LEAST_TOKEN } else { 1 };
    let secrets = table.secrets("secrets", least).unwrap_or_default();
    let auth = scheme.map(|scheme| {
        let mut auth = HookAuth { scheme, secrets, ..HookAuth::none() };
        own_keys(&table, &mut auth);
        secrets_fit(&table, at, &auth);
        if scheme == AuthScheme::None && !loopback {
            table.problem(at, "scheme \"none\" lets anybody change rows and is permitted only on loopback addresses");
        }
        auth
    });
    table.finish();
    auth
}

/// Reads the keys that are specific to a scheme.
fn own_keys(table: &Reader<'_>, auth: &mut HookAuth) {
    if auth.scheme.signs_time() {
        auth.tolerance = table.count("tolerance", 1..=86_400).and_then(|seconds| u64::try_from(seconds).ok());
    }
    if auth.scheme.names_delivery() {
        let delivery = table.text("delivery");
        auth.delivery = delivery.map(|delivery| delivery.trim_start_matches("header:").to_string());
    }
    match auth.scheme {
        AuthScheme::Hmac => hmac(table, auth),
        AuthScheme::Header => auth.header = header(table, "the header with the secret"),
        AuthScheme::Contentful => auth.public_path = table.text("public_path"),
        AuthScheme::Meta => verify_tokens(table, auth),
        AuthScheme::Twilio => public_url(table, auth),
        AuthScheme::Query | AuthScheme::EventGrid => parameter(table, auth),
        AuthScheme::Sns => {
            parameter(table, auth);
            topics(table, auth);
        }
        _ => {}
    }
}

fn secrets_fit(table: &Reader<'_>, at: usize, auth: &HookAuth) {
    let word = auth.scheme.as_str();
    let needed = !matches!(auth.scheme, AuthScheme::None | AuthScheme::Asana);
    match table.position("secrets") {
        Some(at) if auth.scheme == AuthScheme::None => {
            table.problem(at, "scheme \"none\" does not use secrets: remove them")
        }
        None if needed => table.problem(at, format!("scheme {word:?} requires secrets = [\"env:NAME\"]")),
        Some(at) if auth.secrets.len() > MOST_SECRETS => {
            table.problem(at, format!("at most {MOST_SECRETS} secrets are permitted"));
        }
        Some(at) if needed && table.is_empty_array("secrets") => {
            table.problem(at, format!("scheme {word:?} requires at least one secret"));
        }
        Some(at) if auth.scheme == AuthScheme::Basic && auth.secrets.iter().any(|own| !own.reveal().contains(':')) => {
            table.problem(at, "a secret of scheme \"basic\" must be user:password");
        }
        _ => {}
    }
}

fn header(table: &Reader<'_>, what: &str) -> String {
    if table.position("header").is_none() {
        table.problem(table.at, format!("this scheme requires header = \"NAME\", {what}"));
    }
    table.text("header").unwrap_or_default()
}

fn parameter(table: &Reader<'_>, auth: &mut HookAuth) {
    let at = table.position("parameter").unwrap_or(table.at);
    let named = table.text("parameter");
    auth.parameter = named.unwrap_or_else(|| auth.parameter.clone());
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    if auth.parameter.is_empty() || !auth.parameter.bytes().all(plain) {
        table.problem(at, "parameter must be the name of a query parameter: letters, digits, - _ .");
    }
}

/// Reads the tokens that authenticate a challenge, which are not the secrets of the signatures.
fn verify_tokens(table: &Reader<'_>, auth: &mut HookAuth) {
    let example = "verify_tokens = [\"env:NAME\"], the verify token entered at Meta";
    match table.position("verify_tokens") {
        None => table.problem(table.at, format!("scheme \"meta\" requires {example}")),
        Some(at) if table.is_empty_array("verify_tokens") => {
            table.problem(at, format!("scheme \"meta\" requires {example}"));
        }
        Some(_) => {}
    }
    auth.verify_tokens = table.secrets("verify_tokens", LEAST_TOKEN).unwrap_or_default();
    if let Some(at) = table.position("verify_tokens").filter(|_| auth.verify_tokens.len() > MOST_SECRETS) {
        table.problem(at, format!("at most {MOST_SECRETS} verify_tokens are permitted"));
    }
}

fn public_url(table: &Reader<'_>, auth: &mut HookAuth) {
    auth.public_url = table.text("public_url");
    let is_url = |url: &str| {
        let rest = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"));
        rest.is_some_and(|rest| !rest.is_empty() && !rest.contains(['?', '#', ' ']))
    };
    if let (Some(at), Some(url)) = (table.position("public_url"), &auth.public_url)
        && !is_url(url)
    {
        table.problem(
            at,
            "public_url must be the URL configured at Twilio, like https://shop.example/webhooks/NAME, without a query",
        );
    }
}

fn topics(table: &Reader<'_>, auth: &mut HookAuth) {
    let at = table.position("topics").unwrap_or(table.at);
    auth.topics = table.texts("topics").unwrap_or_default();
    if auth.topics.is_empty() || !auth.topics.iter().all(|topic| topic.starts_with("arn:aws")) {
        table.problem(at, "scheme \"sns\" requires topics = [\"arn:aws:sns:REGION:ACCOUNT:NAME\"]");
    }
}

fn hmac(table: &Reader<'_>, auth: &mut HookAuth) {
    auth.header = header(table, "the header with the signature");
    auth.prefix = table.text("prefix").unwrap_or_default();
    auth.encoding = table.word("encoding", &["hex", "base64", "base64url"]).unwrap_or("hex");
    auth.algorithm = table.word("algorithm", &["sha256", "sha512", "sha1"]).unwrap_or("sha256");
    auth.secret_encoding = table.word("secret_encoding", &["text", "hex", "base64"]).unwrap_or("text");
    if auth.algorithm == "sha1" && table.flag("allow_sha1") != Some(true) {
        let at = table.position("algorithm").unwrap_or(table.at);
        table.problem(at, "sha1 is outdated: set allow_sha1 = true if the sender supports no newer algorithm");
    }
    auth.timestamp_header = table.text("timestamp_header");
    let signed_time = auth.timestamp_header.is_some();
    let default = if signed_time { "{timestamp}.{body}" } else { "{body}" };
    auth.message = table.text("message").unwrap_or_else(|| default.to_string());
    let at = table.position("message").unwrap_or(table.at);
    if !auth.message.contains("{body}") {
        table.problem(at, "message must contain {body}, because an unsigned body proves nothing");
    }
    if signed_time != auth.message.contains("{timestamp}") {
        table.problem(at, "timestamp_header and {timestamp} in message must be used together");
    }
}
