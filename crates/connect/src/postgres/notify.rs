//! Feed of a table's changes by triggers and NOTIFY: ids only, each of which is read from the source.
//!
//! Notifications have no position: what was missed while the feed was not connected is found by one refresh.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_postgres::{AsyncMessage, Client};

use super::errors::message_of;
use super::shared::Shared;
use super::trigger;
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
}

/// Connects and listens on the channel of `dio`.
///
/// # Errors
/// The reason, and what to do.
pub(super) async fn connect(shared: &Shared, dio: &str, intake: &mut Intake) -> Result<Notifications, String> {
    let table = shared.table().ok_or("the source is not open yet")?;
    let place = table.place.as_ref().ok_or("a query has no triggers")?;
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
    if !trigger::exist(&client, place, dio).await.map_err(failed)? {
        return Err(format!(
            "{} has no triggers for {dio}: run the statements that `diorama trigger {dio}` prints",
            table.name
        ));
    }
    let channel = trigger::channel(dio);
    client.batch_execute(&format!("LISTEN {}", quote(&channel))).await.map_err(failed)?;
    let mut notifications = Notifications { client, payloads, missed, channel };
    notifications.test().await?;
    // What happened before is not known.
    intake.note_gap();
    Ok(notifications)
}

impl Notifications {
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
            if self.missed.swap(false, Ordering::AcqRel) {
                intake.note_gap();
            }
            if !intake.begin_refresh() {
                return Ok(());
            }
            tokio::select! {
                payload = self.payloads.recv() => {
                    let mut next = Some(payload.ok_or("the connection was closed")?);
                    let mut changes = Vec::new();
                    while let Some(payload) = next {
                        read(&payload, shared, intake, &mut changes);
                        next = self.payloads.try_recv().ok();
                    }
                    if !intake.apply(changes, None).await {
                        return Ok(());
                    }
                }
                () = intake.refreshed() => {}
                () = tokio::time::sleep(QUIET) => self.notify().await?,
            }
        }
    }
}

/// Reads the ids of a notification.
fn read(payload: &str, shared: &Shared, intake: &mut Intake, changes: &mut Vec<Inbound>) {
    if payload == TEST {
        return;
    }
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
