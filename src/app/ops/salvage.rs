//! `diorama ops salvage`: writes and deliveries that were not applied, from a journal that may be damaged.

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
use diorama_core::journal::{Delivery, EntryExtent, RawRequest, SalvagedLog, salvage, salvage_deliveries};
use diorama_core::state::{Effect, Entry, Op, OpState, Rules, State};
use diorama_core::vista::Schema;
use diorama_gateway::{delivery_json, operation_json};

/// Writes what `journal` holds to `to`, or to the standard output, and says what is lost.
pub(super) fn run(journal: &Path, to: Option<&Path>) -> Result<(), Failure> {
    // Damaged pages make redb panic. It is caught, and no news to whoever salvages.
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
        return Err(config(format!("nothing of a journal was found in {}", journal.display())));
    }
    let mut out: BufWriter<Box<dyn Write>> = BufWriter::new(match to {
        Some(path) => Box::new(create(path).map_err(|error| other(format!("{}: {error}", path.display())))?),
        None => Box::new(std::io::stdout()),
    });
    let (mut said, mut lost) = (Vec::new(), false);
    for log in &found {
        let written = write(log, &mut out).map_err(|error| other(format!("writing: {error}")))?;
        lost |= !log.whole;
        said.push(summary(log, written));
    }
    let deliveries = deliveries?;
    for (delivery, raw) in &deliveries {
        delivery_line(delivery, raw.as_ref(), &mut out).map_err(|error| other(format!("writing: {error}")))?;
    }
    if !deliveries.is_empty() {
        said.push(format!("{} deliveries of webhooks were not applied", deliveries.len()));
    }
    out.flush().map_err(|error| other(format!("writing: {error}")))?;
    if lost {
        said.push(
            "the journal is damaged: whether these writes were applied is not certain, and the newest may be lost"
                .into(),
        );
        return Err(other(said.join("\n")));
    }
    // The standard output is for the writes.
    let _ = writeln!(std::io::stderr(), "{}", said.join("\n"));
    Ok(())
}

fn other(message: String) -> Failure {
    Failure { code: OTHER, message }
}

/// A new file for its owner: it holds rows.
fn create(path: &Path) -> std::io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

/// Writes the operations of a log that were not applied, oldest first; gives how many.
fn write(log: &SalvagedLog, out: &mut impl Write) -> std::io::Result<usize> {
    let rules = Rules { keep_finished: usize::MAX, ..Rules::new(Arc::new(Schema::new("id", Vec::new()))) };
    // Only what entries do to operations counts: all of them are from before this State.
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

/// One operation. Its body is copied as it is kept: columns in their order, numbers to their last digit.
fn line(log: &Arc<str>, op: &Op, certain: bool, out: &mut impl Write) -> std::io::Result<()> {
    let mut about = operation_json(&Operation::at_rest(Arc::clone(log), op), "");
    let (body, exact) = match &op.effect {
        Effect::Insert(body) | Effect::Replace(body) | Effect::Patch(body) => (Some(body.json()), body.cbor()),
        Effect::Delete | Effect::DeleteAll => (None, None),
    };
    if let Some(members) = about.as_object_mut() {
        ["links", "attempts", "next_attempt"].iter().for_each(|name| drop(members.remove(*name)));
        // A write that the route took is with the master, or on its way: the journal does not know.
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

/// One delivery, and what was sent if that is still there.
fn delivery_line(delivery: &Delivery, raw: Option<&RawRequest>, out: &mut impl Write) -> std::io::Result<()> {
    let mut about = delivery_json(delivery, raw.unwrap_or(&RawRequest::default()), "");
    if let Some(members) = about.as_object_mut() {
        members.remove("links");
        // A line with a hook is a delivery, one with an op a write.
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
