//! `diorama webhook test`: what a delivery would do, told step by step, without doing it.

use std::borrow::Cow;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use axum::http::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use axum::http::{HeaderMap, Method};
use clap::{Args, Subcommand};
use jiff::Timestamp;

use super::{Failure, OTHER, hooks, say, source};
use crate::config::{Config, DioSpec, HookSpec};
use crate::inbound::{Change, Decoded, Hook, ItemError, Request};
use crate::record::{CborValue, value_to_json};
use crate::vista::{ChangeEvent, RowCheck, Schema, Shape, UnknownColumns};

/// Try webhooks out.
#[derive(Debug, Subcommand)]
pub enum Webhook {
    /// Tell what a delivery would do: whether it is verified, what is understood, what would change. Nothing is changed.
    Test(Test),
}

/// A delivery to try out.
#[derive(Args, Debug)]
pub struct Test {
    /// The webhook, as in [webhook.NAME].
    name: String,
    /// The file with the body; - is the standard input.
    body: PathBuf,
    /// A header of the delivery, like "X-GitHub-Event: issues".
    #[arg(short = 'H', long = "header", value_name = "NAME: VALUE")]
    headers: Vec<String>,
    /// The part of the URL behind the question mark.
    #[arg(long, value_name = "QUERY")]
    query: Option<String>,
    /// Do not look at the signature.
    #[arg(long)]
    unsigned: bool,
    /// When it arrives (RFC 3339); now, if nothing is said.
    #[arg(long, value_name = "TIME")]
    at: Option<Timestamp>,
    /// The configuration.
    #[arg(long, default_value = "diorama.toml", value_name = "FILE")]
    config: PathBuf,
}

/// Does what is asked.
///
/// # Errors
/// A [`Failure`] if the delivery would be refused, or if the configuration cannot be used.
pub async fn run(asked: Webhook) -> Result<(), Failure> {
    let Webhook::Test(test) = asked;
    let config = super::read(&test.config)?;
    super::check(&config)?;
    let spec = find(&config, &test.name)?;
    let hook = hooks::inbound(spec).map_err(Failure::config)?;
    say(format_args!(
        "webhook {}: scheme {:?}, format {:?}, for {}",
        spec.name,
        spec.auth.scheme.as_str(),
        spec.format,
        spec.dio
    ));
    let (headers, body) = (headers(&test.headers)?, body(&test.body)?);
    let path = format!("{}/webhooks/{}", super::base_path(&config), spec.name);
    let now = test.at.unwrap_or_else(Timestamp::now);
    let query = test.query.as_deref();
    let request = Request { method: &Method::POST, path: &path, query, headers: &headers, body: &body, now };
    if let Some(reply) = hook.answer_before_verifying(&request) {
        say(format_args!("answered at once: {} {}", reply.status.as_u16(), reply.body));
        return Ok(());
    }
    if test.unsigned {
        say("not verified: nobody asked for it");
    } else {
        verify(&hook, &request)?;
    }
    if let Some(reply) = hook.answer_before_decoding(&request) {
        say(format_args!("answered at once: {} {}", reply.status.as_u16(), reply.body));
        return Ok(());
    }
    let dio = resource(&config, spec)?;
    let schema = schema(dio).await?;
    let decoded = hook.decode(&request, &schema);
    let mut decoded = decoded.map_err(|error| failed(format!("not understood: {error}")))?;
    let unknown = source::unknown_columns(dio).for_upstream();
    for (at, change) in decoded.changes.iter_mut().enumerate() {
        if let Some(detail) = change.as_mut().ok().and_then(|change| misfit(change, &schema, unknown)) {
            *change = Err(ItemError { number: at + 1, detail });
        }
    }
    tell(&decoded)
}

/// Makes the row of a change as the resource would hold it; says why that is not possible.
fn misfit(change: &mut Change, schema: &Schema, unknown: UnknownColumns) -> Option<String> {
    let (ChangeEvent::Inserted { id, new: Some(row) } | ChangeEvent::Updated { id, new: Some(row) }) =
        &mut change.event
    else {
        return None;
    };
    let shape = if change.partial { Shape::Part } else { Shape::Whole };
    let check = RowCheck::new(schema, shape).unknown(unknown).coercion(change.coercion);
    match check.check_under(id, Cow::Borrowed(row)) {
        Ok(checked) => {
            *row = checked.row.into_owned();
            None
        }
        Err(error) => Some(format!("{error}; the row would be read from the source")),
    }
}

fn failed(message: String) -> Failure {
    Failure { code: OTHER, message }
}

fn find<'c>(config: &'c Config, name: &str) -> Result<&'c HookSpec, Failure> {
    let found = config.webhooks.iter().find(|spec| spec.name == name);
    found.ok_or_else(|| {
        let names: Vec<&str> = config.webhooks.iter().map(|spec| spec.name.as_str()).collect();
        Failure::config(format!("there is no [webhook.{name}]: there are {}", names.join(", ")))
    })
}

fn headers(given: &[String]) -> Result<HeaderMap, Failure> {
    let mut headers = HeaderMap::new();
    for line in given {
        let wrong = || Failure::config(format!("{line:?} is no header: write -H \"Name: value\""));
        let (name, value) = line.split_once(':').ok_or_else(wrong)?;
        let name: HeaderName = name.trim().parse().map_err(|_| wrong())?;
        headers.append(name, value.trim().parse().map_err(|_| wrong())?);
    }
    headers.entry(CONTENT_TYPE).or_insert(HeaderValue::from_static("application/json"));
    Ok(headers)
}

fn body(path: &Path) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    let read = match path == Path::new("-") {
        true => std::io::stdin().read_to_end(&mut bytes).map(|_| bytes),
        false => std::fs::read(path),
    };
    read.map_err(|error| Failure::config(format!("{}: {error}", path.display())))
}

fn verify(hook: &Hook, request: &Request<'_>) -> Result<(), Failure> {
    match hook.verify(request) {
        Ok(()) => {
            say("verified");
            Ok(())
        }
        Err(reason) => {
            let hint = "--unsigned looks at the meaning alone, --at TIME at deliveries of the past";
            Err(failed(format!("not verified: {reason} ({hint})")))
        }
    }
}

/// The resource that a webhook feeds.
fn resource<'c>(config: &'c Config, spec: &HookSpec) -> Result<&'c DioSpec, Failure> {
    let dio = config.dios.iter().find(|dio| dio.name == spec.dio);
    dio.ok_or_else(|| Failure::config(format!("there is no [dio.{}]", spec.dio)))
}

/// The columns of a resource, as its source says.
async fn schema(dio: &DioSpec) -> Result<Schema, Failure> {
    let vista = source::open(dio).await.map_err(|error| Failure::config(format!("[dio.{}] {error}", dio.name)))?;
    Ok(Schema::clone(&vista.schema()))
}

fn tell(decoded: &Decoded) -> Result<(), Failure> {
    match &decoded.delivery {
        Some(id) => say(format_args!("delivery {id}: a second one with this id would change nothing")),
        None => say("delivery without an id"),
    }
    let mut wrong = 0;
    for change in &decoded.changes {
        match change {
            Ok(change) => say(line(change)),
            Err(error) => {
                wrong += 1;
                say(format_args!("not understood: {error}"));
            }
        }
    }
    if decoded.ignored > 0 {
        let why = decoded.why.as_deref().unwrap_or_default();
        say(format_args!("ignored: {} ({why})", decoded.ignored));
    }
    say("nothing was changed");
    if wrong == 0 { Ok(()) } else { Err(failed(format!("{wrong} of the changes would not be applied"))) }
}

fn line(change: &Change) -> String {
    let (what, new) = match &change.event {
        ChangeEvent::Inserted { id, new } => (format!("would insert {id}"), Some(new)),
        ChangeEvent::Updated { id, new } => (format!("would update {id}"), Some(new)),
        ChangeEvent::Deleted { id } => (format!("would delete {id}"), None),
        _ => ("would read the source again".to_string(), None),
    };
    let json = |value: &CborValue| String::from_utf8_lossy(&value_to_json(value)).into_owned();
    let row = new.map(|new| match new {
        None => ", reading the row from the source".to_string(),
        Some(row) => {
            let members = row.iter().map(|(name, value)| (CborValue::Text(name.clone()), value.clone()));
            let merged = if change.partial { ", merging" } else { " to" };
            format!("{merged} {}", json(&CborValue::Map(members.collect())))
        }
    });
    let version = change.version.as_ref().map(|version| format!(" (version {})", json(version)));
    [what, row.unwrap_or_default(), version.unwrap_or_default()].concat()
}
