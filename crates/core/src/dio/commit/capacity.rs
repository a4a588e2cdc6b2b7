//! Capacity of the write queue: number and bytes of the operations that may wait at a time.
//!
//! Places are given out in the order in which writers request them. A place belongs to the writer until its operation is
//! in the queue, then to the operation until it has left the queue.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

use crate::state::State;
use crate::vista::{Error, Result};

/// Semaphores that bound one Dio's queue.
#[derive(Debug)]
pub(crate) struct QueueCapacity {
    places: Resource,
    bytes: Resource,
    /// True if parked operations take places, too.
    with_parked: bool,
}

/// Place and bytes that a writer holds until its command is answered.
#[derive(Debug, Default)]
pub(crate) struct QueuePermit {
    place: Option<OwnedSemaphorePermit>,
    bytes: Option<OwnedSemaphorePermit>,
}

impl QueuePermit {
    /// Hands the permit over to the operation that is in the queue now, and returns its size.
    pub(crate) fn keep(&mut self) -> QueueUsage {
        let keep = |permit: Option<OwnedSemaphorePermit>| {
            permit.map_or(0, |permit| {
                let count = permit.num_permits();
                permit.forget();
                count
            })
        };
        QueueUsage { count: keep(self.place.take()), bytes: keep(self.bytes.take()) }
    }
}

/// Places and bytes that belong to operations in the queue.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct QueueUsage {
    count: usize,
    bytes: usize,
}

impl std::ops::AddAssign for QueueUsage {
    fn add_assign(&mut self, other: QueueUsage) {
        self.count += other.count;
        self.bytes += other.bytes;
    }
}

/// Semaphore of one bounded resource: places or bytes.
#[derive(Debug)]
struct Resource {
    free: Arc<Semaphore>,
    capacity: usize,
    /// Permits that belong to operations in the queue.
    in_use: Mutex<usize>,
}

impl Resource {
    fn new(capacity: usize) -> Resource {
        let capacity = capacity.clamp(1, Semaphore::MAX_PERMITS);
        Resource { free: Arc::new(Semaphore::new(capacity)), capacity, in_use: Mutex::new(0) }
    }

    /// `count` limited to the capacity, so that a single request always fits.
    fn share(&self, count: usize) -> u32 {
        u32::try_from(count.min(self.capacity)).unwrap_or(u32::MAX)
    }

    fn try_take(&self, count: usize) -> Result<OwnedSemaphorePermit> {
        Arc::clone(&self.free).try_acquire_many_owned(self.share(count)).map_err(|_| Error::QueueFull)
    }

    async fn take(&self, count: usize) -> Result<OwnedSemaphorePermit> {
        Arc::clone(&self.free).acquire_many_owned(self.share(count)).await.map_err(|_| Error::Closed)
    }

    /// Adjusts the free permits to a queue that takes up `used`, of which writers have handed over `kept`.
    ///
    /// Operations of callbacks and recovered operations come without a permit. Permits for them are taken as soon as they
    /// are free.
    fn settle(&self, kept: usize, used: usize) {
        let mut in_use = self.in_use.lock();
        *in_use += kept;
        let used = used.min(self.capacity);
        if *in_use > used {
            self.free.add_permits(*in_use - used);
            *in_use = used;
        } else if *in_use < used {
            *in_use += self.free.forget_permits(used - *in_use);
        }
    }
}

impl QueueCapacity {
    pub(crate) fn new(capacity: usize, bytes: usize, with_parked: bool) -> QueueCapacity {
        QueueCapacity { places: Resource::new(capacity), bytes: Resource::new(bytes), with_parked }
    }

    /// Takes a place for an operation of `size` bytes without waiting.
    ///
    /// # Errors
    /// [`Error::QueueFull`].
    pub(crate) fn try_take(&self, size: usize) -> Result<QueuePermit> {
        let bytes = self.bytes.try_take(size)?;
        Ok(QueuePermit { place: Some(self.places.try_take(1)?), bytes: Some(bytes) })
    }

    /// Takes a place for an operation of `size` bytes; waits until there is one.
    pub(crate) async fn take(&self, size: usize, closing: &CancellationToken) -> Result<QueuePermit> {
        let taking = async {
            let place = self.places.take(1).await?;
            Ok(QueuePermit { place: Some(place), bytes: Some(self.bytes.take(size).await?) })
        };
        tokio::select! {
            taken = taking => taken,
            () = closing.cancelled() => Err(Error::Closed),
        }
    }

    /// Takes only the bytes of a callback's own write. A place is not required, because the operations in the queue may wait
    /// for that callback.
    pub(crate) fn try_take_bytes(&self, size: usize) -> Result<QueuePermit> {
        Ok(QueuePermit { place: None, bytes: Some(self.bytes.try_take(size)?) })
    }

    /// Number of places that are free now.
    pub(crate) fn free(&self) -> usize {
        self.places.free.available_permits()
    }

    /// Adjusts the free places to the queue of `state`, the published State. Writers have handed over `kept` since the
    /// last call.
    pub(crate) fn settle(&self, kept: QueueUsage, state: &State) {
        let (mut count, mut bytes) = state.backlog();
        if self.with_parked {
            let parked = state.parked();
            (count, bytes) = (count + parked.0, bytes + parked.1);
        }
        self.places.settle(kept.count, count);
        self.bytes.settle(kept.bytes, bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_free_again_when_its_operation_has_left_the_queue() {
        let places = Resource::new(3);
        let first = places.try_take(1).unwrap();
        first.forget();
        places.settle(1, 1);
        assert_eq!(places.free.available_permits(), 2);
        places.settle(0, 0);
        assert_eq!(places.free.available_permits(), 3);
    }

    #[test]
    fn operations_without_a_place_take_the_next_free_ones() {
        let places = Resource::new(2);
        let writer = places.try_take(1).unwrap();
        places.settle(0, 5);
        assert_eq!(places.free.available_permits(), 0, "recovered operations fill the queue");
        drop(writer);
        assert!(places.try_take(1).is_ok(), "the place is free until the next adjustment");
        places.settle(0, 4);
        assert!(places.try_take(1).is_err());
        places.settle(0, 1);
        assert_eq!(places.free.available_permits(), 1);
    }

    #[test]
    fn one_operation_larger_than_the_bound_still_fits_an_empty_queue() {
        let bytes = Resource::new(100);
        let taken = bytes.try_take(1_000).unwrap();
        assert_eq!(taken.num_permits(), 100);
        taken.forget();
        bytes.settle(100, 1_000);
        assert_eq!(bytes.free.available_permits(), 0);
        bytes.settle(0, 0);
        assert_eq!(bytes.free.available_permits(), 100);
    }
}
