//! Cursor of one subscription to a live query, in its list of changes.

use std::sync::Arc;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::super::cursor::{CursorEnd, OutgoingFrame};
use super::super::frame::{self, Encoding, Hello, Reset};
use super::super::request::{LiveSubscription, StartPoint};
use super::diff::Row;
use super::{LiveQuery, LiveQuerySlot, Log};
use crate::http::bounds::Bounds;
use crate::http::problem::ApiError;
use crate::scope::Scope;
use diorama_core::dio::{EventLog, Position};
use diorama_core::journal::Seq;
use diorama_core::scenery::Generation;

/// Maximum number of rows in one frame of a snapshot.
const ROWS: u64 = 500;
/// Approximate size of one batch, in bytes.
const BATCH_BYTES: usize = 256 << 10;

/// Cursor of a subscription. A reader that is too far behind gets all rows again, so it keeps only one window and its frames
/// in memory.
pub(in crate::events) struct LiveCursor {
    log: EventLog,
    pub(super) live: Arc<LiveQuery>,
    _slot: Arc<LiveQuerySlot>,
    generation: watch::Receiver<Generation>,
    closing: CancellationToken,
    /// Number of the next change.
    next: u64,
    /// Position of the list that the sent frames produce.
    seq: Seq,
    greeting: Vec<OutgoingFrame>,
    /// Rows to send, and the index of the next one; `None` if no snapshot is in progress.
    rows: Option<(Arc<[Row]>, usize)>,
}

impl LiveCursor {
    /// Opens a cursor that resumes at the position of `subscription`, if the later changes are kept, or begins with the rows.
    pub(in crate::events) async fn open(
        scope: &Scope,
        subscription: LiveSubscription,
        encoding: Encoding,
        heartbeat: u64,
        bounds: &Bounds,
    ) -> Result<LiveCursor, ApiError> {
        let (slot, live) =
            scope.live_queries.get(&scope.rows, scope.options.max_live, &subscription, encoding, bounds).await?;
        let log = scope.rows.log();
        let (generation, closing) = (live.generation(), log.closing().clone());
        let mut cursor = LiveCursor {
            log,
            live,
            _slot: slot,
            generation,
            closing,
            next: 0,
            seq: 0,
            greeting: Vec::new(),
            rows: None,
        };
        let epoch = cursor.log.position().epoch;
        let since = match &subscription.since {
            Some(StartPoint::Position(from)) if from.epoch == epoch => Some(from.seq),
            _ => None,
        };
        let live = Arc::clone(&cursor.live);
        let (seq, missed, rows) = live.with_log(|log| match since.and_then(|since| Some((since, log.after(since)?))) {
            Some((since, next)) => {
                cursor.next = next;
                (since, log.end() - next, None)
            }
            None => (log.seq, 0, Some(cursor.begin(log))),
        });
        cursor.seq = seq;
        let position = Position { epoch, seq };
        let hello = Hello {
            dio: cursor.log.dio(),
            position: &position,
            resumed: rows.is_none(),
            missed,
            heartbeat,
            snapshot: rows.is_some(),
        };
        cursor.greeting.push(OutgoingFrame::control(frame::hello(encoding, &hello), rows.is_none().then_some(seq)));
        cursor.greeting.extend(rows);
        Ok(cursor)
    }

    /// Position that a caught-up client may resume from; `None` while rows are being sent.
    pub(in crate::events) fn bookmark(&self) -> Option<Position> {
        let is_up = self.rows.is_none() && self.greeting.is_empty();
        let seq = self.live.with_log(|log| if is_up && self.next == log.end() { log.seq } else { self.seq });
        self.rows.is_none().then(|| Position { seq, ..self.log.position() })
    }

    /// Epoch of the cursor's positions.
    pub(in crate::events) fn epoch(&self) -> Arc<str> {
        self.log.position().epoch
    }

    /// Returns true if [`LiveCursor::batch`] has something to do.
    pub(in crate::events) fn is_ready(&self) -> bool {
        let busy = !self.greeting.is_empty() || self.rows.is_some() || self.closing.is_cancelled();
        busy || self.live.with_log(|log| self.next != log.end())
    }

    /// Waits until [`LiveCursor::batch`] has something to do.
    ///
    /// # Cancel safety
    /// Nothing is lost when the future is dropped.
    pub(in crate::events) async fn ready(&mut self) {
        loop {
            self.generation.borrow_and_update();
            if self.is_ready() {
                return;
            }
            tokio::select! {
                moved = self.generation.changed() => if moved.is_err() { return },
                () = self.closing.cancelled() => return,
            }
        }
    }

    /// Returns the next batch of frames.
    pub(in crate::events) fn batch(&mut self) -> Result<Vec<OutgoingFrame>, CursorEnd> {
        if !self.greeting.is_empty() {
            return Ok(std::mem::take(&mut self.greeting));
        }
        if let Some((rows, at)) = self.rows.take() {
            return Ok(self.rows(rows, at));
        }
        let live = Arc::clone(&self.live);
        let sent = live.with_log(|log| self.changes(log));
        match sent.is_empty() && self.closing.is_cancelled() {
            true => Err(CursorEnd::Closed),
            false => Ok(sent),
        }
    }

    fn changes(&mut self, log: &Log) -> Vec<OutgoingFrame> {
        let Some(from) = self.next.checked_sub(log.first) else {
            let position = Position { seq: log.seq, ..self.log.position() };
            self.seq = log.seq;
            let reset = OutgoingFrame::control(frame::reset(self.live.encoding, Reset::Overflow, &position), None);
            return vec![reset, self.begin(log)];
        };
        let (mut out, mut bytes) = (Vec::new(), 0);
        for change in log.changes.iter().skip(usize::try_from(from).unwrap_or(usize::MAX)) {
            let last = change.frames.len() - 1;
            let frames = change.frames.iter().enumerate();
            out.extend(
                frames.map(|(at, frame)| OutgoingFrame::event(frame.clone(), (at == last).then_some(change.seq))),
            );
            self.next += 1;
            self.seq = change.seq;
            bytes += change.bytes;
            if bytes >= BATCH_BYTES {
                break;
            }
        }
        out
    }

    /// Starts to send the current rows; returns the frame before them.
    fn begin(&mut self, log: &Log) -> OutgoingFrame {
        self.next = log.end();
        self.seq = log.seq;
        self.rows = Some((Arc::clone(&log.rows), 0));
        let position = Position { seq: log.seq, ..self.log.position() };
        OutgoingFrame::control(frame::window_begin(self.live.encoding, &position, log.rows.len(), log.total), None)
    }

    /// Builds a frame of the rows from `from` on, and the end of the snapshot after the last row.
    fn rows(&mut self, rows: Arc<[Row]>, from: usize) -> Vec<OutgoingFrame> {
        let mut frame = frame::Rows::new(self.live.encoding);
        let mut at = from;
        while at < rows.len() && frame.len() < ROWS && frame.bytes() < BATCH_BYTES {
            frame.push(&rows[at].id, self.live.shown(&rows[at]).as_deref());
            at += 1;
        }
        let mut out = Vec::new();
        if at > from {
            // A long poll ends with the rows of a list.
            out.push(OutgoingFrame::event(frame.finish(), None));
        }
        if at < rows.len() {
            self.rows = Some((rows, at));
            return out;
        }
        let position = Position { seq: self.seq, ..self.log.position() };
        let end = frame::snapshot_end(self.live.encoding, &position);
        out.push(OutgoingFrame::event(end, Some(self.seq)));
        out
    }
}

impl Log {
    /// Number after the newest change.
    fn end(&self) -> u64 {
        self.first + self.changes.len() as u64
    }

    /// Number of the first change after `seq`; `None` if not all changes since `seq` are kept.
    fn after(&self, seq: Seq) -> Option<u64> {
        let behind = self.changes.partition_point(|change| change.seq <= seq) as u64;
        (self.floor <= seq && seq <= self.seq).then(|| self.first + behind)
    }
}
