//! Trial of a delivery: its changes are applied, one by one, to a private Dio.

use super::hook::Hook;
use super::work;
use diorama_core::dio::{Dio, DioEvent};
use diorama_core::journal::Delivery;
use diorama_core::vista::Result;
use diorama_inbound::{Change, DecodedDelivery, ItemError};

/// Result of one change of a delivery.
#[derive(Debug)]
pub struct Trial {
    /// Change that was decoded.
    pub change: Change,
    /// Result that the sender would get.
    pub delivery: Delivery,
    /// Events that subscribers would get.
    pub events: Vec<DioEvent>,
}

/// Applies the changes of a delivery to `dio` as a POST would, but each on its own. Returns the result of each change, or the
/// error of one that cannot be decoded.
///
/// # Errors
/// As [`Dio::deliver`].
pub async fn run(
    hook: &Hook,
    dio: &Dio,
    decoded: DecodedDelivery,
) -> Result<Vec<std::result::Result<Trial, ItemError>>> {
    let mut trials = Vec::with_capacity(decoded.changes.len());
    let mut bus = dio.subscribe_events();
    for change in decoded.changes {
        let change = match change {
            Ok(change) => change,
            Err(error) => {
                trials.push(Err(error));
                continue;
            }
        };
        let alone = DecodedDelivery { changes: vec![Ok(change.clone())], ..DecodedDelivery::default() };
        let batch = work::delivery_batch(hook, work::new_delivery(hook), (None, &[]), alone, true);
        let delivery = dio.deliver(&batch).await?;
        let events = std::iter::from_fn(|| bus.try_recv()).collect();
        trials.push(Ok(Trial { change, delivery, events }));
    }
    Ok(trials)
}
