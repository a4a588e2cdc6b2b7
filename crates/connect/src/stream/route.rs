//! Route that sends writes as messages.

use std::fmt::Debug;
use std::sync::Arc;

use async_trait::async_trait;

use super::write_format::{OutMessage, Target, WriteFormat};
use diorama_core::record::Rows;
use diorama_core::vista::{Capabilities, Error, Query, Result, Schema, TableShell, Vista, WriteOp, Written};

/// A topic of a broker, as a route writes it.
#[async_trait]
pub(crate) trait Publisher: Debug + Send + Sync + 'static {
    /// Sends a message and waits until the broker has stored it.
    ///
    /// # Errors
    /// [`Error::Source`]: transient if the broker does not have the message, unknown if it may have it, permanent if it refuses it.
    async fn publish(&self, message: OutMessage) -> Result<()>;

    /// True if the broker drops a message whose operation it has stored before.
    fn drops_repeated(&self) -> bool {
        false
    }

    /// Warnings about the broker for people, for example that it may lose messages.
    fn warnings(&self) -> Vec<String> {
        Vec::new()
    }
}

/// The write side of a topic. It cannot be read.
#[derive(Debug)]
pub(crate) struct StreamRoute<P> {
    publisher: P,
    format: WriteFormat,
    target: Target,
}

impl<P: Publisher> StreamRoute<P> {
    /// Returns the route of the resource `name` whose rows have `schema`.
    pub(crate) fn vista(publisher: P, format: WriteFormat, name: &str, schema: Arc<Schema>) -> Vista {
        Vista::new(name, StreamRoute { publisher, format, target: Target { name: name.to_string(), schema } })
    }

    fn unsupported(&self, what: &'static str) -> Error {
        Error::Unsupported { vista: self.target.name.as_str().into(), what }
    }
}

#[async_trait]
impl<P: Publisher> TableShell for StreamRoute<P> {
    fn schema(&self) -> Arc<Schema> {
        Arc::clone(&self.target.schema)
    }

    fn capabilities(&self) -> Capabilities {
        let mut capabilities = Capabilities::default();
        (capabilities.can_insert, capabilities.can_update, capabilities.can_delete) = (true, true, true);
        capabilities
    }

    async fn list(&self, _: &Query) -> Result<Rows> {
        Err(self.unsupported("list rows"))
    }

    async fn write(&self, op: &WriteOp) -> Result<Written> {
        self.write_once("", op).await
    }

    async fn write_once(&self, operation: &str, op: &WriteOp) -> Result<Written> {
        let Some(message) = self.format.message(&self.target, operation, op) else {
            return Err(self.unsupported("delete all rows at once"));
        };
        self.publisher.publish(message).await?;
        Ok(Written::default())
    }

    fn writes_once(&self) -> bool {
        self.publisher.drops_repeated()
    }

    fn warnings(&self) -> Vec<String> {
        self.publisher.warnings()
    }

    fn takes_whole_rows(&self) -> bool {
        self.format.has_whole_rows()
    }
}
