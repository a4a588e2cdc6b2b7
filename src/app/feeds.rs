//! Implementation of `diorama feed` and `diorama trigger`: what databases keep and run for the feeds of a configuration.

use std::path::PathBuf;
use std::sync::Arc;

use clap::{Args, Subcommand};
use diorama_connect::{Feed, FeedSlot, FollowMode, SourceRequest};

use super::{Failure, read, say};
use crate::config::Config;

/// List and drop what databases keep for feeds.
#[derive(Debug, Subcommand)]
pub enum Feeds {
    /// List the replication slots of this program, and the outboxes of its triggers, in the databases of a configuration.
    List {
        /// The configuration.
        #[arg(default_value = "diorama.toml")]
        file: PathBuf,
    },
    /// Drop a replication slot, or an outbox with its triggers, so that its database keeps no more changes for it.
    Drop {
        /// The slot or outbox, as `list` shows it.
        name: String,
        /// The configuration.
        #[arg(default_value = "diorama.toml")]
        file: PathBuf,
    },
}

/// Arguments of `trigger`.
#[derive(Args, Debug)]
pub struct Trigger {
    /// Write changes into a table, so that none is missed while Diorama is away, at the cost of a row for each statement.
    #[arg(long)]
    outbox: bool,
    /// The resource.
    dio: String,
    /// The configuration.
    #[arg(default_value = "diorama.toml")]
    file: PathBuf,
}

/// Runs `diorama feed`.
///
/// # Errors
/// A database that cannot be reached, or a slot that does not exist or is in use.
pub async fn run(command: Feeds) -> Result<(), Failure> {
    match command {
        Feeds::List { file } => {
            for (slot, _) in slots(&read(&file)?).await? {
                say(shown(&slot));
            }
            Ok(())
        }
        Feeds::Drop { name, file } => {
            let slots = slots(&read(&file)?).await?;
            let known = || slots.iter().map(|(slot, _)| slot.name.as_str()).collect::<Vec<_>>().join(", ");
            let Some((_, feed)) = slots.iter().find(|(slot, _)| slot.name == name) else {
                return Err(Failure::config(format!("there is no slot {name}: the slots are {}", known())));
            };
            feed.drop_slot(&name).await.map_err(Failure::config)?;
            say(format_args!(
                "{name} is dropped; a feed that starts again makes it anew and reads its source as a whole"
            ));
            Ok(())
        }
    }
}

/// Prints the SQL of the triggers of a resource.
///
/// # Errors
/// A resource that does not exist or whose source has no triggers, or a database that cannot be reached.
pub async fn trigger(arguments: Trigger) -> Result<(), Failure> {
    let config = read(&arguments.file)?;
    let Some(spec) = config.dios.iter().find(|spec| spec.name == arguments.dio) else {
        let names = config.dios.iter().map(|spec| spec.name.as_str()).collect::<Vec<_>>().join(", ");
        return Err(Failure::config(format!("there is no resource {}: there are {names}", arguments.dio)));
    };
    let Some(feed) = spec.source.follow(&spec.name, FollowMode::Notify) else {
        return Err(Failure::config(format!("the source of {} is not a database with triggers", spec.name)));
    };
    let request = SourceRequest { name: spec.name.clone(), id: spec.id.clone(), ..SourceRequest::default() };
    let sql = feed.trigger(&request, arguments.outbox).await.map_err(Failure::config)?;
    say(sql.trim_end());
    Ok(())
}

/// Returns the slots in the databases of a configuration, each once, with a feed of its database.
async fn slots(config: &Config) -> Result<Vec<(FeedSlot, Arc<dyn Feed>)>, Failure> {
    let mut slots: Vec<(FeedSlot, Arc<dyn Feed>)> = Vec::new();
    for spec in &config.dios {
        let Some(feed) = spec.source.follow(&spec.name, FollowMode::Auto) else { continue };
        for slot in feed.slots().await.map_err(Failure::config)? {
            match slots.iter_mut().find(|(known, _)| (&known.server, &known.name) == (&slot.server, &slot.name)) {
                Some((known, _)) => known.own |= slot.own,
                None => slots.push((slot, Arc::clone(&feed))),
            }
        }
    }
    Ok(slots)
}

fn shown(slot: &FeedSlot) -> String {
    let state = match slot {
        FeedSlot { lost: true, .. } => "lost: the server has removed changes that it had not sent",
        FeedSlot { active: true, .. } => "in use",
        FeedSlot { own: true, .. } => "waiting for its resource",
        FeedSlot { .. } => "of no resource here: drop it if no other Diorama uses it",
    };
    format!("{}\t{}\t{} bytes kept\t{state}", slot.name, slot.server, slot.retained)
}
