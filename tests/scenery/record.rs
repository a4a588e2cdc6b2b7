//! Record sceneries.

use diorama::RecordStatus;

use super::*;

#[tokio::test(start_paused = true)]
async fn a_record_follows_its_row() {
    let dio = dio_of(lens(), buns(2)).await;
    let scenery = dio.record_scenery("2").await.unwrap();
    assert_eq!(scenery.status(), RecordStatus::Present);
    assert_eq!(scenery.record().unwrap()["price"], 20.into());
    let mut generation = scenery.subscribe();
    dio.patched("2", row("bun 2", 21)).await.unwrap();
    moved(&mut generation).await;
    assert_eq!(scenery.record().unwrap()["price"], 21.into());
    dio.patched("1", row("bun 1", 11)).await.unwrap();
    dio.invalidate_all();
    settle().await;
    assert_eq!(scenery.generation().get(), 1, "nothing happened to it");
    dio.vista().delete("2").await.unwrap();
    settle().await;
    assert_eq!((scenery.record(), scenery.status()), (None, RecordStatus::Missing));
    dio.vista().insert("2", &row("again", 22)).await.unwrap();
    settle().await;
    assert_eq!(scenery.status(), RecordStatus::Present);
}

#[tokio::test(start_paused = true)]
async fn a_raw_write_shows_once_it_is_told() {
    let dio = dio_of(lens(), buns(2)).await;
    let scenery = dio.record_scenery("2").await.unwrap();
    dio.cache().delete_value("2").await.unwrap();
    dio.invalidate_record("2");
    settle().await;
    assert_eq!(scenery.status(), RecordStatus::Missing);
}

#[tokio::test(start_paused = true)]
async fn pending_until_the_master_has_it() {
    let master = gated(buns(2));
    let dio = lens().build().unwrap().make_dio(master.vista("buns")).await.unwrap();
    let scenery = dio.record_scenery("2").await.unwrap();
    let mut generation = scenery.subscribe();
    dio.vista().patch_value("2", &row("bun 2", 21)).await.unwrap();
    moved(&mut generation).await;
    assert_eq!(scenery.status(), RecordStatus::Pending);
    assert_eq!(scenery.record().unwrap()["price"], 21.into());
    master.writes().open();
    moved(&mut generation).await;
    assert_eq!(scenery.status(), RecordStatus::Present);
}

#[tokio::test(start_paused = true)]
async fn failed_until_the_row_changes() {
    let master = gated(buns(2));
    master.refuse_writes(Error::permanent("no more buns"));
    let dio = lens().build().unwrap().make_dio(master.vista("buns")).await.unwrap();
    let scenery = dio.record_scenery("2").await.unwrap();
    master.writes().open();
    dio.vista().patch_value("2", &row("bun 2", 21)).await.unwrap();
    settle().await;
    assert_eq!(scenery.status(), RecordStatus::Failed { error: "no more buns".into() });
    assert_eq!(scenery.record().unwrap()["price"], 20.into(), "it is rolled back");
    dio.patched("2", row("bun 2", 22)).await.unwrap();
    settle().await;
    assert_eq!(scenery.status(), RecordStatus::Present);
}
