//! The feed of a source: its change feed if the table has one, else a live query.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use super::changes::{Changefeed, Stream};
use super::live;
use super::rpc::Session;
use super::shared::Shared;
use super::table::changefeed;
use crate::connector::{Feed, FeedFormat, FollowMode, SourceRequest};
use crate::feed::{Channel, Intake, follow};
use diorama_core::Dio;
use diorama_core::vista::{Error, Result};

/// Pause between two attempts to connect: initial and maximum.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(30));

/// Feed of the changes of a source.
#[derive(Debug)]
pub(super) struct SurrealFeed {
    pub(super) shared: Arc<Shared>,
    pub(super) mode: FollowMode,
}

#[async_trait]
impl Feed for SurrealFeed {
    fn check(&self) -> Result<()> {
        Ok(())
    }

    fn start(&self, dio: &Dio, _: FeedFormat) -> Result<()> {
        let name = format!("{}/{}", self.shared.address, self.shared.name);
        let intake = Intake::new(dio, name, &format!("surrealdb:{}", self.shared.name), BACKOFF);
        let changefeed = Changefeed::new(Arc::clone(&self.shared));
        let channel = OwnChannel {
            shared: Arc::clone(&self.shared),
            changefeed,
            mode: self.mode,
            dio: dio.name().to_string(),
            said: None,
        };
        dio.listen(follow(channel, intake));
        Ok(())
    }

    fn prepare(&self) {
        if self.mode != FollowMode::Notify {
            self.shared.progress.hold();
        }
    }

    fn reports_all(&self) -> bool {
        self.mode != FollowMode::Notify
    }

    async fn inspect(&self, _: &SourceRequest) -> Result<Option<String>> {
        let mut session = self.shared.address.connect().await?;
        match (self.mode, changefeed(&mut session, &self.shared.name).await) {
            (FollowMode::Notify, Ok(_)) | (FollowMode::Auto, Ok(Some(_))) => Ok(None),
            (FollowMode::Replication, found) => kept(found, &self.shared.name).map(|_| None).map_err(Error::Config),
            (FollowMode::Auto, Ok(None)) => Ok(Some(by_live_query(&self.shared.name))),
            (_, Err(error)) => Err(Error::Config(error)),
        }
    }
}

/// Returns the time for which the server keeps changes.
///
/// # Errors
/// The reason why it does not, and what to do.
fn kept(found: std::result::Result<Option<String>, String>, table: &str) -> std::result::Result<String, String> {
    found?.ok_or_else(|| format!("the table {table} has no change feed: {}", advice(table)))
}

fn advice(table: &str) -> String {
    format!("run ALTER TABLE {} CHANGEFEED 3d", super::value::identifier(table))
}

fn by_live_query(table: &str) -> String {
    format!(
        "changes of the source arrive by a live query, which can lose some: set refresh_every, or {} for a feed that loses none",
        advice(table)
    )
}

/// Channel of either kind.
struct OwnChannel {
    shared: Arc<Shared>,
    changefeed: Changefeed,
    mode: FollowMode,
    dio: String,
    /// The kind that was last reported to people.
    said: Option<&'static str>,
}

enum OwnConnection {
    Changefeed(Box<Stream>),
    Live(Box<Session>),
}

impl OwnChannel {
    /// Reports the kind of feed to people, once.
    fn say(&mut self, kind: &'static str, message: &str) {
        if self.said != Some(kind) {
            tracing::info!(dio = self.dio, "{message}");
            self.said = Some(kind);
        }
    }

    async fn open(&mut self, intake: &mut Intake) -> std::result::Result<OwnConnection, String> {
        let mut session = self.shared.address.connect().await.map_err(|error| error.to_string())?;
        let name = self.shared.name.clone();
        let found = changefeed(&mut session, &name).await;
        let is_kept = match self.mode {
            FollowMode::Notify => false,
            FollowMode::Auto => found?.is_some(),
            FollowMode::Replication => kept(found, &name).map(|_| true)?,
        };
        if is_kept {
            let stream = self.changefeed.connect(session, intake).await?;
            self.say("changefeed", "changes of the source arrive by its change feed");
            return Ok(OwnConnection::Changefeed(Box::new(stream)));
        }
        let session = live::connect(session, &self.shared, intake).await?;
        self.changefeed.give_up();
        let message = match self.mode {
            FollowMode::Notify => {
                "changes of the source arrive by a live query, which can lose some: set refresh_every".into()
            }
            _ => by_live_query(&name),
        };
        self.say("live", &message);
        Ok(OwnConnection::Live(Box::new(session)))
    }
}

#[async_trait]
impl Channel for OwnChannel {
    type Connection = OwnConnection;

    fn resume(&mut self, position: &Bytes) -> bool {
        self.mode != FollowMode::Notify && self.changefeed.resume(position)
    }

    async fn connect(&mut self, intake: &mut Intake) -> std::result::Result<OwnConnection, String> {
        let opened = self.open(intake).await;
        if opened.is_err() {
            self.changefeed.note_failure(intake).await;
        }
        opened
    }

    async fn listen(&mut self, connection: OwnConnection, intake: &mut Intake) -> std::result::Result<(), String> {
        match connection {
            OwnConnection::Changefeed(stream) => self.changefeed.listen(*stream, intake).await,
            OwnConnection::Live(session) => live::listen(*session, &self.shared, intake).await,
        }
    }
}
