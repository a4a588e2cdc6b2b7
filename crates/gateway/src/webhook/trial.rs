//! Deliveries that are tried out: applied, change by change, to a Dio that nobody else sees.

use super::hook::Hook;
use super::work;
use diorama_core::dio::{Dio, DioEvent};
use diorama_core::journal::Delivery;
use diorama_core::vista::Result;
use diorama_inbound::{Change, DecodedDelivery, ItemError};

/// What one change of a delivery came to.
#[derive(Debug)]
pub struct Trial {
    /// The change, in the words of a delivery.
    pub change: Change,
    /// What the sender would be told of it.
    pub delivery: Delivery,
    /// What subscribers would be told.
    pub events: Vec<DioEvent>,
}

/// Applies the changes of a delivery to `dio` as a POST would, each by itself; gives what became of it, or why it is not
/// understood.
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
        let parcel = work::parcel(hook, work::unkept(hook), (None, &[]), alone, true);
        let delivery = dio.deliver(&parcel).await?;
        let events = std::iter::from_fn(|| bus.try_recv()).collect();
        trials.push(Ok(Trial { change, delivery, events }));
    }
    Ok(trials)
}
