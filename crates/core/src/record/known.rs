//! Rows of a list that are equal to rows which are known already, and thus need no memory of their own.

use std::sync::Arc;

use super::body_ref::{BodyRef, EncodedRow};
use super::pack::PackedRows;

/// Known rows by slot, with which a list is compared while it is read.
pub(crate) trait Baseline: Send + Sync {
    /// Slot of the row with this id.
    fn slot_of(&self, id: &str) -> Option<u32>;

    /// The row in `slot`.
    fn row(&self, slot: u32) -> Option<EncodedRow<'_>>;
}

/// Bit of a place that stands for a known row.
const KNOWN: u32 = 1 << 31;

/// The order of a list of which some rows are known.
#[derive(Clone)]
pub(super) struct KnownRows {
    baseline: Arc<dyn Baseline>,
    /// Slot of a known row with the bit [`KNOWN`], or number of one of the list's own rows.
    places: Vec<u32>,
    /// Slots in `places`, as a set of bits.
    listed: Vec<u64>,
}

impl KnownRows {
    pub(super) fn new(baseline: Arc<dyn Baseline>) -> KnownRows {
        KnownRows { baseline, places: Vec::new(), listed: Vec::new() }
    }

    /// The list of the rows in the first `count` slots.
    pub(super) fn first_of(baseline: Arc<dyn Baseline>, count: usize) -> KnownRows {
        let mut known = KnownRows::new(baseline);
        known.places.reserve_exact(count);
        (0..KNOWN).take(count).for_each(|slot| known.list(slot));
        known
    }

    pub(super) fn len(&self) -> usize {
        self.places.len()
    }

    /// Row number `at`, which must be there. `own` has the rows that are not known.
    pub(super) fn row<'a>(&'a self, own: &'a PackedRows, at: usize) -> EncodedRow<'a> {
        let place = self.places[at];
        if place & KNOWN == 0 {
            return own.row(place as usize);
        }
        self.baseline.row(place & !KNOWN).expect("a baseline does not change, and only slots with a row are listed")
    }

    /// True if the row of `id` is listed as a known one.
    pub(super) fn lists(&self, id: &str) -> bool {
        self.listed_slot(id).is_some()
    }

    /// The row of `id`, if it is listed as a known one.
    pub(super) fn body(&self, id: &str) -> Option<BodyRef<'_>> {
        self.baseline.row(self.listed_slot(id)?).map(|(_, body)| body)
    }

    fn listed_slot(&self, id: &str) -> Option<u32> {
        self.baseline.slot_of(id).filter(|slot| self.is_listed(*slot))
    }

    fn is_listed(&self, slot: u32) -> bool {
        self.listed.get(slot as usize / 64).is_some_and(|bits| bits >> (slot % 64) & 1 != 0)
    }

    fn list(&mut self, slot: u32) {
        let word = slot as usize / 64;
        if self.listed.len() <= word {
            self.listed.resize(word + 1, 0);
        }
        self.listed[word] |= 1 << (slot % 64);
        self.places.push(slot | KNOWN);
    }

    /// Adds a row that is equal to a known one. Returns true if it is new in this list, and `None` if it differs from the known row or
    /// is one of the list's `own` rows.
    pub(super) fn push(&mut self, own: &PackedRows, id: &str, body: BodyRef<'_>) -> Option<bool> {
        let slot = self.baseline.slot_of(id).filter(|slot| *slot < KNOWN)?;
        let is_equal = self.baseline.row(slot).is_some_and(|(_, known)| known == body);
        if !is_equal || own.find(id).is_some() {
            return None;
        }
        if self.is_listed(slot) {
            return Some(false);
        }
        self.list(slot);
        Some(true)
    }

    /// Adds the row number `at` of the list's own rows.
    pub(super) fn push_own(&mut self, at: usize) {
        self.places.push(u32::try_from(at).ok().filter(|at| at & KNOWN == 0).expect("a list has fewer than 2^31 rows"));
    }
}
