//! Whole lists that the program makes: by a hook's mark, or by one that is taken before the rows are read.

use std::time::Duration;

use diorama::{ChangeEvent, DioEvent, Error, LensBuilder, Record, Rows};

use crate::harness::*;

/// The rows of `master` as the program would make them, in pages of three.
async fn pages(master: &Scripted) -> Vec<Rows> {
    let rows: Vec<(String, Record)> = master.rows().await.into_iter().collect();
    rows.chunks(3).map(|page| page.iter().cloned().collect()).collect()
}

/// An `on_refresh` that makes the rows by itself and says that they are all.
fn making(lens: LensBuilder, master: &Scripted) -> LensBuilder {
    let master = master.clone();
    lens.on_refresh(move |dio| {
        let (dio, master) = (dio.clone(), master.clone());
        async move {
            let rows: Rows = master.rows().await.into_iter().collect();
            dio.reconcile_whole(rows).await.map(drop)
        }
    })
}

async fn change(master: &Scripted) {
    master.put("8", product("8", "New", 1, 1)).await;
    master.put("7", product("7", "Blueberry muffin", 200, 2)).await;
    master.take("3").await;
}

#[tokio::test(start_paused = true)]
async fn a_whole_list_made_in_on_refresh_removes_what_it_does_not_have_and_counts() {
    let master = Scripted::bakery();
    let (_lens, dio) = open(making(seeding(memory()), &master), &master).await;
    dio.refresh().await.unwrap();
    change(&master).await;
    let mut bus = dio.subscribe_events();
    let report = dio.refresh().await.unwrap();
    assert_eq!((report.inserted, report.changed, report.removed), (1, 1, 1));
    assert_eq!(dio.cache().list_values().await.unwrap(), master.rows().await);
    assert!(dio.status().complete);
    let last = loop {
        let entry = soon(bus.recv_entry()).await.unwrap();
        if entry.event == DioEvent::Invalidated {
            break entry;
        }
    };
    assert!(last.covered, "all differences were told one by one");
}

#[tokio::test(start_paused = true)]
async fn a_paged_on_start_makes_a_complete_copy_that_has_an_age() {
    let master = Scripted::bakery();
    let lens = memory().on_start({
        let master = master.clone();
        move |dio| {
            let (dio, master) = (dio.clone(), master.clone());
            async move {
                let mut list = dio.begin_list().await?;
                for page in pages(&master).await {
                    list.add(page)?;
                }
                assert_eq!(dio.cache().count().await?, 0, "nothing changes before it is finished");
                list.finish(Rows::new()).await.map(drop)
            }
        }
    });
    let (_lens, dio) = open(lens, &master).await;
    assert_eq!(dio.cache().list_values().await.unwrap(), master.rows().await);
    let status = dio.status();
    assert!(status.complete && status.age.is_some() && !status.stale);
}

#[tokio::test(start_paused = true)]
async fn rows_that_the_program_made_are_refused_as_a_whole_list_outside_of_hooks() {
    let (_master, dio) = bakery_dio().await;
    let before = dio.cache().list_values().await.unwrap();
    let Err(Error::Invalid { detail, .. }) = dio.reconcile_whole(Rows::new()).await else { panic!("no mark") };
    assert!(detail.contains("begin_list"), "{detail}");
    assert_eq!(dio.cache().list_values().await.unwrap(), before);
}

#[tokio::test(start_paused = true)]
async fn a_list_that_the_master_gave_is_judged_by_its_own_mark_also_when_it_is_narrowed() {
    let (_master, dio) = bakery_dio().await;
    let mut tarts = dio.master();
    tarts.add_condition_eq("category_id", 2.into()).unwrap();
    let rows = tarts.list_values().await.unwrap();
    let report = dio.reconcile_whole(rows.clone()).await.unwrap();
    assert_eq!((report.removed, report.position), (3, Some(dio.position())));
    assert_eq!(dio.cache().list_values().await.unwrap(), rows);
}

#[tokio::test(start_paused = true)]
async fn a_list_in_pages_outside_of_hooks_is_applied_as_one() {
    let (master, dio) = bakery_dio().await;
    change(&master).await;
    let mut bus = dio.subscribe_events();
    let mut list = dio.begin_list().await.unwrap();
    let mut read = pages(&master).await;
    let last = read.pop().unwrap();
    for page in read {
        list.add(page).unwrap();
    }
    assert!(!list.is_empty());
    tokio::time::sleep(Duration::from_secs(3)).await;
    let report = list.finish(last).await.unwrap();
    assert_eq!((report.inserted, report.changed, report.removed), (1, 1, 1));
    assert_eq!((report.took, report.position), (Duration::from_secs(3), Some(dio.position())));
    let mut told = events(&mut bus);
    told.sort_by_key(|event| format!("{event:?}"));
    assert_eq!(told, [changed("7"), inserted("8"), removed("3")]);
    assert_eq!(dio.cache().list_values().await.unwrap(), master.rows().await);
    assert!(dio.status().complete);
}

#[tokio::test(start_paused = true)]
async fn a_list_that_is_dropped_changes_nothing() {
    let (_master, dio) = bakery_dio().await;
    let (before, position) = (dio.cache().list_values().await.unwrap(), dio.position());
    let mut list = dio.begin_list().await.unwrap();
    list.push("9", &product("9", "Other", 1, 1)).unwrap();
    drop(list);
    breathe().await;
    assert_eq!((dio.cache().list_values().await.unwrap(), dio.position()), (before, position));
    assert!(!dio.state().in_motion());
}

#[tokio::test(start_paused = true)]
async fn of_rows_with_one_id_in_several_pages_the_last_one_counts() {
    let (_lens, dio) = open(memory(), &Scripted::empty()).await;
    let mut list = dio.begin_list().await.unwrap();
    for price in [1, 2] {
        list.push("a", &product("a", "A", price, 1)).unwrap();
        list.push("b", &product("b", "B", price, 1)).unwrap();
    }
    assert_eq!(list.len(), 2);
    list.finish([("a".to_string(), product("a", "A", 3, 1))].into_iter().collect()).await.unwrap();
    let price = |id: &str| dio.state().get(id).unwrap().decode().unwrap()["price"].clone();
    assert_eq!((price("a"), price("b")), (3.into(), 2.into()));
}

#[tokio::test(start_paused = true)]
async fn a_whole_list_that_shrank_too_much_is_not_believed() {
    let rows = (0..300).map(|n| (n.to_string(), product(&n.to_string(), "Row", n, 1)));
    let (_lens, dio) = open(seeding(memory()), &Scripted::new(schema(), rows)).await;
    let list = dio.begin_list().await.unwrap();
    let error = list.finish(Rows::new()).await.unwrap_err();
    assert!(matches!(error, Error::Suspicious { listed: 0, cached: 300 }), "{error}");
    assert_eq!(dio.cache().count().await.unwrap(), 300);
}

#[tokio::test(start_paused = true)]
async fn what_happens_while_a_list_is_open_is_kept_and_read_again() {
    let (master, dio) = bakery_dio().await;
    let list = dio.begin_list().await.unwrap();
    let old: Rows = master.rows().await.into_iter().collect();
    dio.vista().patch_value("1", &cells([("price", 11.into())])).await.unwrap();
    dio.vista().delete("2").await.unwrap();
    settle(&dio).await;
    master.put("3", product("3", "Pushed", 33, 3)).await;
    let pushed = ChangeEvent::Updated { id: "3".into(), new: Some(product("3", "Pushed", 33, 3)) };
    dio.handle_event(pushed).await.unwrap();
    list.finish(old).await.unwrap();
    let price = |id: &str| dio.state().get(id).map(|row| row.decode().unwrap()["price"].clone());
    assert_eq!((price("1"), price("2")), (Some(11.into()), None));
    settle(&dio).await;
    assert_eq!(dio.cache().list_values().await.unwrap(), master.rows().await);
}

#[tokio::test(start_paused = true)]
async fn a_whole_list_after_a_clear_takes_the_place_of_what_was_gathered() {
    let master = Scripted::bakery();
    let lens = seeding(memory()).on_refresh({
        let master = master.clone();
        move |dio| {
            let (dio, master) = (dio.clone(), master.clone());
            async move {
                dio.cache().clear().await?;
                dio.cache().insert_value("early", &product("early", "Muffin", 175, 2)).await?;
                let mut list = dio.begin_list().await?;
                for page in pages(&master).await {
                    list.add(page)?;
                }
                list.finish(Rows::new()).await.map(drop)
            }
        }
    });
    let (_lens, dio) = open(lens, &master).await;
    change(&master).await;
    let report = dio.refresh().await.unwrap();
    assert_eq!((report.inserted, report.changed, report.removed), (1, 1, 1));
    assert_eq!(dio.cache().list_values().await.unwrap(), master.rows().await);
    assert!(dio.status().complete);
}

#[tokio::test(start_paused = true)]
async fn a_later_whole_list_counts_and_not_one_that_the_hook_cached_before() {
    let master = Scripted::bakery();
    let lens = memory().on_refresh(|dio| {
        let dio = dio.clone();
        async move {
            dio.cache().insert_values(dio.master().list_values().await?).await?;
            let mut rows: Rows = bakery().into_iter().collect();
            rows.push("more", &muffin());
            dio.reconcile_whole(rows).await.map(drop)
        }
    });
    let (_lens, dio) = open(lens, &master).await;
    dio.refresh().await.unwrap();
    assert!(dio.cache().get_value("more").await.unwrap().is_some());
}
