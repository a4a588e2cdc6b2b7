//! Feed of a table's changes by a live query: a hint that a row has changed, upon which it is read.
//!
//! A live query has no position, and servers lose notifications
//! ([#4277](https://github.com/surrealdb/surrealdb/issues/4277), [#6983](https://github.com/surrealdb/surrealdb/issues/6983)): the
//! source is read again after every connection, and should be at times (`refresh_every`).

use std::time::Duration;

use tokio::time::timeout;

use super::cbor::{member, object};
use super::errors::Failure;
use super::rpc::Session;
use super::shared::Shared;
use super::value::identifier;
use crate::feed::Intake;
use diorama_core::dio::Inbound;
use diorama_core::record::CborValue;
use diorama_core::state::Origin;
use diorama_core::vista::ChangeEvent;

/// Pause between two tests of the connection.
const QUIET: Duration = Duration::from_secs(15);
/// Time within which the server must answer such a test.
const ANSWER: Duration = Duration::from_secs(10);
/// Maximum number of notifications that are taken together.
const BATCH: usize = 256;

/// Starts the live query.
///
/// # Errors
/// The reason, and what to do.
pub(super) async fn connect(mut session: Session, shared: &Shared, intake: &mut Intake) -> Result<Session, String> {
    let sql = format!("LIVE SELECT id FROM {}", identifier(&shared.name));
    session.last(&sql, object([]), None).await.map_err(|failure| match failure {
        Failure::Refused(refusal) => format!("no live query of {}: {}", shared.name, refusal.advice()),
        failure => failure.to_string(),
    })?;
    // What happened before is not known.
    intake.note_gap();
    Ok(session)
}

/// Receives notifications until the connection is lost; returns `Ok` if the Dio has closed.
pub(super) async fn listen(mut session: Session, shared: &Shared, intake: &mut Intake) -> Result<(), String> {
    let table = shared.table().ok_or("the source is not open yet")?;
    loop {
        if !intake.begin_refresh() {
            return Ok(());
        }
        if session.take_missed() {
            intake.note_gap();
        }
        tokio::select! {
            notification = session.notification() => {
                let mut next = Some(notification.map_err(|failure| failure.to_string())?);
                let mut changes = Vec::new();
                while let Some(notification) = next {
                    intake.count_message();
                    match member(&notification, "record").and_then(|id| table.id_of(id)) {
                        Some(id) => changes.push(changed(id)),
                        None if is_end(&notification) => return Err("the server has ended the live query".into()),
                        None => intake.undecodable("a notification without a record"),
                    }
                    next = if changes.len() < BATCH { session.waiting() } else { None };
                }
                let changes = intake.bounded(changes);
                if !intake.apply(changes, None).await {
                    return Ok(());
                }
            }
            () = intake.refreshed() => {}
            () = tokio::time::sleep(QUIET) => {
                let answered = timeout(ANSWER, session.call("ping", Vec::new())).await;
                answered.map_err(|_| "the server does not answer")?.map_err(|failure| failure.to_string())?;
            }
        }
    }
}

/// The row is read: a notification may be older than what was read meanwhile.
fn changed(id: String) -> Inbound {
    Inbound { origin: Origin::Feed, ..Inbound::from(ChangeEvent::Updated { id, new: None }) }
}

fn is_end(notification: &CborValue) -> bool {
    super::cbor::text(notification, "action") == Some("KILLED")
}
