//! Sources of change that are not HTTP: what they send goes the way of a webhook's deliveries.
//!
//! A feed is a task of its Dio, which joins it when it is closed. It is at least once: after every gap that the sender cannot
//! fill the source is read again, so a lost message is a late one.

mod frames;
mod ws;

pub use ws::{FeedFormat, WsFeed};
