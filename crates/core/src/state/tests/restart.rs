//! Replay and restart: the same entries produce the same State, from the beginning or from any position of the cache file.

use std::collections::BTreeMap;

use super::telling::Reader;
use super::*;
use crate::record::Layout;
use crate::table::{RowRef, Slot, TableBuilder};

type Stored = BTreeMap<Slot, (Id, BaseRow)>;

/// A live State with everything that it has written.
struct Life {
    state: State,
    entries: Vec<Entry>,
    /// Cache file before the first entry and after each entry.
    cache: Vec<Stored>,
    marks: Vec<u64>,
    next: u64,
    reader: Reader,
}

fn apply_cache_change(stored: &mut Stored, change: CacheChange) {
    match change {
        CacheChange::None | CacheChange::Versions(..) => {}
        CacheChange::Upsert(id, base) => drop(stored.insert(base.slot, (id, base))),
        CacheChange::Delete(id, slot) => {
            let gone = stored.remove(&slot);
            assert!(gone.is_none_or(|(other, _)| other == id), "another row was in the slot of {id}");
        }
        CacheChange::Many(changes) => changes.into_iter().for_each(|change| apply_cache_change(stored, change)),
    }
}

const KEYS: usize = 4;

/// Renders the state that readers and workers can observe.
fn observable(state: &State) -> String {
    let mut lines: Vec<String> = (0..KEYS)
        .map(|key| {
            let (id, text) = (id(key), |body: &Body| String::from_utf8(body.json().to_vec()).unwrap());
            let visible = state.get(&id).map(|row| text(&row.body()));
            let base = state.base(&id).map(|base| (text(&base.body), base.ordinal));
            format!(
                "{id} {visible:?} {base:?} {:?}",
                state.fold(&id).map(|fold| (&fold.ops, &fold.rebased, &fold.seen))
            )
        })
        .collect();
    lines.extend(state.ops().map(|op| {
        let Op { id, effect, targets, staged, over, state, error, retry_of, .. } = op;
        format!("{id} {effect:?} {targets:?} {staged} {over} {state:?} {error:?} {retry_of:?}")
    }));
    lines.push(format!("{:?} {:?}", state.queue().map(|op| op.id).collect::<Vec<_>>(), state.backlog()));
    lines.join("\n")
}

fn check_sound(state: &State, stored: &Stored) {
    for key in 0..KEYS {
        let id = id(key);
        let kept: Vec<&BaseRow> = stored.values().filter(|(other, _)| *other == id).map(|(_, base)| base).collect();
        assert!(kept.len() <= 1, "{id} has two slots");
        assert_eq!(kept.first().map(|base| (*base).clone()), state.base(&id), "the cache file matches {id}");
        if let Some(fold) = state.fold(&id) {
            assert!(!fold.ops.is_empty());
            let folded = state.folded(&id, fold.base.as_ref().map(|base| &base.body), &fold.ops);
            assert_eq!(
                state.get(&id).map(|row| row.body()),
                folded,
                "the visible row {id} is its base with its operations applied"
            );
            if let (Some(row), Some(base)) = (state.get(&id), &fold.base) {
                assert_eq!((row.slot(), row.ordinal()), (base.slot, base.ordinal));
            }
        }
    }
    let queued: Vec<OpId> = state.queue().map(|op| op.id).collect();
    let mut open: Vec<&Op> = state.ops().filter(|op| op.state == OpState::Queued).collect();
    open.sort_by_key(|op| op.staged);
    assert_eq!(queued, open.iter().map(|op| op.id).collect::<Vec<_>>());
    assert_eq!(state.backlog().1, open.iter().map(|op| op.size()).sum::<usize>());
}

impl Life {
    fn new(versioned: bool) -> Life {
        let rules = Rules { keep_routed: 2, ..(*rules(versioned, true)).clone() };
        let mut state = State::new(Arc::new(rules), "epoch", 0);
        state.advance(0);
        Life {
            state,
            entries: Vec::new(),
            cache: vec![Stored::new()],
            marks: Vec::new(),
            next: 1,
            reader: Reader::default(),
        }
    }

    fn run(&mut self, command: &Command) {
        let (before, earlier) = (observable(&self.state), self.state.clone());
        let decided = self.state.decide(command, 7);
        assert_eq!(observable(&self.state), before, "deciding changes nothing");
        let Ok(decision) = decided else { return };
        for entry in decision.entries {
            assert_eq!(entry.seq, self.state.seq() + 1, "positions rise by one");
            let (rows_seq, shown) = (self.state.rows_seq(), self.visible());
            let applied = self.state.apply(&entry);
            let mut stored = self.cache.last().unwrap().clone();
            apply_cache_change(&mut stored, applied.cache);
            self.cache.push(stored);
            if self.visible() != shown {
                assert_eq!(self.state.rows_seq(), entry.seq, "a visible change moves the position of rows");
            } else {
                assert!(self.state.rows_seq() == rows_seq || self.state.rows_seq() == entry.seq);
            }
            self.reader.hear(&entry, &self.state, matches!(command, Command::Statement { .. }));
            self.entries.push(entry);
        }
        for note in &decision.notes {
            self.state.note(note);
        }
        if let Outcome::Mark(mark) = decision.outcome {
            self.marks.push(mark);
        }
        assert_eq!(observable(&earlier), before, "an earlier State stays the same");
        check_sound(&self.state, self.cache.last().unwrap());
        let told = (0..KEYS).map(id).all(|id| self.reader.has(&id, &self.state));
        assert!(told || self.state.has_untold() && self.state.has_silent_changes(), "after {command:?}");
    }

    fn visible(&self) -> Vec<Option<(Body, u64)>> {
        (0..KEYS).map(|key| self.state.get(&id(key)).map(|row| (row.body(), row.ordinal()))).collect()
    }

    /// Restarts at the head, with the cache file at `at` and the log complete or trimmed as far as possible.
    fn restarted(&self, at: usize, trimmed: bool) -> State {
        let mut table = TableBuilder::new();
        for (slot, (id, base)) in &self.cache[at] {
            table.push_at(*slot, id, &base.body, base.ordinal);
        }
        let position = at as u64;
        let rules = Arc::new(self.state.rules().clone());
        let mut state = State::restore(rules, "epoch", position, table.finish());
        let kept = self.state.kept_entries();
        let mut stored = self.cache[at].clone();
        let there = |entry: &&Entry| !trimmed || entry.seq > position || kept.contains(&entry.seq);
        for entry in self.entries.iter().filter(there) {
            // Bulk rows are in the cache file before their entry is in the log; here they come from memory.
            let decoded = Entry::decode(&entry.encode()).unwrap();
            let read = if matches!(entry.base, Base::Many { .. }) { entry.clone() } else { decoded };
            let change = state.apply(&read).cache;
            assert!(entry.seq > position || matches!(change, CacheChange::None));
            apply_cache_change(&mut stored, change);
        }
        state.advance(self.state.seq());
        check_sound(&state, &stored);
        state
    }

    fn step(&mut self, (kind, key, n, select): (u8, usize, u64, u16)) {
        self.next += 1;
        let (op, ident) = (self.next, id(key));
        let versioned = self.state.rules().version.is_some();
        let whole = body(key, n, Some(n % 2), versioned.then_some(n));
        let mark = self.marks.get(select as usize % self.marks.len().max(1)).copied().unwrap_or(0);
        let rows = |count: usize| -> Vec<ReadRow> {
            (0..count)
                .map(|other| (key + other) % KEYS)
                .map(|other| ReadRow {
                    id: id(other),
                    row: (!(n + other as u64).is_multiple_of(3))
                        .then(|| body(other, n, Some(1), versioned.then_some(n))),
                    ordinal: (select % 2 == 0).then_some(((other as u64 + n) % 7 + 1) << 32),
                })
                .collect()
        };
        let queued: Vec<OpId> = self.state.queue().filter(|op| self.state.is_next(op)).map(|op| op.id).collect();
        let settled = queued.get(select as usize % queued.len().max(1)).copied();
        let parked = self.state.ops().find(|op| op.state == OpState::Parked).map(|op| op.id);
        let settle = |answer| Command::Settle { op: settled.unwrap_or(op_id(999)), mark, answer };
        let upstream = |change| {
            let version = (select % 2 == 0).then(|| by_column(n));
            Command::Upstream(UpstreamEvent {
                id: ident.clone(),
                change,
                version,
                delivery: None,
                origin: Origin::Webhook,
                in_order: select % 3 == 0,
            })
        };
        let command = match kind {
            0 => Command::Write(write(op, Some(&ident), Effect::Insert(whole))),
            1 => Command::Write(write(op, Some(&ident), Effect::Replace(whole))),
            2 => Command::Write(write(op, Some(&ident), Effect::Patch(part(n)))),
            3 => {
                let condition =
                    self.state.get(&ident).map_or(Condition::Exists, |row| Condition::Matches(vec![row.hash()]));
                Command::Write(NewWrite { condition, ..write(op, Some(&ident), Effect::Patch(part(n))) })
            }
            4 => Command::Write(write(op, Some(&ident), Effect::Delete)),
            5 => Command::Write(write(op, None, Effect::DeleteAll)),
            6 => Command::Open,
            7 => Command::Close(mark),
            8 => settle(Answer::Confirmed { row: None, id: None }),
            9 => settle(Answer::Confirmed { row: Some(whole), id: None }),
            10 | 11 => settle(Answer::Routed),
            12 => settle(Answer::Failed(rejection())),
            13 => settle(Answer::Parked(rejection())),
            14 | 15 => Command::ReadRows {
                items: rows(3),
                mark,
                notice: if select % 3 > 0 { Notice::RowEvents } else { Notice::Invalidated },
            },
            16 => Command::Bulk { items: rows(3), mark, notice: Notice::Invalidated },
            17 => upstream(UpstreamChange::Row(whole)),
            18 => upstream(UpstreamChange::Part(part(n))),
            19 => upstream(UpstreamChange::Gone),
            20 => upstream(UpstreamChange::Thin),
            21 => Command::Statement { rows: vec![(ident, (n % 4 > 0).then_some(whole))], notify: n % 2 == 0 },
            22 => Command::InvalidateAll { covered: false, origin: Origin::Program },
            23 => Command::Discard(parked.unwrap_or(op_id(999))),
            24 => Command::Retry { op: parked.unwrap_or(op_id(999)), new: op_id(op) },
            _ => {
                let mut table = TableBuilder::new();
                for item in rows(3) {
                    let row = item.row.unwrap_or(plain(key, 5));
                    table.push(&item.id, &row, (n + 1) << 32);
                }
                Command::Seed { table: table.finish(), mark, notice: Notice::Invalidated }
            }
        };
        let (seeds, seq) = (matches!(command, Command::Seed { .. }), self.state.seq());
        self.run_seeded(&command, seeds);
        if matches!(command, Command::Settle { .. }) && seq != self.state.seq() {
            self.marks.retain(|other| *other != mark);
        }
    }

    /// Runs a command; a seed's table is stored in the cache file first.
    fn run_seeded(&mut self, command: &Command, seeds: bool) {
        match command {
            Command::Seed { table, .. } if seeds && self.state.decide(command, 7).is_ok() => {
                let row = |row: RowRef<'_>| {
                    let base = BaseRow { body: row.body(), ordinal: row.ordinal(), slot: row.slot() };
                    (row.slot(), (Id::from(row.id()), base))
                };
                let stored = table.iter_slots().map(row).collect();
                *self.cache.last_mut().unwrap() = stored;
                // The file is ahead of the log until the log contains the entry.
                let ahead = self.cache.len() - 1;
                self.run(command);
                self.cache[ahead] = if ahead > 0 { self.cache[ahead - 1].clone() } else { Stored::new() };
            }
            _ => self.run(command),
        }
    }
}

#[test]
fn a_repeated_delete_event_is_not_a_change_beneath_a_routed_write_also_after_a_restart() {
    let mut life = Life::new(true);
    life.run(&Command::Write(write(1, Some(&id(0)), Effect::Insert(body(0, 1, None, None)))));
    life.run(&Command::Settle { op: op_id(1), mark: 0, answer: Answer::Routed });
    let (id, version) = (id(0), Some(by_column(5)));
    let gone = UpstreamEvent {
        id,
        change: UpstreamChange::Gone,
        version,
        delivery: None,
        origin: Origin::Webhook,
        in_order: false,
    };
    life.run(&Command::Upstream(gone));
    let expected = observable(&life.state);
    assert!(matches!(life.entries.last().unwrap().base, Base::Gone), "the time of the deletion is recorded");
    for at in 0..=life.entries.len() {
        for trimmed in [false, true] {
            assert_eq!(observable(&life.restarted(at, trimmed)), expected, "restarted with the cache at {at}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    #[test]
    fn crash_replay_and_restart_at_any_position_give_the_same_state(
        steps in proptest::collection::vec((0u8..26, 0..KEYS, 0u64..12, any::<u16>()), 1..40),
        versioned: bool,
    ) {
        let mut life = Life::new(versioned);
        for step in steps {
            life.step(step);
        }
        let expected = observable(&life.state);
        let mut replayed = State::new(Arc::new(life.state.rules().clone()), "epoch", 0);
        for entry in &life.entries {
            replayed.apply(entry);
        }
        prop_assert_eq!(&observable(&replayed), &expected);
        prop_assert_eq!(replayed.rows_seq(), life.state.rows_seq());
        let mut without_cache = State::new(Arc::new(life.state.rules().clone()), "epoch", 0);
        for entry in &life.entries {
            without_cache.apply(&Entry::decode(&entry.encode_with_rows()).unwrap());
        }
        prop_assert_eq!(&observable(&without_cache), &expected, "a log that carries all rows needs no cache file");
        prop_assert!(!without_cache.has_gap());
        let seeded = life.entries.iter().rposition(|entry| {
            matches!(&entry.base, Base::Many { rows, .. } if matches!(**rows, BulkRows::Table(_)))
        });
        let told = (0..KEYS).map(id).all(|id| life.reader.has(&id, &life.state));
        for at in seeded.map_or(0, |at| at + 1)..=life.entries.len() {
            prop_assert_eq!(&observable(&life.restarted(at, true)), &expected, "restarted with the cache at {}", at);
            let restarted = life.restarted(at, false);
            prop_assert_eq!(&observable(&restarted), &expected, "restarted with all of the log and {}", at);
            prop_assert!(told || restarted.has_silent_changes(), "a restart announces what was not, with the cache at {}", at);
        }
    }

    #[test]
    fn any_input_invalid_entry_bytes_are_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = Entry::decode(&bytes);
        for format in [1, 2] {
            let mut framed = vec![format];
            framed.extend(&bytes);
            let _ = Entry::decode(&framed);
            let _ = Entry::decode_first(&framed);
        }
    }

    #[test]
    fn any_input_damaged_entries_do_not_panic(at in 0usize..400, byte: u8) {
        let mut life = Life::new(true);
        life.run(&Command::Write(write(1, Some(&id(0)), Effect::Insert(body(0, 1, None, Some(2))))));
        life.run(&Command::Settle { op: op_id(1), mark: 0, answer: Answer::Failed(rejection()) });
        for entry in &life.entries {
            let bytes = entry.encode();
            prop_assert_eq!(&Entry::decode(&bytes).unwrap().encode(), &bytes);
            let mut bytes = bytes.to_vec();
            let at = at % bytes.len();
            bytes[at] = byte;
            let _ = Entry::decode(&bytes);
        }
    }
}

#[test]
fn an_entry_of_format_1_is_read_with_its_version() {
    // {"s": 7, "t": 1, "i": "a", "c": {}, "b": "g", "n": 41, "v": "g", "f": "r"}
    let map = b"\xa8\x61s\x07\x61t\x01\x61i\x61a\x61c\xa0\x61b\x61g\x61n\x18\x29\x61v\x61g\x61f\x61r";
    let entry = Entry::decode(&[&[1], &map[..]].concat()).unwrap();
    assert_eq!((entry.seq, entry.versions.column()), (7, Some(&41.into())));
    assert_eq!(entry.former_row(&Layout::new("id", false, ["id"])), None, "format 1 has no former row");
    let (again, length) = Entry::decode_first(&entry.encode()).unwrap();
    assert_eq!(
        (again.versions.column(), length),
        (Some(&41.into()), entry.encode().len()),
        "written in the new format"
    );
}

#[test]
fn an_entry_keeps_principal_and_versions_of_every_clock() {
    let mut entry = Entry::new(3, 5, Some("a".into()), Cause { principal: Some("key:ci".into()), ..Cause::default() });
    entry.versions.set(&"stripe".into(), "v7".into());
    let read = Entry::decode(&entry.encode()).unwrap();
    assert_eq!((&read.cause, &read.versions), (&entry.cause, &entry.versions));
    assert_eq!((read.versions.by("stripe"), read.versions.column()), (Some(&"v7".into()), None));
}
