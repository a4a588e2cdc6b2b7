//! Descriptions of all keys, in addition to what the code itself shows.

/// A key (`*` for any name), its default, and its description. The default of a mandatory key is `required`.
pub(super) type KeyText = (&'static str, &'static str, &'static str);

pub(super) const REQUIRED: &str = "required";

/// Tables with their descriptions, in the order of the reference.
pub(super) const TABLES: &[(&str, &str)] = &[
    ("server", "The server: address, access and limits."),
    ("server.auth", "`auth = { tokens = [\"env:NAME\"] }`, or `auth = \"none\"` to let anybody read and write."),
    (
        "server.tls",
        "TLS, with HTTP/1.1 and HTTP/2: see [TLS](tls.md). Without this table the server speaks plain HTTP/1.1.",
    ),
    ("server.limits", "Limits per client and in total."),
    (
        "allow",
        "`[[allow]]`: access rules. As soon as there is one, a caller may do only what a rule permits: see \
         [access.md](access.md). Tokens of `server.auth` stay unrestricted.",
    ),
    (
        "key.*",
        "A key: tokens or client certificates of a program, with a role. `diorama key new NAME` generates one. See [Authentication](authentication.md).",
    ),
    ("jwt.*", "An issuer whose tokens (JWT) are accepted. See [Authentication](authentication.md)."),
    ("lens", "Storage of copies, writes and events."),
    ("lens.inbox", "Retention of webhook deliveries; applied ones are removed first."),
    (
        "lens.outbox",
        "Retention of deliveries to send; delivered ones are removed first, then failed ones, pending ones never.",
    ),
    ("lens.events", "Retention of the events of each resource, for subscribers that reconnect."),
    (
        "audit",
        "The log of administrative actions and refused requests ([audit](audit.md)). It is in the journal, and not kept without a journal \
         on disk.",
    ),
    (
        "limit",
        "A limit of callers ([limits](limits.md)). Of those for principals, and of those for addresses, the first that fits the caller's \
         role applies. By default there is none.",
    ),
    ("dio.*", "A resource, served at `/NAME`. The name has letters, digits, `-` and `_`."),
    ("dio.*.source", "The source of its rows."),
    (
        "dio.*.source.page",
        "`http`: how the list is divided into pages: one of `header_link`, `json_link`, `cursor`, `header_cursor`, `page_number`, `offset`, \
         `none`. By default a `Link` header or the URL of the next page in a usual member is followed, and an answer that shows another \
         division is refused.",
    ),
    (
        "dio.*.source.auth",
        "`http`: credentials: one of `bearer`, `basic`, `header`, `query`, `oauth2_client_credentials`. Values may be `env:NAME` or \
         `file:PATH`.",
    ),
    (
        "dio.*.source.rate",
        "`http`: the rate limit, which lists, reads and writes share, and all sources on one origin with the same credentials and limits.",
    ),
    (
        "dio.*.source.since",
        "`http`: lets a refresh ask for the rows that have changed, between whole lists. Deleted rows stay until the next whole list.",
    ),
    (
        "dio.*.source.responses",
        "`http`: rules for the meaning of answers. The first that applies wins over the status.",
    ),
    ("dio.*.columns.*", "A declared column; other columns are inferred."),
    (
        "dio.*.relations.*",
        "A relation to the rows of another resource. Foreign keys of a database are relations without this.",
    ),
    ("dio.*.write", "Destination of writes in place of the source: a table, which must exist."),
    (
        "dio.*.write.http",
        "Requests for writes to an `http` source. A kind of write without a request is derived from another one if possible, or not \
         supported.",
    ),
    (
        "dio.*.feed",
        "A WebSocket that sends changes, in addition to webhooks. For the changes of the source itself see `feed` above.",
    ),
    ("webhook.*", "A webhook that receives changes at `POST /webhooks/NAME`."),
    (
        "notify.*",
        "A notification, which sends the events of a resource to a URL, as Standard Webhooks: see [notifications](notifications.md).",
    ),
    ("notify.*.headers", "Additional headers of messages by name. Values may be `env:NAME` or `file:PATH`."),
    ("webhook.*.auth", "Authentication of senders. The available keys depend on the scheme."),
];

pub(super) const KEYS: &[KeyText] = &[
    (
        "server.listen",
        "\"127.0.0.1:8080\"",
        "Address and port to listen on; `--listen` overrides it. A public address requires `auth`.",
    ),
    ("server.base_path", "\"\"", "Prefix of every path, for a proxy that does not remove it."),
    (
        "server.trusted_proxies",
        "[]",
        "Addresses or networks (`\"10.0.0.0/8\"`) of proxies whose `X-Forwarded-For` gives the client's address: limits of one \
         address then apply to that client, and `per_address` does not apply to the proxy.",
    ),
    (
        "server.cors",
        "[]",
        "Origins of web pages that may call the API, like `https://shop.example`. On loopback without tokens, pages on loopback may as well.",
    ),
    (
        "server.compression",
        "true",
        "Compresses bodies of 1 KiB and more as zstd, br or gzip, according to `Accept-Encoding`.",
    ),
    (
        "server.explorer",
        "true",
        "`true` serves the built-in explorer at `/`, `false` none; a folder with an `index.html` is served at `/` and `/static/` instead.",
    ),
    ("server.auth", "none on loopback", "Access control: see `[server.auth]`."),
    ("server.tls", "no TLS", "See `[server.tls]`."),
    (
        "server.anonymous",
        "false",
        "Admits callers without credentials, with the role `anonymous`, although there are tokens, keys or issuers. Wrong credentials \
         are refused in any case.",
    ),
    ("server.limits", "{}", "See `[server.limits]`."),
    (
        "allow.role",
        REQUIRED,
        "Role of the callers; `\"*\"` for every authenticated one, `\"anonymous\"` for callers without credentials.",
    ),
    ("allow.dio", REQUIRED, "Name of the resource, `\"*\"` for all."),
    (
        "allow.can",
        REQUIRED,
        "What the callers may do: `read`, `insert`, `update`, `delete`, `events`, `refresh`, `operations`, `webhooks`, `admin`.",
    ),
    (
        "allow.where",
        "all rows",
        "Condition of the rows in the language of queries. `{claims.NAME}`, `{name}` and `{role}` stand for values of the caller; a missing \
         one matches no row.",
    ),
    ("allow.check", "`where`", "Condition of rows after an insert or update."),
    (
        "allow.columns",
        "`[\"*\"]`",
        "Visible and writable columns. Others do not exist for the callers; the id is always visible.",
    ),
    ("server.drain_timeout", "\"20s\"", "Maximum duration of a shutdown. Remaining writes stay in the journal."),
    (
        "key.*.token",
        "required, or one of the next three",
        "The token, of at least 16 bytes, for `Authorization: Bearer ...`.",
    ),
    ("key.*.tokens", "", "Several tokens, which count at the same time, so that one can be replaced by another."),
    (
        "key.*.token_sha256",
        "",
        "SHA-256 hash of the token as hexadecimal digits, or several hashes, so that the configuration needs no secret.",
    ),
    (
        "key.*.certificate",
        "",
        "Common name of a client certificate, or several; without a common name, the first alternative name that is a text. Requires \
         `server.tls.client_ca`.",
    ),
    ("key.*.role", REQUIRED, "Role of the key. No access rule restricts `admin`."),
    ("key.*.claims", "{}", "Claims of the key, such as `{ org_id = 7 }`."),
    (
        "key.*.can",
        "all",
        "Verbs that the key can be used for at most: `read`, `insert`, `update`, `delete`, `events`, `refresh`, `operations`, \
         `webhooks`, `admin`.",
    ),
    ("key.*.expires", "never", "Time at which the key expires."),
    ("jwt.*.issuer", REQUIRED, "Value of `iss`, exactly as the tokens have it."),
    ("jwt.*.audience", REQUIRED, "Accepted values of `aud`: the names of this API at the issuer."),
    (
        "jwt.*.algorithms",
        REQUIRED,
        "Accepted algorithms: `RS256`, `RS384`, `RS512`, `PS256`, `PS384`, `PS512`, `ES256`, `ES384`, `EdDSA`, or `HS256` with `secret`.",
    ),
    (
        "jwt.*.jwks",
        "required, or `secret`",
        "Public keys of the issuer: an `https` URL, which is fetched again every ten minutes or as `Cache-Control` says, or a file.",
    ),
    ("jwt.*.secret", "", "Secret for `HS256`, of at least 32 bytes."),
    (
        "jwt.*.role_claim",
        "\"role\"",
        "Claim with the role: a name, or names separated by dots. The claim is a text, or a list of which the first role in `roles` counts.",
    ),
    ("jwt.*.roles", "all", "Accepted roles."),
    ("jwt.*.default_role", "", "Role of tokens without one, which are refused otherwise."),
    ("jwt.*.leeway", "\"30s\"", "Tolerated difference of clocks."),
    ("jwt.*.typ", "any", "Required type of the tokens, such as `\"at+jwt\"`."),
    ("server.auth.tokens", REQUIRED, "Accepted tokens for `Authorization: Bearer ...`, each of at least 16 bytes."),
    ("audit.enabled", "true", "False to keep no audit log."),
    ("audit.keep", "\"90d\"", "Maximum age of an entry, at least an hour."),
    ("audit.keep_bytes", "\"64MiB\"", "Maximum size of all entries; the oldest are dropped."),
    (
        "limit.role",
        "\"*\"",
        "Role of the callers; `anonymous` is that of callers without credentials, `*` is every role, including that one.",
    ),
    (
        "limit.per",
        "\"principal\"",
        "`principal`: each principal has the limit, from all of its addresses, and anonymous callers have it by address. `address`: \
         each address has it, for all of its callers; an IPv6 address counts as its /64 network.",
    ),
    ("limit.requests", "none", "Rate of requests, including commands on WebSockets."),
    ("limit.burst", "amount of `requests`", "Number of requests without a pause."),
    ("limit.writes", "none", "Rate of requests that write rows. A bulk insert is one of them."),
    ("limit.sockets", "none", "Maximum number of open event sockets and streams."),
    ("limit.live_queries", "none", "Maximum number of distinct live queries and filters of subscribers."),
    (
        "limit.export",
        "none",
        "Rate of bytes of lists of more than 1,000 rows. A list that has begun is sent to its end, and the next one waits.",
    ),
    (
        "server.tls.cert",
        REQUIRED,
        "File with the certificate of the server, followed by those of its intermediate authorities, in PEM format. It is read again \
         when it changes.",
    ),
    (
        "server.tls.key",
        REQUIRED,
        "File with the private key of the certificate, in PEM format and not encrypted, or `env:NAME` for its text.",
    ),
    (
        "server.tls.client_ca",
        "none",
        "File with the certificates of authorities, in PEM format: clients authenticate themselves by a certificate of one of them.",
    ),
    (
        "server.tls.client_auth",
        "`\"required\"`",
        "`required` refuses connections without a client certificate, `optional` accepts them. Requires `client_ca`.",
    ),
    ("server.limits.body", "\"1MiB\"", "Maximum size of one row or query."),
    ("server.limits.bulk", "\"256MiB\"", "Maximum size of a bulk insert."),
    ("server.limits.uri", "\"8KiB\"", "Maximum length of path and query; must be less than `header_bytes`."),
    ("server.limits.header_bytes", "\"64KiB\"", "Maximum size of one request's head."),
    ("server.limits.depth", "64", "Maximum nesting depth of a document."),
    ("server.limits.nodes", "100_000", "Maximum number of values in a document."),
    ("server.limits.headers", "100", "Maximum number of headers of one request."),
    ("server.limits.rows", "10_000", "Default of `max_limit` of resources."),
    ("server.limits.max_connections", "20_000", "Maximum number of connections; more wait."),
    (
        "server.limits.per_address",
        "1_000",
        "Maximum number of connections of one address; more are refused. Behind a proxy all clients have its address, unless it is in `trusted_proxies`.",
    ),
    ("server.limits.max_sockets", "10_000", "Maximum number of event sockets."),
    (
        "server.limits.streams",
        "100",
        "Maximum number of concurrent requests of one HTTP/2 connection. All those of one address count towards `per_address`.",
    ),
    ("server.limits.header_timeout", "\"10s\"", "Timeout for receiving a request's head, from `100ms` to `10m`."),
    ("server.limits.body_timeout", "\"30s\"", "Timeout for receiving a request's body, from `100ms` to `10m`."),
    (
        "server.limits.write_timeout",
        "\"10s\"",
        "Time for which a client may read nothing before it is disconnected, from `100ms` to `10m`.",
    ),
    (
        "server.limits.start_wait",
        "\"20s\"",
        "Time for which event streams and sockets wait for the first copy of a resource before they are refused, from `100ms` to `10m`.",
    ),
    (
        "server.limits.query_time",
        "\"2s\"",
        "Timeout of one query, including the time in the queue, from `100ms` to `10m`; beyond it, 503 `query-timeout` or `busy`.",
    ),
    (
        "server.limits.query_memory",
        "\"256MiB\"",
        "Maximum memory of one query for its groups and sort keys; beyond it, 400 `limit-too-large`.",
    ),
    (
        "server.limits.heavy_queries",
        "number of cores minus one",
        "Maximum number of concurrent queries over many rows; more wait.",
    ),
    (
        "server.limits.bodies",
        "\"128MiB\"",
        "Maximum size of all request bodies in memory, a quarter of it for one address; beyond it, 503 `busy` or 429.",
    ),
    (
        "server.limits.spooled",
        "\"1GiB\"",
        "Maximum size of all webhook bodies in temporary files, a quarter of it for one address; beyond it, 503 `busy` or 429.",
    ),
    (
        "server.limits.deliveries",
        "\"128MiB\"",
        "Maximum memory for decoding and applying webhook deliveries, counted as 64 bytes per byte of a body, or 4 KiB per change if that is more. One \
         address may use a quarter of it, or enough for one delivery of maximum size; beyond it, 503 `busy` or 429.",
    ),
    (
        "server.limits.answers",
        "\"256MiB\"",
        "Maximum size of all large responses in progress, a quarter of it for one address; beyond it, 503 `busy` or 429.",
    ),
    (
        "server.limits.live_queries",
        "1_000",
        "Maximum number of distinct live queries and subscriber filters; beyond it, 503 `busy`.",
    ),
    (
        "server.limits.live_per_address",
        "250",
        "Maximum number of distinct live queries and subscriber filters of one address; beyond it, 429.",
    ),
    (
        "server.limits.event_views",
        "10_000",
        "Maximum number of distinct scopes and filters of one resource's subscribers that compare a column with a value (`org_id=eq.5`); beyond it, 503 \
         `too-many-views`. Of other filters there are at most 1,000.",
    ),
    (
        "server.limits.patterns",
        "\"64MiB\"",
        "Maximum size of the compiled patterns of subscriber filters, a quarter of it for one address; beyond it, 503 `busy` or 429.",
    ),
    (
        "server.limits.auth_failures",
        "10",
        "Maximum rate of requests without a valid token or signature per second and address; beyond it, 429 in place of 401. Valid requests always pass.",
    ),
    (
        "lens.cache",
        "\"cache.redb\"",
        "File for the copies, or `\"memory\"`, or a server: `redis://HOST/DATABASE` or `postgres://USER@HOST/DATABASE` ([cache stores](connect/cache-stores.md)). \
         May be `env:NAME` or `file:PATH`. `--cache` overrides it.",
    ),
    ("lens.cache_ca", "public authorities", "PEM file with the authorities to trust for a cache on a server."),
    (
        "lens.cache_prefix",
        "\"diorama_cache\"",
        "Beginning of the names of what a cache on a server stores there. Each Diorama needs its own, or its own database.",
    ),
    (
        "lens.journal",
        "next to the cache",
        "File for writes and events: `cache.journal.redb` for `cache.redb`. In memory if the cache is in memory.",
    ),
    (
        "lens.kept_corrupt_caches",
        "3",
        "Maximum number of damaged cache files (`cache.redb.corrupt-1` and so on) that are kept; older ones are removed. Damaged journals are never removed.",
    ),
    ("lens.refresh_every", "never", "Default of `refresh_every` of resources."),
    (
        "lens.write_queue_capacity",
        "100_000",
        "Maximum number of writes of one resource that wait for its source or, parked, for a person; beyond it, 503 `queue-full`.",
    ),
    ("lens.inbox", "{}", "See `[lens.inbox]`."),
    ("lens.inbox.count", "10_000", "Maximum number of deliveries."),
    ("lens.inbox.bytes", "\"64MiB\"", "Maximum size of all deliveries."),
    ("lens.inbox.age", "\"7d\"", "Maximum age of a delivery."),
    (
        "lens.inbox.claims",
        "5_000_000",
        "Maximum number of idempotency keys (kept for one day) and delivery ids (kept for seven days); beyond it, requests with new ones get 503 `busy`.",
    ),
    ("lens.outbox", "{}", "See `[lens.outbox]`."),
    ("lens.outbox.count", "10_000", "Maximum number of deliveries."),
    ("lens.outbox.bytes", "\"64MiB\"", "Maximum size of all deliveries."),
    ("lens.outbox.age", "\"7d\"", "Maximum age of a delivery that is not pending."),
    ("lens.events", "{}", "See `[lens.events]`."),
    ("lens.events.count", "100_000", "Maximum number of events."),
    ("lens.events.bytes", "\"256MiB\"", "Maximum size of all events."),
    ("lens.events.age", "\"24h\"", "Maximum age of an event."),
    ("dio.*.source", REQUIRED, "See `[dio.NAME.source]`."),
    (
        "dio.*.id",
        "detected",
        "The id column; `\"#\"` numbers the rows. By default `id` or `NAME_id`, else the first column without duplicates.",
    ),
    ("dio.*.columns", "inferred", "See `[dio.NAME.columns.COLUMN]`."),
    ("dio.*.columns.*.type", REQUIRED, "The type of its cells."),
    (
        "dio.*.columns.*.timezone",
        "UTC",
        "IANA name of the time zone of dates and times without an offset: `Europe/Berlin`.",
    ),
    ("dio.*.columns.*.flags", "[]", "Its flags: `id`, `title`, `searchable`, `orderable`, `hidden`, `mandatory`."),
    ("dio.*.null_values", "[]", "CSV cells that mean null in every column, including texts."),
    ("dio.*.write", "to the source", "See `[dio.NAME.write]`."),
    ("dio.*.routed_ttl", "unlimited", "Time for which a routed write stays visible while the source does not show it."),
    (
        "dio.*.write_concurrency",
        "1",
        "Maximum number of concurrent writes to the source; in SQLite they share a transaction. Writes of one row are never concurrent.",
    ),
    (
        "dio.*.write_order",
        "\"queue\"",
        "`queue`: a write that fails temporarily delays all later ones. `row`: it delays only those of its row. A `write_concurrency` above 1 implies `row`.",
    ),
    (
        "dio.*.head_patience",
        "\"60s\"",
        "Time for which one write may delay all others while the source answers other requests; then it is parked.",
    ),
    ("dio.*.refresh_every", "that of `[lens]`", "Time between two refreshes from the source."),
    ("dio.*.refresh_timeout", "\"5m\"", "Timeout of a list of the source."),
    ("dio.*.read_timeout", "\"30s\"", "Timeout of any other read of the source."),
    ("dio.*.attempt_timeout", "\"10s\"", "Timeout of one delivery of a write."),
    ("dio.*.max_age", "\"24h\"", "Age at which an undeliverable write is parked for a person."),
    (
        "dio.*.on_unknown",
        "\"retry\"",
        "Handling of a write with an unknown outcome: `retry` sends it again, `park` parks it for a person.",
    ),
    ("dio.*.allow_shrink", "false", "Permits a refresh to remove more than half of the rows."),
    ("dio.*.version", "none", "A column whose value increases with each change: the newer row wins."),
    (
        "dio.*.reread_rate",
        "100",
        "Maximum rate of single-row reads from the source per second, for rows whose state is uncertain.",
    ),
    ("dio.*.source.connection", "", "A `[connection.NAME]` of the file, which has the other settings of the source."),
    ("dio.*.write.connection", "", "A `[connection.NAME]` of the file, which has the other settings of the table."),
    (
        "dio.*.feed",
        "none",
        "`auto`, `replication` or `notify`: the changes of the source itself, if it is a database. Or a table, see `[dio.NAME.feed]`.",
    ),
    ("dio.*.feed.format", "\"diorama\"", "As for webhooks; `diorama` is another Diorama's `/NAME/events`."),
    ("dio.*.feed.map", "", "As for webhooks."),
    ("dio.*.feed.only", "", "As for webhooks."),
    ("dio.*.feed.accept_batch", "false", "As for webhooks."),
    ("dio.*.feed.origins", "[]", "As for webhooks; has no effect here."),
    ("dio.*.feed.clock", "\"feed\"", "As for webhooks."),
    ("dio.*.feed.on_item_error", "\"skip\"", "As for webhooks."),
    (
        "dio.*.ack",
        "\"journal\"",
        "When a write is acknowledged: `journal` once it is on disk, `applied` once the source has it, `memory` before either (a crash loses it).",
    ),
    ("dio.*.require_if_match", "false", "Requires changes to name the version of the row (`If-Match`)."),
    (
        "dio.*.unknown_columns",
        "`reject` with `columns` or a table, else `keep`",
        "Policy for columns that are not declared. With `reject`, those of webhooks and feeds are dropped and counted.",
    ),
    (
        "dio.*.indexes",
        "[]",
        "Indexes to build before the resource is ready: `\"price\"`, `\"category_id,price.desc\"`, `\"q\"`. Others are built when a query first needs them.",
    ),
    ("dio.*.max_indexes", "16", "Maximum number of indexes; the least used are removed first."),
    ("dio.*.index_memory", "\"512MiB\"", "Maximum size of all indexes."),
    (
        "dio.*.column_memory",
        "\"256MiB\"",
        "Maximum size of the columns and groups that scans keep; the least recently used are dropped. 0 keeps none.",
    ),
    ("dio.*.default_limit", "100", "Default number of rows of a list."),
    ("dio.*.max_limit", "`limits.rows`", "Maximum number of rows of a list."),
    ("dio.*.max_affected", "1_000", "Maximum number of rows changed by a write by filter."),
    ("dio.*.max_live", "500", "Maximum number of distinct live queries."),
    ("dio.*.relations", "none", "See `[dio.NAME.relations.RELATION]`."),
    ("dio.*.relations.*.dio", REQUIRED, "The related resource."),
    (
        "dio.*.relations.*.on",
        REQUIRED,
        "The column with the id of the other row: of this resource, or with `many` of the related one.",
    ),
    ("dio.*.relations.*.many", "false", "True if a row of this resource has any number of related ones."),
    ("notify.*.dio", "NAME", "The resource whose events it sends."),
    ("notify.*.url", REQUIRED, "URL of the receiver, `http://` or `https://`; may be `env:NAME` or `file:PATH`."),
    (
        "notify.*.secrets",
        REQUIRED,
        "Secrets with which messages are signed, newest first, up to five for a rotation: `whsec_` and 24 to 64 bytes in base64, or the \
         private key `whsk_`.",
    ),
    ("notify.*.where", "all rows", "Filter of the rows, as in query strings: `\"status=paid&total=gte.100\"`."),
    ("notify.*.select", "all columns", "Columns of the rows in messages."),
    (
        "notify.*.events",
        "`inserted`, `changed`, `removed`, `invalidated`",
        "Events to send: these, `write_committed`, `write_failed`. A notice of missed events is always sent.",
    ),
    (
        "notify.*.retry",
        "`[\"5s\", \"5m\", \"30m\", \"2h\", \"5h\", \"10h\", \"10h\"]`",
        "Delays before the second and later attempts, with jitter.",
    ),
    ("notify.*.headers", "{}", "See `[notify.NAME.headers]`."),
    ("notify.*.concurrency", "8", "Maximum number of messages under way, of different rows."),
    ("notify.*.timeout", "\"15s\"", "Time within which the receiver must answer."),
    ("notify.*.ca", "the public authorities", "PEM file with the certificates of the authorities to trust."),
    ("notify.*.addresses", "\"any\"", "`public` refuses private and local addresses."),
    ("notify.*.from", "\"now\"", "Where a new notification begins: with the next event, or the `earliest` stored one."),
    ("webhook.*.dio", "NAME", "The resource whose rows it changes."),
    ("webhook.*.auth", REQUIRED, "See `[webhook.NAME.auth]`."),
    ("webhook.*.format", "\"native\", or \"map\" with a map", "Format of deliveries."),
    ("webhook.*.map", "", "Selectors of id, row, operation and version in a delivery: see [webhooks](webhooks.md)."),
    ("webhook.*.only", "", "The sender's name of the rows, for presets: `only = \"product\"`."),
    ("webhook.*.accept_batch", "false", "`cloudevents`: accepts batches."),
    ("webhook.*.origins", "[]", "`cloudevents`: origins that may request permission to deliver by `OPTIONS`."),
    (
        "webhook.*.clock",
        "the webhook's name",
        "The clock of its versions; only versions of the same clock are compared. `\"column\"` is the clock of the resource's `version` column.",
    ),
    (
        "webhook.*.on_item_error",
        "\"skip\"",
        "`skip`: an invalid change is left out. `abort`: an invalid change makes the whole delivery an error.",
    ),
    (
        "webhook.*.on_undecodable",
        "\"park\"",
        "Handling of deliveries that cannot be decoded: `park` keeps them and answers 202, `reject` refuses them with 422.",
    ),
    (
        "webhook.*.body",
        "\"1MiB\"",
        "Maximum size of one delivery, as sent and decompressed, up to `\"64MiB\"`; larger ones are refused (413).",
    ),
    ("webhook.*.rate", "5_000", "Maximum rate of deliveries per second; more are refused (429)."),
    ("webhook.*.in_hand", "256", "Maximum number of deliveries being applied at a time; more are refused (503)."),
    (
        "webhook.*.answer_within",
        "\"1500ms\"",
        "A delivery that takes longer is answered 202 once it is in the journal.",
    ),
    ("webhook.*.auth.scheme", REQUIRED, "The authentication scheme; `none` only on loopback addresses."),
    (
        "webhook.*.auth.secrets",
        "required except for `none`, `asana`",
        "Secrets shared with the sender, up to five for a rotation. Without one, `asana` only answers the handshake.",
    ),
    (
        "webhook.*.auth.tolerance",
        "300, or 30 for `contentful`, 600 for `twitch`",
        "Maximum difference in seconds between a signed time and the time of arrival.",
    ),
    (
        "webhook.*.auth.delivery",
        "",
        "`hmac`, `bearer`, `header`, `query`, `basic`, `none`: the header with the delivery's id.",
    ),
    ("webhook.*.auth.parameter", "\"token\"", "`query`, `eventgrid`, `sns`: the query parameter with the secret."),
    ("webhook.*.auth.verify_tokens", "required for `meta`", "`meta`: the verify token entered at Meta; up to five."),
    ("webhook.*.auth.topics", "required for `sns`", "`sns`: ARNs of the topics whose messages are accepted."),
    (
        "webhook.*.auth.public_url",
        "`https`, the header `Host`, and the path",
        "`twilio`: the URL configured at Twilio, without its query, if a proxy changes host or path.",
    ),
    ("webhook.*.auth.header", "required for `hmac`, `header`", "The header with the signature or the secret."),
    ("webhook.*.auth.prefix", "\"\"", "`hmac`: prefix of the signature."),
    ("webhook.*.auth.encoding", "\"hex\"", "`hmac`: encoding of the signature."),
    ("webhook.*.auth.algorithm", "\"sha256\"", "`hmac`: hash algorithm."),
    ("webhook.*.auth.allow_sha1", "false", "`hmac`: permits `sha1`."),
    ("webhook.*.auth.secret_encoding", "\"text\"", "`hmac`: encoding of the secrets."),
    ("webhook.*.auth.timestamp_header", "", "`hmac`: the header with the signed time."),
    (
        "webhook.*.auth.message",
        "\"{body}\"",
        "`hmac`: the signed message; by default `{timestamp}.{body}` with a `timestamp_header`.",
    ),
    ("webhook.*.auth.public_path", "", "`contentful`: the path that senders see, if a proxy changes it."),
];
