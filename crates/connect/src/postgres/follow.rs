//! The feed of a source: by replication, by notifications, or by the one of them that the server allows.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tokio_postgres::Client;

use super::errors::{failed, message_of};
use super::feed::{Replication, Stream};
use super::notify::{self, Notifications};
use super::options::PostgresOptions;
use super::shared::Shared;
use super::table::Table;
use super::{outbox, slot, trigger};
use crate::connector::{Feed, FeedFormat, FeedSlot, FollowMode, SourceRequest};
use crate::feed::{Channel, Intake, follow};
use diorama_core::Dio;
use diorama_core::vista::{Error, Result};

/// Pause between two attempts to connect: initial and maximum.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(30));

/// Feed of the changes of a source.
#[derive(Debug)]
pub(super) struct PostgresFeed {
    pub(super) shared: Arc<Shared>,
    pub(super) mode: FollowMode,
    /// Name of slot and publication.
    pub(super) slot: String,
}

#[async_trait]
impl Feed for PostgresFeed {
    fn check(&self) -> Result<()> {
        Ok(())
    }

    fn start(&self, dio: &Dio, _: FeedFormat) -> Result<()> {
        let name = format!("{} ({})", self.shared.address, self.slot);
        let intake = Intake::new(dio, name, &format!("postgres:{}", self.slot), BACKOFF);
        let replication = Replication::new(Arc::clone(&self.shared), self.slot.clone());
        let channel = OwnChannel { replication, mode: self.mode, dio: dio.name().to_string(), said: None };
        dio.listen(follow(channel, intake));
        Ok(())
    }

    fn prepare(&self) {
        if self.mode != FollowMode::Notify {
            self.shared.expect_replication(&self.slot);
        }
    }

    fn reports_all(&self) -> bool {
        true
    }

    async fn inspect(&self, request: &SourceRequest) -> Result<Option<String>> {
        let (client, table) = self.describe(request).await?;
        let replication = async || slot::check(&client, &table, &self.slot).await;
        let triggers = async || notify::check(&client, &table, &request.name).await.map(drop);
        match self.mode {
            FollowMode::Replication => replication().await.map(|()| None).map_err(Error::Config),
            FollowMode::Notify => triggers().await.map(|()| None).map_err(Error::Config),
            FollowMode::Auto => {
                slot::check_table(&table).map_err(Error::Config)?;
                let Err(error) = replication().await else { return Ok(None) };
                Ok(Some(match triggers().await {
                    Ok(()) => fallback(&error),
                    Err(other) => neither(&error, &other),
                }))
            }
        }
    }

    async fn trigger(&self, request: &SourceRequest, outbox: bool) -> Result<String> {
        let (client, table) = self.describe(request).await?;
        let place = slot::check_table(&table).map_err(Error::Config)?;
        let user: String = client.query_one("SELECT current_user::text", &[]).await.map_err(failed)?.get(0);
        Ok(trigger::sql(&table, place, &request.name, outbox.then_some(user.as_str())))
    }

    async fn slots(&self) -> Result<Vec<FeedSlot>> {
        let client = self.shared.address.connect().await?;
        let slot = |slot: slot::FoundSlot| FeedSlot {
            server: self.shared.address.to_string(),
            own: slot.name == self.slot,
            name: slot.name,
            active: slot.active,
            lost: slot.lost,
            retained: slot.retained.unsigned_abs(),
        };
        let outbox = |outbox: outbox::FoundOutbox| FeedSlot {
            server: self.shared.address.to_string(),
            own: outbox.name == outbox::name(&self.slot),
            name: outbox.name,
            active: outbox.active,
            lost: false,
            retained: outbox.size.unsigned_abs(),
        };
        let slots = slot::list(&client).await.map_err(failed)?.into_iter().map(slot);
        Ok(slots.chain(outbox::list(&client).await.map_err(failed)?.into_iter().map(outbox)).collect())
    }

    async fn drop_slot(&self, name: &str) -> Result<()> {
        let client = self.shared.address.connect().await?;
        if outbox::drop(&client, name).await.map_err(failed)? {
            return Ok(());
        }
        slot::drop_slot(&client, name).await.map_err(failed)?;
        slot::drop_publication(&client, name).await.map_err(|error| {
            let error = message_of(&error);
            Error::permanent(format!("the slot {name} is dropped, but not its publication: {error}"))
        })
    }
}

impl PostgresFeed {
    /// Connects, and describes the table of the resource that `request` names.
    async fn describe(&self, request: &SourceRequest) -> Result<(Client, Table)> {
        let address = &self.shared.address;
        let options = PostgresOptions { id: request.id.clone(), ..PostgresOptions::default() };
        let client = address.connect().await?;
        let table = Table::describe(&client, address, &self.shared.relation, &options).await?;
        Ok((client, table))
    }
}

/// Returns the message that triggers report the changes.
fn fallback(replication: &str) -> String {
    format!("changes of the source arrive by notifications of triggers: replication is not possible: {replication}")
}

/// Returns the message that nothing reports the changes.
fn neither(replication: &str, triggers: &str) -> String {
    format!(
        "changes of the source do not arrive: replication is not possible: {replication}; nor are triggers there: {triggers}"
    )
}

/// Channel of either kind.
struct OwnChannel {
    replication: Replication,
    mode: FollowMode,
    dio: String,
    /// The kind that was last reported to people.
    said: Option<&'static str>,
}

enum OwnConnection {
    Replication(Box<Stream>),
    Notify(Box<Notifications>),
}

impl OwnChannel {
    /// Reports the kind of feed to people, once.
    fn say(&mut self, kind: &'static str, message: &str) {
        if self.said != Some(kind) {
            tracing::info!(dio = self.dio, "{message}");
            self.said = Some(kind);
        }
    }

    async fn notified(&mut self, intake: &mut Intake, message: &str) -> std::result::Result<OwnConnection, String> {
        let notifications = notify::connect(&self.replication.shared, &self.dio, intake).await?;
        self.replication.give_up();
        self.say("triggers", message);
        Ok(OwnConnection::Notify(Box::new(notifications)))
    }

    async fn replicated(&mut self, intake: &mut Intake) -> std::result::Result<OwnConnection, String> {
        let stream = match self.replication.connect(intake).await {
            Ok(stream) => stream,
            Err(error) => {
                self.replication.note_failure(intake).await;
                return Err(error);
            }
        };
        self.say("replication", "changes of the source arrive by replication");
        Ok(OwnConnection::Replication(Box::new(stream)))
    }
}

#[async_trait]
impl Channel for OwnChannel {
    type Connection = OwnConnection;

    fn resume(&mut self, position: &Bytes) -> bool {
        outbox::is_position(position) || self.replication.resume(position)
    }

    async fn connect(&mut self, intake: &mut Intake) -> std::result::Result<OwnConnection, String> {
        match self.mode {
            FollowMode::Replication => self.replicated(intake).await,
            FollowMode::Notify => {
                self.notified(intake, "changes of the source arrive by notifications of triggers").await
            }
            FollowMode::Auto => {
                let error = match self.replicated(intake).await {
                    Err(error) => error,
                    connected => return connected,
                };
                match self.notified(intake, &fallback(&error)).await {
                    Err(other) => Err(neither(&error, &other)),
                    connected => connected,
                }
            }
        }
    }

    async fn listen(&mut self, connection: OwnConnection, intake: &mut Intake) -> std::result::Result<(), String> {
        match connection {
            OwnConnection::Replication(stream) => self.replication.listen(*stream, intake).await,
            OwnConnection::Notify(notifications) => notifications.listen(&self.replication.shared, intake).await,
        }
    }
}
