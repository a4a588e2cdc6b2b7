//! Builds notifications from the configuration; `diorama notify test`.

use std::path::PathBuf;
#[cfg(feature = "http")]
use std::pin::Pin;
#[cfg(feature = "http")]
use std::sync::Arc;

use clap::{Args, Subcommand};

use super::{Failure, OTHER, read, say};
use crate::config::NotifySpec;
#[cfg(feature = "http")]
use axum::body::Bytes;
#[cfg(feature = "http")]
use diorama_connect::http::{HttpReceiver, HttpReceiverOptions};
use diorama_gateway::notify::{Notification, Posted};
#[cfg(feature = "http")]
use diorama_gateway::notify::{NotifyOptions, Receiver};
#[cfg(feature = "http")]
use diorama_inbound::signature::Signer;

/// Test notifications.
#[derive(Debug, Subcommand)]
pub enum Notify {
    /// Send a signed test message to the receiver of a notification, and print its answer.
    Test(Test),
}

/// A notification to test.
#[derive(Args, Debug)]
pub struct Test {
    /// The notification, as in [notify.NAME].
    name: String,
    /// The configuration.
    #[arg(long, default_value = "diorama.toml", value_name = "FILE")]
    config: PathBuf,
}

/// Runs the command.
///
/// # Errors
/// A [`Failure`] if the configuration cannot be used, or the receiver does not take the message.
pub async fn run(command: Notify) -> Result<(), Failure> {
    let Notify::Test(test) = command;
    let config = read(&test.config)?;
    let spec = config.notifications.iter().find(|spec| spec.name == test.name).ok_or_else(|| {
        let names: Vec<_> = config.notifications.iter().map(|spec| spec.name.as_str()).collect();
        let hint =
            if names.is_empty() { "there is none".into() } else { format!("there are only {}", names.join(", ")) };
        Failure::config(format!("there is no [notify.{}]: {hint}", test.name))
    })?;
    let notification = notification(spec).map_err(Failure::config)?;
    let (key, posted) = notification.test().await;
    say(format_args!("POST {} with webhook-id {key}", notification.url()));
    match posted {
        Posted::Answered { status: status @ 200..=299, .. } => {
            say(format_args!("answered {status}: the receiver takes messages"));
            Ok(())
        }
        Posted::Answered { status, body, .. } => {
            let detail = if body.trim().is_empty() { String::new() } else { format!(": {}", body.trim()) };
            Err(Failure { code: OTHER, message: format!("answered {status}, which is a failure{detail}") })
        }
        Posted::Unanswered(detail) => Err(Failure { code: OTHER, message: format!("no answer: {detail}") }),
    }
}

/// Builds the notification that `spec` describes.
///
/// # Errors
/// The setting that is not valid.
#[cfg(feature = "http")]
pub(super) fn notification(spec: &NotifySpec) -> Result<Notification, String> {
    let named = |error: String| format!("[notify.{}] {error}", spec.name);
    let default = HttpReceiverOptions::default();
    let options = HttpReceiverOptions {
        headers: spec.headers.clone(),
        timeout: spec.timeout.unwrap_or(default.timeout),
        ca: spec.ca.clone(),
        public_only: spec.public_only,
    };
    let receiver = HttpReceiver::new(spec.url.reveal(), &options).map_err(|error| named(error.to_string()))?;
    let signer = Signer::new(spec.secrets.iter().map(|secret| secret.reveal()));
    let signer = signer.map_err(|error| named(format!("secrets: {error}")))?;
    let default = NotifyOptions::default();
    let options = NotifyOptions {
        filter: spec.filter.clone().unwrap_or_default(),
        select: spec.select.clone(),
        events: spec.events.clone().unwrap_or(default.events),
        concurrency: spec.concurrency.unwrap_or(default.concurrency),
        retry: spec.retry.clone().unwrap_or(default.retry),
        from_earliest: spec.from_earliest,
    };
    Ok(Notification::new(spec.name.clone(), spec.dio.clone(), Arc::new(Http(receiver)), signer).with(options))
}

#[cfg(not(feature = "http"))]
pub(super) fn notification(spec: &NotifySpec) -> Result<Notification, String> {
    Err(format!("[notify.{}] requires a program that is built with --features http", spec.name))
}

/// The HTTP client as the other end of a notification.
#[cfg(feature = "http")]
#[derive(Debug)]
struct Http(HttpReceiver);

#[cfg(feature = "http")]
impl Receiver for Http {
    fn url(&self) -> &str {
        self.0.url()
    }

    fn post(
        &self,
        headers: Vec<(&'static str, String)>,
        body: Bytes,
    ) -> Pin<Box<dyn Future<Output = Posted> + Send + '_>> {
        Box::pin(async move {
            match self.0.post(&headers, body).await {
                Ok(answer) => Posted::Answered {
                    status: answer.status.as_u16(),
                    retry_after: answer.retry_after,
                    body: answer.body,
                },
                Err(detail) => Posted::Unanswered(detail),
            }
        })
    }
}
