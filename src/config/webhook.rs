//! `[webhook.NAME]`

mod auth;

pub use auth::{AuthScheme, HookAuth, SCHEMES};

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use diorama_inbound::PRESETS;

use super::intake::IntakeSpec;
use super::problems::{ConfigError, Problem};
use super::value::{Reader, fill_in, nearest};

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
    /// Bytes of one delivery, at most.
    pub body: Option<usize>,
    /// Whether it stands for a feed, under `[dio.NAME.feed]`.
    pub feed: bool,
    /// How deliveries are written: `native`, `cloudevents`, `map`, or the name of a preset.
    pub format: &'static str,
    /// What the sender calls the rows, where it tells of several kinds of things.
    pub only: Option<String>,
    /// The file with `[webhook.NAME.map]`, if that is there.
    pub map: Option<RawSection>,
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
pub struct RawSection {
    /// The whole file.
    pub text: Arc<str>,
    /// Its name.
    pub path: PathBuf,
    /// What the environment has of the variables named in it.
    pub(super) env: Arc<HashMap<String, String>>,
}

impl RawSection {
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

/// Formats that are known.
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
            body: None,
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
