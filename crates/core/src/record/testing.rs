//! Strategies for random cells and records.

use proptest::prelude::*;

use super::{CborValue, Record};

/// A cell of any kind.
pub(super) fn value() -> impl Strategy<Value = CborValue> {
    let leaf = prop_oneof![
        Just(CborValue::Null),
        any::<bool>().prop_map(CborValue::from),
        any::<i64>().prop_map(CborValue::from),
        any::<u64>().prop_map(CborValue::from),
        any::<f64>().prop_filter("NaN is not equal to itself", |f| !f.is_nan()).prop_map(CborValue::from),
        ".*".prop_map(CborValue::from),
        proptest::collection::vec(any::<u8>(), 0..8).prop_map(CborValue::Bytes),
    ];
    leaf.prop_recursive(3, 24, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(CborValue::Array),
            proptest::collection::btree_map("[a-c]{1,3}", inner.clone(), 0..4)
                .prop_map(|map| CborValue::Map(map.into_iter().map(|(k, v)| (CborValue::from(k), v)).collect())),
            (200u64..300, inner).prop_map(|(tag, value)| CborValue::Tag(tag, Box::new(value))),
        ]
    })
}

/// A record of a few cells.
pub(super) fn cells() -> impl Strategy<Value = Record> {
    proptest::collection::btree_map("[a-z]{1,5}", value(), 0..6).prop_map(|cells| cells.into_iter().collect())
}
