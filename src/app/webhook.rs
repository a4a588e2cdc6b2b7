//! Implementation of `diorama webhook test`: shows step by step the effect of a delivery without applying it.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use axum::http::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use axum::http::{HeaderMap, Method};
use clap::{Args, Subcommand};
use jiff::Timestamp;

use super::{Failure, OTHER, hooks, say, source};
use crate::config::{Config, DioSpec, HookSpec};
use diorama_core::dio::{Dio, DioEvent, Settings};
use diorama_core::journal::DeliveryState;
use diorama_core::lens::Lens;
use diorama_core::record::{CborValue, value_to_json};
use diorama_core::vista::{ChangeEvent, Error};
use diorama_gateway::webhook::trial::{self, Trial};
use diorama_inbound::{Hook, ItemError, Request};

/// Test webhooks.
#[derive(Debug, Subcommand)]
pub enum Webhook {
    /// Show the effect of a delivery without applying it: verification, decoding, changes.
    Test(Test),
}

/// A delivery to test.
#[derive(Args, Debug)]
pub struct Test {
    /// The webhook, as in [webhook.NAME].
    name: String,
    /// The file with the body; - is standard input.
    body: PathBuf,
    /// A header of the delivery, like "X-GitHub-Event: issues".
    #[arg(short = 'H', long = "header", value_name = "NAME: VALUE")]
    headers: Vec<String>,
    /// The query string of the URL, without the question mark.
    #[arg(long, value_name = "QUERY")]
    query: Option<String>,
    /// Do not verify the signature.
    #[arg(long)]
    unsigned: bool,
    /// Time of arrival (RFC 3339; default: now).
    #[arg(long, value_name = "TIME")]
    at: Option<Timestamp>,
    /// The configuration.
    #[arg(long, default_value = "diorama.toml", value_name = "FILE")]
    config: PathBuf,
}

/// Runs the command.
///
/// # Errors
/// A [`Failure`] if the delivery would be refused, or if the configuration cannot be used.
pub async fn run(command: Webhook) -> Result<(), Failure> {
    let Webhook::Test(test) = command;
    let config = super::read(&test.config)?;
    super::check(&config)?;
    let spec = find(&config, &test.name)?;
    let hook = hooks::hook(spec).map_err(Failure::config)?;
    let inbound = &hook.inbound;
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
    if let Some(reply) = inbound.answer_before_verifying(&request) {
        say(format_args!("handshake answered: {} {}", reply.status.as_u16(), reply.body));
        return Ok(());
    }
    if test.unsigned {
        say("not verified, because of --unsigned");
    } else {
        verify(inbound, &request)?;
    }
    if body.len() > inbound.most_bytes() {
        return Err(failed(format!(
            "the body is larger than {} bytes: increase body of this webhook",
            inbound.most_bytes()
        )));
    }
    if let Some(reply) = inbound.answer_before_decoding(&request) {
        say(format_args!("handshake answered: {} {}", reply.status.as_u16(), reply.body));
        return Ok(());
    }
    let scratch = Scratch::open(&config, resource(&config, spec)?).await?;
    let decoded = inbound.decode(&request, &scratch.dio.schema());
    let decoded = decoded.map_err(|error| failed(format!("not decoded: {error}")))?;
    let (delivery, ignored, why) = (decoded.delivery.clone(), decoded.ignored, decoded.why.clone());
    let trials = trial::run(&hook, &scratch.dio, decoded).await;
    let effect =
        report(&scratch.dio, delivery.as_deref(), &trials.map_err(|error| failed(error.to_string()))?, ignored, why);
    scratch.close().await;
    effect
}

/// The resource as it would be served, in memory. Changes to it are invisible, and nothing is written to its source.
struct Scratch {
    lens: Lens,
    dio: Dio,
}

impl Scratch {
    async fn open(config: &Config, spec: &DioSpec) -> Result<Scratch, Failure> {
        let wrong = |error: Error| Failure::config(format!("[dio.{}] {error}", spec.name));
        let vista = source::open(spec).await.map_err(wrong)?;
        let builder = Lens::new().no_cache().on_start(super::list).on_refresh(super::list);
        let lens = builder.build().map_err(wrong)?;
        let quiet = |settings: &mut Settings| {
            source::settings(spec, config, settings);
            settings.offline = true;
        };
        let dio = lens.dio(vista).settings(quiet).make().await.map_err(wrong)?;
        Ok(Scratch { lens, dio })
    }

    async fn close(self) {
        self.dio.close().await;
        self.lens.close().await;
    }
}

fn failed(message: String) -> Failure {
    Failure { code: OTHER, message }
}

fn find<'c>(config: &'c Config, name: &str) -> Result<&'c HookSpec, Failure> {
    let found = config.webhooks.iter().find(|spec| spec.name == name);
    found.ok_or_else(|| {
        let names: Vec<&str> = config.webhooks.iter().map(|spec| spec.name.as_str()).collect();
        Failure::config(format!("there is no [webhook.{name}]: the webhooks are {}", names.join(", ")))
    })
}

fn headers(lines: &[String]) -> Result<HeaderMap, Failure> {
    let mut headers = HeaderMap::new();
    for line in lines {
        let wrong = || Failure::config(format!("{line:?} is not a valid header: write -H \"Name: value\""));
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
            let hint = "use --unsigned to skip verification, or --at TIME for an old delivery";
            Err(failed(format!("not verified: {reason} ({hint})")))
        }
    }
}

/// Returns the resource of a webhook.
fn resource<'c>(config: &'c Config, spec: &HookSpec) -> Result<&'c DioSpec, Failure> {
    let dio = config.dios.iter().find(|dio| dio.name == spec.dio);
    dio.ok_or_else(|| Failure::config(format!("there is no [dio.{}]", spec.dio)))
}

fn report(
    dio: &Dio,
    delivery: Option<&str>,
    trials: &[Result<Trial, ItemError>],
    ignored: usize,
    why: Option<String>,
) -> Result<(), Failure> {
    match delivery {
        Some(id) => say(format_args!("delivery {id}: a repeated delivery with this id would have no effect")),
        None => say("delivery without an id"),
    }
    let mut wrong = 0;
    for trial in trials {
        match trial {
            Ok(trial) if trial.delivery.state == DeliveryState::Undecodable => {
                wrong += 1;
                let detail = trial.delivery.detail.as_deref().unwrap_or_default();
                say(format_args!("not decoded: {detail}; the row would be read from the source"));
            }
            Ok(trial) => say(line(dio, trial)),
            Err(error) => {
                wrong += 1;
                say(format_args!("not decoded: {error}"));
            }
        }
    }
    if ignored > 0 {
        say(format_args!("ignored: {ignored} ({})", why.unwrap_or_default()));
    } else if let Some(remark) = why {
        say(remark);
    }
    say("nothing was changed");
    if wrong == 0 { Ok(()) } else { Err(failed(format!("{wrong} of the changes would not be applied"))) }
}

/// Describes the effect of a change, judging by its effect on the copy.
fn line(dio: &Dio, trial: &Trial) -> String {
    let Trial { change, delivery, events } = trial;
    let json = |value: &CborValue| String::from_utf8_lossy(&value_to_json(value)).into_owned();
    let row = |id: &str| dio.state().get(id).map(|row| String::from_utf8_lossy(row.json()).into_owned());
    let id = change.event.id().unwrap_or_default();
    let effect = events.iter().find_map(|event| match event {
        DioEvent::RecordInserted { id } => Some(format!("would insert {id}: {}", row(id).unwrap_or_default())),
        DioEvent::RecordChanged { id } => Some(format!("would update {id} to {}", row(id).unwrap_or_default())),
        DioEvent::RecordRemoved { id } => Some(format!("would delete {id}")),
        _ => None,
    });
    let what = effect.unwrap_or_else(|| match (delivery.state, &change.event) {
        (_, ChangeEvent::Invalidated) => "would read the source again".to_string(),
        (DeliveryState::Stale, _) => format!("would change nothing: it is older than the known version of {id}"),
        _ if delivery.changes.deferred > 0 => format!("would read {id} from the source"),
        _ => format!("would change nothing: {id} already has these values"),
    });
    let version = change.version.as_ref().map(|version| format!(" (version {})", json(version)));
    [what, version.unwrap_or_default()].concat()
}
