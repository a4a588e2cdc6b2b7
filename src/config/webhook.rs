//! `[webhook.NAME]`

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use super::intake::IntakeSpec;
use super::problems::{ConfigError, Problem};
use super::value::{LEAST_TOKEN, Reader, Secret, fill_in, nearest};

/// One webhook.
#[derive(Clone, Debug)]
pub struct HookSpec {
    /// Its name, as in the URL.
    pub name: String,
    /// The Dio it feeds; the one of its own name if nothing is written.
    pub dio: String,
    /// How senders prove who they are.
    pub auth: HookAuth,
    /// How deliveries are taken.
    pub intake: IntakeSpec,
    /// Whether it stands for a feed, under `[dio.NAME.feed]`.
    pub feed: bool,
    /// How deliveries are written: `native`, `cloudevents`, `map`, or the name of a preset.
    pub format: &'static str,
    /// What the sender calls the rows, where it tells of several kinds of things.
    pub only: Option<String>,
    /// The file with `[webhook.NAME.map]`, if that is there.
    pub map: Option<Written>,
    /// `cloudevents`: whether several at a time are taken.
    pub accept_batch: bool,
    /// `cloudevents`: who may ask by `OPTIONS` whether to deliver.
    pub origins: Vec<String>,
    /// Whether one change that cannot be understood makes the whole delivery an error.
    pub abort: bool,
    /// The clock that versions are of: `column` for those of the Dio's version column; the hook's own, if nothing is written.
    pub clock: Option<String>,
    /// Where `[webhook.NAME]` stands, in bytes.
    pub at: usize,
}

/// A part of the file that is read elsewhere.
#[derive(Clone, Debug)]
pub struct Written {
    /// The whole file.
    pub text: Arc<str>,
    /// Its name.
    pub path: PathBuf,
    /// What the environment has of the variables named in it.
    pub(super) env: Arc<HashMap<String, String>>,
}

impl Written {
    /// A text of the file with the environment's value for each `${NAME}`; `$${` stands for `${`.
    ///
    /// # Errors
    /// Says which variable is not set.
    pub fn fill_in(&self, text: &str) -> Result<String, String> {
        fill_in(text, &|name| self.env.get(name).cloned())
    }

    /// Mistakes, each at a place in the text, as those of a configuration are told.
    pub fn error(&self, problems: impl IntoIterator<Item = (usize, String)>) -> ConfigError {
        let problems = problems.into_iter().map(|(at, message)| Problem::new(at, message)).collect();
        ConfigError::new(&self.path, &self.text, problems)
    }
}

/// How senders prove who they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HookAuth {
    /// One of [`SCHEMES`].
    pub scheme: &'static str,
    /// What they know.
    pub secrets: Vec<Secret>,
    /// Seconds that a signed time may differ from ours.
    pub tolerance: Option<u64>,
    /// `hmac`, `header`: the header with the signature or the token.
    pub header: String,
    /// `hmac`: what stands before it.
    pub prefix: String,
    /// `hmac`: `hex`, `base64` or `base64url`.
    pub encoding: &'static str,
    /// `hmac`: `sha256`, `sha512` or `sha1`.
    pub algorithm: &'static str,
    /// `hmac`: how the secrets are written: `text`, `hex` or `base64`.
    pub secret_encoding: &'static str,
    /// `hmac`: the header with the time.
    pub timestamp_header: Option<String>,
    /// `hmac`: what is signed.
    pub message: String,
    /// `contentful`: the path that senders see.
    pub public_path: Option<String>,
    /// The header with the delivery's id.
    pub delivery: Option<String>,
}

/// Schemes that are known.
pub const SCHEMES: [&str; 15] = [
    "standard",
    "svix",
    "github",
    "stripe",
    "shopify",
    "slack",
    "gitlab",
    "sanity",
    "airtable",
    "contentful",
    "hmac",
    "bearer",
    "header",
    "basic",
    "none",
];

/// Formats that are known.
pub const FORMATS: [&str; 15] = [
    "native",
    "cloudevents",
    "map",
    "airtable",
    "contentful",
    "debezium",
    "directus",
    "github",
    "hasura",
    "postgres",
    "sanity",
    "shopify",
    "strapi",
    "stripe",
    "supabase",
];

impl HookAuth {
    /// No proof at all; for loopback addresses only.
    fn none() -> HookAuth {
        HookAuth {
            scheme: "none",
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
            delivery: None,
        }
    }
}

impl HookSpec {
    /// The hook of a Dio's own name that anybody on this machine may use.
    pub fn open(dio: &str) -> HookSpec {
        HookSpec {
            name: dio.to_string(),
            dio: dio.to_string(),
            auth: HookAuth::none(),
            format: "native",
            only: None,
            map: None,
            accept_batch: false,
            origins: Vec::new(),
            abort: false,
            clock: None,
            at: 0,
            intake: IntakeSpec::default(),
            feed: false,
        }
    }

    pub(super) fn read(name: String, reader: Reader<'_>, loopback: bool, dios: &[String]) -> Option<HookSpec> {
        let dio = reader.text("dio").unwrap_or_else(|| name.clone());
        if !dios.contains(&dio) {
            let at = reader.place("dio").unwrap_or(reader.at);
            let hint = match nearest(&dio, dios.iter().map(String::as_str)) {
                Some(near) => format!("did you mean {near:?}?"),
                None => format!("there are {}", dios.join(", ")),
            };
            reader.problem(at, format!("[webhook.{name}] feeds {dio:?}, but there is no [dio.{dio}]: {hint}"));
        }
        if reader.place("auth").is_none() {
            let example = format!("auth = {{ scheme = \"standard\", secrets = [\"env:{}\"] }}", variable(&name));
            reader.problem(reader.at, format!("[webhook.{name}] needs {example}"));
        }
        let auth = reader.table("auth").and_then(|table| auth(table, loopback));
        let mut spec = HookSpec { name, dio, at: reader.at, ..HookSpec::open("") };
        spec.format(&reader);
        spec.abort = reader.word("on_item_error", &["skip", "abort"]) == Some("abort");
        spec.intake = IntakeSpec::read(&reader);
        reader.finish();
        Some(HookSpec { auth: auth?, ..spec })
    }

    pub(super) fn format(&mut self, reader: &Reader<'_>) {
        let mapped = reader.place("map").is_some();
        let default = if mapped { "map" } else { "native" };
        self.format = reader.word("format", &FORMATS).unwrap_or(default);
        let at = reader.place("format").unwrap_or(reader.at);
        match self.format {
            "map" if !mapped => {
                reader.problem(at, format!("format \"map\" needs [webhook.{}.map]", self.name));
            }
            "native" | "cloudevents" if mapped => {
                reader.problem(at, format!("format {:?} has no use for a map", self.format));
            }
            _ => {}
        }
        self.map = mapped.then(|| reader.context.written());
        self.clock = reader.text("clock");
        if !matches!(self.format, "native" | "cloudevents" | "map") {
            self.only = reader.text("only");
        }
        if self.format == "cloudevents" {
            self.accept_batch = reader.flag("accept_batch").unwrap_or_default();
            self.origins = reader.texts("origins").unwrap_or_default();
        }
    }
}

fn variable(name: &str) -> String {
    let upper = name.to_ascii_uppercase();
    format!("{}_SECRET", upper.replace(|c: char| !c.is_ascii_alphanumeric(), "_"))
}

fn auth(table: Reader<'_>, loopback: bool) -> Option<HookAuth> {
    let at = table.place("scheme").unwrap_or(table.at);
    if table.place("scheme").is_none() {
        table.problem(at, format!("auth needs a scheme: one of {}", SCHEMES.join(", ")));
    }
    let scheme = table.word("scheme", &SCHEMES);
    let least = if let Some("bearer" | "header" | "basic" | "gitlab") = scheme { LEAST_TOKEN } else { 1 };
    let secrets = table.secrets("secrets", least);
    let mut auth =
        HookAuth { scheme: scheme.unwrap_or("none"), secrets: secrets.unwrap_or_default(), ..HookAuth::none() };
    if let Some("standard" | "svix" | "stripe" | "slack" | "gitlab" | "sanity" | "contentful" | "hmac") = scheme {
        auth.tolerance = table.count("tolerance", 1..=86_400).and_then(|seconds| u64::try_from(seconds).ok());
    }
    if let Some("hmac" | "bearer" | "header" | "basic" | "none") = scheme {
        let delivery = table.text("delivery");
        auth.delivery = delivery.map(|delivery| delivery.trim_start_matches("header:").to_string());
    }
    match scheme {
        Some("hmac") => hmac(&table, &mut auth),
        Some("header") => auth.header = header(&table, "the header with the secret"),
        Some("contentful") => auth.public_path = table.text("public_path"),
        Some("none") if !loopback => {
            table.problem(at, "scheme \"none\" lets anybody change rows: it is for loopback addresses only");
        }
        _ => {}
    }
    if scheme.is_some_and(|scheme| scheme != "none") {
        secrets_fit(&table, at, &auth);
    }
    table.finish();
    scheme.map(|_| auth)
}

fn secrets_fit(table: &Reader<'_>, at: usize, auth: &HookAuth) {
    match table.place("secrets") {
        None => table.problem(at, format!("scheme {:?} needs secrets = [\"env:NAME\"]", auth.scheme)),
        Some(at) if auth.secrets.len() > 5 => table.problem(at, "there are at most 5 secrets"),
        Some(at) if table.is_empty_array("secrets") => {
            table.problem(at, format!("scheme {:?} needs at least one secret", auth.scheme));
        }
        Some(at) if auth.scheme == "basic" && auth.secrets.iter().any(|own| !own.reveal().contains(':')) => {
            table.problem(at, "a secret of scheme \"basic\" is user:password");
        }
        Some(_) => {}
    }
}

fn header(table: &Reader<'_>, what: &str) -> String {
    if table.place("header").is_none() {
        table.problem(table.at, format!("this scheme needs header = \"NAME\", {what}"));
    }
    table.text("header").unwrap_or_default()
}

fn hmac(table: &Reader<'_>, auth: &mut HookAuth) {
    auth.header = header(table, "the header with the signature");
    auth.prefix = table.text("prefix").unwrap_or_default();
    auth.encoding = table.word("encoding", &["hex", "base64", "base64url"]).unwrap_or("hex");
    auth.algorithm = table.word("algorithm", &["sha256", "sha512", "sha1"]).unwrap_or("sha256");
    auth.secret_encoding = table.word("secret_encoding", &["text", "hex", "base64"]).unwrap_or("text");
    if auth.algorithm == "sha1" && table.flag("allow_sha1") != Some(true) {
        let at = table.place("algorithm").unwrap_or(table.at);
        table.problem(at, "sha1 is old: write allow_sha1 = true if the sender knows nothing newer");
    }
    auth.timestamp_header = table.text("timestamp_header");
    let signed_time = auth.timestamp_header.is_some();
    let default = if signed_time { "{timestamp}.{body}" } else { "{body}" };
    auth.message = table.text("message").unwrap_or_else(|| default.to_string());
    let at = table.place("message").unwrap_or(table.at);
    if !auth.message.contains("{body}") {
        table.problem(at, "message must contain {body}: what is not signed proves nothing");
    }
    if signed_time != auth.message.contains("{timestamp}") {
        table.problem(at, "timestamp_header and {timestamp} in message need each other");
    }
}
