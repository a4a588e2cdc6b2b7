//! A change that panicking, among others of the same turn.

use std::sync::Arc;

use async_trait::async_trait;

use crate::cache::MemoryCache;
use crate::dio::{PANICS, WriteOptions};
use crate::lens::Lens;
use crate::record::{Record, Rows};
use crate::vista::{Column, ColumnType, Query, Result, Schema, TableShell, Vista, WriteOp};

struct Empty;

#[async_trait]
impl TableShell for Empty {
    fn schema(&self) -> Arc<Schema> {
        Arc::new(Schema::new("id", vec![Column::new("id", ColumnType::String), Column::new("n", ColumnType::Integer)]))
    }

    async fn list(&self, _: &Query) -> Result<Rows> {
        Ok(Rows::with_layout(Arc::clone(self.schema().layout())))
    }
}

#[tokio::test]
async fn a_change_that_panics_is_rejected_alone_and_leaves_no_trace() {
    let lens = Lens::new().cache_source(MemoryCache::new()).on_write(|_, _| async { Ok(()) });
    let lens = Arc::new(lens.build().unwrap());
    let dio = lens.make_dio(Vista::new("d", Empty)).await.unwrap();
    let mut events = dio.subscribe_events();
    let before = dio.position().seq;
    let insert = |id: &str, n: i64| {
        let record = Record::from_iter([("n".to_string(), n.into())]);
        dio.write(WriteOp::Insert { id: id.into(), record }, WriteOptions::default())
    };
    // All changes wait before the committer's first turn and so share it. The second "a" is rejected because of the first.
    let (a, b, panicking, again, c) =
        tokio::join!(insert("a", 1), insert("b", 2), insert(PANICS, 3), insert("a", 4), insert("c", 5));
    assert!(a.is_ok() && b.is_ok() && c.is_ok());
    assert!(panicking.unwrap_err().to_string().contains("internal error"));
    assert!(again.unwrap_err().to_string().contains("\"a\""));
    let mut events_seen = Vec::new();
    while events_seen.len() < 3 {
        let entry = events.recv_entry().await.unwrap();
        if let (Some(position), Some(record)) = (entry.position, entry.record) {
            events_seen.push((position.seq - before, record["n"].clone()));
        }
    }
    assert_eq!(events_seen, [(1, 1.into()), (2, 2.into()), (3, 5.into())]);
    assert_eq!(dio.state().table().natural(0).count(), 3);
}
