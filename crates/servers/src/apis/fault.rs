//! Failures on request.

use std::io;

use axum::body::{Body, Bytes};
use axum::response::Response;
use futures_util::stream;

use super::answer::Answer;

/// Failure of one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Answers this status with an error in the form of the API. The request has no effect.
    Status(u16),
    /// Answers, and breaks the connection in the middle of the body. The request has taken effect.
    Cut,
    /// Does not answer at all. The request has no effect.
    Silence,
    /// Answers a page in HTML with the status 200, as a login page in between does. The request has no effect.
    Html,
}

pub(super) fn html() -> Answer {
    let page = "<!DOCTYPE html>\n<html><head><title>Sign in</title></head><body>Sign in to go on.</body></html>\n";
    Answer::text(200, "text/html; charset=utf-8", page)
}

/// The response that breaks after half of its body.
pub(super) fn cut(answer: Answer) -> Response {
    let half = Bytes::copy_from_slice(&answer.body[..answer.body.len() / 2]);
    let body = Body::from_stream(stream::unfold(0, move |step| {
        let half = half.clone();
        async move {
            match step {
                0 => Some((Ok(half), 1)),
                1 => {
                    // What was written so far goes out.
                    tokio::task::yield_now().await;
                    Some((Err(io::Error::from(io::ErrorKind::ConnectionReset)), 2))
                }
                _ => None,
            }
        }
    }));
    answer.into_response_with(body)
}
