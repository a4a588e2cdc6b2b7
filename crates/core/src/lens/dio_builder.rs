//! Builder of a Dio with its own callbacks or settings.

use std::future::Future;
use std::time::Duration;

use super::Lens;
use super::callbacks::callbacks;
use crate::dio::{Callbacks, ChunkRequest, ChunkSink, Dio, QueryRoute, Settings, boxed_callback, boxed_callback_with};
use crate::vista::{ChangeEvent, Query, Result, Vista, WriteOp};

/// Builder of a Dio with its own callbacks or settings: each one set here replaces that of the Lens.
///
/// ```
/// # use diorama_core::{Dio, Lens, Result, Vista, WriteOp};
/// # async fn send(op: WriteOp) -> Result<()> { Ok(()) }
/// # async fn open(lens: &Lens, products: Vista, orders: Vista) -> Result<(Dio, Dio)> {
/// let products = lens.make_dio(products).await?;
/// let orders = lens.dio(orders).on_write(|_dio, op| send(op)).make().await?;
/// # Ok((products, orders))
/// # }
/// ```
#[must_use = "a builder does nothing until the Dio is made"]
pub struct DioBuilder<'a> {
    lens: &'a Lens,
    vista: Vista,
    settings: Settings,
    callbacks: Callbacks,
}

impl std::fmt::Debug for DioBuilder<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DioBuilder").field("vista", &self.vista.name()).finish_non_exhaustive()
    }
}

impl Lens {
    /// Starts building a Dio of `vista` with its own callbacks or settings.
    pub fn dio(&self, vista: Vista) -> DioBuilder<'_> {
        DioBuilder { lens: self, vista, settings: self.settings.clone(), callbacks: self.callbacks.clone() }
    }
}

callbacks!(DioBuilder<'_>);

impl DioBuilder<'_> {
    /// Sets the time between two refreshes.
    pub fn refresh_every(mut self, every: Duration) -> Self {
        self.settings.refresh_every = Some(every);
        self
    }

    /// Changes any setting.
    pub fn settings(mut self, change: impl FnOnce(&mut Settings)) -> Self {
        change(&mut self.settings);
        self
    }

    /// Makes the Dio.
    ///
    /// # Errors
    /// As [`Lens::make_dio`].
    pub async fn make(self) -> Result<Dio> {
        self.lens.open(self.vista, self.settings, self.callbacks).await
    }
}
