//! [`State`]: the rows and operations of a Dio, and their changes. Pure and synchronous: no disk, no network, no task.
//!
//! [`State::decide`] turns a [`Command`] into log entries or an error; [`State::apply`] changes a State by an [`Entry`]. Rows
//! are in a persistent [`Table`](crate::table::Table), so that readers keep a State while the committer prepares the next one.

mod apply;
mod command;
mod data;
mod decide;
mod decision;
mod diff;
mod entry;
mod erase;
mod former_row;
mod motion;
mod op;
mod read;
mod reconcile;
mod reported_row;
mod row_versions;
mod settle;
mod statements;
mod telling;
mod versions;

#[cfg(test)]
mod tests;

pub use command::{Answer, Command, Condition, NewWrite, Notice, ReadRow, UpstreamChange, UpstreamEvent};
pub(crate) use data::NO_ROW;
pub use data::{Applied, BaseRow, CacheChange, Fold, Note, Rules, State};
pub use decision::{Decision, Outcome, check_size};
pub use diff::{confirmed, confirmed_at, diff, may_change, missing};
pub use entry::{
    Base, BulkRow, BulkRows, COLUMN_CLOCK, Cause, Entry, Frame, OpChange, Origin, Versions, VisibleChange,
};
pub use erase::Eraser;
pub use former_row::FormerRow;
pub use op::{Assumption, Effect, Op, OpError, OpId, OpState};
pub use row_versions::EventVersion;
