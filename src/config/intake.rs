//! How webhooks take deliveries, what is kept of them, and of events.

use std::time::Duration;

use super::value::Reader;

/// Of `[webhook.NAME]`, what is not about their meaning.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IntakeSpec {
    /// Deliveries in a second.
    pub rate: Option<u32>,
    /// Deliveries that are being applied at a time.
    pub in_hand: Option<usize>,
    /// After which time a delivery is acknowledged that is still being applied.
    pub answer_within: Option<Duration>,
    /// Whether what cannot be understood is refused instead of kept.
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

/// `lens.inbox`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct InboxSpec {
    /// Deliveries that are kept.
    pub count: Option<usize>,
    /// Their bytes.
    pub bytes: Option<usize>,
    /// For how long.
    pub age: Option<Duration>,
    /// Idempotency keys and ids of deliveries that are remembered.
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

/// `lens.events`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EventsSpec {
    /// Events of each Dio that the journal keeps.
    pub count: Option<usize>,
    /// Their bytes.
    pub bytes: Option<usize>,
    /// For how long.
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
