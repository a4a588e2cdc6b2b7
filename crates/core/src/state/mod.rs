//! [`State`]: everything a Dio knows, and how it changes. Pure and synchronous: no disk, no network, no task.
//!
//! [`State::decide`] turns a [`Cmd`] into log entries or a refusal, [`State::apply`] changes a State by an [`Entry`]. Rows are
//! in a persistent [`Table`](crate::table::Table), so that readers hold a State while the committer prepares the next one.

mod decide;
mod diff;
mod entry;
mod erase;
mod former;
mod op;
mod reconcile;
mod state;
mod versions;

#[cfg(test)]
mod tests;

pub use decide::{Answer, Cmd, Condition, Decision, Item, NewWrite, Outcome, Upstream, UpstreamChange, check_size};
pub use diff::{confirmed, confirmed_at, diff, may_change, missing};
pub use entry::{
    Base, BulkRow, COLUMN_CLOCK, Cause, Entry, FeedMark, Frame, Many, OpChange, Origin, Versions, Visible,
};
pub use erase::Eraser;
pub use former::Former;
pub use op::{Assumed, Effect, Op, OpError, OpId, OpState};
pub(crate) use state::NO_ROW;
pub use state::{Applied, BaseRow, CacheChange, Fold, Note, Rules, State};
pub use versions::Stamped;
