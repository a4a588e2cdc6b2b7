//! Implementation of `diorama ops salvage`: extracts writes and deliveries that were not applied from a journal that may be
//! damaged.

use std::fs::{File, OpenOptions};
use std::io::{BufWriter, Write};
use std::path::Path;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

use super::config;
use crate::app::{Failure, OTHER};
use diorama_core::dio::Operation;
use diorama_core::journal::{
    Delivery, EntryExtent, RawRequest, SalvagedLog, salvage, salvage_audit, salvage_deliveries,
};
use diorama_core::state::{Effect, Entry, Op, OpState, Rules, State};
use diorama_core::vista::Schema;
use diorama_gateway::{audit_json, delivery_json, operation_json};

/// Writes the entries of `journal` to `to` or standard output, and reports losses.
pub(super) fn run(journal: &Path, to: Option<&Path>) -> Result<(), Failure> {
    // Damaged pages make redb panic. The panic is caught, and its message is suppressed.
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let found = salvage(journal, |bytes| {
        let (entry, length) = Entry::decode_first(bytes)?;
        Some(EntryExtent { length, seq: entry.seq, erased: entry.erased })
    });
    let deliveries = salvage_deliveries(journal);
    std::panic::set_hook(hook);
    let found = found?;
    if found.is_empty() {
        return Err(config(format!("{} contains no journal data", journal.display())));
    }
    let mut out = output(to)?;
    let (mut report, mut lost) = (Vec::new(), false);
    for log in &found {
        let written = write(log, &mut out).map_err(|error| other(format!("cannot write the output: {error}")))?;
        lost |= !log.whole;
        report.push(summary(log, written));
    }
    let deliveries = deliveries?;
    for (delivery, raw) in &deliveries {
        delivery_line(delivery, raw.as_ref(), &mut out)
            .map_err(|error| other(format!("cannot write the output: {error}")))?;
    }
    if !deliveries.is_empty() {
        report.push(format!("{} webhook deliveries were not applied", deliveries.len()));
    }
    out.flush().map_err(|error| other(format!("cannot write the output: {error}")))?;
    if lost {
        report.push(
            "the journal is damaged: some of these writes may have been applied, and the newest may be lost".into(),
        );
        return Err(other(report.join("\n")));
    }
    // Standard output is reserved for the writes.
    let _ = writeln!(std::io::stderr(), "{}", report.join("\n"));
    Ok(())
}

/// Writes the audit log of `journal` to `to` or standard output.
pub(super) fn run_audit(journal: &Path, to: Option<&Path>) -> Result<(), Failure> {
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let found = salvage_audit(journal);
    std::panic::set_hook(hook);
    let (found, mut out) = (found?, output(to)?);
    let count = found.len();
    let written = found.into_iter().try_for_each(|entry| writeln!(out, "{}", audit_json(entry)));
    written.and_then(|()| out.flush()).map_err(|error| other(format!("cannot write the output: {error}")))?;
    let _ = writeln!(std::io::stderr(), "{count} entries of the audit log");
    Ok(())
}

fn output(to: Option<&Path>) -> Result<BufWriter<Box<dyn Write>>, Failure> {
    Ok(BufWriter::new(match to {
        Some(path) => Box::new(create(path).map_err(|error| other(format!("{}: {error}", path.display())))?),
        None => Box::new(std::io::stdout()),
    }))
}

fn other(message: String) -> Failure {
    Failure { code: OTHER, message }
}

/// Creates a file that only its owner can read, because it contains rows.
fn create(path: &Path) -> std::io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

/// Writes the operations of a log that were not applied, oldest first; returns their number.
fn write(log: &SalvagedLog, out: &mut impl Write) -> std::io::Result<usize> {
    let rules = Rules { keep_finished: usize::MAX, ..Rules::new(Arc::new(Schema::new("id", Vec::new()))) };
    // Only the effects on operations matter: all entries precede this State.
    let mut state = State::new(Arc::new(rules), "", u64::MAX);
    for entry in log.entries.values().filter_map(|bytes| Entry::decode(bytes).ok()) {
        state.apply(&entry);
    }
    let name: Arc<str> = log.log.as_str().into();
    let mut written = 0;
    for op in state.ops().filter(|op| !matches!(op.state, OpState::Applied | OpState::Discarded)) {
        line(&name, op, log.whole && op.staged <= log.head, out)?;
        written += 1;
    }
    Ok(written)
}

/// Writes one operation. Its body is copied as stored, with the order of columns and all digits of numbers.
fn line(log: &Arc<str>, op: &Op, certain: bool, out: &mut impl Write) -> std::io::Result<()> {
    let mut about = operation_json(&Operation::at_rest(Arc::clone(log), op), "");
    let (body, exact) = match &op.effect {
        Effect::Insert(body) | Effect::Replace(body) | Effect::Patch(body) => (Some(body.json()), body.cbor()),
        Effect::Delete | Effect::DeleteAll => (None, None),
    };
    if let Some(members) = about.as_object_mut() {
        ["links", "attempts", "next_attempt"].iter().for_each(|name| drop(members.remove(*name)));
        // The journal does not record if a routed write has reached the master.
        members.insert("state".into(), json!(op.state));
        members.insert("certain".into(), json!(certain));
        members.extend(exact.map(|cbor| ("cbor".to_string(), json!(STANDARD.encode(cbor)))));
        if op.effect == Effect::DeleteAll {
            members.insert("records".into(), json!(op.targets));
        }
    }
    let about = about.to_string();
    out.write_all(about.strip_suffix('}').unwrap_or(&about).as_bytes())?;
    out.write_all(b",\"body\":")?;
    out.write_all(body.map_or(b"null", |body| body))?;
    out.write_all(b"}\n")
}

/// Writes one delivery, with its body if that is still stored.
fn delivery_line(delivery: &Delivery, raw: Option<&RawRequest>, out: &mut impl Write) -> std::io::Result<()> {
    let mut about = delivery_json(delivery, raw.unwrap_or(&RawRequest::default()), "");
    if let Some(members) = about.as_object_mut() {
        members.remove("links");
        // A line with `hook` is a delivery; a line with `op` is a write.
        if raw.is_none() {
            members.insert("lost".into(), json!("what was sent"));
        }
    }
    writeln!(out, "{about}")
}

fn summary(log: &SalvagedLog, written: usize) -> String {
    let name = &log.log;
    let span = match (log.entries.keys().next(), log.entries.keys().next_back()) {
        (Some(first), Some(last)) => format!("{} entries from {first} to {last}", log.entries.len()),
        _ => "no entries".to_string(),
    };
    let missing = log.missing();
    let gaps = match missing.len() {
        0 => String::new(),
        _ => {
            let count: u64 = missing.iter().map(|(first, last)| last - first + 1).sum();
            let gaps: Vec<_> = missing.iter().take(20).map(|(first, last)| format!("{first}-{last}")).collect();
            let more = if missing.len() > gaps.len() { ", ..." } else { "" };
            format!("; {count} lost: {}{more}", gaps.join(", "))
        }
    };
    format!("{name}: {span}{gaps}; {written} writes were not applied")
}
