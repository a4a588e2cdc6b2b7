//! Value sceneries.

use diorama::Filter;
use diorama::vista::query::Test;

use super::*;

#[tokio::test(start_paused = true)]
async fn aggregates_are_computed_and_follow() {
    let dio = dio_of(lens(), buns(4)).await;
    let count = dio.value_scenery().open().await.unwrap();
    let dear = dio.value_scenery().count_where(Filter::test("price", Test::Gt(20.into()))).open().await.unwrap();
    let sum = dio.value_scenery().sum("price").open().await.unwrap();
    let least = dio.value_scenery().min("price").open().await.unwrap();
    let most = dio.value_scenery().max("name").open().await.unwrap();
    let mean = dio.value_scenery().avg("price").open().await.unwrap();
    let custom = dio.value_scenery().custom(|rows| Ok(rows.ids().collect::<String>().into()));
    let custom = custom.filter(Filter::test("price", Test::Gt(20.into()))).open().await.unwrap();
    assert_eq!((count.value(), dear.value(), sum.value()), (integer(4), integer(2), integer(100)));
    assert_eq!((least.value(), most.value()), (integer(10), Some("bun 4".into())));
    assert_eq!((mean.value(), custom.value()), (Some(CborValue::Float(25.0)), Some("34".into())));

    let mut generation = sum.subscribe();
    dio.vista().insert("5", &row("bun 5", 7)).await.unwrap();
    moved(&mut generation).await;
    settle().await;
    assert_eq!((count.value(), dear.value(), sum.value()), (integer(5), integer(2), integer(107)));
    assert_eq!((least.value(), most.value()), (integer(7), Some("bun 5".into())));
    assert_eq!((count.generation().get(), dear.generation().get()), (1, 0), "only what moved");
}

#[tokio::test(start_paused = true)]
async fn a_value_that_stays_does_not_move() {
    let dio = dio_of(lens(), buns(4)).await;
    let sum = dio.value_scenery().sum("price").open().await.unwrap();
    dio.patched("1", row("another name", 10)).await.unwrap();
    dio.invalidate_all();
    settle().await;
    assert_eq!(sum.generation().get(), 0);
}

#[tokio::test(start_paused = true)]
async fn the_last_good_value_stands_while_none_can_be_computed() {
    let dio = dio_of(lens(), buns(2)).await;
    let sum = dio.value_scenery().sum("price").open().await.unwrap();
    let fragile = dio.value_scenery().custom(|rows| {
        assert!(rows.get("3").is_none(), "three is too much");
        Ok("fine".into())
    });
    let fragile = fragile.open().await.unwrap();
    let wrong = Record::from_iter([("price".to_string(), "dear".into())]);
    // A list is kept as it is.
    dio.cache().insert_values([("3".to_string(), wrong)].into_iter().collect()).await.unwrap();
    dio.invalidate_record("3");
    settle().await;
    assert_eq!((sum.value(), sum.generation().get()), (integer(30), 0));
    assert!(sum.error().unwrap().contains("price"));
    assert_eq!((fragile.value(), fragile.error().is_some()), (Some("fine".into()), true));
    dio.vista().delete("3").await.unwrap();
    settle().await;
    assert_eq!((sum.error(), fragile.error(), sum.value()), (None, None, integer(30)));
}

#[tokio::test(start_paused = true)]
async fn a_column_that_does_not_exist_is_named() {
    let dio = dio_of(lens(), buns(2)).await;
    let error = dio.value_scenery().sum("prize").open().await.unwrap_err();
    assert!(error.to_string().contains("price"), "{error}");
}
