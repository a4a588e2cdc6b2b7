//! The contract of feeds with a queue.

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

/// A table, and the queue of its changes at a broker behind a proxy.
struct Queue {
    source: Vista,
    server: RabbitServer,
    proxy: CutProxy,
    arguments: &'static [(&'static str, &'static str)],
    /// Held while messages are sent, so that they are in the order of the changes.
    sending: Mutex<()>,
}

impl Queue {
    async fn start(arguments: &'static [(&'static str, &'static str)]) -> Option<Queue> {
        let server = server(arguments).await?;
        let proxy = CutProxy::start(server.port());
        let columns = vec![Column::new("id", ColumnType::String), Column::new("n", ColumnType::Integer)];
        let rows = (1..=20).map(|id| (id.to_string(), n(0)));
        let source = MemoryTable::vista("t", Schema::new("id", columns), rows);
        Some(Queue { source, server, proxy, arguments, sending: Mutex::new(()) })
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
            messages.push((format!("t.{id}"), uuid::Uuid::now_v7().to_string(), message));
        }
        let messages: Vec<_> =
            messages.iter().map(|(key, id, text)| (key.as_str(), id.as_str(), text.as_str())).collect();
        self.server.publish("t", &messages).await;
    }
}

#[async_trait]
impl Sender for Queue {
    /// A process that begins reads the source: there is no position. One that was cut off goes on.
    fn abilities(&self) -> Abilities {
        Abilities { resumes: false, never_back: false, in_order: false, refreshes_at_start: 1 }
    }

    fn keeps_while_cut(&self) -> bool {
        true
    }

    async fn follow(&self, lens: &Lens) -> Dio {
        let dio = lens.dio(self.source.clone()).make().await.unwrap();
        start(&dio, queue(&format!("amqp://guest:guest@127.0.0.1:{}", self.proxy.port())), native());
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

    /// The messages are removed, or the queue is made anew.
    async fn lose_positions(&mut self, way: usize) -> bool {
        match way {
            0 => self.server.purge_queue("q").await,
            1 => {
                self.server.delete_queue("q").await;
                self.server.declare_queue("q", self.arguments).await;
                self.server.declare_exchange("t", &[("q", "t.*")]).await;
            }
            _ => return false,
        }
        true
    }

    async fn send_nonsense(&self) -> bool {
        self.server.publish("t", &[("t.1", "", "{not json"), ("t.1", "", "5")]).await;
        true
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_of_a_quorum_queue_keep_the_contract_of_feeds() {
    let Some(queue) = Queue::start(QUORUM).await else { return };
    feeds(queue).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_of_a_classic_queue_keep_the_contract_of_feeds() {
    let Some(queue) = Queue::start(&[]).await else { return };
    feeds(queue).await;
}
