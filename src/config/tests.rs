//! Tests of the configuration reader and its messages.

use std::sync::Arc;
use std::time::Duration;

use diorama_connect::{Connector, CsvOptions, Feed, Settings};
use diorama_gateway::{Ack, Limits};
use parking_lot::Mutex;

use super::*;

fn env(name: &str) -> Option<String> {
    match name {
        "HOOK" => Some("whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=".into()),
        "TOKEN" => Some("s3cr3t-0123456789".into()),
        "SHORT" => Some("fifteen bytes !".into()),
        "DATA" => Some("data".into()),
        _ => None,
    }
}

fn parse(text: &str) -> Result<Config, Vec<String>> {
    Config::parse(text, Path::new("shop/diorama.toml"), &env)
        .map_err(|error| error.to_string().lines().map(str::to_string).collect())
}

fn problems(text: &str) -> Vec<String> {
    parse(text).unwrap_err()
}

const FULL: &str = r#"
[server]
listen = "localhost:9000"
base_path = "/api"
cors = ["https://shop.example"]
trusted_proxies = ["127.0.0.1", "10.0.0.0/8"]
auth = { tokens = ["env:TOKEN"] }

[lens]
cache = "memory"
write_queue_capacity = 500
refresh_every = "5m"

[dio.products]
source = { csv = "${DATA}/products.csv" }
id = "id"
write = { sqlite = "shop.db", table = "products" }

[dio.orders]
source = { sqlite = "shop.db", table = "orders" }
refresh_every = "10s"
version = "updated_at"
max_limit = 1_000
columns.price = { type = "integer", flags = ["mandatory"] }

[webhook.products]
auth = { scheme = "standard", secrets = ["env:HOOK"] }

[webhook.gh]
dio = "orders"
auth = { scheme = "hmac", secrets = ["env:TOKEN"], header = "X-Hub-Signature-256", prefix = "sha256=", delivery = "header:X-GitHub-Delivery" }
"#;

#[test]
fn a_whole_file_is_read() {
    let config = parse(FULL).unwrap();
    assert_eq!(config.server.listen.to_string(), "127.0.0.1:9000");
    assert_eq!(config.server.base_path, "/api");
    let proxies: Vec<String> = config.server.trusted_proxies.iter().map(ToString::to_string).collect();
    assert_eq!(proxies, ["127.0.0.1/32", "10.0.0.0/8"]);
    assert_eq!(config.lens.write_queue_capacity, 500);
    assert!(matches!(&config.server.auth, Some(Access::Tokens(tokens)) if tokens[0].reveal() == "s3cr3t-0123456789"));
    assert_eq!((config.lens.cache, config.lens.refresh_every), (CacheAt::Memory, Some(Duration::from_secs(300))));
    let [products, orders] = &config.dios[..] else { panic!() };
    assert_eq!(products.source.describe(), "shop/data/products.csv");
    let route = format!("{:?}", products.write.as_ref().unwrap());
    assert_eq!(route, r#"SqliteTable { path: "shop/shop.db", table: "products", journal_mode: None }"#);
    assert_eq!((orders.refresh_every, orders.max_limit), (Some(Duration::from_secs(10)), Some(1_000)));
    let price = ColumnSpec { name: "price".into(), ty: "integer", flags: vec!["mandatory"], timezone: None };
    assert_eq!(orders.columns, [price]);
    let [products, gh] = &config.webhooks[..] else { panic!() };
    assert_eq!((&*products.dio, products.auth.scheme), ("products", AuthScheme::Standard));
    assert_eq!((&*gh.auth.message, gh.auth.delivery.as_deref()), ("{body}", Some("X-GitHub-Delivery")));
}

#[test]
fn every_mistake_is_reported_with_its_position_and_a_suggestion() {
    let text = "[server]\nlisten = \"nowhere\"\nbase_paht = \"/api\"\n\n[dio.products]\nsorce = { csv = \"a.csv\" }\n\
         refresh_every = \"soon\"\n\n[webhook.products]\ndio = \"prodcts\"\nauth = { scheme = \"standrad\" }\n[lense]\n";
    let expected = [
        "shop/diorama.toml:2:10: server.listen must be an address with a port, like \"127.0.0.1:8080\"",
        "shop/diorama.toml:3:1: [server] has no key \"base_paht\": did you mean base_path?",
        "shop/diorama.toml:6:1: [dio.products] has no key \"sorce\": did you mean source?",
        "shop/diorama.toml:7:17: dio.products.refresh_every must be a time like \"30s\", \"5m\" or \"1h\"",
        "shop/diorama.toml:10:7: [webhook.products] refers to \"prodcts\", but there is no [dio.prodcts]: did you mean \"products\"?",
        "shop/diorama.toml:12:2: the file has no key \"lense\": did you mean lens?",
    ];
    let found = problems(text);
    for expected in expected {
        assert!(found.contains(&expected.to_string()), "{expected}\nis not in\n{found:#?}");
    }
    assert!(found.iter().any(|problem| problem.contains("auth.scheme must be one of standard, svix, github, ")));
    assert!(found.iter().any(|problem| problem.contains("requires source = ")));
}

#[test]
fn keys_of_other_programs_lead_to_those_that_mean_the_same() {
    for word in ["port", "host", "address", "bind"] {
        let found = problems(&format!("[server]\n{word} = 8080\n"));
        let expected = format!("[server] has no key {word:?}: did you mean listen?");
        assert!(found.iter().any(|problem| problem.contains(&expected)), "{found:#?}");
    }
}

#[test]
fn proxies_are_addresses_or_networks() {
    for wrong in ["proxy.example", "10.0.0.0/33", ""] {
        let found = problems(&format!("[server]\ntrusted_proxies = [\"127.0.0.1\", \"{wrong}\"]\n"));
        assert!(found.iter().any(|problem| problem.contains("server.trusted_proxies must be addresses")), "{found:#?}");
    }
}

#[test]
fn broken_toml_is_reported_with_its_position() {
    let found = problems("[dio.a]\nsource = { csv = \"a.csv\" \nid = \"id\"\n");
    assert!(found.iter().all(|problem| problem.starts_with("shop/diorama.toml:")), "{found:#?}");
    assert!(found[0].contains("not valid TOML"));
}

#[test]
fn secrets_are_outside_of_the_file_and_never_printed() {
    let config = parse(FULL).unwrap();
    let printed = format!("{config:?}");
    assert!(!printed.contains("s3cr3t") && !printed.contains("whsec_"), "{printed}");
    let dio = "[dio.a]\nsource = { csv = \"a.csv\" }\n[webhook.a]\n";
    for (secret, message) in
        [("hush", "do not belong"), ("env:NOPE", "NOPE is not set"), ("file:/nope/nope", "cannot read")]
    {
        let text = format!("{dio}auth = {{ scheme = \"bearer\", secrets = [\"{secret}\"] }}");
        let found = problems(&text);
        assert!(found.len() == 1 && found[0].contains(message), "{found:#?}");
    }
}

#[test]
fn a_base_path_is_a_plain_path() {
    let dio = "\n[dio.a]\nsource = { csv = \"a.csv\" }\n";
    for path in ["/a b", "/{a}", "a//b", "/%41"] {
        assert!(problems(&format!("[server]\nbase_path = \"{path}\"{dio}"))[0].contains("2:13: server.base_path"));
    }
}

#[test]
fn environment_variables_are_expanded() {
    let csv = |path: &str| {
        let config = parse(&format!("[dio.a]\nsource = {{ csv = '{path}' }}")).unwrap();
        config.dios[0].source.describe()
    };
    assert_eq!(csv("${DATA}/${TOKEN}.csv"), "shop/data/s3cr3t-0123456789.csv");
    assert_eq!(csv("a$${DATA}"), "shop/a${DATA}");
    assert!(problems("[dio.a]\nsource = { csv = '${NOPE}' }")[0].contains("NOPE is not set"));
}

#[test]
fn a_public_address_requires_access_control() {
    let dio = "\n[dio.a]\nsource = { csv = \"a.csv\" }\n";
    let public = |more: &str| parse(&format!("[server]\nlisten = \"0.0.0.0:80\"\n{more}{dio}"));
    assert!(public("").unwrap_err()[0].contains("a public address requires server.auth"));
    assert_eq!(public("auth = \"none\"").unwrap().server.auth, Some(Access::Anybody));
    assert!(public("auth = { tokens = [\"env:TOKEN\"] }").is_ok());
    let hook = format!("auth = \"none\"{dio}[webhook.a]\nauth = {{ scheme = \"none\" }}\n");
    let found = Config::parse(&format!("[server]\nlisten = \"0.0.0.0:80\"\n{hook}"), Path::new("d.toml"), &env);
    assert!(found.unwrap_err().to_string().contains("only on loopback addresses"));
}

#[test]
fn a_token_that_can_be_guessed_is_refused_and_not_printed() {
    let dio = "\n[dio.a]\nsource = { csv = \"a.csv\" }\n";
    let server = problems(&format!("[server]\nauth = {{ tokens = [\"env:TOKEN\", \"env:SHORT\"] }}{dio}"));
    assert!(
        server.len() == 1 && server[0].starts_with("shop/diorama.toml:2:33: the secret env:SHORT is shorter than 16")
    );
    let hook = |scheme: &str| parse(&format!("{dio}[webhook.a]\nauth = {{ {scheme}, secrets = [\"env:SHORT\"] }}\n"));
    let found = hook("scheme = \"bearer\"").unwrap_err();
    assert!(
        found.len() == 1 && found[0].contains("shorter than 16 bytes") && !found[0].contains("fifteen"),
        "{found:?}"
    );
    assert!(hook("scheme = \"hmac\", header = \"X-Sig\"").is_ok(), "a key is not sent");
}

#[test]
fn the_size_of_a_secret_file_is_bounded() {
    let folder = tempfile::tempdir().unwrap();
    let read = |content: usize| {
        let path = folder.path().join("secret");
        std::fs::write(&path, "x".repeat(content)).unwrap();
        let path = path.display();
        parse(&format!("[server]\nauth = {{ tokens = [\"file:{path}\"] }}\n[dio.a]\nsource = {{ csv = \"a.csv\" }}\n"))
    };
    assert!(read(64 << 10).is_ok());
    let found = read((64 << 10) + 1).unwrap_err();
    assert!(found.len() == 1 && found[0].contains("it is larger than 65536 bytes"), "{found:?}");
}

#[test]
fn times_are_read_with_every_unit_and_in_sums() {
    let read = |time: &str| {
        let text = format!("[dio.a]\nsource = {{ csv = \"a.csv\" }}\nrefresh_every = \"{time}\"");
        parse(&text).map(|config| config.dios[0].refresh_every.unwrap())
    };
    for (text, seconds) in
        [("250ms", 0.25), ("30s", 30.0), ("5m", 300.0), ("1h", 3_600.0), ("2d", 172_800.0), ("1h 30m", 5_400.0)]
    {
        assert_eq!(read(text).unwrap().as_secs_f64(), seconds, "{text}");
    }
    for wrong in ["0s", "-5s", "5", "1 month", "", "99999999999999999999d", "soon"] {
        assert!(read(wrong).unwrap_err()[0].contains("must be a time like"), "{wrong}");
    }
}

#[test]
fn limits_are_read_within_their_bounds() {
    let read = |limits: &str| {
        parse(&format!("[server.limits]\n{limits}\n[dio.a]\nsource = {{ csv = \"a.csv\" }}")).map(|c| c.server.limits)
    };
    assert_eq!(read("").unwrap(), LimitsSpec::default());
    let all = "body = \"2MiB\"\nbulk = \"1 GiB\"\nuri = 4096\ndepth = 10\nnodes = 1_000\nheaders = 50\nheader_bytes = \"16KiB\"\n\
         rows = 500\nmax_connections = 100\nper_address = 10\nmax_sockets = 20\nstreams = 8\nheader_timeout = \"2s\"\nbody_timeout = \"1m\"\nwrite_timeout = \"3s\"\nstart_wait = \"5s\"\n\
         query_time = \"1s\"\nquery_memory = \"10MiB\"\nheavy_queries = 3\nbodies = \"2MiB\"\nspooled = \"5MiB\"\ndeliveries = \"6MiB\"\nanswers = \"3MiB\"\n\
         live_queries = 7\nlive_per_address = 2\nevent_views = 9\npatterns = \"4MiB\"\nauth_failures = 5";
    let gateway = Limits {
        body: 2 << 20,
        bulk: 1 << 30,
        uri: 4_096,
        header_bytes: 16 << 10,
        depth: 10,
        nodes: 1_000,
        body_timeout: Duration::from_secs(60),
        start_wait: Duration::from_secs(5),
        query_time: Duration::from_secs(1),
        query_memory: 10 << 20,
        bodies: 2 << 20,
        spooled: 5 << 20,
        deliveries: 6 << 20,
        answers: 3 << 20,
        live_queries: 7,
        live_per_address: 2,
        event_views: 9,
        patterns: 4 << 20,
        auth_failures: 5,
    };
    let expected = LimitsSpec {
        gateway,
        headers: 50,
        rows: 500,
        max_connections: 100,
        per_address: 10,
        max_sockets: 20,
        streams: 8,
        header_timeout: Duration::from_secs(2),
        write_timeout: Duration::from_secs(3),
        heavy_queries: Some(3),
    };
    assert_eq!(read(all).unwrap(), expected);
    for (wrong, says) in [
        ("per_adress = 5", "2:1: [server.limits] has no key \"per_adress\": did you mean per_address?"),
        ("per_address = 0", "2:15: server.limits.per_address must be a whole number from 1 to 1000000"),
        ("depth = 101", "server.limits.depth must be a whole number from 1 to 100"),
        (
            "body = \"1MB\"",
            "server.limits.body must be a number of bytes from 1024 to 268435456, or a size like \"64KiB\"",
        ),
        ("header_bytes = 100", "server.limits.header_bytes must be a number of bytes from 8192"),
        ("uri = \"10KiB\"\nheader_bytes = \"8KiB\"", "2:7: server.limits.uri must be less than header_bytes"),
        ("header_timeout = \"1h\"", "server.limits.header_timeout must be a time from \"100ms\" to \"10m\""),
        ("max_sockets = \"many\"", "server.limits.max_sockets must be a whole number"),
    ] {
        let found = read(wrong).unwrap_err();
        assert!(found.len() == 1 && found[0].contains(says), "{wrong}: {found:#?}");
    }
}

#[test]
fn files_become_resources_of_their_names() {
    let named = |argument| File::parse(argument).map(|file| (file.name, file.renamed));
    assert_eq!(named("data/products.csv"), Ok(("products".into(), false)));
    assert_eq!(named("my shop (2).csv"), Ok(("my_shop__2_".into(), true)));
    assert_eq!(named("items=my shop.csv"), Ok(("items".into(), false)));
    assert_eq!(named("data/products.csv.gz"), Ok(("products".into(), false)));
    assert_eq!(named("data/products.ndjson.ZST"), Ok(("products".into(), false)));
    assert!(named("events.csv").is_err());
    assert!(named("a b=x.csv").is_err());
    let files = ["a.csv", "b/a.json", "c.xls"].map(|file| File::parse(file).unwrap());
    let error = File::config(&files).unwrap_err();
    assert!(error.contains("two files are named \"a\"") && error.contains("c.xls"), "{error}");
}

#[cfg(all(feature = "http", feature = "watch"))]
#[test]
fn files_may_be_at_urls() {
    let read = |source: &str| parse(&format!("[dio.a]\nsource = {{ {source} }}\n"));
    let config =
        read(r#"csv = "https://h/a.csv?key=1", headers = { accept = "text/csv" }, max_size = "2GiB", timeout = "1m""#)
            .unwrap();
    let source = &config.dios[0].source;
    assert_eq!((source.describe().as_str(), source.as_file(), source.missing()), ("https://h/a.csv", None, None));
    let config =
        read(r#"json = "s3://bucket/a.json", region = "eu-west-1", endpoint = "https://store.example""#).unwrap();
    assert_eq!(config.dios[0].source.describe(), "https://store.example/bucket/a.json");
    for (source, expected) in [
        (
            r#"csv = "https://h/a.csv", watch = true"#,
            "a file at a URL does not report that it is saved: use refresh_every",
        ),
        (r#"csv = "https://", watch = false"#, "the URL is not valid"),
        (r#"csv = "s3://bucket""#, "a file in an object store is written s3://BUCKET/KEY"),
        (r#"csv = "a.csv", region = "eu-west-1""#, "region"),
    ] {
        let error = read(source).unwrap_err().join("\n");
        assert!(error.contains(expected), "{source}: {error}");
    }
    let watched = read(r#"csv = "a.csv", watch = true"#).unwrap();
    assert!(watched.dios[0].source.watched().is_some_and(|path| path.ends_with("a.csv")));
}

#[test]
fn file_options_are_read() {
    let text = |source: &str| format!("[dio.a]\nsource = {{ {source} }}\n");
    let read = |source: &str| format!("{:?}", parse(&text(source)).unwrap().dios[0].source);
    let default = CsvOptions::default();
    assert!(read("csv = \"a.csv\"").ends_with(&format!("options: {default:?} }}")));
    let debug = read(
        "csv = \"a.csv\", separator = \"\\t\", header = 3, decimal = \",\", encoding = \"windows-1252\", null = [\"-\"]",
    );
    let expected = CsvOptions {
        delimiter: Some(b'\t'),
        header: Some(3),
        decimal: Some(b','),
        encoding: Some("windows-1252".into()),
        null: Some(vec!["-".into()]),
        ..default
    };
    assert!(debug.ends_with(&format!("options: {expected:?} }}")), "{debug}");
    assert!(read("json = \"a.json\", encoding = \"utf-16\"").contains("encoding: Some(\"utf-16\")"));
    for (wrong, says) in [
        ("csv = \"a.csv\", separator = \"ab\"", "separator must be one ASCII character"),
        ("csv = \"a.csv\", separator = \"\\\"\"", "separator must be one ASCII character"),
        ("csv = \"a.csv\", decimal = \";\"", "decimal must be one of ., ,"),
        ("json = \"a.json\", separator = \";\"", "has no key \"separator\""),
    ] {
        let found = parse(&text(wrong)).unwrap_err();
        assert!(found[0].contains(says), "{wrong}: {found:#?}");
    }
}

#[test]
fn ack_is_read() {
    let text = |ack: &str| format!("[dio.a]\nsource = {{ csv = \"a.csv\" }}\n{ack}");
    let read = |ack: &str| {
        let spec = parse(&text(ack)).unwrap().dios.remove(0);
        (spec.ack, spec.log_in_memory)
    };
    assert_eq!(read(""), (Ack::Journal, false));
    assert_eq!(read("ack = \"journal\""), (Ack::Journal, false));
    assert_eq!(read("ack = \"applied\""), (Ack::Applied, false));
    assert_eq!(read("ack = \"memory\""), (Ack::Journal, true));
    assert!(parse(&text("ack = \"never\"")).unwrap_err()[0].contains("journal, applied, memory"));
}

#[test]
fn intake_and_retention_settings_are_read() {
    let text = r#"
[lens]
inbox = { count = 50, bytes = "32MiB", age = "1d", claims = 5000 }
events = { count = 70, bytes = "2MiB", age = "2h" }

[dio.a]
source = { csv = "a.csv" }
reread_rate = 7
feed = { ws = "wss://other.example/a/events", headers = { Authorization = "Bearer env:TOKEN", Origin = "here" }, idle = "30s" }

[dio.b]
source = { csv = "b.csv" }
feed = { ws = "ws://other.example/b", format = "debezium", subscribe = "all", max_message = "64KiB", on_item_error = "abort" }

[webhook.a]
auth = { scheme = "bearer", secrets = ["env:TOKEN"] }
rate = 9
in_hand = 3
answer_within = "1s"
on_undecodable = "reject"
"#;
    let config = parse(text).unwrap();
    let inbox = InboxSpec {
        count: Some(50),
        bytes: Some(32 << 20),
        age: Some(Duration::from_secs(86_400)),
        claims: Some(5000),
    };
    assert_eq!(config.lens.inbox, inbox);
    let events = EventsSpec { count: Some(70), bytes: Some(2 << 20), age: Some(Duration::from_secs(7_200)) };
    assert_eq!(config.lens.events, events);
    let [a, b] = &config.dios[..] else { panic!() };
    let (feed, other) = (a.feed.as_ref().unwrap(), b.feed.as_ref().unwrap());
    let debug = format!("{:?}", feed.feed);
    assert!(debug.contains(r#"headers: ["Authorization", "Origin"]"#) && debug.contains("idle: Some(30s)"), "{debug}");
    assert!(feed.format.is_none() && a.reread_rate == Some(7));
    let format = other.format.as_ref().unwrap();
    assert!(format.feed && format.abort && format.format == "debezium");
    let debug = format!("{:?}", other.feed);
    assert!(debug.contains(r#"subscribe: Some("all")"#) && debug.contains("max_message: Some(65536)"), "{debug}");
    let patience = Some(Duration::from_secs(1));
    let intake = IntakeSpec { rate: Some(9), in_hand: Some(3), answer_within: patience, reject_undecodable: true };
    assert_eq!(config.webhooks[0].intake, intake);
    let wrong = text.replace("wss://", "https://").replace("env:TOKEN\", Origin", "env:NOTHING\", Origin");
    let wrong = problems(&wrong).join("\n");
    assert!(wrong.contains("requires ws = \"wss://HOST/PATH\"") && wrong.contains("NOTHING is not set"), "{wrong}");
}

/// Connector that records its settings.
struct Probe(Arc<Mutex<Vec<(String, String)>>>);

impl Connector for Probe {
    fn name(&self) -> &'static str {
        "probe"
    }

    fn feed_form(&self) -> Option<&'static str> {
        Some("{ probe = true }")
    }

    fn feed(&self, settings: &dyn Settings) -> Option<Arc<dyn Feed>> {
        assert_eq!(settings.flag("probe"), Some(true));
        self.0.lock().extend(settings.secret_texts("headers"));
        None
    }
}

#[test]
fn an_external_connector_gets_its_settings_with_secrets() {
    let recorded = Arc::default();
    let registry = Registry::builtin().with(Probe(Arc::clone(&recorded)));
    let text = "[dio.a]\nsource = { csv = \"a.csv\" }\n\
                feed = { probe = true, headers = { Authorization = \"Bearer env:TOKEN\", Origin = \"here\" } }";
    let path = Path::new("diorama.toml");
    let refused = super::file::parse(text, path, &|_| Some("s3cr3t-0123456789".into()), &registry).unwrap_err();
    assert!(refused.to_string().contains("the connector probe refuses this"), "it gives no reason: {refused}");
    let recorded = recorded.lock();
    let recorded: Vec<_> = recorded.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    assert_eq!(recorded, [("Authorization", "Bearer s3cr3t-0123456789"), ("Origin", "here")]);
}

#[test]
fn the_format_settings_of_a_webhook_must_be_consistent() {
    let dio = "[dio.a]\nsource = { csv = \"a.csv\" }\n[webhook.a]\n";
    let parse = |rest: &str| parse(&format!("{dio}{rest}"));
    let stripe = "auth = { scheme = \"stripe\", secrets = [\"env:TOKEN\"] }\n";
    let hook = |rest: &str| parse(&format!("{stripe}{rest}")).unwrap().webhooks.remove(0);
    assert_eq!(hook("").format, "native");
    let preset = hook("format = \"stripe\"\nonly = \"product\"\n[webhook.a.map]\nid = \"/a\"");
    assert_eq!((preset.format, preset.only.as_deref(), preset.map.is_some()), ("stripe", Some("product"), true));
    assert_eq!(hook("map = { op = \"invalidate\" }").format, "map");
    let events = hook("format = \"cloudevents\"\naccept_batch = true\norigins = [\"*\"]\non_item_error = \"abort\"");
    assert!(events.accept_batch && events.abort && events.origins == ["*"]);
    for (rest, message) in [
        ("format = \"strip\"", "webhook.a.format must be one of native, cloudevents, map, airtable"),
        ("format = \"map\"", "format \"map\" requires [webhook.a.map]"),
        ("format = \"native\"\nmap = { op = \"invalidate\" }", "does not use a map"),
        ("only = \"a\"", "has no key \"only\""),
        ("accept_batch = true", "has no key \"accept_batch\""),
        ("on_item_error = \"stop\"", "on_item_error must be one of skip, abort"),
    ] {
        let found = parse(&format!("{stripe}{rest}")).unwrap_err();
        assert!(found.iter().any(|problem| problem.contains(message)), "{rest}: {found:#?}");
    }
}

#[test]
fn each_scheme_has_its_own_keys() {
    let dio = "[dio.a]\nsource = { csv = \"a.csv\" }\n[webhook.a]\n";
    let parse = |auth: &str| parse(&format!("{dio}auth = {{ {auth} }}\n"));
    let secret = "secrets = [\"env:TOKEN\"]";
    let own = ["hmac", "header", "basic", "none", "meta", "sns"];
    for scheme in SCHEMES.iter().filter(|scheme| !own.contains(scheme)) {
        assert!(parse(&format!("scheme = \"{scheme}\", {secret}")).is_ok(), "{scheme}");
    }
    for (auth, message) in [
        ("scheme = \"github\"", "requires secrets"),
        ("scheme = \"github\", secrets = []", "at least one secret"),
        ("scheme = \"github\", secrets = [\"env:TOKEN\"], header = \"X-Own\"", "has no key \"header\""),
        ("scheme = \"github\", secrets = [\"env:TOKEN\"], tolerance = 5", "has no key \"tolerance\""),
        ("scheme = \"stripe\", secrets = [\"env:TOKEN\"], tolerance = 0", "tolerance must be a whole number"),
        ("scheme = \"gitlab\", secrets = [\"env:SHORT\"]", "can be guessed"),
        ("scheme = \"header\", secrets = [\"env:TOKEN\"]", "requires header"),
        ("scheme = \"basic\", secrets = [\"env:TOKEN\"]", "user:password"),
        ("scheme = \"hmac\", header = \"X-S\", algorithm = \"sha1\", secrets = [\"env:TOKEN\"]", "allow_sha1 = true"),
        ("scheme = \"none\", secrets = [\"env:TOKEN\"]", "does not use secrets"),
        ("scheme = \"meta\", secrets = [\"env:TOKEN\"]", "requires verify_tokens"),
        ("scheme = \"meta\", secrets = [\"env:TOKEN\"], verify_tokens = []", "requires verify_tokens"),
        ("scheme = \"meta\", secrets = [\"env:TOKEN\"], verify_tokens = [\"env:SHORT\"]", "can be guessed"),
        ("scheme = \"sns\", secrets = [\"env:TOKEN\"]", "requires topics"),
        ("scheme = \"sns\", secrets = [\"env:TOKEN\"], topics = [\"shop\"]", "requires topics"),
        ("scheme = \"query\", secrets = [\"env:TOKEN\"], parameter = \"a=b\"", "parameter must be the name"),
        ("scheme = \"eventgrid\", secrets = [\"env:SHORT\"]", "can be guessed"),
        ("scheme = \"graph\", secrets = []", "at least one secret"),
        ("scheme = \"twilio\", secrets = [\"env:TOKEN\"], public_url = \"shop.example\"", "public_url must be the URL"),
        ("scheme = \"twilio\", secrets = [\"env:TOKEN\"], tolerance = 9", "has no key \"tolerance\""),
    ] {
        let found = parse(auth).unwrap_err();
        assert!(found.iter().any(|problem| problem.contains(message)), "{auth}: {found:#?}");
    }
    let sha1 =
        "scheme = \"hmac\", header = \"X-S\", algorithm = \"sha1\", allow_sha1 = true, secrets = [\"env:TOKEN\"]";
    assert!(parse(sha1).is_ok());
    assert!(parse("scheme = \"asana\"").is_ok(), "its secret is known after the handshake");
    let sns = "scheme = \"sns\", parameter = \"key\", topics = [\"arn:aws:sns:eu-west-1:123456789012:shop\"]";
    assert_eq!(parse(&format!("{sns}, {secret}")).unwrap().webhooks[0].auth.parameter, "key");
}
