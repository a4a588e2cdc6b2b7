//! Route of writes to a subject. A write is routed when its stream has stored the message.

use async_nats::header::{HeaderMap, NATS_MESSAGE_ID};
use async_nats::jetstream::Context;
use async_nats::jetstream::context::PublishErrorKind;
use async_nats::{Client, jetstream};
use async_trait::async_trait;
use tokio::sync::Mutex;

use super::address::{NatsAddress, PATIENCE, is_lost};
use super::feed::KEY_HEADER;
use super::subject;
use crate::stream::{OutMessage, Publisher, attribute};
use diorama_core::vista::{Error, Result};

/// Publisher of a subject.
pub(super) struct NatsPublisher {
    address: NatsAddress,
    /// The subject, perhaps with `{id}`.
    subject: String,
    /// `None` before the first message and after a failure.
    connected: Mutex<Option<(Client, Context)>>,
}

impl std::fmt::Debug for NatsPublisher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NatsPublisher")
            .field("address", &self.address)
            .field("subject", &self.subject)
            .finish_non_exhaustive()
    }
}

impl NatsPublisher {
    pub(super) fn new(address: NatsAddress, subject: String) -> NatsPublisher {
        NatsPublisher { address, subject, connected: Mutex::new(None) }
    }

    async fn context(&self) -> Result<Context> {
        let mut connected = self.connected.lock().await;
        if let Some((client, context)) = &*connected
            && !is_lost(client)
        {
            return Ok(context.clone());
        }
        let client = self.address.connect().await?;
        let mut context = jetstream::new(client.clone());
        context.set_timeout(PATIENCE);
        *connected = Some((client, context.clone()));
        Ok(context)
    }
}

#[async_trait]
impl Publisher for NatsPublisher {
    async fn publish(&self, message: OutMessage) -> Result<()> {
        let context = self.context().await?;
        let subject = subject::of_row(&self.subject, &message.key);
        let mut headers = HeaderMap::new();
        for (name, value) in &message.headers {
            match name.starts_with("ce-") {
                true => headers.insert(*name, attribute::encode(value.as_bytes())),
                false => headers.insert(*name, value.as_str()),
            }
        }
        headers.insert(KEY_HEADER, attribute::encode(message.key.as_bytes()));
        if !message.operation.is_empty() {
            headers.insert(NATS_MESSAGE_ID, message.operation.as_str());
        }
        let failed = |kind: PublishErrorKind, error: String| {
            let message = format!("{} {subject}: {error}", self.address);
            match kind {
                PublishErrorKind::MaxPayloadExceeded => Error::permanent(message),
                PublishErrorKind::StreamNotFound => {
                    Error::transient(format!("{} {subject}: no stream takes this subject", self.address))
                }
                PublishErrorKind::MaxAckPending => Error::transient(message),
                _ => Error::unknown(message),
            }
        };
        // A message without a value is empty, as in a bucket of keys and values.
        let value = message.value.unwrap_or_default();
        let stored = match context.publish_with_headers(subject.clone(), headers, value).await {
            Ok(sent) => sent.await,
            Err(error) => Err(error),
        };
        stored.map(drop).map_err(|error| failed(error.kind(), error.to_string()))
    }
}
