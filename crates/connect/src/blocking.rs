//! Blocking disk work on Tokio's blocking threads.

use diorama_core::vista::{Error, Result};

/// Runs blocking disk `work` on Tokio's blocking threads.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    #[expect(clippy::disallowed_methods, reason = "drivers may run blocking work")]
    let done = tokio::task::spawn_blocking(work).await;
    match done {
        Ok(result) => result,
        Err(error) if error.is_panic() => Err(Error::unknown(format!("the driver panicked: {error}"))),
        Err(_) => Err(Error::transient("the program is stopping")),
    }
}
