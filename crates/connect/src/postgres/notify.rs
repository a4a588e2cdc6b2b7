//! Feed of a table's changes by triggers and NOTIFY: ids only, each of which is read from the source.
//!
//! Notifications have no position: what was missed while the feed was not connected is found by one refresh. Triggers that write
//! the ids into an outbox lose nothing; their notifications are empty.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt as _;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_postgres::{AsyncMessage, Client};

use super::errors::message_of;
use super::outbox::Outbox;
use super::shared::Shared;
use super::slot::check_table;
use super::table::{Place, Table};
use super::trigger::{self, Triggers};
use crate::feed::Intake;
use crate::sql::{key, quote};
use diorama_core::dio::Inbound;
use diorama_core::state::Origin;
use diorama_core::vista::ChangeEvent;

/// Number of notifications that wait; if there are more, the source is read again.
const WAITING: usize = 1_024;
/// Time within which the connection's own notification must arrive.
const ARRIVAL: Duration = Duration::from_secs(5);
/// Pause between two tests of the connection.
const QUIET: Duration = Duration::from_secs(30);
/// Payload by which the feed tests its connection; the triggers send arrays.
const TEST: &str = "diorama";

/// Notifications of a connection.
#[derive(Debug)]
pub(super) struct Notifications {
    client: Client,
    payloads: mpsc::Receiver<String>,
    missed: Arc<AtomicBool>,
    channel: String,
    outbox: Option<Outbox>,
    /// True if the outbox may have rows.
    has_more: bool,
}

/// Returns the triggers of `dio`.
///
/// # Errors
/// The reason why there are none, and what to do.
pub(super) async fn check(client: &Client, table: &Table, dio: &str) -> Result<Triggers, String> {
    let place = check_table(table)?;
    let found = trigger::find(client, place, dio).await.map_err(|error| message_of(&error))?;
    found.ok_or_else(|| {
        format!("{} has no triggers for {dio}: run the statements that `diorama trigger {dio}` prints", table.name)
    })
}

/// Connects and listens on the channel of `dio`.
///
/// # Errors
/// The reason, and what to do.
pub(super) async fn connect(shared: &Shared, dio: &str, intake: &mut Intake) -> Result<Notifications, String> {
    let table = shared.table().ok_or("the source is not open yet")?;
    let place = check_table(&table)?;
    let (sender, payloads) = mpsc::channel(WAITING);
    let missed = Arc::new(AtomicBool::new(false));
    let lost = Arc::clone(&missed);
    let receive = move |message: AsyncMessage| {
        if let AsyncMessage::Notification(told) = message
            && sender.try_send(told.payload().to_string()).is_err()
        {
            lost.store(true, Ordering::Release);
        }
    };
    let client = shared.address.connect_receiving(receive).await.map_err(|error| error.to_string())?;
    let failed = |error: tokio_postgres::Error| message_of(&error);
    check(&client, &table, dio).await?;
    let channel = trigger::channel(dio);
    client.batch_execute(&format!("LISTEN {}", quote(&channel))).await.map_err(failed)?;
    let mut notifications = Notifications { client, payloads, missed, channel, outbox: None, has_more: false };
    notifications.test().await?;
    // Triggers that are made from now on send a notification that does not fit.
    let triggers = check(&notifications.client, &table, dio).await?;
    if triggers.outbox {
        notifications.open_outbox(place, &triggers, intake).await?;
    } else {
        // What happened before is not known.
        intake.note_gap();
    }
    Ok(notifications)
}

impl Notifications {
    /// Begins to read the outbox where the feed has stopped, or with a gap.
    async fn open_outbox(&mut self, place: &Place, triggers: &Triggers, intake: &mut Intake) -> Result<(), String> {
        let stored = intake.stored_position().cloned();
        let opened = Outbox::open(&self.client, place, &self.channel, triggers, stored.as_deref()).await?;
        let (outbox, continues) = opened;
        if !continues {
            intake.note_gap();
            intake.apply(Vec::new(), Some(Bytes::from(outbox.position()))).await;
            intake.store_position().await;
        }
        (self.outbox, self.has_more) = (Some(outbox), true);
        Ok(())
    }

    /// Applies the next rows of the outbox, stores the position behind them, and deletes them. Returns false if the Dio has closed.
    async fn apply_outbox(&mut self, shared: &Shared, intake: &mut Intake) -> Result<bool, String> {
        let Some(outbox) = &mut self.outbox else { return Ok(true) };
        let rows = outbox.read(&self.client).await?;
        self.has_more = !rows.is_empty();
        if rows.is_empty() {
            return Ok(true);
        }
        let mut changes = Vec::new();
        rows.ids.iter().for_each(|ids| read(ids, shared, intake, &mut changes));
        let position = Bytes::from(outbox.position_after(&rows));
        let changes = intake.bounded(changes);
        if !intake.apply(changes, Some(position.clone())).await {
            return Ok(false);
        }
        // A position without changes is not stored yet.
        intake.store_position().await;
        if intake.stored_position() != Some(&position) {
            return Err("the position in the outbox cannot be stored".into());
        }
        outbox.delete(&self.client, &rows).await?;
        Ok(true)
    }

    /// Takes a notification.
    fn take(
        &mut self,
        payload: &str,
        shared: &Shared,
        intake: &mut Intake,
        changes: &mut Vec<Inbound>,
    ) -> Result<(), String> {
        match (payload, self.outbox.is_some()) {
            (TEST, _) => {}
            ("", true) => self.has_more = true,
            ("", false) | (_, true) => return Err("the triggers were replaced by those of another kind".into()),
            (payload, false) => read(payload, shared, intake, changes),
        }
        Ok(())
    }

    /// Checks that notifications arrive.
    async fn test(&mut self) -> Result<(), String> {
        self.notify().await?;
        let arrived = async {
            while let Some(payload) = self.payloads.recv().await {
                if payload == TEST {
                    return true;
                }
                self.missed.store(true, Ordering::Release);
            }
            false
        };
        match timeout(ARRIVAL, arrived).await {
            Ok(true) => Ok(()),
            _ => Err("notifications do not arrive: a pooler in transaction mode does not pass them, so connect to the server \
                      itself"
                .into()),
        }
    }

    async fn notify(&self) -> Result<(), String> {
        let sql = format!("NOTIFY {}, '{TEST}'", quote(&self.channel));
        self.client.batch_execute(&sql).await.map_err(|error| message_of(&error))
    }

    /// Receives notifications until the connection is lost; returns `Ok` if the Dio has closed.
    pub(super) async fn listen(mut self, shared: &Shared, intake: &mut Intake) -> Result<(), String> {
        loop {
            match self.missed.swap(false, Ordering::AcqRel) {
                true if self.outbox.is_some() => self.has_more = true,
                true => intake.note_gap(),
                false => {}
            }
            if !intake.begin_refresh() {
                return Ok(());
            }
            if self.has_more {
                if !self.apply_outbox(shared, intake).await? {
                    return Ok(());
                }
                // A refresh goes on meanwhile.
                let _ = intake.refreshed().now_or_never();
                continue;
            }
            tokio::select! {
                payload = self.payloads.recv() => {
                    let mut next = Some(payload.ok_or("the connection was closed")?);
                    let mut changes = Vec::new();
                    while let Some(payload) = next {
                        self.take(&payload, shared, intake, &mut changes)?;
                        next = self.payloads.try_recv().ok();
                    }
                    let changes = intake.bounded(changes);
                    if !intake.apply(changes, None).await {
                        return Ok(());
                    }
                }
                () = intake.refreshed() => {}
                () = tokio::time::sleep(QUIET) => {
                    self.notify().await?;
                    self.has_more = self.outbox.is_some();
                }
            }
        }
    }
}

/// Reads the ids of a notification.
fn read(payload: &str, shared: &Shared, intake: &mut Intake, changes: &mut Vec<Inbound>) {
    intake.count_message();
    let keys = shared.table().map_or(1, |table| table.key.len());
    let ids = match serde_json::from_str::<Vec<serde_json::Value>>(payload) {
        Ok(ids) => ids,
        Err(error) => return intake.undecodable(&error.to_string()),
    };
    for id in ids {
        match id_of(&id, keys) {
            Some(id) => {
                changes.push(Inbound { origin: Origin::Feed, ..Inbound::from(ChangeEvent::Updated { id, new: None }) })
            }
            // All rows may have changed.
            None => intake.note_gap(),
        }
    }
}

fn id_of(id: &serde_json::Value, keys: usize) -> Option<String> {
    let parts: Option<Vec<&str>> = id.as_array()?.iter().map(serde_json::Value::as_str).collect();
    match parts?.as_slice() {
        [only] if keys == 1 => Some((*only).to_string()),
        parts if parts.len() == keys => Some(key::join(parts.iter().copied())),
        _ => None,
    }
}
