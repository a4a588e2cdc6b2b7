//! Notifications: events of a Dio sent to receivers, as Standard Webhooks.
//!
//! A task of the Dio (`task.rs`) reads the events (`reader.rs`) in their order and sends each as a signed `POST` (`message.rs`), one at a
//! time for each row. What is not settled is a queue (`queue.rs`), and a receiver that fails is left alone for a while (`health.rs`). The
//! position up to which every event is delivered or stored as a delivery is a mark in the journal (`mark.rs`), so a restart loses
//! nothing. Deliveries that have failed wait in the outbox of the journal; all can be listed and sent again (`routes.rs`).

mod health;
mod mark;
mod message;
pub(crate) mod metrics;
mod notification;
mod queue;
mod reader;
mod receiver;
pub(crate) mod routes;
mod task;
#[cfg(test)]
mod tests;

pub use message::NotifyEvent;
pub(crate) use notification::NotifyState;
pub use notification::{Notification, NotifyOptions};
pub use receiver::{Posted, Receiver};

use std::sync::Arc;

use crate::state::{GatewayState, Resource};
use diorama_core::vista::{Error, Result};

/// Checks that a notification fits its resource.
///
/// # Errors
/// [`Error::Config`] that names what is wrong.
pub(crate) fn check(notification: &Notification, resource: Option<&Arc<Resource>>, known: &str) -> Result<()> {
    let missing = || {
        Error::Config(format!(
            "[notify.{}] sends events of {:?}, but there are only {known}",
            notification.name, notification.dio
        ))
    };
    notification.view(resource.ok_or_else(missing)?).map(drop)
}

/// Starts the tasks of all notifications.
pub(crate) fn start(gateway: &GatewayState) {
    for notification in gateway.notifications.values() {
        let Some(resource) = gateway.dios.get(notification.dio.as_str()) else { continue };
        match notification.view(resource) {
            Ok(view) => task::start(notification, resource, view),
            Err(error) => tracing::error!(%error, "a notification is not sent"),
        }
    }
}
