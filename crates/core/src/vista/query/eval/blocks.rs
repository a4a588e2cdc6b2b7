//! The evaluator on blocks: filters column by column, and the first rows in an order.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::collections::BinaryHeap;

use super::{Check, CompiledQuery, Keyed, Node};
use crate::record::CborValue;
use crate::vista::query::block::{Block, Mask, Vector};
use crate::vista::query::collation::Collation;
use crate::vista::query::compare::{Key, compare_floats};
use crate::vista::query::{Fields, Meter, Path};

/// Result of a filter for the rows of a block. Rows of neither set do not pass.
#[derive(Clone, Copy)]
struct Truth {
    passing: Mask,
    /// SQL's unknown.
    unknown: Mask,
}

/// The first rows of blocks in the order of a query.
pub(crate) struct FirstRows<'q, R> {
    query: &'q CompiledQuery,
    count: usize,
    heap: BinaryHeap<Keyed<R>>,
}

impl CompiledQuery {
    /// Paths of the columns that the filter reads.
    pub(crate) fn filter_paths(&self) -> Vec<&Path> {
        let mut paths = Vec::new();
        self.filter.paths_into(&mut paths);
        paths
    }

    /// Path of the first column of the order.
    pub(crate) fn order_path(&self) -> Option<&Path> {
        self.order.first().map(|term| &term.path)
    }

    /// Describes how the tests of the filter read their columns, which a filter without its schema does not tell.
    pub(crate) fn reading(&self) -> String {
        let mut reading = String::new();
        self.filter.reading_into(&mut reading);
        reading
    }

    /// The rows of `block` that match filter and search. The result is valid only if [`Meter::check`] succeeds afterwards.
    pub(crate) fn matching(&self, block: &impl Block, meter: &Meter) -> Mask {
        let all = Mask::first(block.len());
        if self.unfiltered {
            return all;
        }
        let passing = self.filter.truth(block, &all, meter).passing.and(&all);
        let Some(search) = &self.search else { return passing };
        let mut found = Mask::NONE;
        meter.rows(passing.iter()).filter(|at| search.matches(&block.row(*at))).for_each(|at| found.insert(at));
        found
    }

    /// Collects the first `count` rows, of any number of blocks, in the order of this query.
    pub(crate) fn first_rows<R>(&self, count: usize) -> FirstRows<'_, R> {
        FirstRows { query: self, count, heap: BinaryHeap::new() }
    }
}

impl<R> FirstRows<'_, R> {
    /// Adds the `rows` of a block; `row` makes of their numbers what is kept.
    pub(crate) fn add(&mut self, block: &impl Block, rows: &Mask, row: impl Fn(usize) -> R, meter: &Meter) {
        let Some(term) = self.query.order.first().filter(|_| self.count > 0) else { return };
        let vector = block.vector(&term.path);
        for at in meter.rows(rows.iter()) {
            let full = self.heap.len() >= self.count;
            // Most rows are behind the last one by their first term already.
            if full && let Some(last) = self.heap.peek().and_then(|last| last.key.terms().first()) {
                let first = term.directed(vector.key(at, block, &term.path, &term.collation));
                if first > *last {
                    continue;
                }
            }
            let keyed = Keyed { key: self.query.sort_key(block.id(at), &block.row(at)), row: row(at) };
            if !full {
                meter.charge(keyed.bytes());
                self.heap.push(keyed);
            } else if let Some(mut last) = self.heap.peek_mut()
                && keyed < *last
            {
                *last = keyed;
            }
        }
    }

    /// The rows, in order.
    pub(crate) fn finish(self) -> impl Iterator<Item = R> {
        self.heap.into_sorted_vec().into_iter().map(|keyed| keyed.row)
    }
}

impl Truth {
    const NONE: Truth = Truth { passing: Mask::NONE, unknown: Mask::NONE };

    fn passing(passing: Mask) -> Truth {
        Truth { passing, ..Truth::NONE }
    }

    fn of(answer: Option<bool>, rows: &Mask) -> Truth {
        match answer {
            Some(true) => Truth::passing(*rows),
            Some(false) => Truth::NONE,
            None => Truth { unknown: *rows, ..Truth::NONE },
        }
    }

    fn set(&mut self, at: usize, answer: Option<bool>) {
        match answer {
            Some(true) => self.passing.insert(at),
            Some(false) => {}
            None => self.unknown.insert(at),
        }
    }

    fn not(self, rows: &Mask) -> Truth {
        Truth { passing: rows.without(&self.passing).without(&self.unknown), unknown: self.unknown }
    }

    fn and(self, other: &Truth) -> Truth {
        let passing = self.passing.and(&other.passing);
        let undecided = self.passing.or(&self.unknown).and(&other.passing.or(&other.unknown));
        Truth { passing, unknown: undecided.without(&passing) }
    }

    fn or(self, other: &Truth) -> Truth {
        let passing = self.passing.or(&other.passing);
        Truth { passing, unknown: self.unknown.or(&other.unknown).without(&passing) }
    }
}

impl Node {
    fn paths_into<'n>(&'n self, paths: &mut Vec<&'n Path>) {
        match self {
            Node::All(parts) | Node::Any(parts) => parts.iter().for_each(|part| part.paths_into(paths)),
            Node::Not(inner) => inner.paths_into(paths),
            Node::Test { path, .. } => paths.push(path),
        }
    }

    fn reading_into(&self, reading: &mut String) {
        match self {
            Node::All(parts) | Node::Any(parts) => parts.iter().for_each(|part| part.reading_into(reading)),
            Node::Not(inner) => inner.reading_into(reading),
            Node::Test { path, collation, .. } => reading.push_str(&format!("{path:?} {collation:?}\n")),
        }
    }

    /// True if the node's tests are slow, so that they should see few rows.
    fn is_slow(&self) -> bool {
        self.pattern_bytes() > 0
    }

    /// Evaluates the node for `rows`; what it says of others has no meaning.
    fn truth(&self, block: &impl Block, rows: &Mask, meter: &Meter) -> Truth {
        match self {
            Node::All(parts) => {
                let (slow, fast): (Vec<&Node>, Vec<&Node>) = parts.iter().partition(|part| part.is_slow());
                fast.into_iter().chain(slow).fold(Truth::passing(*rows), |truth, part| {
                    let left = truth.passing.or(&truth.unknown).and(rows);
                    truth.and(&part.truth(block, &left, meter))
                })
            }
            Node::Any(parts) => parts.iter().fold(Truth::NONE, |truth, part| {
                let left = rows.without(&truth.passing);
                let part = part.truth(block, &left, meter);
                truth.or(&Truth { passing: part.passing.and(&left), unknown: part.unknown.and(&left) })
            }),
            Node::Not(inner) => inner.truth(block, rows, meter).not(rows),
            Node::Test { path, collation, check } => {
                if rows.is_empty() {
                    return Truth::NONE;
                }
                let vector = block.vector(path);
                match check.truth_by_type(&vector, collation, block.len(), rows, meter) {
                    Some(truth) => truth,
                    None => check.truth_by_cell(&vector, (block, path, collation), rows, meter),
                }
            }
        }
    }
}

impl Check {
    /// Evaluates the check on typed cells, `None` if it has to see each as a value.
    fn truth_by_type(
        &self,
        vector: &Vector,
        collation: &Collation,
        len: usize,
        rows: &Mask,
        meter: &Meter,
    ) -> Option<Truth> {
        let plain = *collation == Collation::Plain;
        match (vector, self) {
            (Vector::Coded { codes, cells }, _) => {
                let answers: Vec<_> = cells.iter().map(|cell| self.eval(cell, collation)).collect();
                if answers.iter().all(|answer| *answer == answers[0]) {
                    return Some(Truth::of(answers[0], rows));
                }
                let that = |wanted| Mask::of(len, |at| answers[usize::from(codes[at])] == wanted);
                let unknown = if answers.contains(&None) { that(None) } else { Mask::NONE };
                Some(Truth { passing: that(Some(true)), unknown })
            }
            (Vector::Integers { cells, present, range }, Check::Compare(Key::Number(number), holds)) if plain => {
                let (whole, then) = number.steps()?;
                let order = |cell: i64| i128::from(cell).cmp(&whole).then(then);
                Some(compared(present, len, *holds, |at| order(cells[at]), (order(range.0), order(range.1))))
            }
            (Vector::Floats { cells, present }, Check::Compare(Key::Number(number), holds)) if plain => {
                let number = number.float()?;
                let order = |at: usize| compare_floats(cells[at], number);
                Some(compared(present, len, *holds, order, (Ordering::Less, Ordering::Greater)))
            }
            (Vector::Texts { present, .. }, Check::Compare(Key::Text(wanted), holds)) if plain => {
                let order = |at: usize| vector.text(at).map_or(Ordering::Less, |text| text.cmp(wanted));
                Some(compared(present, len, *holds, order, (Ordering::Less, Ordering::Greater)))
            }
            (Vector::Texts { text, ends, present }, Check::Pattern(pattern)) => {
                let mut truth = Truth { unknown: rows.without(present), ..Truth::NONE };
                let candidates = pattern.candidates(text, ends, &rows.and(present));
                for at in meter.rows(candidates.iter()) {
                    if vector.text(at).is_some_and(|text| pattern.is_match(text)) {
                        truth.passing.insert(at);
                    }
                }
                Some(truth)
            }
            _ => None,
        }
    }

    /// Evaluates the check on each cell.
    fn truth_by_cell<B: Block>(
        &self,
        vector: &Vector,
        (block, path, collation): (&B, &Path, &Collation),
        rows: &Mask,
        meter: &Meter,
    ) -> Truth {
        let mut truth = Truth::NONE;
        if let Vector::Unread = vector {
            for at in meter.rows(rows.iter()) {
                let row = block.row(at);
                let cell = row.field(path).unwrap_or(Cow::Owned(CborValue::Null));
                truth.set(at, self.eval(&cell, collation));
            }
            return truth;
        }
        let visited = vector.each(meter.rows(rows.iter()), block, path, |at, cell| {
            truth.set(at, self.eval(cell, collation));
            Ok::<(), std::convert::Infallible>(())
        });
        match visited {
            Ok(()) => truth,
        }
    }
}

/// Compares the cells that are `present` with a value that is not null. `ends` are the orders of the least and the greatest cell.
fn compared(
    present: &Mask,
    len: usize,
    holds: fn(Option<Ordering>) -> bool,
    order: impl Fn(usize) -> Ordering,
    ends: (Ordering, Ordering),
) -> Truth {
    let unknown = Mask::first(len).without(present);
    let passing = if ends.0 == ends.1 {
        if holds(Some(ends.0)) { *present } else { Mask::NONE }
    } else {
        let answers = [Ordering::Less, Ordering::Equal, Ordering::Greater].map(|order| holds(Some(order)));
        Mask::of(len, |at| answers[(order(at) as i8 + 1) as usize]).and(present)
    };
    Truth { passing, unknown }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An answer of a test, `None` for SQL's unknown.
    type Answer = Option<bool>;

    const ANSWERS: [Answer; 3] = [Some(true), Some(false), None];

    fn truth(answers: &[Answer]) -> Truth {
        let mut truth = Truth::NONE;
        answers.iter().enumerate().for_each(|(at, answer)| truth.set(at, *answer));
        truth
    }

    #[test]
    fn truths_combine_as_the_three_values_of_sql() {
        let pairs: Vec<_> = ANSWERS.iter().flat_map(|a| ANSWERS.map(|b| (*a, b))).collect();
        let (a, b): (Vec<_>, Vec<_>) = pairs.iter().copied().unzip();
        let rows = Mask::first(pairs.len());
        let check = |found: Truth, expected: fn((Answer, Answer)) -> Answer| {
            let expected = truth(&pairs.iter().copied().map(expected).collect::<Vec<_>>());
            assert_eq!((found.passing, found.unknown), (expected.passing, expected.unknown));
        };
        check(truth(&a).and(&truth(&b)), |pair| match pair {
            (Some(true), Some(true)) => Some(true),
            (Some(false), _) | (_, Some(false)) => Some(false),
            _ => None,
        });
        check(truth(&a).or(&truth(&b)), |pair| match pair {
            (Some(true), _) | (_, Some(true)) => Some(true),
            (Some(false), Some(false)) => Some(false),
            _ => None,
        });
        check(truth(&a).not(&rows), |(a, _)| a.map(|a| !a));
    }
}
