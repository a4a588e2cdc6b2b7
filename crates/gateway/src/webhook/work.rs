//! Applying deliveries: tasks of their Dio, which go on when the sender has gone or was told 202.

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

/// Between two attempts to apply what was acknowledged, at first and at most.
const REST: Duration = Duration::from_millis(250);
const LONGEST_REST: Duration = Duration::from_secs(30);
/// Attempts, unless it is the journal that fails.
const ATTEMPTS: u32 = 8;

/// Whether the sender still waits for a word.
#[derive(Debug, Default)]
pub(super) struct Acknowledgement(AtomicU8);

const WAITS: u8 = 0;
const ACKNOWLEDGED: u8 = 1;
const ENDED: u8 = 2;

impl Acknowledgement {
    /// For a delivery that was acknowledged by an earlier process.
    fn before() -> Acknowledgement {
        Acknowledgement(AtomicU8::new(ACKNOWLEDGED))
    }

    /// The sender is going to be told that it will be applied; `false` if it has just failed.
    pub(super) fn acknowledge(&self) -> bool {
        self.0.compare_exchange(WAITS, ACKNOWLEDGED, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    /// Whether the sender will be told of a failure.
    pub(super) fn has_ended(&self) -> bool {
        self.0.load(Ordering::Acquire) == ENDED
    }

    /// The sender is going to be told of a failure; `false` if it was acknowledged.
    fn end(&self) -> bool {
        self.0.compare_exchange(WAITS, ENDED, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }
}

/// A delivery that is being applied.
pub(super) struct Job {
    pub(super) dio: Dio,
    pub(super) hook: Arc<Hook>,
    pub(super) parcel: DeliveryBatch,
    pub(super) told: Arc<Acknowledgement>,
    /// Its place among those of the hook.
    pub(super) hand: Option<OwnedSemaphorePermit>,
    pub(super) applying: Option<ApplyingGuard>,
    /// The memory that it takes; none for what an earlier process acknowledged.
    pub(super) memory: Option<Lease>,
}

/// Keeps a second delivery with the same id waiting for the first.
pub(super) struct ApplyingGuard(Arc<Hook>, String);

impl ApplyingGuard {
    /// `None` if a delivery with this id is being applied.
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
    /// Applies the delivery. Until the sender is acknowledged a failure is the sender's to repeat; afterwards it is ours.
    pub(super) async fn run(mut self) -> Result<Delivery> {
        let mut backoff = Backoff::new(REST, LONGEST_REST);
        loop {
            let error = match self.dio.deliver(&self.parcel).await {
                Ok(delivery) => return self.applied(delivery).await,
                Err(error) => error,
            };
            self.parcel.delivery.attempts += 1;
            if self.told.end() {
                self.note_failure(&error);
                return Err(error);
            }
            let stored = !matches!(error, Error::Storage { .. } | Error::OutcomeUnknown { .. });
            if matches!(error, Error::Closed) {
                return Err(error);
            }
            if stored && self.parcel.delivery.attempts >= ATTEMPTS {
                if let Some(left_out) = self.hook.intake.lines.pass("failed") {
                    let (webhook, delivery) = (&self.hook.name, self.parcel.delivery.id);
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

    /// What nobody waits for any more is stored here, whatever it came to.
    async fn applied(self, delivery: Delivery) -> Result<Delivery> {
        if delivery.state == DeliveryState::Undecodable && !(self.told.end() && self.hook.options.reject_undecodable) {
            self.dio.keep_delivery(StoredDelivery { delivery: delivery.clone(), raw: self.parcel.raw }).await?;
        }
        drop((self.hand, self.applying, self.memory));
        Ok(delivery)
    }

    fn note_failure(&self, error: &Error) {
        let state = DeliveryState::Failed;
        let delivery =
            Delivery { state, detail: Some(error.to_string()), updated: now(), ..self.parcel.delivery.clone() };
        self.dio.keep_delivery_later(delivery, self.parcel.raw.clone());
    }
}

/// The delivery `delivery` of which `decoded` was understood in `body`.
pub(super) fn parcel(
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
            }),
            Err(error) => {
                skipped += 1;
                wrong.get_or_insert(error.to_string());
            }
        }
    }
    let same = (delivery.key.is_none() && right.iter().all(|change| change.delivery.is_none())).then(|| {
        let mut hash = Hash(Sha256::new_with_prefix(body));
        // Headers have a say in what a body means. The words of a type's debug form are good for the few minutes of this hash.
        let _ = write!(hash, "{right:?}");
        hash.0.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
    });
    let ignored = ignored as u64;
    let changes = Changes { received: ignored + skipped, ignored, skipped, ..Changes::default() };
    let delivery = Delivery { changes, detail: wrong.or(why), ..delivery };
    DeliveryBatch { delivery, raw, changes: right, abort: hook.inbound.aborts_on_item_error(), again, same }
}

/// A hash that text can be written to.
struct Hash(Sha256);

impl std::fmt::Write for Hash {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        self.0.update(text.as_bytes());
        Ok(())
    }
}

/// Decodes a delivery that is kept, as the hook understands it now.
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

/// Has what earlier processes acknowledged applied, in the order of its receipt.
pub(crate) fn recover(gateway: &GatewayState) {
    let known: Vec<String> = gateway.hooks.values().map(|hook| hook.name.clone()).collect();
    for resource in gateway.dios.values().filter(|resource| resource.dio.inbox().received > 0) {
        drop(resource.dio.run(tell_orphans(resource.dio.clone(), known.clone())));
    }
    for hook in gateway.hooks.values() {
        if let Some(resource) = gateway.dios.get(hook.dio.as_str()).filter(|resource| resource.dio.inbox().received > 0)
        {
            let (hook, dio) = (Arc::clone(hook), resource.dio.clone());
            // The Dio owns the task: it waits for it when it is closed.
            drop(resource.dio.run(async move {
                if let Err(error) = recover_hook(&hook, &dio).await {
                    tracing::error!(webhook = hook.name, %error, "acknowledged deliveries wait for the next start");
                }
            }));
        }
    }
}

/// Says so if acknowledged deliveries wait for a webhook that is not configured any more.
async fn tell_orphans(dio: Dio, known: Vec<String>) {
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
    tracing::info!(webhook = hook.name, count = waiting.len(), "applying deliveries that were acknowledged before");
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

/// What cannot be applied is noted by the job itself.
async fn recover_one(hook: &Arc<Hook>, dio: &Dio, delivery: Delivery, raw: &RawRequest) -> Result<()> {
    let applying = delivery.key.as_deref().and_then(|key| ApplyingGuard::begin(hook, key));
    let decoded = match decode_kept(hook, dio, raw) {
        Ok(decoded) => decoded,
        Err(error) => {
            return dio.keep_delivery(StoredDelivery { delivery: undecodable(delivery, &error), raw: None }).await;
        }
    };
    let parcel = parcel(hook, delivery, (None, &raw.body), decoded, false);
    let (hook, dio, told) = (Arc::clone(hook), dio.clone(), Arc::new(Acknowledgement::before()));
    Job { dio, hook, parcel, told, hand: None, applying, memory: None }.run().await.map(drop)
}

/// A delivery to `hook` of which nothing is known, and of which nothing is to be kept.
pub(super) fn unkept(hook: &Hook) -> Delivery {
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
    }
}

/// `delivery` after `error`.
pub(super) fn undecodable(delivery: Delivery, error: &DecodeError) -> Delivery {
    Delivery { state: DeliveryState::Undecodable, detail: Some(error.to_string()), updated: now(), ..delivery }
}

pub(super) fn now() -> u64 {
    u64::try_from(Timestamp::now().as_millisecond()).unwrap_or(0)
}
