//! The feed of a source: its changes from the binary log.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use super::feed::{Replication, Stream};
use super::shared::Shared;
use crate::connector::{Feed, FeedFormat, FollowMode};
use crate::feed::{Channel, Intake, follow};
use diorama_core::Dio;
use diorama_core::vista::{Error, Result};

/// Pause between two attempts to connect: initial and maximum.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(30));

/// Feed of the changes of a source.
#[derive(Debug)]
pub(super) struct MySqlFeed {
    pub(super) shared: Arc<Shared>,
    pub(super) mode: FollowMode,
}

impl Feed for MySqlFeed {
    fn check(&self) -> Result<()> {
        match self.mode {
            FollowMode::Auto | FollowMode::Replication => Ok(()),
            FollowMode::Notify => Err(Error::Config(
                "MariaDB and MySQL have no notifications: use feed = \"replication\", which reads the binary log, or \
                 refresh_every"
                    .into(),
            )),
        }
    }

    fn start(&self, dio: &Dio, _: FeedFormat) -> Result<()> {
        self.check()?;
        let name = format!("{} {}", self.shared.address, self.shared.relation);
        let intake = Intake::new(dio, name, "mysql", BACKOFF);
        let replication = Replication::new(Arc::clone(&self.shared));
        dio.listen(follow(Log { replication, dio: dio.name().to_string(), has_connected: false }, intake));
        Ok(())
    }

    fn prepare(&self) {
        self.shared.progress.hold();
    }
}

/// The binary log as a channel.
struct Log {
    replication: Replication,
    dio: String,
    /// True once people were told that changes arrive.
    has_connected: bool,
}

#[async_trait]
impl Channel for Log {
    type Connection = Box<Stream>;

    fn resume(&mut self, position: &Bytes) -> bool {
        self.replication.resume(position)
    }

    async fn connect(&mut self, intake: &mut Intake) -> std::result::Result<Box<Stream>, String> {
        match self.replication.connect(intake).await {
            Ok(stream) => {
                if !std::mem::replace(&mut self.has_connected, true) {
                    tracing::info!(dio = self.dio, "changes of the source arrive by the binary log");
                }
                Ok(Box::new(stream))
            }
            Err(error) => {
                self.replication.note_failure(intake).await;
                Err(error)
            }
        }
    }

    async fn listen(&mut self, connection: Box<Stream>, intake: &mut Intake) -> std::result::Result<(), String> {
        self.replication.listen(*connection, intake).await
    }
}
