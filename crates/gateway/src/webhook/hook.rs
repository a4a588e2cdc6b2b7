//! Webhook: verification and decoding of its deliveries, its options, and the state of deliveries in progress.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Semaphore;

use diorama_core::dio::Bucket;
use diorama_core::vista::LogLimit;
use diorama_inbound as inbound;

/// Webhook that feeds a Dio.
#[derive(Clone, Debug)]
pub struct Hook {
    /// Name in the path `/webhooks/{name}`.
    pub name: String,
    /// Name of the Dio that it feeds.
    pub dio: String,
    /// Verification and decoding of deliveries.
    pub inbound: inbound::Hook,
    pub(super) options: HookOptions,
    pub(super) intake: Arc<Intake>,
}

/// Limits and policies of one webhook.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HookOptions {
    /// Maximum number of deliveries in a second; more are refused with 429 (default: 5,000).
    pub rate: u32,
    /// Maximum number of deliveries that are applied concurrently (default: 256).
    pub in_hand: usize,
    /// Time after which a delivery is answered with 202, once it is in the journal (default: 1.5 s).
    pub answer_within: Duration,
    /// Refuses deliveries that cannot be decoded, instead of storing them (default: false).
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

/// State of the deliveries in progress.
#[derive(Debug)]
pub(super) struct Intake {
    pub(super) bucket: Bucket,
    pub(super) permits: Arc<Semaphore>,
    /// Senders' ids of the deliveries in progress.
    pub(super) applying: Mutex<HashSet<String>>,
    /// Topics whose subscriptions need a manual confirmation, with the URLs.
    pub(super) confirmations: Mutex<Vec<(String, String)>>,
    /// Rate limiter of the log lines that senders can cause.
    pub(super) lines: LogLimit<&'static str>,
}

impl Hook {
    /// Creates a webhook with default options.
    pub fn new(name: impl Into<String>, dio: impl Into<String>, inbound: inbound::Hook) -> Hook {
        let options = HookOptions::default();
        Hook { name: name.into(), dio: dio.into(), inbound, options, intake: Arc::new(Intake::new(options)) }
    }

    /// Clock of the sender's versions: the configured one, or the name of the webhook.
    pub(crate) fn clock(&self) -> Arc<str> {
        self.inbound.clock().map_or_else(|| self.name.as_str().into(), Arc::clone)
    }

    /// Replaces the options.
    #[must_use]
    pub fn with(self, options: HookOptions) -> Hook {
        Hook { options, intake: Arc::new(Intake::new(options)), ..self }
    }
}

impl Intake {
    fn new(options: HookOptions) -> Intake {
        Intake {
            bucket: Bucket::new(options.rate),
            permits: Arc::new(Semaphore::new(options.in_hand.clamp(1, Semaphore::MAX_PERMITS))),
            applying: Mutex::default(),
            confirmations: Mutex::default(),
            lines: LogLimit::default(),
        }
    }
}
