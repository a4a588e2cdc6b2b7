//! [`Dio`]: a Vista bound to a Lens. Owns the rows in memory, the write queue, the event log and the refresh task.
//!
//! All changes of a Dio pass through one committer (`commit/turn.rs`), in one order. The other files send it commands:
//! `commit/write.rs` for users, `deliver/worker.rs` for the master's answers, `sync/refresh.rs` for lists of the master,
//! `sync/ingest.rs` for upstream events, `sync/cache.rs` for the program's own statements.
//!
//! Each folder uses only those before it: `events/`, `commit/`, `deliver/`, `sync/`; `read/` uses the first two. The
//! files here are shared: `Core`, commands, callbacks, the handle.

mod api;
mod backoff;
mod callbacks;
mod clock;
mod commit;
mod core;
mod counters;
mod deliver;
mod events;
mod guard;
mod handle;
mod open;
mod read;
mod scope;
mod settings;
mod status;
mod submission;
mod sync;
mod tasks;
mod weak;

pub use callbacks::{ChunkRequest, ChunkSink, QueryRoute};
pub use commit::mark::FeedMark;
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
pub use events::ring::{CursorRead, Ring, RingItem, RingObserver, RingPlace, RowBefore};
pub use events::ring::{EventReceiver, RingLimits};
pub use handle::Dio;
pub(crate) use handle::Handle;
pub use read::freshness::Freshness;
pub use read::workers::Workers;
pub use settings::{BreakerLimits, OnUnknown, Retry, Settings, WriteOrder, WriteRoute};
pub use status::{BlockingWrite, Status};
pub use sync::cache::DioCache;
pub use sync::feed::{FeedLag, FeedMeter, FeedStatus};
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
pub(crate) use callbacks::{Callbacks, boxed_callback, boxed_callback_with};
pub use clock::now;
pub(crate) use commit::committer::Committer;
pub use open::at_rest;
pub(crate) use open::{Surroundings, check_memory_log, open};
pub(crate) use read::coverage::Coverage;
pub(crate) use read::view::{Route, StandingView};
pub use sync::bucket::Bucket;
