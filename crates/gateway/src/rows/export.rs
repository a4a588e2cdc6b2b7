//! Bodies of many rows, encoded while they are sent, so that a slow reader holds a few megabytes and no old rows.
//!
//! A page of up to [`AT_ONCE`] bytes is one consistent read. In longer pages, and in responses without a limit, each row is
//! read when it is sent, and rows that were deleted or no longer match are left out. Otherwise a slow reader would keep every
//! version of every row that changes meanwhile in memory.

use std::convert::Infallible;
use std::future::ready;
use std::sync::Arc;

use axum::body::{Body, Bytes};
use futures_util::stream;

use crate::http::bounds::Bounds;
use crate::http::budget::Lease;
use crate::http::problem::ApiError;
use crate::http::rates::ExportMeter;
use crate::rows::format::Writer;
use crate::scope::Scope;
use diorama_core::state::State;
use diorama_core::table::{RowRef, Slot};
use diorama_core::vista::query::{CompiledQuery, JsonRow, Meter};
use diorama_core::vista::{Query, Schema};

/// Number of rows up to which a body is built in one piece, regardless of their size.
const FEW: usize = 1_000;
/// Bytes of a page that is encoded at once, from one snapshot.
const AT_ONCE: usize = 4 << 20;
/// Approximate size of one piece of a streamed body, in bytes.
const PIECE: usize = 64 << 10;

/// Encodes the rows in `slots` of `state` as a body.
pub(crate) async fn body(
    scope: &Scope,
    state: Arc<State>,
    slots: Vec<Slot>,
    writer: Writer,
    (query, is_page, schema): (&Query, bool, &Schema),
    bounds: &Bounds,
) -> Result<Body, ApiError> {
    let count = slots.len();
    let mut out = Vec::new();
    let known = (count <= FEW).then_some(count);
    writer.begin(known, &mut out);
    if count <= FEW && writer.copies() {
        state.table().rows_into(&slots, &mut out);
        writer.end(known, &mut out);
        return Ok(bounds.answer(out)?.into());
    }
    let rows_seq = state.rows_seq();
    let filter = (!query.is_unfiltered()).then(|| query.prepare(schema));
    let held = slots.capacity() * size_of::<Slot>() + filter.as_ref().map_or(0, CompiledQuery::pattern_bytes);
    let lease = bounds.lease_answer(if count <= FEW { 0 } else { held + 2 * PIECE })?;
    let mut rest = RemainingRows {
        scope: scope.clone(),
        slots,
        at: 0,
        begun: false,
        writer,
        filter,
        rows_seq,
        count: known,
        meter: if count <= FEW { None } else { Some(bounds.export()?) },
        _lease: lease,
    };
    if count <= FEW {
        rest.write(&state, usize::MAX, &mut out);
        return Ok(bounds.answer(out)?.into());
    }
    let at_once = if is_page { AT_ONCE } else { PIECE };
    let first = move |meter: &Meter| {
        // The deadline is checked once a piece.
        while !rest.is_done() && out.len() < at_once && meter.check().is_ok() {
            let most = at_once.min(out.len() + PIECE);
            rest.write(&state, most, &mut out);
        }
        out.shrink_to_fit();
        Ok((rest, out))
    };
    let (rest, first) = scope.dio.work(count, &bounds.meter, first).await?;
    rest.count(first.len());
    if rest.is_done() {
        return Ok(bounds.answer(first)?.into());
    }
    let first = bounds.answer(first)?;
    let pieces = stream::unfold((rest, first), |(mut rest, mut piece)| {
        if piece.is_empty() && rest.is_done() {
            return ready(None);
        }
        if piece.is_empty() {
            let state = rest.scope.rows.state();
            let mut next = Vec::with_capacity(PIECE);
            rest.write(&state, PIECE, &mut next);
            rest.count(next.len());
            piece = next.into();
        }
        ready(Some((Ok::<_, Infallible>(piece), (rest, Bytes::new()))))
    });
    Ok(Body::from_stream(pieces))
}

/// Rows that are still to be sent. Slots are never reused for another row.
struct RemainingRows {
    scope: Scope,
    slots: Vec<Slot>,
    at: usize,
    /// True once a row was written.
    begun: bool,
    writer: Writer,
    /// Filter that the rows have to pass; `None` if all pass.
    filter: Option<CompiledQuery>,
    /// Version of the rows from which the slots were selected.
    rows_seq: u64,
    /// Number of rows of the body, if it is certain.
    count: Option<usize>,
    /// Counter of the bytes, for the limits of the caller.
    meter: Option<ExportMeter>,
    _lease: Lease,
}

impl RemainingRows {
    fn is_done(&self) -> bool {
        self.at >= self.slots.len()
    }

    fn count(&self, bytes: usize) {
        if let Some(meter) = &self.meter {
            meter.count(bytes);
        }
    }

    /// Appends rows until `out` has `most` bytes, and the end of the body after the last row.
    fn write(&mut self, state: &State, most: usize, out: &mut Vec<u8>) {
        let changed = state.rows_seq() != self.rows_seq;
        while out.len() < most && !self.is_done() {
            let row = state.table().at(self.slots[self.at]);
            self.at += 1;
            let matches = |row: &RowRef<'_>, filter: &CompiledQuery| {
                filter.matches(&JsonRow(row.json(), row.cbor().map(|cbor| &cbor[..])))
            };
            if let Some(row) = row
                && (!changed || self.filter.as_ref().is_none_or(|filter| matches(&row, filter)))
            {
                self.writer.row(&row, !self.begun, out);
                self.begun = true;
            }
        }
        if self.is_done() {
            self.writer.end(self.count, out);
        }
    }
}
