//! `GET /metrics`: all metrics in the text format of Prometheus.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::extract::State;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse as _, Response};

use crate::access::{Principal, Verb};
use crate::http::budget::Budget;
use crate::http::problem::ApiError;
use crate::http::problem::Code;
use crate::metrics::text::{CONTENT_TYPE, MetricFamily, Text};
use crate::metrics::{CLOSES, Metrics, results};
use crate::notify;
use crate::scope::require_everywhere;
use crate::state::{GatewayState, Resource};
use diorama_core::dio::{BreakerState, Counters, FeedStatus, Reachability, Status, Workers};
use diorama_core::journal::{Changes, DeliveryState, InboxUse};
use diorama_core::state::State as Rows;

/// Returns all metrics.
pub(crate) async fn scrape(
    State(gateway): State<Arc<GatewayState>>,
    principal: Principal,
) -> Result<Response, ApiError> {
    require_everywhere(&gateway, &principal, Verb::Admin)?;
    let mut text = Text::default();
    process(&mut text, &gateway.metrics);
    http(&mut text, &gateway);
    budgets(&mut text, &gateway);
    dios(&mut text, &gateway);
    hooks(&mut text, &gateway);
    notify::metrics::write(&mut text, &gateway);
    audit(&mut text, &gateway);
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static(CONTENT_TYPE)),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
    ];
    Ok((headers, text.finish()).into_response())
}

fn process(text: &mut Text, metrics: &Metrics) {
    text.gauge("diorama_build_info", "Always 1; the label is the version.")
        .sample(&[("version", env!("CARGO_PKG_VERSION"))], 1);
    text.gauge("diorama_process_start_time_seconds", "Unix time of the start of the gateway.")
        .sample(&[], unix(metrics.started).as_secs_f64());
    if let Some(bytes) = resident() {
        text.gauge("diorama_process_resident_memory_bytes", "Resident memory of the process.").sample(&[], bytes);
    }
}

fn http(text: &mut Text, gateway: &GatewayState) {
    let http = &gateway.metrics.http;
    let requests: Vec<_> = http.seen().collect();
    let name = |dio: Option<usize>| dio.and_then(|at| gateway.dios.get_index(at)).map_or("", |(name, _)| &**name);
    let mut family = text.counter(
        "diorama_http_requests_total",
        "Answered requests, by template of the route (none for unknown paths), method, status and resource.",
    );
    for request in &requests {
        for (status, count) in &request.statuses {
            let status = status.map_or("other".to_string(), |status| status.to_string());
            let labels = [
                ("route", request.route),
                ("method", request.method),
                ("status", status.as_str()),
                ("dio", name(request.dio)),
            ];
            family.sample(&labels, count);
        }
    }
    let mut family = text.histogram(
        "diorama_http_request_duration_seconds",
        "Time from the head of a request to the head of its answer, without the body of a stream.",
    );
    for request in &requests {
        family
            .times(&[("route", request.route), ("method", request.method), ("dio", name(request.dio))], &request.times);
    }
    text.gauge("diorama_http_requests_in_flight", "Requests in progress, including this one.")
        .sample(&[], http.in_flight());
    if let Some(connections) = &gateway.connections {
        text.gauge("diorama_http_connections", "Open connections, including those of WebSockets.")
            .sample(&[], connections.len());
    }
    if let Some(expires) = &gateway.certificate_expires {
        text.gauge("diorama_tls_certificate_expires_timestamp_seconds", "Unix time at which the certificate expires.")
            .sample(&[], expires.load(Ordering::Relaxed));
    }
}

fn budgets(text: &mut Text, gateway: &GatewayState) {
    let budgets = gateway.budgets.all();
    let gauge =
        text.gauge("diorama_budget_held", "Amount of a budget that callers hold, by its key in [server.limits].");
    each(gauge, &budgets, |budget| budget.held() as u64);
    let gauge = text.gauge("diorama_budget_limit", "Maximum amount of a budget.");
    each(gauge, &budgets, |budget| budget.most() as u64);
    let counter =
        text.counter("diorama_budget_refused_total", "Requests that were refused because a budget was exhausted.");
    each(counter, &budgets, Budget::refused);
    let mut family = text.counter(
        "diorama_auth_failures_total",
        "Requests without a valid token or signature, by status of the answer: 429 beyond server.limits.auth_failures.",
    );
    for (status, count) in gateway.failures.counts() {
        family.sample(&[("status", status)], count);
    }
    let mut family = text.counter(
        "diorama_rate_limited_total",
        "Requests that were refused because the caller had used a [[limit]], by limit, and by principal or address.",
    );
    for (limit, per, count) in gateway.budgets.rates.counts() {
        family.sample(&[("limit", limit), ("per", per)], count);
    }
    workers(text, gateway);
}

/// Writes the metrics of the workers of all resources. The resources of one Lens share their workers.
fn workers(text: &mut Text, gateway: &GatewayState) {
    let mut all: Vec<&Workers> = gateway.dios.values().map(|resource| resource.dio.workers()).collect();
    all.sort_by_key(|workers| std::ptr::from_ref(*workers));
    all.dedup_by_key(|workers| std::ptr::from_ref(*workers));
    let sum = |of: fn(&Workers) -> usize| all.iter().map(|workers| of(workers)).sum::<usize>();
    text.gauge("diorama_workers", "Worker threads for queries over many rows.").sample(&[], sum(Workers::count));
    text.gauge("diorama_workers_busy", "Worker threads that are busy.").sample(&[], sum(Workers::busy));
    text.gauge("diorama_workers_waiting", "Queries that wait for a worker thread.").sample(&[], sum(Workers::waiting));
}

fn audit(text: &mut Text, gateway: &GatewayState) {
    let Some(log) = &gateway.audit else { return };
    let size = log.size();
    text.gauge("diorama_audit_entries", "Entries of the audit log.").sample(&[], size.entries);
    text.gauge("diorama_audit_bytes", "Size of all entries of the audit log.").sample(&[], size.bytes);
    text.counter("diorama_audit_dropped_total", "Entries of the audit log that were dropped because of its bounds.")
        .sample(&[], size.dropped);
    text.counter(
        "diorama_audit_lost_total",
        "Entries that were not stored because the journal failed for a long time.",
    )
    .sample(&[], log.lost());
}

fn each(mut family: MetricFamily<'_>, budgets: &[&Budget], value: fn(&Budget) -> u64) {
    for budget in budgets {
        family.sample(&[("budget", budget.key())], value(budget));
    }
}

/// State of one Dio at the time of a scrape.
struct DioSample<'a> {
    resource: &'a Resource,
    rows: Arc<Rows>,
    status: Status,
    counters: Counters,
    sockets: i64,
}

impl DioSample<'_> {
    fn of(resource: &Resource) -> DioSample<'_> {
        DioSample {
            rows: resource.dio.state(),
            status: resource.dio.status(),
            counters: resource.dio.counters(),
            sockets: resource.sockets.open.load(Ordering::Relaxed),
            resource,
        }
    }

    /// Returns the seconds since the oldest waiting operation was accepted; 0 if none waits.
    fn oldest(&self) -> f64 {
        let created = self.rows.queue().next().map(|op| Duration::from_millis(op.created));
        created.map_or(0.0, |created| unix(SystemTime::now()).saturating_sub(created).as_secs_f64())
    }
}

type Value = fn(&DioSample<'_>) -> Option<f64>;

/// Gauges of a Dio: name, help text, value. A value that is not known has no sample.
const GAUGES: &[(&str, &str, Value)] = &[
    ("diorama_dio_ready", "1 if the resource can be read, else 0.", |dio| Some(flag(dio.resource.dio.is_ready()))),
    ("diorama_dio_rows", "Number of rows that readers see.", |dio| Some(dio.status.rows as f64)),
    ("diorama_dio_resident_bytes", "Approximate memory of the rows, indexes and columns.", |dio| {
        Some(dio.rows.table().bytes() as f64)
    }),
    ("diorama_dio_indexes", "Number of indexes of the rows.", |dio| Some(dio.rows.table().indexes().len() as f64)),
    ("diorama_dio_index_bytes", "Approximate memory of the indexes; diorama_dio_resident_bytes includes it.", |dio| {
        Some(dio.rows.table().indexes().iter().map(|index| index.bytes()).sum::<usize>() as f64)
    }),
    (
        "diorama_dio_column_bytes",
        "Memory of the columns and groups that scans keep; diorama_dio_resident_bytes includes it.",
        |dio| Some(dio.rows.table().columns().bytes() as f64),
    ),
    ("diorama_dio_position", "Position of the newest change in the log.", |dio| Some(dio.rows.seq() as f64)),
    ("diorama_dio_age_seconds", "Seconds since the source was last listed completely.", |dio| {
        dio.status.age.map(|age| age.as_secs_f64())
    }),
    ("diorama_dio_complete", "1 if the rows are a complete copy of the source, else 0.", |dio| {
        Some(flag(dio.status.complete))
    }),
    ("diorama_dio_stale", "1 if the rows are older than the resource allows, else 0.", |dio| {
        Some(flag(dio.status.stale))
    }),
    ("diorama_dio_doubtful_rows", "Rows that will be read from the source again.", |dio| {
        Some(dio.rows.dirty().count() as f64)
    }),
    ("diorama_dio_refresh_failing", "1 if the last refresh failed, else 0.", |dio| {
        Some(flag(dio.status.refresh_failed.is_some()))
    }),
    (
        "diorama_dio_undecodable_rows",
        "Rows of the last complete list of the source that could not be decoded.",
        |dio| Some(dio.status.undecodable as f64),
    ),
    ("diorama_dio_source_breaker", "Circuit breaker of the source: 0 closed, 1 half-open, 2 open.", |dio| {
        Some(breaker(&dio.status.source))
    }),
    ("diorama_dio_route_breaker", "Circuit breaker of the write route: 0 closed, 1 half-open, 2 open.", |dio| {
        dio.status.route.as_ref().map(breaker)
    }),
    ("diorama_dio_last_refresh_timestamp_seconds", "Unix time of the end of the last successful refresh.", |dio| {
        dio.counters.last_refresh.map(|at| at as f64 / 1_000.0)
    }),
    ("diorama_dio_durable", "1 if accepted writes survive the process, else 0.", |dio| Some(flag(dio.status.durable))),
    ("diorama_dio_queue_operations", "Writes that wait for the source.", |dio| Some(dio.rows.backlog().0 as f64)),
    ("diorama_dio_queue_bytes", "Bytes of the writes that wait.", |dio| Some(dio.rows.backlog().1 as f64)),
    ("diorama_dio_queue_oldest_seconds", "Seconds since the oldest waiting write was accepted.", |dio| {
        Some(dio.oldest())
    }),
    (
        "diorama_dio_parked_operations",
        "Writes that failed for good and wait to be retried or discarded by a person.",
        |dio| Some(dio.rows.parked().0 as f64),
    ),
    ("diorama_dio_sockets", "Open event sockets and streams.", |dio| Some(dio.sockets as f64)),
    ("diorama_dio_receivers", "Subscribers inside the process: receivers of events and sceneries.", |dio| {
        // Dispatched subscribers do not watch the ring.
        let watching = dio.sockets - dio.resource.dispatch.len() as i64;
        Some((dio.resource.dio.ring().watchers() as i64 - watching.max(0)).max(0) as f64)
    }),
    ("diorama_dio_feeds", "Number of connected feeds.", |dio| {
        feed_value(dio, |feeds| feeds.iter().filter(|feed| feed.connected).count() as f64)
    }),
    ("diorama_dio_feed_silence_seconds", "Seconds since the last message of any feed.", |dio| {
        dio.status.feeds.iter().filter_map(|feed| feed.last_message).min().map(|silence| silence.as_secs_f64())
    }),
    ("diorama_dio_feed_connects", "Connections of feeds since the start.", |dio| {
        feed_value(dio, |feeds| feeds.iter().map(|feed| feed.connects).sum::<u64>() as f64)
    }),
    ("diorama_dio_feed_messages", "Messages of feeds since the start.", |dio| {
        feed_value(dio, |feeds| feeds.iter().map(|feed| feed.messages).sum::<u64>() as f64)
    }),
    ("diorama_dio_feed_undecodable", "Messages of feeds that could not be decoded since the start.", |dio| {
        feed_value(dio, |feeds| feeds.iter().map(|feed| feed.undecodable).sum::<u64>() as f64)
    }),
    (
        "diorama_dio_feed_lag_seconds",
        "Seconds between the last change at the sender of a feed and its arrival here.",
        |dio| dio.status.feeds.iter().filter_map(|feed| feed.lag).map(|lag| lag.time.as_secs_f64()).reduce(f64::max),
    ),
    ("diorama_dio_feed_lag_bytes", "Bytes that the sender of a feed has and this server has not.", |dio| {
        dio.status.feeds.iter().filter_map(|feed| feed.lag?.bytes).map(|bytes| bytes as f64).reduce(f64::max)
    }),
    ("diorama_dio_feed_lag_messages", "Messages that the sender of a feed has and this server has not.", |dio| {
        dio.status.feeds.iter().filter_map(|feed| feed.lag?.messages).map(|messages| messages as f64).reduce(f64::max)
    }),
    ("diorama_dio_tasks", "Running background tasks.", |dio| Some(dio.status.tasks as f64)),
];

/// Returns a value of the feeds; `None` for a Dio without feeds.
fn feed_value(dio: &DioSample<'_>, of: fn(&[FeedStatus]) -> f64) -> Option<f64> {
    (!dio.status.feeds.is_empty()).then(|| of(&dio.status.feeds))
}

fn dios(text: &mut Text, gateway: &GatewayState) {
    let samples: Vec<(&str, DioSample<'_>)> =
        gateway.dios.iter().map(|(name, resource)| (&**name, DioSample::of(resource))).collect();
    for (name, help, value) in GAUGES {
        let mut family = text.gauge(name, help);
        for (dio, sample) in &samples {
            if let Some(value) = value(sample) {
                family.sample(&[("dio", dio)], value);
            }
        }
    }
    counters(text, &samples, "diorama_dio_operations_accepted_total", "Writes that were accepted.", |of| of.accepted);
    let help = "Writes that ended. A retried write ends as discarded, and its retry is accepted as a new one.";
    let mut family = text.counter("diorama_dio_operations_ended_total", help);
    for (dio, DioSample { counters: of, .. }) in &samples {
        let states =
            [("applied", of.applied), ("failed", of.failed), ("parked", of.parked), ("discarded", of.discarded)];
        for (state, count) in states {
            family.sample(&[("dio", dio), ("state", state)], count);
        }
    }
    counters(text, &samples, "diorama_dio_events_total", "Events that were sent to subscribers.", |of| of.events);
    let mut family = text.counter("diorama_dio_refreshes_total", "Refreshes that ended, without the first copy.");
    for (dio, DioSample { counters: of, .. }) in &samples {
        family.sample(&[("dio", dio), ("result", "ok")], of.refreshed.count);
        family.sample(&[("dio", dio), ("result", "failed")], of.refresh_failed.count);
    }
    let mut family = text.histogram("diorama_dio_refresh_duration_seconds", "Duration of refreshes.");
    for (dio, DioSample { counters: of, .. }) in &samples {
        family.times(&[("dio", dio), ("result", "ok")], &of.refreshed);
        family.times(&[("dio", dio), ("result", "failed")], &of.refresh_failed);
    }
    let help = "Duration of appends to the journal that contained a change of the resource.";
    let mut family = text.histogram("diorama_dio_journal_append_duration_seconds", help);
    samples.iter().for_each(|(dio, sample)| family.times(&[("dio", dio)], &sample.counters.appends));
    let help = "Appends to the journal that failed.";
    counters(text, &samples, "diorama_dio_journal_append_failures_total", help, |of| of.append_failures);
    let help =
        "Event sockets that ended, by close code: none if the client closed the connection, 4008 if it was too slow.";
    let mut family = text.counter("diorama_dio_socket_closes_total", help);
    for (dio, sample) in &samples {
        let names = CLOSES.iter().map(|code| if *code == 0 { "none".to_string() } else { code.to_string() });
        for (code, count) in names.chain(["other".to_string()]).zip(&sample.resource.sockets.closes) {
            family.sample(&[("dio", dio), ("code", &code)], count.load(Ordering::Relaxed));
        }
    }
}

fn counters(
    text: &mut Text,
    samples: &[(&str, DioSample<'_>)],
    name: &'static str,
    help: &'static str,
    of: fn(&Counters) -> u64,
) {
    let mut family = text.counter(name, help);
    samples.iter().for_each(|(dio, sample)| family.sample(&[("dio", dio)], of(&sample.counters)));
}

type Fill = fn(&InboxUse) -> f64;

/// Gauges of the inbox of deliveries. Resources of one journal share an inbox, and so have the same values.
const INBOX: &[(&str, &str, Fill)] = &[
    ("diorama_inbox_deliveries", "Deliveries that the journal keeps.", |inbox| inbox.count as f64),
    ("diorama_inbox_bytes", "Bytes of the deliveries that the journal keeps.", |inbox| inbox.bytes as f64),
    ("diorama_inbox_waiting", "Acknowledged deliveries that are not applied yet.", |inbox| inbox.received as f64),
    ("diorama_inbox_dropped", "Failed or undecodable deliveries dropped since the start to make room.", |inbox| {
        inbox.dropped as f64
    }),
];

/// Gauges of idempotency keys and ids of deliveries. Resources of one journal share them, and so have the same values.
const CLAIMS: &[(&str, &str, Fill)] = &[
    ("diorama_claims", "Idempotency keys and ids of deliveries that the journal remembers.", |inbox| {
        inbox.claims as f64
    }),
    ("diorama_claims_limit", "Maximum number of idempotency keys and ids of deliveries in the journal.", |inbox| {
        inbox.claims_limit as f64
    }),
];

fn claims(text: &mut Text, gateway: &GatewayState) {
    for (name, help, fill) in CLAIMS {
        let mut family = text.gauge(name, help);
        gateway
            .dios
            .values()
            .for_each(|resource| family.sample(&[("dio", resource.dio.name())], fill(&resource.dio.inbox())));
    }
}

fn inbox(text: &mut Text, gateway: &GatewayState) {
    let inboxes =
        gateway.dios.values().filter(|resource| gateway.hooks.values().any(|hook| hook.dio == resource.dio.name()));
    let inboxes: Vec<_> = inboxes.map(|resource| (resource.dio.name(), resource.dio.inbox())).collect();
    for (name, help, fill) in INBOX {
        let mut family = text.gauge(name, help);
        inboxes.iter().for_each(|(dio, inbox)| family.sample(&[("dio", dio)], fill(inbox)));
    }
}

fn hooks(text: &mut Text, gateway: &GatewayState) {
    claims(text, gateway);
    inbox(text, gateway);
    let all = || gateway.hooks.values().map(|hook| (hook.name.as_str(), hook.dio.as_str())).zip(&gateway.metrics.hooks);
    let mut family = text.counter("diorama_webhook_deliveries_total", "Deliveries that were accepted.");
    for ((hook, dio), counts) in all() {
        family.sample(&[("hook", hook), ("dio", dio)], counts.taken.load(Ordering::Relaxed));
    }
    let help = "Deliveries that were accepted, by the state in the answer to their sender.";
    let mut family = text.counter("diorama_webhook_outcomes_total", help);
    for ((hook, dio), counts) in all() {
        for (state, count) in DeliveryState::RECEIVED.iter().zip(&counts.states) {
            let labels = [("hook", hook), ("dio", dio), ("state", state.as_str())];
            family.sample(&labels, count.load(Ordering::Relaxed));
        }
    }
    let help = "Changes in deliveries, by result.";
    let mut family = text.counter("diorama_webhook_changes_total", help);
    for ((hook, dio), counts) in all() {
        for ((result, _), count) in results(&Changes::default()).into_iter().zip(&counts.changes) {
            family.sample(&[("hook", hook), ("dio", dio), ("result", result)], count.load(Ordering::Relaxed));
        }
    }
    let help = "Deliveries that were refused, by the code of the problem.";
    let mut family = text.counter("diorama_webhook_refused_total", help);
    for ((hook, dio), counts) in all() {
        for (code, count) in Code::ALL.iter().zip(&counts.refused) {
            let count = count.load(Ordering::Relaxed);
            if count > 0 {
                family.sample(&[("hook", hook), ("dio", dio), ("reason", code.as_str())], count);
            }
        }
    }
}

fn breaker(reach: &Reachability) -> f64 {
    match reach.state {
        BreakerState::Closed => 0.0,
        BreakerState::HalfOpen => 1.0,
        BreakerState::Open => 2.0,
    }
}

fn flag(yes: bool) -> f64 {
    f64::from(u8::from(yes))
}

fn unix(at: SystemTime) -> Duration {
    at.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO)
}

/// Returns the resident memory of the process in bytes, where the system reports it.
fn resident() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(line.split_whitespace().next()?.parse::<u64>().ok()? * 1024)
}
