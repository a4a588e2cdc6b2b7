//! The doubles of HTTP APIs do what the documentation of the APIs says.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on ends")]

mod access;
mod client;
mod faults;
mod kinds;
mod limits;
mod paging;
mod reads;
mod writes;
