//! Implementation of `diorama try`: a proposed configuration for an HTTP API.

use std::io::Write as _;

use axum::http::header::{HeaderName, HeaderValue};
use clap::Args;
use diorama_connect::http::{HttpOptions, explore};

use super::ops::USAGE;
use super::{Failure, OTHER};
use crate::config::resource_name;

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
    fn resource(&self) -> String {
        let path = self.url.split(['?', '#']).next().unwrap_or_default();
        let words = path.trim_end_matches('/').rsplit('/').map(resource_name);
        let found = self.name.clone().or_else(|| words.into_iter().find(|word| !word.is_empty()));
        found.unwrap_or_else(|| "rows".into())
    }
}

/// Explores an API and prints the configuration for it.
///
/// # Errors
/// The URL has no list, or the API cannot be reached.
pub async fn run(arguments: &Try) -> Result<(), Failure> {
    let name = arguments.resource();
    let found = explore(&name, &arguments.url, arguments.options()?).await;
    let found = found.map_err(Failure::config)?;
    let mut text = String::new();
    for note in &found.notes {
        text += &format!("# {note}\n");
    }
    let requests = if found.requests == 1 { "1 request".to_string() } else { format!("{} requests", found.requests) };
    text += &format!("# found with {requests}; write this to diorama.toml, then: diorama serve\n");
    text += &format!("[dio.{name}.source]\n{}\n", found.source.join("\n"));
    let headers: Vec<String> = arguments.header.iter().filter_map(|header| header_line(header)).collect();
    if !headers.is_empty() {
        text += &format!("headers = {{ {} }}\n", headers.join(", "));
    }
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

/// Returns the line of a header, whose value is a secret that does not belong in a file.
fn header_line(header: &str) -> Option<String> {
    let (name, value) = header.split_once(':')?;
    let name = name.trim().to_ascii_lowercase();
    let variable: String =
        name.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' }).collect();
    let value = match value.trim().split_once(' ') {
        Some((scheme, _)) if name == "authorization" => format!("{scheme} env:{variable}"),
        _ => format!("env:{variable}"),
    };
    Some(format!("\"{name}\" = \"{value}\""))
}
