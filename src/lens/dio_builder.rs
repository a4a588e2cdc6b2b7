//! One Dio that differs from the others of its Lens.

use std::future::Future;
use std::time::Duration;

use super::Lens;
use crate::dio::{Dio, Hooks, Settings, hook_with};
use crate::vista::{Result, Vista, WriteOp};

/// Makes a Dio whose settings or write route are its own; what is not set is the Lens'.
#[must_use = "a builder does nothing until the Dio is made"]
pub struct DioBuilder<'a> {
    lens: &'a Lens,
    vista: Vista,
    settings: Settings,
    hooks: Hooks,
}

impl std::fmt::Debug for DioBuilder<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DioBuilder").field("vista", &self.vista.name()).finish_non_exhaustive()
    }
}

impl Lens {
    /// Begins a Dio of `vista` that differs from the others.
    pub fn dio(&self, vista: Vista) -> DioBuilder<'_> {
        DioBuilder { lens: self, vista, settings: self.settings.clone(), hooks: self.hooks.clone() }
    }
}

impl DioBuilder<'_> {
    /// Gets every write of this Dio instead of its master.
    pub fn on_write<F, Fut>(mut self, callback: F) -> Self
    where
        F: Fn(&Dio, WriteOp) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<()>> + Send + 'static,
    {
        self.hooks.on_write = Some(hook_with(callback));
        self
    }

    /// Time between two refreshes.
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
        self.lens.open(self.vista, self.settings, self.hooks).await
    }
}
