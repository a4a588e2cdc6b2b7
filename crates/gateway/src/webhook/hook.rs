//! A webhook: how its deliveries are verified and read, and what of them is under way.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Semaphore;

use diorama_core::dio::Bucket;
use diorama_core::vista::LogLimit;
use diorama_inbound as inbound;

/// A webhook.
#[derive(Clone, Debug)]
pub struct Hook {
    /// Its name, as in `/webhooks/{name}`.
    pub name: String,
    /// The Dio it feeds.
    pub dio: String,
    /// How its deliveries are verified and what they mean.
    pub inbound: inbound::Hook,
    pub(super) options: HookOptions,
    pub(super) intake: Arc<Intake>,
}

/// Bounds and policies of one webhook.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HookOptions {
    /// Deliveries in a second, at most; more are told to come again (default: 5,000).
    pub rate: u32,
    /// Deliveries that are being applied at a time, at most (default: 256).
    pub in_hand: usize,
    /// A delivery that takes longer is answered 202 once it is in the journal (default: 1.5 s).
    pub answer_within: Duration,
    /// Whether what cannot be understood is refused instead of parked (default: no).
    pub reject_undecodable: bool,
}

impl Default for HookOptions {
    fn default() -> Self {
        HookOptions {
            rate: 5_000,
            in_hand: 256,
            answer_within: Duration::from_millis(1_500),
            reject_undecodable: false,
        }
    }
}

/// What is under way.
#[derive(Debug)]
pub(super) struct Intake {
    pub(super) bucket: Bucket,
    pub(super) hands: Arc<Semaphore>,
    /// Senders' ids of the deliveries that are being applied.
    pub(super) applying: Mutex<HashSet<String>>,
    /// Topics whose subscriptions a person is to confirm, and where.
    pub(super) confirmations: Mutex<Vec<(String, String)>>,
    /// Bounds the lines that senders can cause.
    pub(super) lines: LogLimit<&'static str>,
}

impl Hook {
    /// A hook with default options.
    pub fn new(name: impl Into<String>, dio: impl Into<String>, inbound: inbound::Hook) -> Hook {
        let options = HookOptions::default();
        Hook { name: name.into(), dio: dio.into(), inbound, options, intake: Arc::new(Intake::new(options)) }
    }

    /// The clock of its sender's versions: its own, unless it is set up to have another.
    pub(crate) fn clock(&self) -> Arc<str> {
        self.inbound.clock().map_or_else(|| self.name.as_str().into(), Arc::clone)
    }

    /// The same with these options.
    #[must_use]
    pub fn with(self, options: HookOptions) -> Hook {
        Hook { options, intake: Arc::new(Intake::new(options)), ..self }
    }
}

impl Intake {
    fn new(options: HookOptions) -> Intake {
        Intake {
            bucket: Bucket::new(options.rate),
            hands: Arc::new(Semaphore::new(options.in_hand.clamp(1, Semaphore::MAX_PERMITS))),
            applying: Mutex::default(),
            confirmations: Mutex::default(),
            lines: LogLimit::default(),
        }
    }
}
