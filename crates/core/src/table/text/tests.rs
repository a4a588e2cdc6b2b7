//! The text index against the matcher, on random rows with random changes; and its size.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::{SlotSet, TextIndex};
use crate::record::{CborValue, Record};
use crate::table::Slot;
use crate::vista::query::Query;
use crate::vista::{Column, ColumnType, Schema};

fn schema() -> Schema {
    let columns = ["name", "note", "extra"].map(|name| Column::new(name, ColumnType::Json));
    Schema::new("id", [vec![Column::new("id", ColumnType::Integer)], columns.to_vec()].concat())
}

/// Texts of few words, so that rows share them; some rare, some beyond ASCII, some with punctuation between.
fn text() -> impl Strategy<Value = String> {
    let word = prop_oneof![
        6 => prop::sample::select(vec![
            "red", "shoe", "shoes", "Straße", "STRASSE", "İstanbul", "istanbul", "e\u{301}clair", "éclair", "ÉCLAIR", "日本語",
            "日本", "🍰", "👩‍🍳", "a", "ab", "b-a", "o'neil", "x@y.z", "2024-01-02", "12.50", "\u{a0}nbsp", "ﬁne", "ΣΑΣ", "σας",
        ]).prop_map(str::to_string),
        1 => "[a-c]{1,5}",
        1 => "[a-bß-éИ-Я]{1,4}",
        1 => any::<String>().prop_map(|text| text.chars().take(6).collect()),
    ];
    prop::collection::vec(word, 0..4).prop_map(|words| words.join(" "))
}

fn value() -> impl Strategy<Value = CborValue> {
    prop_oneof![
        5 => text().prop_map(CborValue::from),
        1 => any::<i32>().prop_map(CborValue::from),
        1 => any::<f64>().prop_map(CborValue::from),
        1 => Just(CborValue::Null),
        1 => (text(), 0..50i32).prop_map(|(text, number)| CborValue::Map(vec![
            ("key".into(), CborValue::Array(vec![text.into(), number.into()])),
        ])),
    ]
}

fn row() -> impl Strategy<Value = Record> {
    (any::<u8>(), value(), value()).prop_map(|(id, name, note)| {
        [("id", id.into()), ("name", name), ("note", note)]
            .into_iter()
            .map(|(name, value)| (name.to_string(), value))
            .collect()
    })
}

/// Search words: words of rows, parts of them, and others.
fn search() -> impl Strategy<Value = String> {
    let part = || {
        (text(), 0usize..6, 1usize..5)
            .prop_map(|(text, from, many)| text.chars().skip(from).take(many).collect::<String>())
    };
    prop_oneof![2 => text(), 3 => part(), 2 => (part(), part()).prop_map(|(a, b)| format!("{a} {b}"))]
}

fn check(index: &TextIndex, rows: &BTreeMap<Slot, Record>, search: &str) -> Result<(), TestCaseError> {
    let prepared = Query { search: Some(search.to_string()), ..Query::default() }.prepare(&schema());
    let expected: Vec<Slot> = rows.iter().filter(|(_, row)| prepared.matches(row)).map(|(slot, _)| *slot).collect();
    let Some(lookup) = index.lookup(search) else {
        let helpless = search.chars().all(|c| c.is_whitespace() || c.is_ascii() && !c.is_ascii_alphanumeric());
        prop_assert!(helpless, "no help for {search:?}");
        return Ok(());
    };
    let hits = lookup.find();
    prop_assert!(hits.confirmed.len() + hits.candidates.len() <= lookup.estimate(), "{search:?}");
    prop_assert!(hits.confirmed.and(&hits.candidates).is_empty());
    let confirmed: Vec<Slot> = hits.confirmed.iter().collect();
    prop_assert!(confirmed.iter().all(|slot| expected.contains(slot)), "{search:?}: {confirmed:?} of {expected:?}");
    let settled = hits.settle(|slot| prepared.matches(&rows[&slot]));
    prop_assert_eq!(settled.iter().collect::<Vec<_>>(), expected, "{:?}", search);
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

        /// An index that is built and then changed agrees with the matcher, and a clone is not affected by changes.
    #[test]
    fn finds_what_the_matcher_finds(
        built in prop::collection::vec(row(), 0..60),
        changes in prop::collection::vec((0u32..90, prop::option::weighted(0.7, row())), 0..60),
        searches in prop::collection::vec(search(), 1..16),
    ) {
                // Slots are spread, so that there are several blocks.
        let spread = |at: u32| at * 700;
        let mut rows: BTreeMap<Slot, Record> = built.into_iter().enumerate().map(|(at, row)| (spread(at as u32), row)).collect();
        let mut index = TextIndex::build(&schema(), rows.len(), || rows.iter().map(|(slot, row)| (*slot, row)));
        let before = (index.clone(), rows.clone());
        for (at, row) in changes {
            let slot = spread(at);
            index.change(slot, rows.get(&slot), row.as_ref());
            match row {
                Some(row) => rows.insert(slot, row),
                None => rows.remove(&slot),
            };
        }
        prop_assert_eq!(index.len(), rows.len());
        for (index, rows) in [before, (index, rows)] {
            for search in &searches {
                check(&index, &rows, search)?;
            }
        }
    }

        /// Sets of slots of any density agree with sorted lists.
    #[test]
        fn slot_sets_agree_with_sorted_lists(
        a in (prop::collection::btree_set(0u32..60_000, 0..300), prop::option::of((0u32..30_000, 0u32..30_000))),
        b in (prop::collection::btree_set(0u32..60_000, 0..300), prop::option::of((0u32..30_000, 0u32..30_000))),
    ) {
        let model = |(mut some, run): (std::collections::BTreeSet<u32>, Option<(u32, u32)>)| {
            some.extend(run.into_iter().flat_map(|(from, many)| from..from + many));
            some
        };
        let (a, b) = (model(a), model(b));
        let (left, right): (SlotSet, SlotSet) = (a.iter().copied().collect(), b.iter().copied().collect());
        prop_assert!(left.iter().eq(a.iter().copied()));
        prop_assert!(left.and(&right).iter().eq(a.intersection(&b).copied()));
        prop_assert!(left.or(&right).iter().eq(a.union(&b).copied()));
        prop_assert!(left.without(&right).iter().eq(a.difference(&b).copied()));
        prop_assert_eq!(left.or(&right).len(), a.union(&b).count());
        prop_assert_eq!(left.without(&right).len(), a.difference(&b).count());
        let mut changed = left.clone();
        for slot in &b {
            prop_assert_eq!(changed.insert(*slot), !a.contains(slot));
        }
        for slot in &a {
            prop_assert!(changed.remove(*slot));
        }
        prop_assert!(changed.iter().eq(b.difference(&a).copied()));
        prop_assert_eq!(changed.len(), b.difference(&a).count());
        prop_assert!(left.iter().eq(a.iter().copied()), "a clone is not affected by changes");
    }
}

/// Prints the size and build time of an index of a million rows; run with `--release`.
#[test]
#[ignore = "a minute and a gigabyte"]
fn a_million_rows_are_indexed_in_less_than_one_and_a_half_times_their_json() {
    const ROWS: u64 = 1_000_000;
    let scattered = |n: u64| n.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 20;
    let word = |n: u64| {
        let at = scattered(n) % 5_000;
        // Few words are frequent and many are rare.
        let at = at * at / 5_000;
        ["ba", "ke", "ri", "so", "tu", "wen", "fal"]
            .iter()
            .cycle()
            .skip(at as usize % 7)
            .take(3)
            .copied()
            .collect::<String>()
            + &at.to_string()
    };
    let schema = Schema::new(
        "id",
        ["id", "sku", "name", "note", "price", "at"].map(|name| Column::new(name, ColumnType::Json)).to_vec(),
    );
    let row = |n: u64| {
        let text = |from: u64, many: u64| (0..many).map(|at| word(n * 31 + from + at)).collect::<Vec<_>>().join(" ");
        let cells: [(&str, CborValue); 6] = [
            ("id", n.into()),
            ("sku", format!("SKU-{:08x}", scattered(n) as u32).into()),
            ("name", text(0, 4).into()),
            ("note", text(4, 12).into()),
            ("price", (scattered(n) % 50_000).into()),
            ("at", format!("2026-01-{:02}T10:00:00Z", n % 28 + 1).into()),
        ];
        let record: Record = cells.into_iter().map(|(name, value)| (name.to_string(), value)).collect();
        crate::record::Body::encode(&n.to_string(), &record, schema.layout())
    };
    let rows: Vec<_> = (0..ROWS).map(row).collect();
    let json: usize = rows.iter().map(|row| row.json().len()).sum();
    let start = std::time::Instant::now();
    let index = TextIndex::build(&schema, rows.len(), || (0..).zip(&rows));
    println!(
        "{} B a row, {:?}, {:.2} times the JSON",
        json / rows.len(),
        start.elapsed(),
        index.bytes() as f64 / json as f64
    );
    assert!(index.bytes() * 2 < json * 3);
    for search in ["ba", "bakeri1", "riso 40", "sku-00ff", "2026-01-03"] {
        let start = std::time::Instant::now();
        let hits = index.lookup(search).unwrap().find();
        println!(
            "{search}: {:?}, {} confirmed, {} candidates",
            start.elapsed(),
            hits.confirmed.len(),
            hits.candidates.len()
        );
    }
}
