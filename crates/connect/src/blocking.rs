//! Work that waits for the disk, off the async threads.

use diorama_core::vista::{Error, Result};

/// Runs `work`, which waits for the disk, off the async threads.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    #[expect(clippy::disallowed_methods, reason = "drivers are one of the places where blocking work belongs")]
    let done = tokio::task::spawn_blocking(work).await;
    match done {
        Ok(result) => result,
        Err(error) if error.is_panic() => Err(Error::unknown(format!("the driver panicked: {error}"))),
        Err(_) => Err(Error::transient("the program is stopping")),
    }
}
