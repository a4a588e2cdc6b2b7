//! Settings for the intake of deliveries, and for the storage of deliveries and events.

use std::time::Duration;

use super::value::Reader;

/// Intake settings of `[webhook.NAME]`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IntakeSpec {
    /// Maximum rate of deliveries per second.
    pub rate: Option<u32>,
    /// Maximum number of deliveries being applied at a time.
    pub in_hand: Option<usize>,
    /// Time after which a delivery is acknowledged while it is still being applied.
    pub answer_within: Option<Duration>,
    /// True to refuse deliveries that cannot be decoded instead of keeping them.
    pub reject_undecodable: bool,
}

impl IntakeSpec {
    pub(super) fn read(reader: &Reader<'_>) -> IntakeSpec {
        let rate = reader.count("rate", 1..=1_000_000).and_then(|rate| u32::try_from(rate).ok());
        let reject = reader.word("on_undecodable", &["park", "reject"]) == Some("reject");
        IntakeSpec {
            rate,
            in_hand: reader.count("in_hand", 1..=100_000),
            answer_within: reader.duration("answer_within"),
            reject_undecodable: reject,
        }
    }
}

/// Settings of `lens.inbox`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct InboxSpec {
    /// Maximum number of stored deliveries.
    pub count: Option<usize>,
    /// Maximum size in bytes.
    pub bytes: Option<usize>,
    /// Maximum age.
    pub age: Option<Duration>,
    /// Maximum number of remembered idempotency keys and delivery ids.
    pub claims: Option<usize>,
}

impl InboxSpec {
    pub(super) fn read(reader: Reader<'_>) -> InboxSpec {
        let spec = InboxSpec {
            count: reader.count("count", 1..=1_000_000),
            bytes: reader.size("bytes", 16 << 20..=4 << 30),
            age: reader.duration("age"),
            claims: reader.count("claims", 1_000..=1_000_000_000),
        };
        reader.finish();
        spec
    }
}

/// Settings of `lens.outbox`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OutboxSpec {
    /// Maximum number of stored deliveries.
    pub count: Option<usize>,
    /// Maximum size in bytes.
    pub bytes: Option<usize>,
    /// Maximum age of those that are not pending.
    pub age: Option<Duration>,
}

impl OutboxSpec {
    pub(super) fn read(reader: Reader<'_>) -> OutboxSpec {
        let spec = OutboxSpec {
            count: reader.count("count", 1..=1_000_000),
            bytes: reader.size("bytes", 1 << 20..=4 << 30),
            age: reader.duration("age"),
        };
        reader.finish();
        spec
    }
}

/// Settings of `lens.events`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EventsSpec {
    /// Maximum number of events in the journal for each Dio.
    pub count: Option<usize>,
    /// Maximum size in bytes.
    pub bytes: Option<usize>,
    /// Maximum age.
    pub age: Option<Duration>,
}

impl EventsSpec {
    pub(super) fn read(reader: Reader<'_>) -> EventsSpec {
        let spec = EventsSpec {
            count: reader.count("count", 1..=100_000_000),
            bytes: reader.size("bytes", 1 << 20..=1 << 40),
            age: reader.duration("age"),
        };
        reader.finish();
        spec
    }
}
