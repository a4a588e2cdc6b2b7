//! Code shared by brokers: a feed of the messages of a topic, and a route that sends writes as messages.
//!
//! A broker implements [`Broker`] and [`Subscription`] for its feed, [`Publisher`] for its route.

pub(crate) mod attribute;
mod feed;
mod route;
#[cfg(test)]
pub(crate) mod testing;
mod write_format;

pub(crate) use self::feed::{Broker, Place, StreamFeed, Subscription};
pub(crate) use self::route::{Publisher, StreamRoute};
#[cfg(feature = "mqtt")]
pub(crate) use self::write_format::OPERATION_HEADER;
pub(crate) use self::write_format::{OutMessage, WriteFormat};
