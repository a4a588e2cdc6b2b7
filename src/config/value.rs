//! Reader of one TOML table: typed values, and errors for unknown keys.

mod access;

use std::borrow::Cow;
use std::cell::RefCell;
use std::io::Read as _;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use diorama_connect::Registry;
use diorama_gateway::Rate;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::problems::Problems;
use super::tls::PrivateKey;
use super::webhook::RawSection;

/// Minimum length in bytes of a secret that is sent in clear text, which attackers could try to guess.
pub(super) const LEAST_TOKEN: usize = 16;
/// Maximum size of a secret's file in bytes.
const MOST_SECRET: u64 = 64 << 10;

/// A secret from the environment or a file, which is never printed.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secret(String);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(..)")
    }
}

impl Secret {
    /// Returns the secret.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

/// Context for reading values.
pub(super) struct Context<'a> {
    pub(super) problems: Problems,
    pub(super) path: &'a Path,
    pub(super) folder: &'a Path,
    pub(super) text: &'a str,
    pub(super) env: &'a dyn Fn(&str) -> Option<String>,
    /// Connectors available to the file.
    pub(super) registry: &'a Registry,
    /// Requested keys: table, key and expected value, for the reference.
    #[cfg(test)]
    pub(super) requested: RefCell<Vec<(String, &'static str, String)>>,
}

impl Context<'_> {
    /// Returns the raw file for parts that are parsed elsewhere, with the environment variables that it names.
    pub(super) fn written(&self) -> RawSection {
        let names = self.text.match_indices("${").filter_map(|(at, _)| variable_name(&self.text[at..]));
        let env = names.filter_map(|name| Some((name.to_string(), (self.env)(name)?))).collect();
        RawSection { text: self.text.into(), path: self.path.to_path_buf(), env: Arc::new(env) }
    }
}

/// A table that is being read. Keys that were not requested before [`finish`](Reader::finish) are mistakes.
pub(super) struct Reader<'a> {
    pub(super) context: &'a Context<'a>,
    /// Name of the table in messages: `dio.products`.
    name: String,
    pub(super) at: usize,
    table: &'a DeTable<'a>,
    requested: RefCell<Vec<&'static str>>,
    /// For a source: how it is written, a table elsewhere in the file.
    pub(super) writes: Option<Box<Reader<'a>>>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(context: &'a Context<'a>, name: String, at: usize, table: &'a DeTable<'a>) -> Reader<'a> {
        Reader { context, name, at, table, requested: RefCell::default(), writes: None }
    }

    /// Adds the table that says how this source is written.
    pub(super) fn with_writes(self, writes: Option<Reader<'a>>) -> Reader<'a> {
        Reader { writes: writes.map(Box::new), ..self }
    }

    pub(super) fn problem(&self, at: usize, message: impl Into<String>) {
        self.context.problems.add(at, message);
    }

    /// Returns the value of `key`.
    pub(super) fn value(&self, key: &'static str) -> Option<&'a Spanned<DeValue<'a>>> {
        self.requested.borrow_mut().push(key);
        self.table.iter().find(|(own, _)| own.get_ref() == key).map(|(_, value)| value)
    }

    /// Returns the position of the value of `key`; `None` if it is missing.
    pub(super) fn position(&self, key: &'static str) -> Option<usize> {
        self.value(key).map(|value| value.span().start)
    }

    /// Returns true if a key was asked for.
    pub(super) fn is_read(&self) -> bool {
        !self.requested.borrow().is_empty()
    }

    /// Returns true if `key` is a text.
    pub(super) fn is_text(&self, key: &'static str) -> bool {
        self.value(key).is_some_and(|value| value.get_ref().as_str().is_some())
    }

    /// Returns true if `key` is a table.
    pub(super) fn is_table(&self, key: &'static str) -> bool {
        self.value(key).is_some_and(|value| value.get_ref().as_table().is_some())
    }

    /// Returns true if `key` is an empty array.
    pub(super) fn is_empty_array(&self, key: &'static str) -> bool {
        self.value(key).is_some_and(|value| value.get_ref().as_array().is_some_and(|items| items.is_empty()))
    }

    /// Returns the value of `key` converted by `read`.
    fn typed<T>(
        &self,
        key: &'static str,
        expected: &str,
        read: impl FnOnce(&'a DeValue<'a>, usize) -> Option<T>,
    ) -> Option<T> {
        #[cfg(test)]
        self.context.requested.borrow_mut().push((self.name.clone(), key, expected.to_string()));
        let value = self.value(key)?;
        let at = value.span().start;
        let typed = read(value.get_ref(), at);
        if typed.is_none() {
            self.problem(at, format!("{}{key} must be {expected}", self.prefix()));
        }
        typed
    }

    fn prefix(&self) -> String {
        if self.name.is_empty() { String::new() } else { format!("{}.", self.name) }
    }

    /// Reads a text and expands `${ENV}`.
    pub(super) fn text(&self, key: &'static str) -> Option<String> {
        self.typed(key, "a text", |value, at| value.as_str().map(|text| self.fill_in(text, at)))
    }

    /// Reads a text that is one of `words`.
    pub(super) fn word(&self, key: &'static str, words: &[&'static str]) -> Option<&'static str> {
        self.word_as(key, words, &format!("one of {}", words.join(", ")))
    }

    /// Reads a text that is one of `words`, with another description of the expected value.
    pub(super) fn word_as(&self, key: &'static str, words: &[&'static str], expected: &str) -> Option<&'static str> {
        self.typed(key, expected, |value, _| words.iter().find(|word| value.as_str() == Some(word)).copied())
    }

    pub(super) fn path(&self, key: &'static str) -> Option<PathBuf> {
        self.text(key).map(|path| self.context.folder.join(path))
    }

    pub(super) fn flag(&self, key: &'static str) -> Option<bool> {
        self.typed(key, "true or false", |value, _| value.as_bool())
    }

    /// Reads a path, or `true` or `false`.
    pub(super) fn path_or_flag(&self, key: &'static str) -> Option<(Option<PathBuf>, bool)> {
        self.typed(key, "a folder, or true or false", |value, at| match value.as_str() {
            Some(path) => Some((Some(self.context.folder.join(self.fill_in(path, at))), true)),
            None => value.as_bool().map(|flag| (None, flag)),
        })
    }

    pub(super) fn number(&self, key: &'static str) -> Option<u64> {
        self.typed(key, "a whole number, more than 0", |value, _| integer(value).filter(|number| *number > 0))
    }

    pub(super) fn count(&self, key: &'static str, range: RangeInclusive<u64>) -> Option<usize> {
        let expected = format!("a whole number from {} to {}", range.start(), range.end());
        let number = self.typed(key, &expected, |value, _| integer(value).filter(|number| range.contains(number)));
        number.and_then(|number| usize::try_from(number).ok())
    }

    /// Reads a size in bytes, written as a number or like `"64KiB"`.
    pub(super) fn size(&self, key: &'static str, range: RangeInclusive<u64>) -> Option<usize> {
        let expected = format!("a number of bytes from {} to {}, or a size like \"64KiB\"", range.start(), range.end());
        let bytes = self.typed(key, &expected, |value, at| {
            let bytes = value.as_str().map_or_else(|| integer(value), |text| size(&self.fill_in(text, at)));
            bytes.filter(|bytes| range.contains(bytes))
        });
        bytes.and_then(|bytes| usize::try_from(bytes).ok())
    }

    pub(super) fn duration(&self, key: &'static str) -> Option<Duration> {
        self.typed(key, r#"a time like "30s", "5m" or "1h""#, |value, at| {
            duration(&self.fill_in(value.as_str()?, at)).filter(|time| !time.is_zero())
        })
    }

    /// Reads several times.
    pub(super) fn durations(&self, key: &'static str) -> Option<Vec<Duration>> {
        self.typed(key, r#"an array of times like ["5s", "5m"]"#, |value, at| {
            let times = value.as_array()?.iter();
            times.map(|time| duration(&self.fill_in(time.get_ref().as_str()?, at))).collect()
        })
    }

    /// Reads a rate, like `"100/s"`; with `sizes`, also like `"100MiB/min"`.
    pub(super) fn rate(&self, key: &'static str, sizes: bool) -> Option<Rate> {
        let expected = if sizes { SIZE_RATE } else { COUNT_RATE };
        self.typed(key, expected, |value, at| rate(&self.fill_in(value.as_str()?, at), sizes))
    }

    pub(super) fn texts(&self, key: &'static str) -> Option<Vec<String>> {
        self.typed(key, "an array of texts", |value, _| {
            let texts = value.as_array()?.iter();
            texts.map(|text| Some(self.fill_in(text.get_ref().as_str()?, text.span().start))).collect()
        })
    }

    /// Reads secrets from the environment or files, none shorter than `least` bytes.
    pub(super) fn secrets(&self, key: &'static str, least: usize) -> Option<Vec<Secret>> {
        self.typed(key, r#"an array like ["env:NAME"]"#, |value, _| {
            let texts = value.as_array()?.iter();
            let given: Option<Vec<_>> = texts.map(|text| Some((text.get_ref().as_str()?, text.span().start))).collect();
            Some(given?.into_iter().filter_map(|(text, at)| self.secret(text, at, least)).collect())
        })
    }

    /// Reads texts by name. Each is a literal or a secret: `env:NAME`, `file:PATH`, or either of them after a word (`Bearer
    /// env:NAME`).
    pub(super) fn secret_texts(&self, key: &'static str) -> Vec<(String, Secret)> {
        let Some(table) = self.table(key) else { return Vec::new() };
        let read = |(name, value): (&Spanned<Cow<'_, str>>, &Spanned<DeValue<'_>>)| {
            let at = value.span().start;
            let Some(text) = value.get_ref().as_str() else {
                self.problem(at, format!("{}.{} must be a text", table.name, name.get_ref()));
                return None;
            };
            let (before, last) = text.rsplit_once(' ').map_or(("", text), |(before, last)| (before, last));
            let is_secret = last.starts_with("env:") || last.starts_with("file:");
            let value = match (is_secret, before) {
                (false, _) => Secret(self.fill_in(text, at)),
                (true, "") => self.secret(last, at, 1)?,
                (true, before) => Secret(format!("{before} {}", self.secret(last, at, 1)?.0)),
            };
            Some((name.get_ref().to_string(), value))
        };
        table.table.iter().filter_map(read).collect()
    }

    /// Reads a text that may be a secret: a literal, `env:NAME` or `file:PATH`.
    pub(super) fn secret_text(&self, key: &'static str) -> Option<Secret> {
        let (text, at) =
            self.typed(key, r#"a text, "env:NAME" or "file:PATH""#, |value, at| Some((value.as_str()?, at)))?;
        match text.starts_with("env:") || text.starts_with("file:") {
            true => self.secret(text, at, 1),
            false => Some(Secret(self.fill_in(text, at))),
        }
    }

    /// Reads a private key: a path, which may be written `file:PATH`, or `env:NAME`.
    pub(super) fn private_key(&self, key: &'static str) -> Option<PrivateKey> {
        let (text, at) =
            self.typed(key, r#"a path, "file:PATH" or "env:NAME""#, |value, at| Some((value.as_str()?, at)))?;
        if text.starts_with("env:") {
            return self.secret(text, at, 1).map(PrivateKey::Text);
        }
        let path = self.fill_in(text.strip_prefix("file:").unwrap_or(text), at);
        Some(PrivateKey::File(self.context.folder.join(path)))
    }

    fn secret(&self, text: &str, at: usize, least: usize) -> Option<Secret> {
        let found = match text.split_once(':') {
            Some(("env", name)) => {
                (self.context.env)(name).ok_or(format!("the environment variable {name} is not set"))
            }
            Some(("file", path)) => {
                let path = self.context.folder.join(path);
                let read = read_secret(&path).map(|text| text.trim_end().to_string());
                read.map_err(|error| format!("cannot read {}: {error}", path.display()))
            }
            _ => Err("secrets do not belong in this file: write \"env:NAME\" or \"file:PATH\"".into()),
        };
        match found {
            Ok(secret) if secret.is_empty() => self.problem(at, format!("the secret {text} is empty")),
            Ok(secret) if secret.len() < least => self.problem(
                at,
                format!(
                    "the secret {text} is shorter than {least} bytes and can be guessed: generate one with openssl rand -hex 16"
                ),
            ),
            Ok(secret) => return Some(Secret(secret)),
            Err(message) => self.problem(at, message),
        }
        None
    }

    /// Reads the table at `key`.
    pub(super) fn table(&self, key: &'static str) -> Option<Reader<'a>> {
        self.typed(key, "a table", |value, at| {
            let name = format!("{}{key}", self.prefix());
            Some(Reader::new(self.context, name, at, value.as_table()?))
        })
    }

    /// Reads the tables within the table at `key`, with their names.
    pub(super) fn tables(&self, key: &'static str) -> Vec<(String, Reader<'a>)> {
        let Some(outer) = self.table(key) else { return Vec::new() };
        let entry = |(name, value): (&'a Spanned<Cow<'a, str>>, &'a Spanned<DeValue<'a>>)| {
            let (at, own) = (name.span().start, name.get_ref().to_string());
            let path = format!("{}.{own}", outer.name);
            match value.get_ref().as_table() {
                Some(table) => Some((own, Reader::new(self.context, path, at, table))),
                None => {
                    self.problem(at, format!("{path} must be a table"));
                    None
                }
            }
        };
        let mut tables: Vec<_> = outer.table.iter().filter_map(entry).collect();
        tables.sort_by_key(|(_, reader)| reader.at);
        tables
    }

    /// Reads the tables in the array at `key`.
    pub(super) fn array(&self, key: &'static str) -> Vec<Reader<'a>> {
        let read = self.typed(key, "an array of tables", |value, _| {
            let items = value.as_array()?.iter();
            items.map(|item| Some((item.span().start, item.get_ref().as_table()?))).collect::<Option<Vec<_>>>()
        });
        let name = format!("{}{key}", self.prefix());
        let reader = |(at, table)| Reader::new(self.context, name.clone(), at, table);
        read.unwrap_or_default().into_iter().map(reader).collect()
    }

    /// Reads any value as JSON.
    pub(super) fn json(&self, key: &'static str) -> Option<serde_json::Value> {
        self.typed(key, "a text or a table", |value, at| self.json_of(value, at))
    }

    /// Converts a value. Dates and numbers that JSON cannot represent give `None`.
    fn json_of(&self, value: &DeValue<'a>, at: usize) -> Option<serde_json::Value> {
        Some(match value {
            DeValue::String(text) => self.fill_in(text, at).into(),
            DeValue::Boolean(flag) => (*flag).into(),
            DeValue::Integer(number) => {
                i64::from_str_radix(&number.as_str().replace('_', ""), number.radix()).ok()?.into()
            }
            DeValue::Float(number) => number.as_str().replace('_', "").parse::<f64>().ok()?.into(),
            DeValue::Datetime(_) => return None,
            DeValue::Array(items) => {
                let items = items.iter().map(|item| self.json_of(item.get_ref(), item.span().start));
                serde_json::Value::Array(items.collect::<Option<_>>()?)
            }
            DeValue::Table(members) => {
                let member = |(name, value): (&Spanned<Cow<'_, str>>, &Spanned<DeValue<'a>>)| {
                    Some((name.get_ref().to_string(), self.json_of(value.get_ref(), value.span().start)?))
                };
                serde_json::Value::Object(members.iter().map(member).collect::<Option<_>>()?)
            }
        })
    }

    /// Reports unknown keys.
    pub(super) fn finish(mut self) {
        if let Some(writes) = self.writes.take() {
            writes.finish();
        }
        let requested = self.requested.borrow();
        for (key, _) in self.table.iter() {
            let own: &str = key.get_ref();
            if requested.contains(&own) {
                continue;
            }
            let whose = if self.name.is_empty() { "the file".to_string() } else { format!("[{}]", self.name) };
            let synonym =
                SYNONYMS.iter().find(|(word, key)| *word == own && requested.contains(key)).map(|(_, key)| *key);
            let hint = match synonym.or_else(|| nearest(own, requested.iter().copied())) {
                Some(near) => format!("did you mean {near}?"),
                None => {
                    let mut known: Vec<&str> = Vec::new();
                    for key in requested.iter().filter(|key| !key.is_empty()) {
                        if !known.contains(key) {
                            known.push(key);
                        }
                    }
                    format!("the keys are {}", known.join(", "))
                }
            };
            self.problem(key.span().start, format!("{whose} has no key {own:?}: {hint}"));
        }
    }

    fn fill_in(&self, text: &str, at: usize) -> String {
        fill_in(text, self.context.env).unwrap_or_else(|message| {
            self.problem(at, message);
            text.to_string()
        })
    }
}

/// Expands each `${NAME}` in `text` to the environment variable; `$${` is a literal `${`.
pub(super) fn fill_in(text: &str, env: &dyn Fn(&str) -> Option<String>) -> Result<String, String> {
    let mut out = String::new();
    let mut rest = text;
    while let Some(start) = rest.find("${") {
        let (before, after) = rest.split_at(start);
        if let Some(before) = before.strip_suffix('$') {
            out.push_str(before);
            out.push_str("${");
            rest = &after[2..];
            continue;
        }
        out.push_str(before);
        let name = variable_name(after).ok_or("${ without }: write $${ for a literal ${")?;
        out.push_str(&env(name).ok_or_else(|| format!("the environment variable {name} is not set"))?);
        rest = &after[name.len() + 3..];
    }
    out.push_str(rest);
    Ok(out)
}

/// Reads the file of a secret, which may be a pipe. The size is bounded, because some files never end.
fn read_secret(path: &Path) -> std::io::Result<String> {
    let mut text = String::new();
    std::fs::File::open(path)?.take(MOST_SECRET + 1).read_to_string(&mut text)?;
    if text.len() as u64 > MOST_SECRET {
        return Err(std::io::Error::other(format!("it is larger than {MOST_SECRET} bytes")));
    }
    Ok(text)
}

/// Returns the name in `text`, which begins with `${`.
fn variable_name(text: &str) -> Option<&str> {
    text.get(2..)?.split_once('}').map(|(name, _)| name)
}

fn integer(value: &DeValue<'_>) -> Option<u64> {
    let DeValue::Integer(number) = value else { return None };
    u64::from_str_radix(&number.as_str().replace('_', ""), number.radix()).ok()
}

/// Parses `512`, `64KiB`, `1MiB`, `2GiB`.
fn size(text: &str) -> Option<u64> {
    let split = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let shift = match unit.trim_start() {
        "" | "B" => 0,
        "KiB" => 10,
        "MiB" => 20,
        "GiB" => 30,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(1 << shift)
}

/// Expected value of a rate of events.
pub(super) const COUNT_RATE: &str = r#"a rate like "100/s", "1000/min" or "5000/h""#;
/// Expected value of a rate of bytes.
pub(super) const SIZE_RATE: &str = r#"a rate like "10MiB/s", "100MiB/min" or "1GiB/h""#;

/// Parses `100/s`, or with `sizes` also `100MiB/min`.
fn rate(text: &str, sizes: bool) -> Option<Rate> {
    let (amount, unit) = text.split_once('/')?;
    let amount = if sizes { size(amount.trim()) } else { amount.trim().parse().ok() };
    let seconds = match unit.trim() {
        "s" => 1,
        "min" => 60,
        "h" => 3_600,
        _ => return None,
    };
    let amount = amount.filter(|amount| (1..=1 << 50).contains(amount))?;
    Some(Rate { amount, period: Duration::from_secs(seconds) })
}

/// Parses `250ms`, `30s`, `5m`, `2d` or `1h 30m`: the friendly format of jiff, with days of 24 hours.
fn duration(text: &str) -> Option<Duration> {
    let span: jiff::Span = text.parse().ok()?;
    let time = span.to_duration(jiff::SpanRelativeTo::days_are_24_hours()).ok()?;
    Duration::try_from(time).ok()
}

/// Words that other programs use, with the key that they mean here.
const SYNONYMS: [(&str, &str); 6] = [
    ("port", "listen"),
    ("host", "listen"),
    ("address", "listen"),
    ("bind", "listen"),
    ("token", "tokens"),
    ("secret", "secrets"),
];

/// Returns the most similar name, if one is similar enough.
pub(super) fn nearest<'n>(word: &str, names: impl IntoIterator<Item = &'n str>) -> Option<&'n str> {
    let scored = names.into_iter().map(|name| (strsim::levenshtein(&word.to_lowercase(), &name.to_lowercase()), name));
    scored
        .filter(|(distance, name)| *distance <= 1 + name.len() / 4)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name)
}
