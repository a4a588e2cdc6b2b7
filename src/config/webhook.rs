//! Reader of `[webhook.NAME]`.

mod auth;

pub use auth::{AuthScheme, HookAuth, SCHEMES};

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use diorama_inbound::PRESETS;

use super::intake::IntakeSpec;
use super::problems::{ConfigError, Problem};
use super::value::{Reader, fill_in, nearest};

/// Configuration of one webhook.
#[derive(Clone, Debug)]
pub struct HookSpec {
    /// The name, as in the URL.
    pub name: String,
    /// The Dio whose rows it changes; by default the one with the webhook's name.
    pub dio: String,
    /// Authentication of senders.
    pub auth: HookAuth,
    /// Intake of deliveries.
    pub intake: IntakeSpec,
    /// Maximum size of one delivery in bytes.
    pub body: Option<usize>,
    /// True if it describes the messages of a feed, under `[dio.NAME.feed]`.
    pub feed: bool,
    /// Format of deliveries: `native`, `cloudevents`, `map`, or the name of a preset.
    pub format: &'static str,
    /// The sender's name of the rows, if it sends several kinds.
    pub only: Option<String>,
    /// The file with `[webhook.NAME.map]`, if that table exists.
    pub map: Option<RawSection>,
    /// `cloudevents`: true to accept batches.
    pub accept_batch: bool,
    /// `cloudevents`: origins that may request permission to deliver by `OPTIONS`.
    pub origins: Vec<String>,
    /// True if one change that cannot be decoded makes the whole delivery an error.
    pub abort: bool,
    /// The clock of versions: `column` for that of the Dio's version column; by default the hook's own clock.
    pub clock: Option<String>,
    /// Byte offset of `[webhook.NAME]`.
    pub at: usize,
}

/// A part of the file that is parsed elsewhere.
#[derive(Clone, Debug)]
pub struct RawSection {
    /// The whole file.
    pub text: Arc<str>,
    /// The path of the file.
    pub path: PathBuf,
    /// Environment variables named in the file.
    pub(super) env: Arc<HashMap<String, String>>,
}

impl RawSection {
    /// Expands each `${NAME}` in a text of the file to the environment variable; `$${` is a literal `${`.
    ///
    /// # Errors
    /// The variable that is not set.
    pub fn fill_in(&self, text: &str) -> Result<String, String> {
        fill_in(text, &|name| self.env.get(name).cloned())
    }

    /// Formats mistakes, each with a byte offset, like those of a configuration.
    pub fn error(&self, problems: impl IntoIterator<Item = (usize, String)>) -> ConfigError {
        let problems = problems.into_iter().map(|(at, message)| Problem::new(at, message)).collect();
        ConfigError::new(&self.path, &self.text, problems)
    }
}

/// All formats.
pub const FORMATS: [&str; 3 + PRESETS.len()] = {
    let mut formats = ["native"; 3 + PRESETS.len()];
    (formats[1], formats[2]) = ("cloudevents", "map");
    let mut at = 0;
    while at < PRESETS.len() {
        formats[3 + at] = PRESETS[at];
        at += 1;
    }
    formats
};

impl HookSpec {
    /// Creates a hook without authentication, with the name of its Dio; for loopback addresses only.
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
            body: None,
        }
    }

    pub(super) fn read(name: String, reader: Reader<'_>, loopback: bool, dios: &[String]) -> Option<HookSpec> {
        let dio = reader.text("dio").unwrap_or_else(|| name.clone());
        if !dios.contains(&dio) {
            let at = reader.position("dio").unwrap_or(reader.at);
            let hint = match nearest(&dio, dios.iter().map(String::as_str)) {
                Some(near) => format!("did you mean {near:?}?"),
                None => format!("the resources are {}", dios.join(", ")),
            };
            reader.problem(at, format!("[webhook.{name}] refers to {dio:?}, but there is no [dio.{dio}]: {hint}"));
        }
        if reader.position("auth").is_none() {
            let example = format!("auth = {{ scheme = \"standard\", secrets = [\"env:{}\"] }}", variable(&name));
            reader.problem(reader.at, format!("[webhook.{name}] requires {example}"));
        }
        let auth = reader.table("auth").and_then(|table| auth::read(table, loopback));
        let mut spec = HookSpec { name, dio, at: reader.at, ..HookSpec::open("") };
        spec.format(&reader);
        spec.abort = reader.word("on_item_error", &["skip", "abort"]) == Some("abort");
        spec.intake = IntakeSpec::read(&reader);
        spec.body = reader.size("body", 1 << 10..=64 << 20);
        reader.finish();
        Some(HookSpec { auth: auth?, ..spec })
    }

    pub(super) fn format(&mut self, reader: &Reader<'_>) {
        let mapped = reader.position("map").is_some();
        let default = if mapped { "map" } else { "native" };
        self.format = reader.word("format", &FORMATS).unwrap_or(default);
        let at = reader.position("format").unwrap_or(reader.at);
        match self.format {
            "map" if !mapped => {
                reader.problem(at, format!("format \"map\" requires [webhook.{}.map]", self.name));
            }
            "native" | "cloudevents" if mapped => {
                reader.problem(at, format!("format {:?} does not use a map: remove map", self.format));
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
