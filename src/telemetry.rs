//! Logging to standard error, as text for people or as one JSON object per line. Standard output is reserved for results.

use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;

/// Format of log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Format {
    /// Text for people.
    Text,
    /// One JSON object per line.
    Json,
}

/// Active log format.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Log(Format);

/// Default filter. The client for Kafka logs each connection as `info`, and that for RabbitMQ logs messages with their content.
const DEFAULT: &str = "info,rskafka=warn,lapin=off";

/// Starts logging in `format` (or `DIORAMA_LOG_FORMAT`, or text) with the filter `level` (or `DIORAMA_LOG`, or `RUST_LOG`, or
/// `info`).
///
/// # Errors
/// The setting that is not valid.
pub(crate) fn start(level: Option<&str>, format: Option<Format>) -> Result<Log, String> {
    let set =
        |name: &'static str| std::env::var(name).ok().filter(|value| !value.is_empty()).map(|value| (name, value));
    let argument = level.map(|level| ("--log", level.to_string()));
    let (name, level) =
        argument.or_else(|| set("DIORAMA_LOG")).or_else(|| set("RUST_LOG")).unwrap_or(("--log", DEFAULT.to_string()));
    let filter = EnvFilter::try_new(&level);
    let filter = filter
        .map_err(|error| format!("{name}: {level:?} is not a valid log filter ({error}): use a level like debug"))?;
    let format = match (format, set("DIORAMA_LOG_FORMAT")) {
        (Some(format), _) => format,
        (None, None) => Format::Text,
        (None, Some((name, value))) => {
            let known = <Format as clap::ValueEnum>::from_str(&value, true);
            known.map_err(|_| format!("{name} must be text or json, not {value:?}"))?
        }
    };
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match format {
        Format::Text => log.with_ansi(std::io::stderr().is_terminal()).init(),
        Format::Json => {
            log.json().flatten_event(true).with_current_span(false).with_span_list(false).init();
            std::panic::set_hook(Box::new(|panic| {
                let at = panic.location().map(ToString::to_string);
                let backtrace = std::backtrace::Backtrace::capture();
                let trace = (backtrace.status() == std::backtrace::BacktraceStatus::Captured)
                    .then(|| tracing::field::display(backtrace));
                tracing::error!(at, backtrace = trace, "a panic: {}", panic.payload_as_str().unwrap_or_default());
            }));
        }
    }
    Ok(Log(format))
}

impl Log {
    /// Reports a fatal error in the format of the log.
    pub(crate) fn fail(self, message: &str) {
        if self.0 == Format::Json && tracing::enabled!(tracing::Level::ERROR) {
            tracing::error!("{message}");
        } else {
            eprintln!("{message}");
        }
    }
}
