//! Implementation of `diorama try`: a proposed configuration for an HTTP API.

use std::io::Write as _;

use axum::http::header::{HeaderName, HeaderValue};
use clap::Args;
use diorama_connect::http::{HttpOptions, explore};

use super::ops::USAGE;
use super::{Failure, OTHER};
use crate::config::{check_name, resource_name};

/// Maximum number of rows that are shown.
const SHOWN: usize = 3;
/// Maximum length of a shown row in characters.
const WIDTH: usize = 160;

/// Arguments of `diorama try`.
#[derive(Args, Debug)]
pub struct Try {
    /// The URL of a list in JSON.
    url: String,
    /// A header of the requests, like "authorization: Bearer TOKEN"; may be repeated.
    #[arg(long, short = 'H', value_name = "NAME: VALUE")]
    header: Vec<String>,
    /// Name of the resource (default: from the URL).
    #[arg(long)]
    name: Option<String>,
}

impl Try {
    fn options(&self) -> Result<HttpOptions, Failure> {
        let mut options = HttpOptions::default();
        for header in &self.header {
            let wrong =
                || Failure { code: USAGE, message: format!("{header:?} is not a header: write \"NAME: VALUE\"") };
            let (name, value) = header.split_once(':').ok_or_else(wrong)?;
            let name: HeaderName = name.trim().parse().map_err(|_| wrong())?;
            let mut value = HeaderValue::from_str(value.trim()).map_err(|_| wrong())?;
            value.set_sensitive(true);
            options.headers.insert(name, value);
        }
        Ok(options)
    }

    /// Name of the resource: the last part of the URL's path that is a word.
    fn resource(&self) -> Result<String, Failure> {
        if let Some(name) = &self.name {
            check_name(name).map_err(|message| Failure { code: USAGE, message: format!("--name: {message}") })?;
            return Ok(name.clone());
        }
        let path = self.url.split(['?', '#']).next().unwrap_or_default();
        let words = path.trim_end_matches('/').rsplit('/');
        let mut words = words.map(|word| resource_name(word.strip_suffix(".json").unwrap_or(word)));
        let word = words.find(|word| !word.is_empty()).unwrap_or_else(|| "rows".into());
        // The name of a route of the server.
        Ok(if check_name(&word).is_ok() { word } else { format!("api_{word}") })
    }
}

/// Explores an API and prints the configuration for it.
///
/// # Errors
/// The URL has no list, or the API cannot be reached.
pub async fn run(arguments: &Try) -> Result<(), Failure> {
    let name = arguments.resource()?;
    let found = explore(&name, &arguments.url, arguments.options()?).await;
    let found = found.map_err(Failure::config)?;
    let mut text = String::new();
    for note in &found.notes {
        text += &format!("# {note}\n");
    }
    let requests = if found.requests == 1 { "1 request".to_string() } else { format!("{} requests", found.requests) };
    text += &format!("# found with {requests}; write this to diorama.toml, then: diorama serve\n");
    let mut source = found.source;
    source.extend(credentials(&arguments.header));
    let source = source.join("\n");
    let secrets = variables(&source);
    if !secrets.is_empty() {
        text += &format!("# secrets are not printed: set {} in the environment\n", secrets.join(" and "));
    }
    text += &format!("[dio.{name}.source]\n{source}\n");
    let rows = found.rows.len();
    text += &format!("\n# the first {} of {rows} rows on the first page:\n", rows.min(SHOWN));
    for record in found.rows.iter().take(SHOWN) {
        let json = serde_json::to_string(record).unwrap_or_default();
        let cut: String = json.chars().take(WIDTH).collect();
        let more = if cut.len() < json.len() { "..." } else { "" };
        text += &format!("# {cut}{more}\n");
    }
    std::io::stdout().write_all(text.as_bytes()).map_err(|error| Failure { code: OTHER, message: error.to_string() })
}

/// Returns lines for the headers, whose values are secrets that do not belong in a file.
fn credentials(headers: &[String]) -> Vec<String> {
    let (mut lines, mut others) = (Vec::new(), Vec::new());
    for (name, value) in headers.iter().filter_map(|header| header.split_once(':')) {
        let (name, value) = (name.trim().to_ascii_lowercase(), value.trim());
        if name == "authorization" && value.to_ascii_lowercase().starts_with("bearer ") {
            lines.push("auth = { bearer = \"env:TOKEN\" }".to_string());
            continue;
        }
        let fit = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' };
        let variable: String = name.chars().map(fit).collect();
        let value = match value.split_once(' ') {
            Some((scheme, _)) if name == "authorization" => format!("{scheme} env:{variable}"),
            _ => format!("env:{variable}"),
        };
        others.push(format!("\"{name}\" = \"{value}\""));
    }
    if !others.is_empty() {
        lines.push(format!("headers = {{ {} }}", others.join(", ")));
    }
    lines
}

/// Returns the environment variables that lines name.
fn variables(lines: &str) -> Vec<&str> {
    let ends = |c: char| !(c.is_ascii_alphanumeric() || c == '_');
    lines.split("env:").skip(1).filter_map(|rest| rest.split(ends).next()).collect()
}
