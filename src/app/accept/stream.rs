//! Streams of connections: with the permits of the connection and a timeout for clients that read nothing, and with the responses
//! that replace those of hyper.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Sleep, sleep};

use diorama_gateway::{Lease, unreadable};

/// Upper bound on the size of responses that hyper generates itself.
const MAX_BARE_RESPONSE: usize = 256;

/// A connection with its permits, which count it until it is closed, even after an upgrade. A client that reads nothing for too
/// long is disconnected, be it a response, a stream or a socket.
pub(super) struct CountedStream {
    stream: TcpStream,
    /// Maximum time for which the client may read nothing.
    write_timeout: Duration,
    /// Timer of that time; `None` while the client reads.
    stalled: Option<Pin<Box<Sleep>>>,
    _place: OwnedSemaphorePermit,
    _lease: Lease,
}

impl CountedStream {
    pub(super) fn new(
        stream: TcpStream,
        write_timeout: Duration,
        place: OwnedSemaphorePermit,
        lease: Lease,
    ) -> CountedStream {
        CountedStream { stream, write_timeout, stalled: None, _place: place, _lease: lease }
    }

    /// Returns the first byte that the client sends, and leaves it unread; `None` at the end of the connection.
    pub(super) async fn first_byte(&self) -> io::Result<Option<u8>> {
        let mut first = [0];
        let read = self.stream.peek(&mut first).await?;
        Ok((read > 0).then_some(first[0]))
    }

    fn track_stall(&mut self, cx: &mut Context<'_>, write: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if write.is_ready() {
            self.stalled = None;
            return write;
        }
        let write_timeout = self.write_timeout;
        let over = self.stalled.get_or_insert_with(|| Box::pin(sleep(write_timeout)));
        over.as_mut().poll(cx).map(|()| Err(io::ErrorKind::TimedOut.into()))
    }
}

impl AsyncRead for CountedStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for CountedStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let write = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.track_stall(cx, write)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let write = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.track_stall(cx, write)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// Stream of HTTP/1.1 in which a problem document replaces a bare refusal by hyper.
pub(super) struct Http1Stream<S> {
    stream: S,
    /// Response that replaces a bare refusal, and the number of bytes written of it.
    refusal: Option<(Vec<u8>, usize)>,
}

impl<S> Http1Stream<S> {
    pub(super) fn new(stream: S) -> Http1Stream<S> {
        Http1Stream { stream, refusal: None }
    }
}

/// Returns the status of a response that hyper generates itself for an unreadable request. Such a response has no body, and the
/// connection ends with it.
fn bare_refusal(written: &[u8]) -> Option<u16> {
    if !written.starts_with(b"HTTP/1.1 4") {
        return None;
    }
    let head = std::str::from_utf8(written).ok()?.strip_prefix("HTTP/1.1 ")?;
    // All other responses have that header.
    let bare =
        head.contains("\r\ncontent-length: 0\r\n") && head.ends_with("\r\n\r\n") && !head.contains("x-request-id");
    head.get(..3).filter(|_| bare)?.parse().ok()
}

impl<S: AsyncRead + Unpin> AsyncRead for Http1Stream<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Http1Stream<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if self.refusal.is_none() && buf.len() < MAX_BARE_RESPONSE {
            self.refusal = bare_refusal(buf).and_then(unreadable).map(|refusal| (refusal, 0));
        }
        while let Http1Stream { stream, refusal: Some((refusal, at)) } = &mut *self
            && *at < refusal.len()
        {
            match ready!(Pin::new(stream).poll_write(cx, &refusal[*at..])) {
                Ok(0) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Ok(written) => *at += written,
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        if self.refusal.is_some() {
            return Poll::Ready(Ok(buf.len()));
        }
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if let [only] = bufs {
            return self.poll_write(cx, only);
        }
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
