//! TLS handshakes. Each runs in the task of its connection, so that a slow one delays no other, and has the time of a request's
//! head.

use std::io;
use std::time::Duration;

use tokio::io::AsyncWriteExt as _;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::stream::CountedStream;
use crate::app::tls::{Tls, client_certificate};
use diorama_gateway::ClientCertificate;

/// Response to a client that does not speak TLS.
const PLAIN: &str = "HTTP/1.1 400 Bad Request\r\nContent-Type: application/problem+json\r\nConnection: close\r\n\r\n\
     {\"type\":\"/problems/malformed-request\",\"title\":\"The request is not HTTP/1.1\",\"status\":400,\
     \"detail\":\"this port speaks TLS only: use https://\",\"code\":\"malformed-request\",\
     \"message\":\"this port speaks TLS only: use https://\"}";

/// Encrypted connection.
pub(super) struct Encrypted {
    pub(super) stream: TlsStream<CountedStream>,
    /// True if client and server agreed on HTTP/2.
    pub(super) is_http2: bool,
    pub(super) certificate: Option<ClientCertificate>,
}

/// Performs the handshake of a new connection within `patience`.
///
/// # Errors
/// The handshake failed, took too long, or the client sent a request in plain text, which is answered.
pub(super) async fn handshake(stream: CountedStream, tls: &Tls, patience: Duration) -> io::Result<Encrypted> {
    let accepting = async {
        // Methods begin with a letter, which is never the first byte of TLS.
        match stream.first_byte().await? {
            Some(byte) if byte.is_ascii_alphabetic() => {
                refuse(stream).await?;
                Err(io::Error::new(io::ErrorKind::InvalidData, "the client does not speak TLS"))
            }
            _ => TlsAcceptor::from(tls.config()).accept(stream).await,
        }
    };
    let stream = timeout(patience, accepting).await.map_err(|_| io::ErrorKind::TimedOut)??;
    let session = stream.get_ref().1;
    let is_http2 = session.alpn_protocol() == Some(b"h2");
    let first = session.peer_certificates().and_then(|chain| chain.first());
    let certificate = first.map(|der| client_certificate(der)).transpose();
    let certificate = certificate.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
    Ok(Encrypted { stream, is_http2, certificate })
}

/// Sends the refusal and waits until the client has read it: closing with unread input would discard it.
async fn refuse(mut stream: CountedStream) -> io::Result<()> {
    stream.write_all(PLAIN.as_bytes()).await?;
    stream.shutdown().await?;
    tokio::io::copy(&mut stream, &mut tokio::io::sink()).await.map(drop)
}
