//! [`Dio`]: a Vista bound to a Lens. Owns the rows in memory, the write queue, the event log and the refresh task.
//!
//! Everything that changes a Dio passes through one committer (`commit/turn.rs`), in one order; the other files send it commands:
//! `commit/write.rs` for users, `deliver/worker.rs` for the master's answers, `sync/refresh.rs` for what the master lists,
//! `sync/ingest.rs` for upstream events, `sync/cache.rs` for the program's own statements.
//!
//! Folders, each of which names only those before it: `events/`, `commit/`, `deliver/`, `sync/`; `read/` names the first two. The
//! files here are what they share: `Core`, commands, callbacks, the handle.

mod api;
mod backoff;
mod clock;
mod commit;
mod core;
mod counters;
mod deliver;
mod events;
mod guard;
mod handle;
mod hooks;
mod open;
mod read;
mod scope;
mod settings;
mod status;
mod submission;
mod sync;
mod tasks;
mod weak;

pub use commit::purge::{MOST_IDS, PurgeReport};
pub use commit::reconciled::Reconciled;
#[cfg(test)]
pub(crate) use commit::stage::PANICS;
pub use commit::write::{IdempotencyKey, Ticket, WriteOptions};
pub use counters::{Counters, Histogram, Times};
pub use deliver::breaker::{BreakerState, Reachability};
pub use deliver::operations::{Operation, OperationQuery, OperationState};
pub use events::event::{DioEvent, EventEntry, Position};
pub use events::log::EventLog;
#[doc(hidden)]
pub use events::log::PastEvents;
#[doc(hidden)]
pub use events::ring::{CursorRead, Ring, RingItem, RowBefore};
pub use events::ring::{EventReceiver, RingLimits};
pub use handle::Dio;
pub(crate) use handle::Handle;
pub use hooks::{ChunkRequest, ChunkSink, QueryRoute};
pub use read::aggregate::GroupIter;
pub use read::freshness::Freshness;
pub use read::workers::Workers;
pub use settings::{BreakerLimits, OnUnknown, Retry, Settings, WriteOrder, WriteRoute};
pub use status::{BlockingWrite, Status};
pub use sync::cache::DioCache;
pub use sync::feed::{FeedMeter, FeedStatus};
pub use sync::inbox::DeliveryBatch;
pub use sync::ingest::Inbound;
pub use sync::mismatch::{DroppedColumn, Mismatch};
pub use sync::report::RefreshReport;
pub use sync::whole_list::WholeList;
pub use weak::WeakDio;

#[doc(inline)]
pub use crate::state::{Condition, OpError, OpId, Origin};

pub(crate) use self::core::Core;
pub use backoff::Backoff;
pub use clock::now;
pub(crate) use commit::committer::Committer;
pub(crate) use hooks::{Hooks, hook, hook_with};
pub use open::at_rest;
pub(crate) use open::{Surroundings, check_memory_log, open};
pub(crate) use read::coverage::Coverage;
pub(crate) use read::view::{Route, StandingView};
pub use sync::bucket::Bucket;
