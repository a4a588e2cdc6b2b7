//! The contract of feeds with a stream.

use async_trait::async_trait;
use diorama_core::lens::Lens;
use tokio::sync::Mutex;

use super::*;
use crate::contract::feed::{Abilities, Change, Sender, feeds};
use crate::memory::MemoryTable;

/// Number of parts in which changes are made.
const PARTS: usize = 4;

/// A table, and the stream of its changes behind a proxy.
struct Stream {
    source: Vista,
    server: RedisServer,
    proxy: CutProxy,
    /// Held while entries are added.
    sending: Mutex<()>,
}

impl Stream {
    fn start() -> Option<Stream> {
        let server = RedisServer::start()?;
        let proxy = CutProxy::start(server.port());
        let columns = vec![Column::new("id", ColumnType::String), Column::new("n", ColumnType::Integer)];
        let rows = (1..=20).map(|id| (id.to_string(), n(0)));
        let source = MemoryTable::vista("t", Schema::new("id", columns), rows);
        Some(Stream { source, server, proxy, sending: Mutex::new(()) })
    }

    /// Changes the rows, then says so: the first message of a row is compared with the source.
    async fn change_together(&self, changes: &[Change]) {
        let _sending = self.sending.lock().await;
        let mut entries = Vec::new();
        for (id, value) in changes {
            let row = id.to_string();
            match value {
                Some(value) => self.source.replace_value(&row, &n(*value)).await.unwrap(),
                // It may be gone already.
                None => drop(self.source.delete(&row).await),
            }
            let message = value.map(|value| format!(r#"{{"op":"upsert","id":"{row}","new":{{"n":{value}}}}}"#));
            entries.push((row, message));
        }
        for (row, message) in entries {
            match &message {
                Some(message) => self.server.add("s", &[("key", &row), ("value", message)]),
                None => self.server.add("s", &[("key", &row)]),
            };
        }
    }
}

#[async_trait]
impl Sender for Stream {
    fn abilities(&self) -> Abilities {
        Abilities { resumes: true, never_back: false, in_order: false, refreshes_at_start: 1 }
    }

    async fn follow(&self, lens: &Lens) -> Dio {
        let dio = lens.dio(self.source.clone()).make().await.unwrap();
        start(&dio, &format!("redis://127.0.0.1:{}", self.proxy.port()), native());
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

    /// The stream is trimmed, or made anew.
    async fn lose_positions(&mut self, way: usize) -> bool {
        match way {
            0 => drop(self.server.run::<i64>(&["XTRIM", "s", "MAXLEN", "3"])),
            1 => drop(self.server.run::<i64>(&["DEL", "s"])),
            _ => return false,
        }
        true
    }

    async fn send_nonsense(&self) -> bool {
        self.server.add("s", &[("key", "1"), ("value", "{not json")]);
        self.server.add("s", &[("key", "")]);
        true
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn entries_of_a_stream_keep_the_contract_of_feeds() {
    let Some(stream) = Stream::start() else { return };
    feeds(stream).await;
}
