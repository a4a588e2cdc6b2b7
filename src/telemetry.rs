//! Logs: to standard error, as much as `DIORAMA_LOG` (or `RUST_LOG`) asks for.

use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;

/// Starts logging; `info` and above unless told otherwise.
pub(crate) fn start() {
    let wish = std::env::var("DIORAMA_LOG").or_else(|_| std::env::var("RUST_LOG"));
    let filter = wish.ok().and_then(|wish| EnvFilter::try_new(wish).ok()).unwrap_or_else(|| EnvFilter::new("info"));
    let ansi = std::io::stderr().is_terminal();
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(ansi).init();
}
