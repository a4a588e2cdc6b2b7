//! [`AuditTrail`]: records what a request does to the server.

use std::convert::Infallible;
use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::response::Response;
use sha2::{Digest as _, Sha256};

use super::AuditLog;
use super::log::of_caller;
use crate::access::Principal;
use crate::http::budget::Caller;
use crate::http::problem::{ApiError, Code};
use crate::http::request_id::request_id;
use crate::state::GatewayState;
use diorama_core::dio::now;
use diorama_core::journal::{AuditAction, AuditEntry};

/// Maximum number of targets that an entry lists.
const MOST_TARGETS: usize = 16;

/// Recorder of the actions of one request. Without an audit log it records nothing.
pub(crate) struct AuditTrail {
    log: Option<AuditLog>,
    principal: Principal,
    caller: Caller,
    request: String,
}

impl FromRequestParts<Arc<GatewayState>> for AuditTrail {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, gateway: &Arc<GatewayState>) -> Result<AuditTrail, Infallible> {
        Ok(AuditTrail {
            log: gateway.audit.clone(),
            principal: Principal::of(&parts.extensions),
            caller: Caller::of(&parts.extensions),
            request: request_id(&parts.headers).unwrap_or_default().to_string(),
        })
    }
}

impl AuditTrail {
    /// Runs `job`, which is `action` on `target` of `resource`. Stores that it begins before it does, and afterwards its outcome.
    ///
    /// # Errors
    /// 503 if the entry cannot be stored; then `job` does not run. Otherwise those of `job`.
    pub(crate) async fn record(
        &self,
        action: AuditAction,
        resource: Option<&str>,
        target: Option<String>,
        job: impl Future<Output = Result<Response, ApiError>>,
    ) -> Result<Response, ApiError> {
        let Some(log) = &self.log else { return job.await };
        let entry = AuditEntry {
            resource: resource.map(str::to_string),
            target,
            ..of_caller(action, &self.principal, self.caller, &self.request)
        };
        let started = AuditEntry { outcome: "started".into(), ..entry.clone() };
        log.append(started).await.map_err(|error| {
            ApiError::new(Code::StoreUnavailable, "the audit log cannot be written; nothing was done")
                .cause(error.to_string())
        })?;
        let mut end = EndOfAction { log, entry: Some(entry) };
        let result = job.await;
        end.store(match &result {
            Ok(response) => response.status().as_str().to_string(),
            Err(error) => error.code().as_str().to_string(),
        });
        result
    }
}

/// Entry of the outcome of an action, which is stored even if the client disconnects before.
struct EndOfAction<'a> {
    log: &'a AuditLog,
    entry: Option<AuditEntry>,
}

impl EndOfAction<'_> {
    fn store(&mut self, outcome: String) {
        if let Some(entry) = self.entry.take() {
            self.log.note(AuditEntry { outcome, time: now(), ..entry });
        }
    }
}

impl Drop for EndOfAction<'_> {
    fn drop(&mut self) {
        self.store("disconnected".into());
    }
}

/// Lists the targets of an action, separated by commas. Of many, only their number is given.
pub(crate) fn targets<T: ToString>(targets: impl ExactSizeIterator<Item = T>) -> String {
    let more = targets.len().saturating_sub(MOST_TARGETS);
    let mut listed: Vec<String> = targets.take(MOST_TARGETS).map(|target| target.to_string()).collect();
    listed.extend((more > 0).then(|| format!("{more} more")));
    listed.join(",")
}

/// Hashes the id of a row. The log outlives erased rows, so it must not name them.
pub(crate) fn hash(id: &str) -> String {
    let digest = Sha256::digest(id.as_bytes());
    digest.iter().take(16).fold("sha256:".to_string(), |text, byte| text + &format!("{byte:02x}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_listed_up_to_a_number_and_ids_of_rows_are_hashed() {
        assert_eq!(targets(["a", "b"].iter()), "a,b");
        let many: Vec<usize> = (0..20).collect();
        assert!(targets(many.iter()).ends_with(",15,4 more"));
        assert_eq!(hash("42"), "sha256:73475cb40a568e8da8a045ced110137e");
    }
}
