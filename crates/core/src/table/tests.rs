//! The table against a plain map, the order against a sorted vector.

use std::collections::BTreeMap;

use bytes::Bytes;
use proptest::prelude::*;

use super::order::Order;
use super::*;

fn body(n: u64) -> Body {
    let json = format!(r#"{{"n":{n}{}}}"#, " ".repeat((n % 13) as usize));
    Body::from_parts(json.into(), n.is_multiple_of(5).then(|| Bytes::from(n.to_be_bytes().to_vec())))
}

/// Reference of a table: id -> (slot, ordinal, body).
type Model = BTreeMap<String, (Slot, Ordinal, Body)>;

#[derive(Clone, Debug)]
enum Command {
    Upsert(u16, u64, Option<Ordinal>),
    Put(Slot, u16, u64, Ordinal),
    Remove(u16),
    SetOrdinal(u16, Ordinal),
    Reserve(u32),
    Keep,
}

fn command(ids: u16) -> impl Strategy<Value = Command> {
    let ordinal = || (0u64..40).prop_map(|n| n * ORDINAL_STEP / 2);
    let late = (1u64..40).prop_map(|n| n * 1000 * ORDINAL_STEP);
    prop_oneof![
        8 => (0..ids, any::<u64>()).prop_map(|(id, n)| Command::Upsert(id, n, None)),
        1 => (0..ids, any::<u64>(), ordinal()).prop_map(|(id, n, at)| Command::Upsert(id, n, Some(at))),
        1 => (0u32..400, 0..ids, any::<u64>(), late).prop_map(|(slot, id, n, at)| Command::Put(slot, id, n, at)),
        4 => (0..ids).prop_map(Command::Remove),
        1 => (0..ids, ordinal()).prop_map(|(id, at)| Command::SetOrdinal(id, at)),
        1 => (0u32..70).prop_map(Command::Reserve),
        1 => Just(Command::Keep),
    ]
}

fn run(table: &mut Table, model: &mut Model, command: &Command) {
    match command {
        Command::Upsert(id, n, ordinal) => {
            let (id, last) = (id.to_string(), model.values().map(|row| row.1).max().unwrap_or(0));
            let kept = model.get(&id).map(|row| row.1);
            let appended = (last + ORDINAL_STEP).next_multiple_of(ORDINAL_STEP);
            let slot = table.upsert(&id, &body(*n), *ordinal);
            assert!(model.iter().all(|(other, row)| (row.0 == slot) == (*other == id && kept.is_some())));
            model.insert(id, (slot, ordinal.or(kept).unwrap_or(appended), body(*n)));
        }
        Command::Put(slot, id, n, ordinal) => {
            table.put(*slot, &id.to_string(), &body(*n), *ordinal);
            model.retain(|_, row| row.0 != *slot);
            model.insert(id.to_string(), (*slot, *ordinal, body(*n)));
        }
        Command::Remove(id) => {
            let gone = model.remove(&id.to_string());
            assert_eq!(table.remove(&id.to_string()), gone.map(|row| row.0));
        }
        Command::SetOrdinal(id, ordinal) => {
            let row = model.get_mut(&id.to_string());
            assert_eq!(table.set_ordinal(&id.to_string(), *ordinal), row.is_some());
            if let Some(row) = row {
                row.1 = *ordinal;
            }
        }
        Command::Reserve(n) => {
            let first = table.reserve(*n);
            assert!(model.values().all(|row| row.0 < first));
        }
        Command::Keep => {}
    }
}

fn check(table: &Table, model: &Model, ids: u16) {
    assert_eq!(table.len(), model.len());
    for id in 0..ids {
        let (id, found) = (id.to_string(), table.get(&id.to_string()));
        assert_eq!(found.map(|row| (row.slot(), row.ordinal(), row.body())), model.get(&id).cloned());
        assert!(found.is_none_or(|row| row.id() == id));
    }
    let mut rows: Vec<_> = model.iter().map(|(id, row)| (row.1, row.0, id.as_str(), &row.2)).collect();
    rows.sort_by_key(|row| (row.0, row.1));
    assert_eq!(table.last_ordinal(), rows.last().map(|row| row.0));
    for offset in (0..=rows.len() + 1).step_by(7) {
        let expected = rows.iter().skip(offset);
        assert!(table.natural(offset).map(|row| row.slot()).eq(expected.clone().map(|row| row.1)), "offset {offset}");
        for limit in [0, 9, 150] {
            let page: Vec<_> = expected.clone().take(limit).map(|row| &row.3.json()[..]).collect();
            let mut out = Vec::new();
            assert_eq!(table.natural_page_into(offset, limit, &mut out), page.len());
            assert_eq!(out, page.join(&b','));
        }
    }
    for (ordinal, ..) in rows.iter().step_by(5) {
        for probe in [*ordinal, ordinal.saturating_sub(1), ordinal + 1] {
            let rank = rows.partition_point(|row| row.0 < probe);
            assert_eq!(table.position_of(probe), rank);
            let after = rows.iter().find(|row| row.0 > probe).map(|row| row.1);
            assert_eq!(table.natural_after(probe).next().map(|row| row.slot()), after);
        }
    }
    rows.sort_by_key(|row| row.1);
    assert!(table.iter_slots().map(|row| (row.slot(), row.id())).eq(rows.iter().map(|row| (row.1, row.2))));
    let chunks: usize = (0..=table.next_slot() / CHUNK).filter_map(|at| table.rows.get(at)).map(Chunk::heap).sum();
    assert_eq!(table.chunk_bytes, chunks);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn snapshot_equals_a_plain_map_under_random_commands(
        ids in prop_oneof![Just(20u16), Just(300u16)],
        seeded in 0u64..600,
        commands in proptest::collection::vec(command(300), 0..300),
    ) {
        let (mut model, mut builder) = (Model::new(), TableBuilder::new());
        for n in 0..seeded {
            let (id, ordinal) = (n.to_string(), (n + 1) * ORDINAL_STEP);
            let slot = builder.push(&id, &body(n), ordinal);
            model.insert(id, (slot, ordinal, body(n)));
        }
        let mut table = builder.finish();
        check(&table, &model, 600);
        let mut kept = vec![(table.clone(), model.clone())];
        for command in &commands {
            let command = match command {
                Command::Upsert(id, n, at) => Command::Upsert(id % ids, *n, *at),
                Command::Remove(id) => Command::Remove(id % ids),
                other => other.clone(),
            };
            run(&mut table, &mut model, &command);
            if matches!(command, Command::Keep) {
                kept.push((table.clone(), model.clone()));
            }
        }
        kept.push((table, model));
        for (table, model) in &kept {
            check(table, model, 600);
        }
    }

    #[test]
    fn builder_equals_puts_in_slot_order(
        rows in proptest::collection::vec((0u32..900, 0u16..200, any::<u64>(), 0u64..50), 0..300),
    ) {
        let (mut builder, mut table) = (TableBuilder::new(), Table::new());
        let mut rows = rows;
        rows.sort_by_key(|row| row.0);
        rows.dedup_by_key(|row| row.0);
        for (slot, id, n, ordinal) in rows {
            builder.push_at(slot, &id.to_string(), &body(n), ordinal);
            table.put(slot, &id.to_string(), &body(n), ordinal);
        }
        let model: Model =
            table.iter_slots().map(|row| (row.id().to_string(), (row.slot(), row.ordinal(), row.body()))).collect();
        check(&table, &model, 200);
        check(&builder.finish(), &model, 200);
    }

    #[test]
    fn order_equals_a_sorted_vector(
        bulk in 0usize..3000,
        steps in proptest::collection::vec((any::<bool>(), 0u64..12, 0u32..4000), 0..600),
        keys in prop::sample::select(vec![short as fn(u64) -> Vec<u8>, shared, long]),
    ) {
        type Entry = (u64, std::cmp::Reverse<Slot>);
        let mut entries: Vec<Entry> =
            (0..bulk as u32).map(|slot| (u64::from(slot) / 300, std::cmp::Reverse(slot))).collect();
                // Ties are in descending slot order, so that the comparator matters.
        entries.sort_unstable();
        let sorted: Vec<_> = entries.iter().map(|(key, slot)| (keys(*key), slot.0)).collect();
        let mut order = Order::from_sorted(sorted.iter().map(|(key, slot)| (&key[..], *slot)));
        let (before, kept) = (order.clone(), sorted);
        for (add, key, slot) in steps {
            let entry = (key, std::cmp::Reverse(slot));
            let tie = |other: Slot| slot.cmp(&other);
            match entries.binary_search(&entry) {
                Err(at) if add => {
                    prop_assert_eq!(order.insert(&keys(key), slot, tie), at);
                    entries.insert(at, entry);
                }
                Ok(at) if !add => {
                    prop_assert_eq!(order.remove(&keys(key), slot, tie), Some(at));
                    entries.remove(at);
                }
                Err(_) if !add => prop_assert_eq!(order.remove(&keys(key), slot, tie), None),
                _ => {}
            }
        }
        prop_assert!(entries_of(&before) == cut(&kept));
        let expected: Vec<_> = entries.iter().map(|(key, slot)| (keys(*key), slot.0)).collect();
        prop_assert_eq!(entries_of(&order), cut(&expected));
        prop_assert_eq!(order.len(), entries.len());
        for from in (0..entries.len() + 1).step_by(101) {
            let window = &expected[from..(from + 400).min(expected.len())];
            let slots = || window.iter().map(|entry| entry.1);
            prop_assert!(order.range(from..from + 400).map(|entry| entry.slot).eq(slots()));
            prop_assert!(order.range(from..from + 400).rev().map(|entry| entry.slot).eq(slots().rev()));
            prop_assert_eq!(order.nth(from).map(|entry| entry.slot), slots().next());
        }
        for key in 0..14 {
            prop_assert_eq!(order.seek(&keys(key)), entries.partition_point(|entry| entry.0 < key));
        }
    }
}

fn short(key: u64) -> Vec<u8> {
    vec![key as u8]
}

fn shared(key: u64) -> Vec<u8> {
    [b"one and the same", &vec![b'x'; key as usize][..], &[0]].concat()
}

/// Keys of the maximum stored length that differ only at the end.
fn long(key: u64) -> Vec<u8> {
    [&[7; order::MAX_KEY - 8][..], &key.to_be_bytes()].concat()
}

fn entries_of(order: &Order) -> Vec<(Vec<u8>, Slot)> {
    let mut key = Vec::new();
    let entry = |entry: order::Entry<'_>| {
        entry.key_into(&mut key);
        (key.clone(), entry.slot)
    };
    order.range(0..usize::MAX).map(entry).collect()
}

fn cut(entries: &[(Vec<u8>, Slot)]) -> Vec<(Vec<u8>, Slot)> {
    entries.iter().map(|(key, slot)| (key[..key.len().min(order::MAX_KEY)].to_vec(), *slot)).collect()
}

#[test]
fn order_grows_and_shrinks_to_nothing_in_any_direction() {
    let scattered = |n: u64| n.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    for key in [|n: u64| n, |n: u64| u64::MAX - n, scattered] {
        let mut order = Order::new();
        for n in 0..20_000u64 {
            order.insert(&key(n).to_be_bytes(), n as Slot, |other| other.cmp(&(n as Slot)));
        }
        assert!(entries_of(&order).is_sorted());
        for n in (0..20_000u64).rev() {
            assert!(order.remove(&key(n).to_be_bytes(), n as Slot, |other| other.cmp(&(n as Slot))).is_some());
            if n % 8_000 == 0 {
                assert_eq!(order.range(0..usize::MAX).count(), n as usize);
                assert!(entries_of(&order).is_sorted());
            }
        }
        assert!(order.is_empty() && order.nth(0).is_none());
        order.insert(b"again", 1, |_| std::cmp::Ordering::Equal);
        assert_eq!((order.len(), order.bytes()), (1, Order::from_sorted([(&b"again"[..], 1)]).bytes()));
    }
}

#[test]
fn a_clone_reads_its_old_rows_after_a_thousand_changes() {
    let mut builder = TableBuilder::new();
    for n in 0..10_000 {
        builder.push(&format!("id-{n}"), &body(n), (n + 1) * ORDINAL_STEP);
    }
    let mut table = builder.finish();
    let before = table.clone();
    for n in 0..1_000u64 {
        match n % 4 {
            0 => assert!(table.remove(&format!("id-{n}")).is_some()),
            1 => assert!(table.set_ordinal(&format!("id-{n}"), (20_000 - n) * ORDINAL_STEP)),
            2 => assert!(table.upsert(&format!("new-{n}"), &body(n), None) >= 10_000),
            _ => assert_eq!(table.upsert(&format!("id-{n}"), &body(n + 7), None), n as Slot),
        }
    }
    assert_eq!((before.len(), table.len()), (10_000, 10_000));
    for n in 0..10_000 {
        assert_eq!(before.get(&format!("id-{n}")).unwrap().body(), body(n));
    }
    assert!(before.natural(0).map(|row| row.slot()).eq(0..10_000));
    assert!(table.natural(0).map(|row| row.ordinal()).is_sorted());
}

#[test]
fn ids_stay_findable_while_the_table_grows_and_empties() {
    let mut table = Table::new();
    let tiny = Body::from_parts("1".into(), None);
    for n in 0..30_000 {
        table.upsert(&format!("{n:x}"), &tiny, None);
    }
    assert!((0..30_000).all(|n| table.slot_of(&format!("{n:x}")) == Some(n)));
    assert!((0..29_990).all(|n| table.remove(&format!("{n:x}")) == Some(n)));
    assert!((29_990..30_000).all(|n| table.slot_of(&format!("{n:x}")) == Some(n)));
    assert_eq!((table.len(), table.natural(0).count()), (10, 10));
    assert_eq!(table.upsert("again", &tiny, None), 30_000, "slots are never reused");
}

#[test]
fn ids_with_equal_hashes_are_distinguished() {
    let mut ids = Ids::new();
    let cells: Vec<Cell> = (0..40).map(|slot| Cell { hash: slot % 2, slot }).collect();
    // Slots that differ by 10 hold the same id.
    let mut beaten = ids.fill(&cells, |a, b| a % 10 == b % 10);
    beaten.sort_unstable();
    assert!(beaten.into_iter().eq(0..30));
    ids.insert(1, 41);
    ids.remove(1, 33);
    let found = |slot: Slot| ids.find(slot % 2, |other| (other == slot).then_some(other));
    assert_eq!([30, 31, 33, 35, 41].map(found), [Some(30), Some(31), None, Some(35), Some(41)]);
    assert_eq!(ids.len(), 10);
}

#[test]
fn a_builder_accepts_slots_out_of_order() {
    let mut builder = TableBuilder::new();
    for (slot, id) in [(70, "a"), (200, "b"), (3, "c"), (200, "d"), (4, "a")] {
        builder.push_at(slot, id, &body(1), u64::from(slot));
    }
    let table = builder.finish();
    assert!(table.natural(0).map(|row| (row.slot(), row.id())).eq([(3, "c"), (4, "a"), (200, "d")]));
    assert_eq!((table.len(), table.next_slot(), table.contains("b")), (3, 201, false));
}

#[test]
fn no_order_is_built_while_slots_and_ordinals_agree() {
    let mut table = Table::new();
    for n in 0..300 {
        table.upsert(&n.to_string(), &body(n), None);
    }
    assert!(table.set_ordinal("7", 8 * ORDINAL_STEP + 5));
    table.remove("100");
    assert!(table.order.is_none());
    assert!(table.set_ordinal("7", 1));
    assert!(table.order.is_some());
    assert_eq!(table.natural(0).next().map(|row| row.id()), Some("7"));
}

#[test]
fn tables_cross_threads() {
    fn shared<T: Send + Sync + 'static>() {}
    shared::<Table>();
    shared::<TableBuilder>();
}
