//! TLS for a replication connection, whose library encrypts only with a TLS provider that this program does not have.
//!
//! The library connects to a Unix socket in a folder of its own, from which bytes are passed to the server over TLS. The socket
//! takes one connection.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional};
use tokio::net::{TcpStream, UnixListener};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::ClientConfig;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_util::task::AbortOnDropHandle;

/// Request of TLS: PostgreSQL documentation, section 55.2.11, "SSL Session Encryption".
const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f];

/// Timeout for connecting to the server.
const CONNECT: Duration = Duration::from_secs(10);

/// A socket that leads to a server over TLS, for as long as this value lives.
#[derive(Debug)]
pub(super) struct Bridge {
    folder: PathBuf,
    _passing: AbortOnDropHandle<()>,
}

impl Bridge {
    /// Opens the socket for one connection to `port` of `host`. `may_be_plain` permits an unencrypted connection if the server
    /// has no TLS.
    pub(super) fn open(
        host: String,
        port: u16,
        config: Arc<ClientConfig>,
        may_be_plain: bool,
    ) -> std::io::Result<Bridge> {
        let folder = std::env::temp_dir().join(format!("diorama-{}", uuid::Uuid::new_v4().simple()));
        private_folder(&folder)?;
        let listener = UnixListener::bind(folder.join(format!(".s.PGSQL.{port}")))?;
        #[expect(clippy::disallowed_methods, reason = "the bridge owns its task, which ends with it")]
        let passing = tokio::spawn(async move {
            let passed = async {
                let (mut near, _) = listener.accept().await?;
                let mut far = timeout(CONNECT, TcpStream::connect((host.as_str(), port))).await??;
                far.set_nodelay(true)?;
                far.write_all(&SSL_REQUEST).await?;
                match far.read_u8().await? {
                    b'S' => {
                        let name = ServerName::try_from(host).map_err(std::io::Error::other)?;
                        let mut far = TlsConnector::from(config).connect(name, far).await?;
                        copy_bidirectional(&mut near, &mut far).await.map(drop)
                    }
                    _ if may_be_plain => copy_bidirectional(&mut near, &mut far).await.map(drop),
                    _ => Err(std::io::Error::other("the server does not offer TLS")),
                }
            };
            if let Err(error) = passed.await {
                tracing::debug!(%error, "an encrypted connection to PostgreSQL has ended");
            }
        });
        Ok(Bridge { folder, _passing: AbortOnDropHandle::new(passing) })
    }

    /// Folder of the socket, which serves as host name.
    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }
}

impl Drop for Bridge {
    fn drop(&mut self) {
        // What is left of it in the temporary folder does no harm.
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// Makes a folder that only this user can enter.
fn private_folder(path: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    std::fs::DirBuilder::new().mode(0o700).create(path)
}
