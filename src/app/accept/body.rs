//! Bodies of HTTP/2 answers, which show whether their client takes them.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use axum::body::{Body, Bytes, HttpBody};
use bytes::Buf;
use hyper::body::{Frame, SizeHint};

use super::activity::OpenStream;

/// Body of an answer.
pub(super) struct TrackedBody {
    body: Body,
    stream: Arc<OpenStream>,
}

impl TrackedBody {
    pub(super) fn new(body: Body, stream: Arc<OpenStream>) -> TrackedBody {
        TrackedBody { body, stream }
    }
}

impl HttpBody for TrackedBody {
    type Data = Chunk;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Chunk>, axum::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        let stream = &self.stream;
        Poll::Ready(frame.map(|frame| frame.map(|frame| frame.map_data(|bytes| Chunk::new(bytes, Arc::clone(stream))))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Part of an answer. The connection advances it as it sends it, and drops it when it is sent or its stream is reset.
pub(super) struct Chunk {
    bytes: Bytes,
    stream: Arc<OpenStream>,
}

impl Chunk {
    fn new(bytes: Bytes, stream: Arc<OpenStream>) -> Chunk {
        stream.activity().hand_over();
        Chunk { bytes, stream }
    }
}

impl Buf for Chunk {
    fn remaining(&self) -> usize {
        self.bytes.remaining()
    }

    fn chunk(&self) -> &[u8] {
        self.bytes.chunk()
    }

    fn advance(&mut self, count: usize) {
        self.bytes.advance(count);
        self.stream.activity().take();
    }
}

impl Drop for Chunk {
    fn drop(&mut self) {
        self.stream.activity().settle();
    }
}
