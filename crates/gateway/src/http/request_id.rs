//! Id of a request for the answer and the log: the one in its header, or a new one.
//!
//! This code exists because tower-http's `SetRequestId` keeps any id of a request, also one that cannot be logged. With
//! `PropagateRequestId` it costs one record 9 % more instructions: both look the header up several times, and keep copies of the id in
//! the extensions of request and answer.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::extract::Request;
use axum::http::header::{HeaderMap, HeaderName, HeaderValue};

pub(crate) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Returns the id of the request with these headers, for the log.
pub(crate) fn request_id(headers: &HeaderMap) -> Option<&str> {
    headers.get(REQUEST_ID).map(text)
}

/// Returns the id of a request as text. [`own_id`] has checked that it is text.
pub(crate) fn text(id: &HeaderValue) -> &str {
    id.to_str().unwrap_or_default()
}

/// Returns the id in the request's header if it is safe to log, else a new one.
pub(crate) fn own_id(request: &Request) -> HeaderValue {
    static PROCESS: LazyLock<u64> = LazyLock::new(|| (uuid::Uuid::new_v4().as_u128() >> 64) as u64);
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let fit = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.:".contains(byte);
    match request.headers().get(REQUEST_ID) {
        Some(id) if (1..=64).contains(&id.len()) && id.as_bytes().iter().all(fit) => id.clone(),
        _ => {
            let number = PROCESS.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed).wrapping_mul(0x9E37_79B9_7F4A_7C15));
            let digit = |at: usize| b"0123456789abcdef"[(number >> (60 - 4 * at) & 15) as usize];
            HeaderValue::from_bytes(&std::array::from_fn::<u8, 16, _>(digit)).unwrap_or(HeaderValue::from_static("-"))
        }
    }
}
