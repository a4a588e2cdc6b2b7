//! Implementation of `diorama audit`: prints the audit log of a running server, or of a stopped server's journal.

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use clap::Args;
use serde_json::Value;

use super::client::{Client, PAGE};
use super::stopped::open_journal;
use super::{Location, print, table, usage};
use crate::app::Failure;
use diorama_core::journal::{AuditAction, AuditQuery, Journal as _};
use diorama_gateway::audit_json;

/// Time between two requests of `--follow`.
const INTERVAL: Duration = Duration::from_secs(1);

/// Arguments of `diorama audit`.
#[derive(Args, Debug)]
pub struct Audit {
    #[command(flatten)]
    location: Location,
    /// Only these actions, like purge,backup.
    #[arg(long)]
    action: Option<String>,
    /// Only actions of this principal.
    #[arg(long)]
    principal: Option<String>,
    /// Only actions on this resource.
    #[arg(long)]
    resource: Option<String>,
    /// Only entries since this time (2026-11-30T12:00:00Z), or of the last time (24h).
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Maximum number of entries, the newest ones.
    #[arg(long, default_value_t = 100)]
    limit: usize,
    /// Print further entries as they are stored; with --url only.
    #[arg(long, requires = "url")]
    follow: bool,
    /// The stopped server's configuration (default: ./diorama.toml if it exists, else ./cache.redb).
    #[arg(value_name = "FILE.toml")]
    file: Option<PathBuf>,
}

/// Prints the newest entries, oldest first.
///
/// # Errors
/// A [`Failure`] with 64 for invalid arguments, 69 if the server cannot be reached, 75 if a server has locked the files, 78 for
/// mistakes in configuration, files or token.
pub async fn audit(audit: Audit) -> Result<(), Failure> {
    let since = audit.since.as_deref().map(moment).transpose()?;
    let Some(url) = &audit.location.url else {
        let entries = of_files(&audit, since).await?;
        return show(&audit, &entries, true);
    };
    if audit.file.is_some() {
        return Err(usage("use --url for a server or a configuration for its files, not both"));
    }
    let client = Client::new(url, audit.location.token.as_deref(), &audit.location.trust)?;
    let entries = newest(&client, &audit, since)?;
    show(&audit, &entries, true)?;
    let mut last = entries.last().and_then(|entry| entry["seq"].as_u64());
    if !audit.follow {
        return Ok(());
    }
    loop {
        tokio::time::sleep(INTERVAL).await;
        let after = last.unwrap_or(0).to_string();
        let mut parameters = filters(&audit, since.as_ref().map(ToString::to_string));
        parameters.extend([("order", Some("asc".into())), ("after", Some(after))]);
        let entries = page(&client, &parameters)?;
        show(&audit, &entries, false)?;
        last = entries.last().and_then(|entry| entry["seq"].as_u64()).or(last);
    }
}

fn show(audit: &Audit, entries: &[Value], first: bool) -> Result<(), Failure> {
    print(&if audit.location.json { table::lines(entries) } else { table::audit(entries, first) })
}

/// Parses a time, or the length of time before now.
fn moment(text: &str) -> Result<jiff::Timestamp, Failure> {
    if let Ok(time) = text.parse() {
        return Ok(time);
    }
    let span: Option<jiff::Span> = text.parse().ok();
    let span = span.and_then(|span| span.to_duration(jiff::SpanRelativeTo::days_are_24_hours()).ok());
    let now = jiff::Timestamp::try_from(SystemTime::now()).ok();
    let time = now.zip(span).and_then(|(now, span)| now.checked_sub(span).ok());
    time.ok_or_else(|| usage(format!("--since {text}: write a time like 2026-11-30T12:00:00Z, or 24h")))
}

type Parameters = Vec<(&'static str, Option<String>)>;

fn filters(audit: &Audit, since: Option<String>) -> Parameters {
    let Audit { action, principal, resource, .. } = audit;
    vec![("action", action.clone()), ("principal", principal.clone()), ("resource", resource.clone()), ("since", since)]
}

fn page(client: &Client, parameters: &Parameters) -> Result<Vec<Value>, Failure> {
    client.audit(&parameters.iter().map(|(name, value)| (*name, value.as_deref())).collect::<Vec<_>>())
}

/// Reads the newest entries of a server, oldest first.
fn newest(client: &Client, audit: &Audit, since: Option<jiff::Timestamp>) -> Result<Vec<Value>, Failure> {
    let (mut all, mut after) = (Vec::new(), None);
    loop {
        let mut parameters = filters(audit, since.as_ref().map(ToString::to_string));
        parameters.push(("after", after));
        let read = page(client, &parameters)?;
        let end = read.len() < PAGE || all.len() + read.len() >= audit.limit;
        after = read.last().and_then(|entry| entry["seq"].as_u64()).map(|seq| seq.to_string());
        all.extend(read);
        if end {
            all.truncate(audit.limit);
            all.reverse();
            return Ok(all);
        }
    }
}

/// Reads the newest entries in the files of a stopped server, oldest first.
async fn of_files(audit: &Audit, since: Option<jiff::Timestamp>) -> Result<Vec<Value>, Failure> {
    let actions = audit.action.iter().flat_map(|actions| actions.split(',')).map(|word| {
        let known = AuditAction::ALL.iter().find(|action| action.as_str() == word.trim()).copied();
        known.ok_or_else(|| {
            let all: Vec<&str> = AuditAction::ALL.iter().map(|action| action.as_str()).collect();
            usage(format!("action {word:?} does not exist: the actions are {}", all.join(", ")))
        })
    });
    let query = AuditQuery {
        actions: actions.collect::<Result<_, _>>()?,
        principal: audit.principal.clone(),
        resource: audit.resource.clone(),
        since: since.and_then(|since| u64::try_from(since.as_millisecond()).ok()),
        after: None,
        oldest_first: false,
        limit: audit.limit,
    };
    let (journal, _) = open_journal(audit.location.cache.as_deref(), audit.file.as_deref())?;
    let read = journal.audit(&query).await;
    journal.close().await;
    let mut entries: Vec<Value> = read?.into_iter().map(audit_json).collect();
    entries.reverse();
    Ok(entries)
}
