//! Access rules: which rows, columns and actions callers have, shown from the outside.

mod channels;
mod differential;
mod idempotency;
mod matrix;
pub(crate) mod world;
