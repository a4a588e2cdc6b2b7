//! Reader of `[server]` and `[lens]`.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use diorama_connect::{CacheRequest, CacheStore};
use ipnet::IpNet;

use super::intake::{EventsSpec, InboxSpec, OutboxSpec};
use super::limits::LimitsSpec;
use super::tls::TlsSpec;
use super::value::{LEAST_TOKEN, Reader, Secret};

/// Settings of `[server]`.
#[derive(Clone, Debug)]
pub struct ServerSpec {
    /// Address to listen on (default: 127.0.0.1:8080).
    pub listen: SocketAddr,
    /// Prefix of all paths.
    pub base_path: String,
    /// Origins of web pages that may call the API.
    pub cors: Vec<String>,
    /// Proxies whose `X-Forwarded-For` gives the client's address (default: none).
    pub trusted_proxies: Vec<IpNet>,
    /// True to compress bodies with zstd, br or gzip for clients that accept it (default: true).
    pub compression: bool,
    /// Source of the page at `/`.
    pub explorer: Page,
    /// Access control; `None` if not configured.
    pub auth: Option<Access>,
    /// TLS; `None` for plain HTTP.
    pub tls: Option<TlsSpec>,
    /// True to admit callers without credentials although others are authenticated.
    pub anonymous: bool,
    /// Limits of requests.
    pub limits: LimitsSpec,
    /// Maximum duration of a shutdown (default: 20 s).
    pub drain_timeout: Duration,
}

impl Default for ServerSpec {
    fn default() -> ServerSpec {
        ServerSpec {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 8080)),
            base_path: String::new(),
            cors: Vec::new(),
            trusted_proxies: Vec::new(),
            compression: true,
            explorer: Page::Own,
            auth: None,
            tls: None,
            anonymous: false,
            limits: LimitsSpec::default(),
            drain_timeout: Duration::from_secs(20),
        }
    }
}

/// Source of the page at `/`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Page {
    /// The built-in page.
    Own,
    /// A folder with an `index.html`.
    Folder(PathBuf),
    /// No page.
    Off,
}

/// Access control.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Access {
    /// All clients: authentication is switched off explicitly.
    Anybody,
    /// Clients with one of these tokens.
    Tokens(Vec<Secret>),
}

impl ServerSpec {
    pub(super) fn read(reader: Reader<'_>) -> ServerSpec {
        let mut spec = ServerSpec::default();
        if let Some(listen) = reader.text("listen") {
            match listen.replace("localhost:", "127.0.0.1:").parse() {
                Ok(listen) => spec.listen = listen,
                Err(_) => {
                    let at = reader.position("listen").unwrap_or(reader.at);
                    reader.problem(at, "server.listen must be an address with a port, like \"127.0.0.1:8080\"");
                }
            }
        }
        spec.base_path = reader.text("base_path").unwrap_or_default();
        let plain = spec.base_path.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte));
        if !plain || spec.base_path.contains("//") {
            let at = reader.position("base_path").unwrap_or(reader.at);
            reader.problem(at, "server.base_path must have only letters, digits, - . _ ~ and single slashes");
        }
        spec.cors = reader.texts("cors").unwrap_or_default();
        spec.trusted_proxies = trusted_proxies(&reader);
        spec.compression = reader.flag("compression").unwrap_or(spec.compression);
        spec.explorer = match reader.path_or_flag("explorer") {
            Some((Some(folder), _)) => Page::Folder(folder),
            Some((None, false)) => Page::Off,
            _ => Page::Own,
        };
        spec.auth = access(&reader);
        spec.tls = reader.table("tls").and_then(TlsSpec::read);
        spec.anonymous = reader.flag("anonymous").unwrap_or(spec.anonymous);
        spec.limits = reader.table("limits").map(LimitsSpec::read).unwrap_or_default();
        spec.drain_timeout = reader.duration("drain_timeout").unwrap_or(spec.drain_timeout);
        reader.finish();
        spec
    }
}

/// Message for a public address without access control.
pub(crate) const PUBLIC: &str = "a public address requires server.auth = { tokens = [\"env:NAME\"] }, [key.NAME] or [jwt.NAME]; use \
     auth = \"none\" to let anybody read and write";

/// Message for keys or issuers that would have no effect.
pub(crate) const NOBODY: &str =
    "server.auth = \"none\" cannot be combined with [key.NAME] or [jwt.NAME]: remove one of them";

/// Message for a key with a certificate on a server that asks for none.
pub(crate) const NO_AUTHORITY: &str = "certificate in [key.NAME] requires client_ca in [server.tls]";

fn trusted_proxies(reader: &Reader<'_>) -> Vec<IpNet> {
    let texts = reader.texts("trusted_proxies").unwrap_or_default();
    let network = |text: &String| text.parse().or_else(|_| text.parse::<IpAddr>().map(IpNet::from)).ok();
    let networks: Option<Vec<IpNet>> = texts.iter().map(network).collect();
    networks.unwrap_or_else(|| {
        let at = reader.position("trusted_proxies").unwrap_or(reader.at);
        reader.problem(at, r#"server.trusted_proxies must be addresses or networks, like ["127.0.0.1", "10.0.0.0/8"]"#);
        Vec::new()
    })
}

fn access(reader: &Reader<'_>) -> Option<Access> {
    let value = reader.value("auth")?;
    if value.get_ref().as_str() == Some("none") {
        return Some(Access::Anybody);
    }
    if value.get_ref().as_table().is_none() {
        reader.problem(value.span().start, r#"server.auth must be "none" or { tokens = ["env:NAME"] }"#);
        return None;
    }
    let table = reader.table("auth")?;
    let tokens = table.secrets("tokens", LEAST_TOKEN);
    if tokens.as_ref().is_none_or(Vec::is_empty) && table.position("tokens").is_none() {
        table.problem(table.at, r#"server.auth requires tokens = ["env:NAME"]"#);
    }
    table.finish();
    tokens.map(Access::Tokens)
}

/// Settings of `[lens]`.
#[derive(Clone, Debug)]
pub struct LensSpec {
    /// Storage of rows (default: `cache.redb`).
    pub cache: CacheAt,
    /// File for writes and events (default: next to the cache).
    pub journal: Option<PathBuf>,
    /// Maximum number of damaged cache files that are kept after their replacement (default: 3).
    pub kept_corrupt_caches: usize,
    /// Default time between two refreshes of a Dio.
    pub refresh_every: Option<Duration>,
    /// Limits of received deliveries that are stored.
    pub inbox: InboxSpec,
    /// Limits of deliveries to send that are stored.
    pub outbox: OutboxSpec,
    /// Limits of stored events.
    pub events: EventsSpec,
    /// Maximum number of writes of one resource that wait for its source or, parked, for a person (default: 100,000).
    pub write_queue_capacity: usize,
}

/// Storage of rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CacheAt {
    /// In a file.
    File(PathBuf),
    /// In memory; lost on exit.
    Memory,
    /// On a server.
    Server(CacheServer),
}

/// A server that stores rows.
#[derive(Clone, Debug)]
pub struct CacheServer {
    /// The server.
    pub store: CacheStore,
    /// Default path of the journal.
    pub journal: PathBuf,
}

impl PartialEq for CacheServer {
    fn eq(&self, other: &CacheServer) -> bool {
        (&self.store.name, &self.journal) == (&other.store.name, &other.journal)
    }
}

impl Eq for CacheServer {}

impl Default for LensSpec {
    fn default() -> LensSpec {
        LensSpec {
            cache: CacheAt::File("cache.redb".into()),
            journal: None,
            kept_corrupt_caches: 3,
            refresh_every: None,
            inbox: InboxSpec::default(),
            outbox: OutboxSpec::default(),
            events: EventsSpec::default(),
            write_queue_capacity: 100_000,
        }
    }
}

impl LensSpec {
    pub(super) fn read(reader: Reader<'_>) -> LensSpec {
        let cache = cache(&reader);
        let inbox = reader.table("inbox").map(InboxSpec::read).unwrap_or_default();
        let outbox = reader.table("outbox").map(OutboxSpec::read).unwrap_or_default();
        let events = reader.table("events").map(EventsSpec::read).unwrap_or_default();
        let refresh_every = reader.duration("refresh_every");
        let default = LensSpec::default();
        let spec = LensSpec {
            cache,
            journal: reader.path("journal"),
            kept_corrupt_caches: reader.count("kept_corrupt_caches", 1..=1_000).unwrap_or(default.kept_corrupt_caches),
            refresh_every,
            inbox,
            outbox,
            events,
            write_queue_capacity: reader
                .count("write_queue_capacity", 1..=10_000_000)
                .unwrap_or(default.write_queue_capacity),
        };
        reader.finish();
        spec
    }
}

/// Reads the storage of rows.
fn cache(reader: &Reader<'_>) -> CacheAt {
    let usual = || CacheAt::File(reader.context.folder.join("cache.redb"));
    let (ca, prefix) = (reader.path("cache_ca"), reader.text("cache_prefix"));
    let is_name = |prefix: &&String| {
        let is_valid = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
        (1..=40).contains(&prefix.len()) && prefix.chars().all(is_valid)
    };
    if prefix.as_ref().is_some_and(|prefix| !is_name(&prefix)) {
        let at = reader.position("cache_prefix").unwrap_or(reader.at);
        reader.problem(at, "cache_prefix must be 1 to 40 letters, digits and _");
    }
    let Some(cache) = reader.secret_text("cache") else { return usual() };
    let url = match cache.reveal() {
        "memory" => return CacheAt::Memory,
        url if url.contains("://") => url,
        path => return CacheAt::File(reader.context.folder.join(path)),
    };
    let prefix = prefix.unwrap_or_else(|| "diorama_cache".into());
    match reader.context.registry.cache(CacheRequest { url: url.into(), prefix, ca }) {
        Ok(store) => CacheAt::Server(CacheServer { store, journal: reader.context.folder.join("cache.journal.redb") }),
        Err(problem) => {
            reader.problem(reader.position("cache").unwrap_or(reader.at), format!("lens.cache: {problem}"));
            usual()
        }
    }
}
