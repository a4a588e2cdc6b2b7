use diorama::drivers::MemoryTable;
use diorama::{Column, ColumnType, DioEvent, Lens, Record, Rows, Schema};
use std::sync::Arc;

#[tokio::test]
async fn write_read_event_restart() {
    let dir = tempfile::tempdir().unwrap();
    let schema = Schema::new(
        "id",
        vec![
            Column::new("id", ColumnType::String),
            Column::new("name", ColumnType::String),
            Column::new("price", ColumnType::Integer),
        ],
    );
    let rows: Rows =
        [("7".to_string(), Record::from_iter([("name".to_string(), "Bun".into()), ("price".to_string(), 150.into())]))]
            .into_iter()
            .collect();
    let master = MemoryTable::vista("products", schema, rows);
    let build = || {
        Arc::new(
            Lens::new()
                .cache_at(dir.path().join("cache.redb"))
                .on_start(|dio| {
                    let dio = dio.clone();
                    async move {
                        let rows = dio.master().list_values().await?;
                        dio.cache().insert_values(rows).await?;
                        Ok(())
                    }
                })
                .build()
                .unwrap(),
        )
    };
    let lens = build();
    let dio = lens.make_dio(master.clone()).await.unwrap();
    assert_eq!(dio.cache().count().await.unwrap(), 1);
    let mut rx = dio.subscribe_events();
    let record = Record::from_iter([("name".into(), "Muffin".into()), ("price".into(), 175i64.into())]);
    dio.vista().insert(&"muffin".to_string(), &record).await.unwrap();
    assert_eq!(rx.recv().await.unwrap(), DioEvent::RecordInserted { id: "muffin".into() });
    assert!(matches!(rx.recv().await.unwrap(), DioEvent::WriteCommitted { .. }));
    assert_eq!(dio.vista().list_values().await.unwrap().len(), 2);
    assert!(master.get_value("muffin").await.unwrap().is_some());
    let position = dio.position();
    drop(rx);
    dio.close().await;
    lens.close().await;
    drop(dio);
    let lens = build();
    let dio = lens.make_dio(master).await.unwrap();
    assert_eq!(dio.position().epoch, position.epoch);
    assert!(dio.position().seq >= position.seq);
    assert_eq!(dio.vista().list_values().await.unwrap().len(), 2);
}
