//! `/webhooks/{hook}`: changes reported by upstream systems.
//!
//! A delivery is received (`receive.rs`; handshakes: `handshake.rs`) and applied by a task of its Dio, which outlives the
//! connection (`work.rs`). It is stored for inspection and replay (`deliveries.rs`). A 2xx response means that the delivery is
//! durable: applied, a duplicate, or in the journal, from which it is applied even after a restart.

mod body;
pub(crate) mod deliveries;
mod find;
mod handshake;
pub(crate) mod hook;
mod raw;
pub(crate) mod receive;
mod report;
pub mod trial;
mod work;

pub use deliveries::describe_whole;
pub(crate) use deliveries::{delivery, list, replay};
pub(crate) use handshake::{challenge, options};
pub use hook::{Hook, HookOptions};
pub(crate) use receive::receive;
pub(crate) use work::recover;
