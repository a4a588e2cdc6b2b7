//! [`State`]: everything a Dio knows, and how it changes. Pure and synchronous: no disk, no network, no task.
//!
//! [`State::decide`] turns a [`Cmd`] into log entries or a refusal, [`State::apply`] changes a State by an [`Entry`]. Rows are
//! in a persistent [`Table`](crate::table::Table), so that readers hold a State while the committer prepares the next one.

mod apply;
mod cmd;
mod data;
mod decide;
mod decision;
mod diff;
mod entry;
mod erase;
mod former;
mod motion;
mod news;
mod op;
mod read;
mod reconcile;
mod row_versions;
mod settle;
mod statements;
mod versions;

#[cfg(test)]
mod tests;

pub use cmd::{Answer, Cmd, Condition, Item, NewWrite, Upstream, UpstreamChange};
pub(crate) use data::NO_ROW;
pub use data::{Applied, BaseRow, CacheChange, Fold, Note, Rules, State};
pub use decision::{Decision, Outcome, check_size};
pub use diff::{confirmed, confirmed_at, diff, may_change, missing};
pub use entry::{
    Base, BulkRow, COLUMN_CLOCK, Cause, Entry, FeedMark, Frame, Many, OpChange, Origin, Versions, Visible,
};
pub use erase::Eraser;
pub use former::Former;
pub use op::{Assumed, Effect, Op, OpError, OpId, OpState};
pub use row_versions::Stamped;
