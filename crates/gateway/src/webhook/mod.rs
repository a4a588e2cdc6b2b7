//! `/webhooks/{hook}`: what upstream systems say has changed.
//!
//! A delivery is received (`receive.rs`; handshakes: `handshake.rs`), applied by a task of its Dio that outlives an impatient
//! sender (`work.rs`), and kept, to be looked at and applied again (`deliveries.rs`). A 2xx means durable: applied, known
//! already, or in the journal and going to be applied, also by the next process.

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
