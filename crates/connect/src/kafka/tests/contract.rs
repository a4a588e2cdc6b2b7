//! The contract of feeds with a topic.

use async_trait::async_trait;
use diorama_core::lens::Lens;
use tokio::sync::Mutex;

use super::*;
use crate::contract::feed::{Abilities, Change, Sender, feeds};
use crate::memory::MemoryTable;

/// Number of partitions.
const PARTITIONS: i32 = 3;
/// Number of parts in which changes are made.
const PARTS: usize = 4;

/// A table, and the topic of its changes at a broker behind a proxy.
struct Topic {
    source: Vista,
    server: KafkaServer,
    proxy: CutProxy,
    /// Held while messages are sent. A producer that is cut sends them again, in an order that is not that of the changes.
    sending: Mutex<()>,
}

impl Topic {
    async fn start() -> Option<Topic> {
        let mut server = KafkaServer::start_durable()?;
        server.create_topic("t", PARTITIONS).await;
        let proxy = CutProxy::start(server.port());
        server.advertise(proxy.port());
        let columns = vec![Column::new("id", ColumnType::String), Column::new("n", ColumnType::Integer)];
        let rows = (1..=20).map(|id| (id.to_string(), n(0)));
        let source = MemoryTable::vista("t", Schema::new("id", columns), rows);
        Some(Topic { source, server, proxy, sending: Mutex::new(()) })
    }

    /// Changes the rows, then says so: the first message of a row is compared with the source.
    async fn change_together(&self, changes: &[Change]) {
        let _sending = self.sending.lock().await;
        let mut messages = BTreeMap::<i32, Vec<(String, Option<String>)>>::new();
        for (id, value) in changes {
            let row = id.to_string();
            match value {
                Some(value) => self.source.replace_value(&row, &n(*value)).await.unwrap(),
                // It may be gone already.
                None => drop(self.source.delete(&row).await),
            }
            let partition = i32::try_from(*id).unwrap() % PARTITIONS;
            let message = value.map(|value| update(&row, value));
            messages.entry(partition).or_default().push((row, message));
        }
        for (partition, messages) in messages {
            let records: Vec<_> = messages.iter().map(|(id, message)| keyed(id, message.as_deref())).collect();
            self.server.produce("t", partition, &records).await;
        }
    }
}

#[async_trait]
impl Sender for Topic {
    fn abilities(&self) -> Abilities {
        Abilities { resumes: true, never_back: false, in_order: false, refreshes_at_start: 1 }
    }

    async fn follow(&self, lens: &Lens) -> Dio {
        let dio = lens.dio(self.source.clone()).make().await.unwrap();
        start(&dio, &self.server.address(), native());
        dio
    }

    async fn change(&self, changes: &[Change]) {
        for changes in changes.chunks(changes.len().div_ceil(PARTS).max(1)) {
            self.change_together(changes).await;
        }
    }

    async fn cut(&self) {
        let _sending = self.sending.lock().await;
        self.proxy.cut_all();
    }

    async fn restart(&mut self) {
        self.server.kill();
        self.server.restart();
    }

    /// The topic is made anew.
    async fn lose_positions(&mut self, way: usize) -> bool {
        if way == 0 {
            self.server.delete_topic("t").await;
            self.server.create_topic("t", PARTITIONS).await;
        }
        way == 0
    }

    async fn send_nonsense(&self) -> bool {
        self.server.produce("t", 0, &[keyed("1", Some("{not json")), keyed("", None)]).await;
        true
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_of_a_topic_keep_the_contract_of_feeds() {
    let Some(topic) = Topic::start().await else { return };
    feeds(topic).await;
}
