//! `[server]` and `[lens]`.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;

use super::intake::{EventsSpec, InboxSpec};
use super::limits::LimitsSpec;
use super::value::{LEAST_TOKEN, Reader, Secret};

/// `[server]`
#[derive(Clone, Debug)]
pub struct ServerSpec {
    /// Where to listen (default: 127.0.0.1:8080).
    pub listen: SocketAddr,
    /// A path before all others.
    pub base_path: String,
    /// Origins of web pages that may call.
    pub cors: Vec<String>,
    /// Proxies whose `X-Forwarded-For` says which address a request comes from (default: none).
    pub trusted_proxies: Vec<IpNet>,
    /// Whether bodies are sent as zstd, br or gzip to who accepts it (default: yes).
    pub compression: bool,
    /// Where the page at `/` comes from.
    pub explorer: Page,
    /// Who may call; `None` if nothing was written.
    pub auth: Option<Access>,
    /// How much may be asked for.
    pub limits: LimitsSpec,
    /// How long a stop may take (default: 20 s).
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
            limits: LimitsSpec::default(),
            drain_timeout: Duration::from_secs(20),
        }
    }
}

/// Where the page at `/` comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Page {
    /// The program.
    Own,
    /// A folder with an `index.html`.
    Folder(PathBuf),
    /// There is none.
    Off,
}

/// Who may call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Access {
    /// Anybody, and somebody wrote so.
    Anybody,
    /// Who has one of these tokens.
    Tokens(Vec<Secret>),
}

impl ServerSpec {
    pub(super) fn read(reader: Reader<'_>) -> ServerSpec {
        let mut spec = ServerSpec::default();
        if let Some(listen) = reader.text("listen") {
            match listen.replace("localhost:", "127.0.0.1:").parse() {
                Ok(listen) => spec.listen = listen,
                Err(_) => {
                    let at = reader.place("listen").unwrap_or(reader.at);
                    reader.problem(at, "server.listen is an address with a port, like \"127.0.0.1:8080\"");
                }
            }
        }
        spec.base_path = reader.text("base_path").unwrap_or_default();
        let plain = spec.base_path.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte));
        if !plain || spec.base_path.contains("//") {
            let at = reader.place("base_path").unwrap_or(reader.at);
            reader.problem(at, "server.base_path takes letters, digits, - . _ ~ and single slashes");
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
        spec.limits = reader.table("limits").map(LimitsSpec::read).unwrap_or_default();
        spec.drain_timeout = reader.duration("drain_timeout").unwrap_or(spec.drain_timeout);
        if !spec.listen.ip().is_loopback() && spec.auth.is_none() && reader.place("auth").is_none() {
            let at = reader.place("listen").unwrap_or(reader.at);
            reader.problem(at, PUBLIC);
        }
        reader.finish();
        spec
    }
}

/// What is said of a public address that nobody guards.
pub(crate) const PUBLIC: &str = "a public address needs server.auth = { tokens = [\"env:NAME\"] }; write auth = \"none\" if \
     anybody may read and write";

fn trusted_proxies(reader: &Reader<'_>) -> Vec<IpNet> {
    let texts = reader.texts("trusted_proxies").unwrap_or_default();
    let network = |text: &String| text.parse().or_else(|_| text.parse::<IpAddr>().map(IpNet::from)).ok();
    let networks: Option<Vec<IpNet>> = texts.iter().map(network).collect();
    networks.unwrap_or_else(|| {
        let at = reader.place("trusted_proxies").unwrap_or(reader.at);
        reader.problem(at, r#"server.trusted_proxies has addresses or networks, like ["127.0.0.1", "10.0.0.0/8"]"#);
        Vec::new()
    })
}

fn access(reader: &Reader<'_>) -> Option<Access> {
    let value = reader.value("auth")?;
    if value.get_ref().as_str() == Some("none") {
        return Some(Access::Anybody);
    }
    if value.get_ref().as_table().is_none() {
        reader.problem(value.span().start, r#"server.auth is "none" or { tokens = ["env:NAME"] }"#);
        return None;
    }
    let table = reader.table("auth")?;
    let tokens = table.secrets("tokens", LEAST_TOKEN);
    if tokens.as_ref().is_none_or(Vec::is_empty) && table.place("tokens").is_none() {
        table.problem(table.at, r#"server.auth needs tokens = ["env:NAME"]"#);
    }
    table.finish();
    tokens.map(Access::Tokens)
}

/// `[lens]`
#[derive(Clone, Debug)]
pub struct LensSpec {
    /// Where rows and events are kept (default: `cache.redb`).
    pub cache: CacheAt,
    /// Where writes and events are kept (default: beside the cache).
    pub journal: Option<PathBuf>,
    /// Damaged cache files that are kept when others have taken their place (default: 3).
    pub kept_corrupt_caches: usize,
    /// Time between two refreshes of a Dio that does not say.
    pub refresh_every: Option<Duration>,
    /// What is kept of deliveries.
    pub inbox: InboxSpec,
    /// What is kept of events.
    pub events: EventsSpec,
    /// Writes of one resource that may wait, for its source or, parked, for a person (default: 100,000).
    pub write_queue_capacity: usize,
}

/// Where rows are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CacheAt {
    /// In a file.
    File(PathBuf),
    /// In memory: gone with the process.
    Memory,
}

impl Default for LensSpec {
    fn default() -> LensSpec {
        LensSpec {
            cache: CacheAt::File("cache.redb".into()),
            journal: None,
            kept_corrupt_caches: 3,
            refresh_every: None,
            inbox: InboxSpec::default(),
            events: EventsSpec::default(),
            write_queue_capacity: 100_000,
        }
    }
}

impl LensSpec {
    pub(super) fn read(reader: Reader<'_>) -> LensSpec {
        let cache = match reader.text("cache").as_deref() {
            Some("memory") => CacheAt::Memory,
            Some(path) => CacheAt::File(reader.context.folder.join(path)),
            None => CacheAt::File(reader.context.folder.join("cache.redb")),
        };
        let inbox = reader.table("inbox").map(InboxSpec::read).unwrap_or_default();
        let events = reader.table("events").map(EventsSpec::read).unwrap_or_default();
        let refresh_every = reader.duration("refresh_every");
        let default = LensSpec::default();
        let spec = LensSpec {
            cache,
            journal: reader.path("journal"),
            kept_corrupt_caches: reader.count("kept_corrupt_caches", 1..=1_000).unwrap_or(default.kept_corrupt_caches),
            refresh_every,
            inbox,
            events,
            write_queue_capacity: reader
                .count("write_queue_capacity", 1..=10_000_000)
                .unwrap_or(default.write_queue_capacity),
        };
        reader.finish();
        spec
    }
}
