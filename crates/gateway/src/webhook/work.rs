//! Tasks that apply deliveries. Their Dio owns them, so they continue after the sender has disconnected or got a 202.

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use axum::http::{Method, Uri};
use jiff::Timestamp;
use sha2::{Digest as _, Sha256};
use tokio::sync::OwnedSemaphorePermit;

use super::hook::Hook;
use super::raw;
use crate::http::budget::Lease;
use crate::state::GatewayState;
use diorama_core::dio::{Backoff, DeliveryBatch, Dio, Inbound};
use diorama_core::journal::{Changes, Delivery, DeliveryId, DeliveryQuery, DeliveryState, RawRequest, StoredDelivery};
use diorama_core::state::Origin;
use diorama_core::vista::{Error, Result};
use diorama_inbound::{self as inbound, DecodeError, DecodedDelivery};

/// Initial backoff between attempts to apply an acknowledged delivery.
const REST: Duration = Duration::from_millis(250);
/// Maximum backoff between attempts to apply an acknowledged delivery.
const LONGEST_REST: Duration = Duration::from_secs(30);
/// Maximum number of attempts. Failures of the journal are retried without limit.
const ATTEMPTS: u32 = 8;

/// State of the response to the sender: pending, acknowledged, or ended with an error.
#[derive(Debug, Default)]
pub(super) struct Acknowledgement(AtomicU8);

const WAITS: u8 = 0;
const ACKNOWLEDGED: u8 = 1;
const ENDED: u8 = 2;

impl Acknowledgement {
    /// State of a delivery that an earlier process has acknowledged.
    fn acknowledged() -> Acknowledgement {
        Acknowledgement(AtomicU8::new(ACKNOWLEDGED))
    }

    /// Marks the delivery as acknowledged; returns false if it has already failed.
    pub(super) fn acknowledge(&self) -> bool {
        self.0.compare_exchange(WAITS, ACKNOWLEDGED, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    /// Returns true if the sender gets an error.
    pub(super) fn has_ended(&self) -> bool {
        self.0.load(Ordering::Acquire) == ENDED
    }

    /// Marks the delivery as failed for the sender; returns false if it was acknowledged.
    fn end(&self) -> bool {
        self.0.compare_exchange(WAITS, ENDED, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }
}

/// Task that applies one delivery.
pub(super) struct Job {
    pub(super) dio: Dio,
    pub(super) hook: Arc<Hook>,
    pub(super) batch: DeliveryBatch,
    pub(super) acknowledgement: Arc<Acknowledgement>,
    /// Permit of the webhook's limit on concurrent deliveries.
    pub(super) permit: Option<OwnedSemaphorePermit>,
    pub(super) applying: Option<ApplyingGuard>,
    /// Lease of its memory; `None` for a delivery that an earlier process has acknowledged.
    pub(super) memory: Option<Lease>,
}

/// Guard against applying two deliveries with the same id concurrently.
pub(super) struct ApplyingGuard(Arc<Hook>, String);

impl ApplyingGuard {
    /// Begins a delivery; `None` if one with this id is being applied.
    pub(super) fn begin(hook: &Arc<Hook>, key: &str) -> Option<ApplyingGuard> {
        let new = hook.intake.applying.lock().insert(key.to_string());
        new.then(|| ApplyingGuard(Arc::clone(hook), key.to_string()))
    }
}

impl Drop for ApplyingGuard {
    fn drop(&mut self) {
        self.0.intake.applying.lock().remove(&self.1);
    }
}

impl Job {
    /// Applies the delivery. Before the acknowledgement, a failure is returned to the sender, who repeats the delivery. After it,
    /// the task retries.
    pub(super) async fn run(mut self) -> Result<Delivery> {
        let mut backoff = Backoff::new(REST, LONGEST_REST);
        loop {
            let error = match self.dio.deliver(&self.batch).await {
                Ok(delivery) => return self.finish(delivery).await,
                Err(error) => error,
            };
            self.batch.delivery.attempts += 1;
            if self.acknowledgement.end() {
                self.note_failure(&error);
                return Err(error);
            }
            let stored = !matches!(error, Error::Storage { .. } | Error::OutcomeUnknown { .. });
            if matches!(error, Error::Closed) {
                return Err(error);
            }
            if stored && self.batch.delivery.attempts >= ATTEMPTS {
                if let Some(left_out) = self.hook.intake.lines.pass("failed") {
                    let (webhook, delivery) = (&self.hook.name, self.batch.delivery.id);
                    tracing::warn!(webhook, %delivery, %error, left_out, "an acknowledged delivery could not be applied; replay it");
                }
                self.note_failure(&error);
                return Err(error);
            }
            tokio::select! {
                () = tokio::time::sleep(backoff.rest()) => {}
                () = self.dio.closing() => return Err(Error::Closed),
            }
        }
    }

    /// Stores a delivery that could not be decoded, unless the sender still waits and gets an error for it.
    async fn finish(self, delivery: Delivery) -> Result<Delivery> {
        if delivery.state == DeliveryState::Undecodable
            && !(self.acknowledgement.end() && self.hook.options.reject_undecodable)
        {
            self.dio.keep_delivery(StoredDelivery { delivery: delivery.clone(), raw: self.batch.raw }).await?;
        }
        drop((self.permit, self.applying, self.memory));
        Ok(delivery)
    }

    fn note_failure(&self, error: &Error) {
        let state = DeliveryState::Failed;
        let delivery =
            Delivery { state, detail: Some(error.to_string()), updated: now(), ..self.batch.delivery.clone() };
        self.dio.keep_delivery_later(delivery, self.batch.raw.clone());
    }
}

/// Builds the batch of changes that were decoded from the body of `delivery`. `again` is true for a replay.
pub(super) fn delivery_batch(
    hook: &Hook,
    delivery: Delivery,
    (raw, body): (Option<RawRequest>, &[u8]),
    decoded: DecodedDelivery,
    again: bool,
) -> DeliveryBatch {
    let DecodedDelivery { changes, ignored, why, .. } = decoded;
    let (mut skipped, mut wrong, mut right) = (0, None, Vec::with_capacity(changes.len()));
    let clock = hook.clock();
    for change in changes {
        match change {
            Ok(change) => right.push(Inbound {
                event: change.event,
                version: change.version,
                clock: Some(Arc::clone(&clock)),
                partial: change.partial,
                delivery: change.delivery,
                origin: Origin::Webhook,
                coercion: change.coercion,
                in_order: false,
            }),
            Err(error) => {
                skipped += 1;
                wrong.get_or_insert(error.to_string());
            }
        }
    }
    let same = (delivery.key.is_none() && right.iter().all(|change| change.delivery.is_none())).then(|| {
        let mut hash = Hash(Sha256::new_with_prefix(body));
        // The decoded changes are hashed too, because headers affect decoding. The hash is used for a few minutes only, so the
        // debug format is stable enough.
        let _ = write!(hash, "{right:?}");
        hash.0.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
    });
    let ignored = ignored as u64;
    let changes = Changes { received: ignored + skipped, ignored, skipped, ..Changes::default() };
    let delivery = Delivery { changes, detail: wrong.or(why), ..delivery };
    let abort = hook.inbound.aborts_on_item_error();
    DeliveryBatch { delivery, raw, changes: right, abort, again, same, mark: None }
}

/// Hash that implements [`std::fmt::Write`].
struct Hash(Sha256);

impl std::fmt::Write for Hash {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        self.0.update(text.as_bytes());
        Ok(())
    }
}

/// Decodes a stored delivery with the current configuration of the webhook.
pub(super) fn decode_kept(
    hook: &Hook,
    dio: &Dio,
    raw: &RawRequest,
) -> std::result::Result<DecodedDelivery, DecodeError> {
    let headers = raw::headers(raw);
    let uri: Uri = raw.uri.parse().unwrap_or_default();
    let request = inbound::Request {
        method: &Method::POST,
        path: uri.path(),
        query: uri.query(),
        headers: &headers,
        body: &raw.body,
        now: Timestamp::now(),
    };
    hook.inbound.decode_kept(&request, &dio.schema())
}

/// Starts to apply the deliveries that earlier processes have acknowledged, in the order of their receipt.
pub(crate) fn recover(gateway: &GatewayState) {
    let known: Vec<String> = gateway.hooks.values().map(|hook| hook.name.clone()).collect();
    for resource in gateway.dios.values().filter(|resource| resource.dio.inbox().received > 0) {
        drop(resource.dio.run(warn_about_orphans(resource.dio.clone(), known.clone())));
    }
    for hook in gateway.hooks.values() {
        if let Some(resource) = gateway.dios.get(hook.dio.as_str()).filter(|resource| resource.dio.inbox().received > 0)
        {
            let (hook, dio) = (Arc::clone(hook), resource.dio.clone());
            // The Dio owns the task and waits for it when it closes.
            drop(resource.dio.run(async move {
                if let Err(error) = recover_hook(&hook, &dio).await {
                    tracing::error!(webhook = hook.name, %error, "acknowledged deliveries could not be read; they wait for the next start");
                }
            }));
        }
    }
}

/// Logs a warning if acknowledged deliveries wait for a webhook that is not configured any more.
async fn warn_about_orphans(dio: Dio, known: Vec<String>) {
    let query = DeliveryQuery { states: vec![DeliveryState::Received], limit: usize::MAX, ..DeliveryQuery::default() };
    let waiting = dio.deliveries(&query).await.map_or(Vec::new(), |(waiting, _)| waiting);
    let orphan =
        |delivery: &&Delivery| *delivery.dio == *dio.name() && !known.iter().any(|hook| **hook == *delivery.hook);
    let orphans: Vec<_> = waiting.iter().filter(orphan).collect();
    if let Some(first) = orphans.first() {
        let (webhook, count) = (&*first.hook, orphans.len());
        tracing::warn!(
            dio = dio.name(),
            webhook,
            count,
            "acknowledged deliveries wait for a webhook that is not configured"
        );
    }
}

async fn recover_hook(hook: &Arc<Hook>, dio: &Dio) -> Result<()> {
    let query = DeliveryQuery {
        hook: Some(hook.name.clone()),
        states: vec![DeliveryState::Received],
        limit: usize::MAX,
        ..DeliveryQuery::default()
    };
    let (waiting, _) = dio.deliveries(&query).await?;
    if waiting.is_empty() {
        return Ok(());
    }
    tracing::info!(
        webhook = hook.name,
        count = waiting.len(),
        "applying deliveries that were acknowledged before the restart"
    );
    tokio::select! {
        ready = dio.ready() => if ready.is_err() { return Ok(()) },
        () = dio.closing() => return Ok(()),
    }
    for delivery in waiting.into_iter().rev() {
        let Some((delivery, raw)) = dio.delivery(delivery.id).await? else { continue };
        if let Err(Error::Closed) = recover_one(hook, dio, delivery, &raw).await {
            return Ok(());
        }
    }
    Ok(())
}

/// Applies one acknowledged delivery. The job itself stores a failure.
async fn recover_one(hook: &Arc<Hook>, dio: &Dio, delivery: Delivery, raw: &RawRequest) -> Result<()> {
    let applying = delivery.key.as_deref().and_then(|key| ApplyingGuard::begin(hook, key));
    let decoded = match decode_kept(hook, dio, raw) {
        Ok(decoded) => decoded,
        Err(error) => {
            return dio.keep_delivery(StoredDelivery { delivery: undecodable(delivery, &error), raw: None }).await;
        }
    };
    let batch = delivery_batch(hook, delivery, (None, &raw.body), decoded, false);
    let (hook, dio, acknowledgement) = (Arc::clone(hook), dio.clone(), Arc::new(Acknowledgement::acknowledged()));
    Job { dio, hook, batch, acknowledgement, permit: None, applying, memory: None }.run().await.map(drop)
}

/// Creates the record of a delivery to `hook`, without changes and stored size.
pub(super) fn new_delivery(hook: &Hook) -> Delivery {
    let now = now();
    Delivery {
        id: DeliveryId::new(),
        hook: hook.name.as_str().into(),
        dio: hook.dio.as_str().into(),
        key: None,
        state: DeliveryState::Received,
        changes: Changes::default(),
        detail: None,
        attempts: 0,
        received: now,
        updated: now,
        size: 0,
        outgoing: None,
    }
}

/// Marks `delivery` as undecodable because of `error`.
pub(super) fn undecodable(delivery: Delivery, error: &DecodeError) -> Delivery {
    Delivery { state: DeliveryState::Undecodable, detail: Some(error.to_string()), updated: now(), ..delivery }
}

pub(super) fn now() -> u64 {
    u64::try_from(Timestamp::now().as_millisecond()).unwrap_or(0)
}
