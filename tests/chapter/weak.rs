//! A [`WeakDio`](diorama::dio::WeakDio): who holds one keeps nothing alive.

use std::time::Duration;

use diorama::{ChangeEvent, DioEvent};
use tokio::sync::mpsc;

use crate::harness::*;

#[tokio::test(start_paused = true)]
async fn a_task_with_a_weak_reference_does_not_keep_the_dio_alive() {
    let (master, dio) = bakery_dio().await;
    let mut bus = dio.subscribe_events();
    let weak = dio.downgrade();
    let (news, mut consumed) = mpsc::channel::<String>(1);
    let consumer = tokio::spawn(async move {
        let mut told = 0;
        while let Some(id) = consumed.recv().await {
            let Some(dio) = weak.upgrade() else { break };
            dio.handle_event(ChangeEvent::Deleted { id }).await.unwrap();
            told += 1;
        }
        (told, weak)
    });
    news.send("7".into()).await.unwrap();
    until(&mut bus, |event| *event == removed("7")).await;
    drop(dio);
    // The row in doubt may be read again before.
    while let Ok(event) = soon(bus.recv()).await {
        assert!(matches!(event, DioEvent::RecordInserted { .. }), "{event:?}");
    }
    assert!(!consumer.is_finished(), "it still waits for news");
    news.send("6".into()).await.unwrap();
    let (told, weak) = soon(consumer).await.unwrap();
    assert_eq!((told, weak.upgrade().is_none(), weak.name()), (1, true, "products"));
    eventually(|| master.holders() == 1).await;
}

#[tokio::test(start_paused = true)]
async fn a_facade_or_a_scenery_keeps_the_dio_for_it() {
    let (_master, dio) = bakery_dio().await;
    let weak = dio.downgrade().clone();
    assert_eq!(format!("{weak:?}"), r#"WeakDio { name: "products", alive: true }"#);
    let facade = dio.vista();
    drop(dio);
    let scenery = weak.upgrade().unwrap().table_scenery().open().await.unwrap();
    drop(facade);
    assert_eq!(weak.upgrade().unwrap().cache().count().await.unwrap(), 7);
    drop(scenery);
    eventually(|| weak.upgrade().is_none()).await;
    assert_eq!(format!("{weak:?}"), r#"WeakDio { name: "products", alive: false }"#);
}

#[tokio::test(start_paused = true)]
async fn a_dio_that_was_closed_is_gone_for_it_at_once() {
    let (master, dio) = bakery_dio().await;
    let weak = dio.downgrade();
    master.writes().close();
    dio.vista().delete("7").await.unwrap();
    let closing = tokio::spawn({
        let dio = dio.clone();
        async move { dio.close().await }
    });
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert!(!closing.is_finished() && weak.upgrade().is_none(), "its queue still drains");
    master.writes().open();
    soon(closing).await.unwrap();
    assert!(weak.upgrade().is_none());
}
