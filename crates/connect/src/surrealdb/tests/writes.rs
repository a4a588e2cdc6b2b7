//! Writes: one effect each, conflicts, ids.

use super::*;

/// Rows `0` to `9`, and a history of their changes.
pub(super) const TABLE: &str = "FOR $i IN 0..10 { CREATE type::record('t', $i) SET n = -1 }; DEFINE TABLE history;
    DEFINE EVENT note ON t WHEN $event = 'UPDATE' THEN { CREATE history SET n = $after.n }";

#[tokio::test]
async fn an_operation_has_one_effect_over_a_thousand_deliveries() {
    let Some(fixture) = Fixture::new(TABLE) else { return };
    let shell = fixture.shell("t").await;
    let changes = contract::one_effect(&shell).await;
    assert_eq!(fixture.count("history"), changes as u64);
    assert!(shell.knows("op_000").await.unwrap());
    assert!(!shell.knows("op_nobody").await.unwrap());
}

#[tokio::test]
async fn deliveries_at_the_same_time_have_one_effect() {
    let Some(fixture) = Fixture::new(TABLE) else { return };
    let shells = [fixture.shell("t").await, fixture.shell("t").await];
    for number in 0..30 {
        let op = WriteOp::Patch { id: "1".into(), record: record([("n", number.into())]) };
        let operation = format!("op_{number:03}");
        let (first, second) =
            tokio::join!(shells[0].write_once(&operation, &op), shells[1].write_once(&operation, &op));
        for written in [first, second] {
            assert_eq!(written.unwrap().record.unwrap()["n"], number.into());
        }
    }
    assert_eq!(fixture.count("history"), 30);
}

#[tokio::test]
async fn a_write_without_an_effect_is_not_remembered() {
    let Some(fixture) = Fixture::new("CREATE t:1 SET n = 1") else { return };
    let shell = fixture.shell("t").await;
    let patch = WriteOp::Patch { id: "7".into(), record: record([("n", 2.into())]) };
    assert!(matches!(shell.write_once("op_1", &patch).await, Err(Error::NotFound { .. })));
    let delete = WriteOp::Delete { id: "7".into() };
    assert!(matches!(shell.write_once("op_2", &delete).await, Err(Error::NotFound { .. })));
    let insert = WriteOp::Insert { id: "1".into(), record: record([("n", 2.into())]) };
    assert!(matches!(shell.write_once("op_3", &insert).await, Err(Error::Conflict { .. })));
    assert_eq!(fixture.count("_diorama_ops"), 0);
    fixture.sql("CREATE t:7 SET n = 0");
    shell.write_once("op_1", &patch).await.unwrap();
    assert_eq!((fixture.sql("RETURN t:7.n"), fixture.count("_diorama_ops")), (2.into(), 1));
}

#[tokio::test]
async fn a_value_that_must_be_unique_is_a_conflict() {
    let Some(fixture) = Fixture::new(
        "DEFINE INDEX by_name ON t FIELDS name UNIQUE; CREATE t:1 SET name = 'a'; DEFINE FIELD n ON t TYPE option<int> ASSERT $value > 5",
    ) else {
        return;
    };
    let vista = fixture.open("t").await;
    let error = vista.insert("2", &record([("name", "a".into())])).await.unwrap_err();
    assert!(matches!(error, Error::Conflict { .. }), "{error:?}");
    let error = vista.patch_value("1", &record([("n", 1.into())])).await.unwrap_err();
    let Error::Invalid { fields, .. } = &error else { panic!("{error:?}") };
    assert_eq!(fields.keys().collect::<Vec<_>>(), ["n"]);
}

#[tokio::test]
async fn new_ids_are_of_the_type_of_the_others() {
    let Some(fixture) =
        Fixture::new("CREATE t:muffin SET n = 1; CREATE u SET id = rand::uuid::v7(); CREATE i:7 SET n = 1")
    else {
        return;
    };
    for (table, check) in [("t", 20), ("u", 36), ("i", 1)] {
        let vista = fixture.open(table).await;
        let id = vista.insert_return_id(&record([("n", 2.into())])).await.unwrap();
        assert_eq!(id.len(), check, "{table}: {id}");
        assert_eq!(vista.get_value(&id).await.unwrap().unwrap()["n"], 2.into());
    }
}

#[tokio::test]
async fn old_operations_are_deleted() {
    let Some(fixture) = Fixture::new(
        "CREATE t:1 SET n = 1; FOR $i IN 0..10050 { CREATE type::record('_diorama_ops', string::concat('op_0', 10000 + $i)) SET at = 1 }",
    ) else {
        return;
    };
    let shell = fixture.shell("t").await;
    let patch = WriteOp::Patch { id: "1".into(), record: record([("n", 2.into())]) };
    shell.write_once("op_1", &patch).await.unwrap();
    // The newest ones stay, however old they are.
    assert_eq!(fixture.count("_diorama_ops"), 10_000);
    assert!(shell.knows("op_1").await.unwrap());
}
