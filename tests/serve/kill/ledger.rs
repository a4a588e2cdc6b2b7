//! What a server acknowledged, what is in doubt, and whether what it shows after a restart can be explained by that.

use std::collections::{BTreeMap, HashMap, HashSet};

/// A row beside its id; `None` for one that is not there.
pub(crate) type Row = Option<(String, u64)>;
/// All rows of a resource.
pub(crate) type Rows = BTreeMap<String, (String, u64)>;

/// What a write asks for.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Effect {
    Insert(String, u64),
    Replace(String, u64),
    PatchItem(String),
    PatchN(u64),
    Delete,
}

impl Effect {
    /// The row afterwards, or the refusal that this is.
    pub(crate) fn on(&self, row: &Row) -> Result<Row, ()> {
        match (self, row) {
            (Effect::Insert(item, n), None) | (Effect::Replace(item, n), _) => Ok(Some((item.clone(), *n))),
            (Effect::PatchItem(item), Some((_, n))) => Ok(Some((item.clone(), *n))),
            (Effect::PatchN(n), Some((item, _))) => Ok(Some((item.clone(), *n))),
            (Effect::Delete, Some(_)) => Ok(None),
            (Effect::Insert(..), Some(_)) | (Effect::PatchItem(_) | Effect::PatchN(_) | Effect::Delete, None) => {
                Err(())
            }
        }
    }
}

/// What is known of a request.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Outcome {
    /// It was answered with a 2xx, at this position.
    Acknowledged { seq: u64, operation: Option<String>, settled: bool },
    /// It was sent, and nobody answered.
    Doubt,
}

/// A write that was sent and not refused.
#[derive(Clone, Debug)]
pub(crate) struct Sent {
    pub(crate) dio: &'static str,
    pub(crate) id: String,
    pub(crate) effect: Effect,
    pub(crate) outcome: Outcome,
    /// The highest position of the resource that its sender had seen before.
    pub(crate) seen: u64,
    pub(crate) key: Option<String>,
}

impl Sent {
    pub(crate) fn is_doubt(&self) -> bool {
        self.outcome == Outcome::Doubt
    }

    pub(crate) fn operation(&self) -> Option<&str> {
        match &self.outcome {
            Outcome::Acknowledged { operation, .. } => operation.as_deref(),
            Outcome::Doubt => None,
        }
    }

    fn seq(&self) -> Option<u64> {
        match self.outcome {
            Outcome::Acknowledged { seq, .. } => Some(seq),
            Outcome::Doubt => None,
        }
    }
}

/// What the rows of one resource must be.
#[derive(Default)]
pub(crate) struct Ledger {
    pub(crate) rows: Rows,
}

impl Ledger {
    /// Takes `observed` for the truth if everything acknowledged in `sent` is in it, and nothing that was not sent.
    pub(crate) fn settle(&mut self, sent: &[&Sent], observed: &Rows) -> Result<(), String> {
        let mut by_id: HashMap<&str, Vec<&Sent>> = HashMap::new();
        for one in sent {
            by_id.entry(&one.id).or_default().push(one);
        }
        let mut wrong = Vec::new();
        let ids: HashSet<&String> =
            self.rows.keys().chain(observed.keys()).chain(sent.iter().map(|one| &one.id)).collect();
        for id in ids {
            let (before, now) = (self.rows.get(id).cloned(), observed.get(id).cloned());
            let mine = by_id.get(id.as_str()).map_or(&[][..], Vec::as_slice);
            if let Err(why) = explain(&before, mine, &now) {
                wrong.push(format!("{id}: was {before:?}, is {now:?}: {why}; sent: {mine:#?}"));
            }
        }
        self.rows = observed.clone();
        if wrong.is_empty() { Ok(()) } else { Err(wrong.join("\n")) }
    }
}

/// Whether `now` can be what became of `before`: every acknowledged write in the order of its position, each of those in doubt
/// anywhere after what its sender had seen, or nowhere.
fn explain(before: &Row, sent: &[&Sent], now: &Row) -> Result<(), String> {
    let mut certain: Vec<&Sent> = sent.iter().copied().filter(|one| !one.is_doubt()).collect();
    certain.sort_by_key(|one| one.seq());
    let doubts: Vec<(usize, &Effect)> = sent
        .iter()
        .filter(|one| one.is_doubt())
        .map(|one| (certain.iter().filter(|other| other.seq() <= Some(one.seen)).count(), &one.effect))
        .collect();
    assert!(doubts.len() < 16, "too many doubts to try them all");
    // Known so far: rows after `at` acknowledged writes, and which of the doubts are in them.
    let mut reached: HashSet<(Row, u32)> = HashSet::from([(before.clone(), 0)]);
    for at in 0..=certain.len() {
        let mut open: Vec<(Row, u32)> = reached.iter().cloned().collect();
        while let Some((row, used)) = open.pop() {
            for (bit, (from, effect)) in doubts.iter().enumerate() {
                if used & 1 << bit == 0
                    && *from <= at
                    && let Ok(row) = effect.on(&row)
                    && reached.insert((row.clone(), used | 1 << bit))
                {
                    open.push((row, used | 1 << bit));
                }
            }
        }
        let Some(next) = certain.get(at) else { break };
        reached = reached.into_iter().filter_map(|(row, used)| Some((next.effect.on(&row).ok()?, used))).collect();
        if reached.is_empty() {
            return Err(format!("{next:?} cannot have been accepted"));
        }
    }
    match reached.iter().any(|(row, _)| row == now) {
        true => Ok(()),
        false => Err(format!("possible are {:?}", reached.into_iter().map(|(row, _)| row).collect::<Vec<_>>())),
    }
}

#[test]
fn only_what_was_acknowledged_or_in_doubt_explains_a_row() {
    let sent = |effect, seq: Option<u64>, seen| Sent {
        dio: "orders",
        id: "a".into(),
        effect,
        outcome: seq.map_or(Outcome::Doubt, |seq| Outcome::Acknowledged { seq, operation: None, settled: false }),
        seen,
        key: None,
    };
    let row = |n| Some(("x".to_string(), n));
    let (first, second) = (sent(Effect::Insert("x".into(), 1), Some(1), 0), sent(Effect::PatchN(2), Some(2), 1));
    let (late, early) = (sent(Effect::PatchN(3), None, 2), sent(Effect::PatchN(4), None, 0));
    assert!(explain(&None, &[&second, &first], &row(2)).is_ok());
    assert!(explain(&None, &[&first, &second], &row(1)).is_err(), "an acknowledged write was lost");
    assert!(explain(&None, &[&first, &second], &None).is_err());
    assert!(explain(&None, &[&first, &second, &late], &row(3)).is_ok());
    assert!(explain(&None, &[&first, &second, &late], &row(2)).is_ok(), "what nobody answered need not be there");
    assert!(explain(&None, &[&first, &early], &row(4)).is_ok());
    assert!(explain(&None, &[&first, &second, &early], &row(1)).is_err());
    assert!(explain(&row(9), &[&first], &row(1)).is_err(), "an insert over a row cannot have been accepted");
}
