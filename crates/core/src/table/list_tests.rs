//! Lists whose rows are compared with a table while they are read, and tables that take over the rows of a list.

use std::sync::Arc;

use indexmap::IndexMap;
use proptest::prelude::*;

use super::{ORDINAL_STEP, TableBuilder};
use crate::record::{Body, CborValue, Layout, Record, Rows};

fn body(id: u8, value: u8) -> Body {
    let cell = if value == 3 { CborValue::Bytes(vec![id]) } else { value.into() };
    let record = Record::from_iter([("id".into(), id.to_string().into()), ("n".into(), cell)]);
    Body::encode(&id.to_string(), &record, &Layout::new("id", false, ["id", "n"]))
}

proptest! {
    /// A set is an ordered map, whether its rows are kept or referred to, and in however many packs.
    #[test]
    fn rows_are_an_ordered_map_whatever_is_known(
        known in proptest::collection::vec((0u8..200, 0u8..4), 0..150),
        pushed in proptest::collection::vec((0u8..200, 0u8..4), 0..300),
    ) {
        let mut table = TableBuilder::new();
        for (at, (id, value)) in known.iter().enumerate() {
            table.push(&id.to_string(), &body(*id, *value), at as u64 * ORDINAL_STEP);
        }
        let table = Arc::new(table.finish());
        for mut rows in [Rows::new(), Rows::new().compared_with(table)] {
            let mut model = IndexMap::new();
            for (id, value) in &pushed {
                let is_new = model.insert(id.to_string(), body(*id, *value)).is_none();
                prop_assert_eq!(rows.push_body(&id.to_string(), &body(*id, *value)), is_new);
            }
            let check = |rows: &Rows| {
                prop_assert_eq!(rows.len(), model.len());
                let listed: Vec<_> = rows.to_bodies().map(|(id, body)| (id.to_string(), body)).collect();
                prop_assert_eq!(listed, model.clone().into_iter().collect::<Vec<_>>());
                for id in (0..=200).map(|id: u8| id.to_string()) {
                    prop_assert_eq!(rows.body(&id).map(|body| body.to_body()), model.get(&id).cloned());
                    prop_assert_eq!(rows.contains(&id), model.contains_key(&id));
                }
                Ok(())
            };
            check(&rows)?;
            let table = TableBuilder::take_over(&mut rows);
            check(&rows)?;
            prop_assert!(table.natural(0).map(|row| (row.id().to_string(), row.body())).eq(model.clone()));
            prop_assert!(model.iter().all(|(id, body)| table.get(id).is_some_and(|row| row.holds(body))));
        }
    }
}
