//! The contract of feeds with topics.

use async_trait::async_trait;
use diorama_core::lens::Lens;
use diorama_servers::CutProxy;
use tokio::sync::Mutex;

use super::*;
use crate::contract::feed::{Abilities, Change, Sender, feeds};
use crate::memory::MemoryTable;
use crate::stream::testing::native;

/// Number of parts in which changes are made.
const PARTS: usize = 4;

/// A table, and the topics of its changes at a broker behind a proxy.
struct Topics {
    source: Vista,
    server: MqttServer,
    proxy: CutProxy,
    /// Held while messages are sent, so that they are in the order of the changes.
    sending: Mutex<()>,
}

impl Topics {
    fn start() -> Option<Topics> {
        let server = MqttServer::start()?;
        let proxy = CutProxy::start(server.port());
        let columns = vec![Column::new("id", ColumnType::String), Column::new("n", ColumnType::Integer)];
        let rows = (1..=20).map(|id| (id.to_string(), n(0)));
        let source = MemoryTable::vista("t", Schema::new("id", columns), rows);
        Some(Topics { source, server, proxy, sending: Mutex::new(()) })
    }

    /// Changes the rows, then says so: the first message of a row is compared with the source.
    async fn change_together(&self, changes: &[Change]) {
        let _sending = self.sending.lock().await;
        let mut messages = Vec::new();
        for (id, value) in changes {
            let row = id.to_string();
            match value {
                Some(value) => self.source.replace_value(&row, &n(*value)).await.unwrap(),
                // It may be gone already.
                None => drop(self.source.delete(&row).await),
            }
            let message = value.map_or_else(String::new, |value| update(&row, value));
            messages.push((format!("t/{id}"), uuid::Uuid::now_v7().to_string(), message));
        }
        let properties: Vec<_> = messages.iter().map(|(_, id, _)| [("diorama-operation", id.as_str())]).collect();
        let mut records = Vec::new();
        for ((topic, _, text), own) in messages.iter().zip(&properties) {
            records.push(MqttRecord { properties: own.as_slice(), ..record(topic, text) });
        }
        self.server.publish(&records).await;
    }
}

#[async_trait]
impl Sender for Topics {
    /// The broker may lose what it has acknowledged, so that the source is read again after each loss of the connection.
    fn abilities(&self) -> Abilities {
        Abilities { resumes: false, never_back: false, in_order: false, refreshes_at_start: 1 }
    }

    async fn follow(&self, lens: &Lens) -> Dio {
        let dio = lens.dio(self.source.clone()).make().await.unwrap();
        start(&dio, topics(&format!("mqtt://127.0.0.1:{}", self.proxy.port()), false), native());
        dio
    }

    async fn change(&self, changes: &[Change]) {
        for changes in changes.chunks(changes.len().div_ceil(PARTS).max(1)) {
            self.change_together(changes).await;
        }
    }

    async fn cut(&self) {
        self.proxy.cut_all();
    }

    async fn restart(&mut self) {
        self.server.kill();
        self.server.restart();
    }

    /// The broker forgets its sessions.
    async fn lose_positions(&mut self, way: usize) -> bool {
        if way == 0 {
            self.server.kill_and_forget();
            self.server.restart();
        }
        way == 0
    }

    async fn send_nonsense(&self) -> bool {
        self.server.publish(&[record("t/1", "{not json"), record("t/", "")]).await;
        true
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_of_topics_keep_the_contract_of_feeds() {
    let Some(topics) = Topics::start() else { return };
    feeds(topics).await;
}
