//! Counts of requests by route, method, status and resource.
//!
//! The index of a request's counts is computed from three small numbers. Counts are allocated at their first request; later
//! requests take no lock and allocate nothing.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use axum::http::{Method, StatusCode};
use tokio::time::Instant;

use crate::http::route::Route;
use diorama_core::dio::{Histogram, Times};

/// Methods by index; the last is used for all others.
const METHODS: [&str; 9] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "QUERY", "other"];

/// Statuses that the gateway answers with.
const STATUSES: [u16; 37] = [
    101, 200, 201, 202, 204, 206, 303, 304, 307, 308, 400, 401, 403, 404, 405, 406, 408, 409, 410, 411, 412, 413, 414,
    415, 416, 417, 421, 422, 426, 428, 429, 431, 500, 502, 503, 504, 507,
];

const ROUTES: usize = Route::ALL.len();

/// Counts of requests.
#[derive(Debug)]
pub(crate) struct Http {
    dios: usize,
    /// Counts by resource (0 for none), route and method.
    counts: Box<[OnceLock<Box<RequestCounts>>]>,
    in_flight: AtomicI64,
}

/// Counts of one combination of resource, route and method.
#[derive(Debug)]
struct RequestCounts {
    /// Counts by index in [`STATUSES`]; the last is for all others.
    statuses: [AtomicU64; STATUSES.len() + 1],
    times: Histogram,
}

/// Statistics of one route, method and resource.
pub(crate) struct RequestStats {
    pub(crate) route: &'static str,
    pub(crate) method: &'static str,
    /// Index of the resource in the gateway; `None` if the request has no resource.
    pub(crate) dio: Option<usize>,
    /// Statuses of responses (`None` for unusual ones) with their counts.
    pub(crate) statuses: Vec<(Option<u16>, u64)>,
    pub(crate) times: Times,
}

impl Http {
    pub(crate) fn new(dios: usize) -> Http {
        let size = ROUTES * METHODS.len() * (dios + 1);
        Http { dios, counts: std::iter::repeat_with(OnceLock::new).take(size).collect(), in_flight: AtomicI64::new(0) }
    }

    /// Begins a request for the resource with index `dio`; an index out of range is ignored.
    pub(crate) fn begin(&self, method: &Method, route: Route, dio: Option<usize>) -> RequestTimer<'_> {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        let (method, dio) = (method_index(method), dio.filter(|dio| *dio < self.dios));
        RequestTimer { http: self, route, method, dio, started: Instant::now() }
    }

    pub(crate) fn in_flight(&self) -> i64 {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// Returns the statistics of all combinations that were requested.
    pub(crate) fn seen(&self) -> impl Iterator<Item = RequestStats> {
        self.counts.iter().enumerate().filter_map(move |(at, counts)| {
            let counts = counts.get()?;
            let (method, rest) = (at % METHODS.len(), at / METHODS.len());
            Some(RequestStats {
                route: Route::ALL[rest % ROUTES].template(),
                method: METHODS[method],
                dio: (rest / ROUTES).checked_sub(1),
                statuses: counts.by_status(),
                times: counts.times.read(),
            })
        })
    }
}

fn method_index(method: &Method) -> usize {
    METHODS.iter().position(|known| *known == method.as_str()).unwrap_or(METHODS.len() - 1)
}

impl RequestCounts {
    fn new() -> Box<RequestCounts> {
        let statuses = [const { AtomicU64::new(0) }; STATUSES.len() + 1];
        Box::new(RequestCounts { statuses, times: Histogram::default() })
    }

    fn by_status(&self) -> Vec<(Option<u16>, u64)> {
        let names = STATUSES.iter().copied().map(Some).chain([None]);
        let counts = self.statuses.iter().map(|count| count.load(Ordering::Relaxed));
        names.zip(counts).filter(|(_, count)| *count > 0).collect()
    }
}

/// Timer of a request in progress.
#[derive(Debug)]
pub(crate) struct RequestTimer<'a> {
    http: &'a Http,
    route: Route,
    method: usize,
    pub(crate) dio: Option<usize>,
    started: Instant,
}

impl RequestTimer<'_> {
    /// Returns the template of the route.
    pub(crate) fn route(&self) -> &'static str {
        self.route.template()
    }

    /// Returns the method; `other` if it is unknown.
    pub(crate) fn method(&self) -> &'static str {
        METHODS[self.method]
    }

    /// Counts the response; returns the duration of the request.
    pub(crate) fn end(&self, status: StatusCode) -> Duration {
        let took = self.started.elapsed();
        let at = (self.dio.map_or(0, |dio| dio + 1) * ROUTES + self.route as usize) * METHODS.len() + self.method;
        let Some(counts) = self.http.counts.get(at) else { return took };
        let counts = counts.get_or_init(RequestCounts::new);
        let status = STATUSES.binary_search(&status.as_u16()).unwrap_or(STATUSES.len());
        counts.statuses[status].fetch_add(1, Ordering::Relaxed);
        counts.times.add(took);
        took
    }
}

impl Drop for RequestTimer<'_> {
    fn drop(&mut self) {
        self.http.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Code;

    #[test]
    fn each_status_of_an_error_code_has_its_own_count() {
        assert!(STATUSES.is_sorted());
        for code in Code::ALL {
            assert!(STATUSES.contains(&code.status().as_u16()), "{code:?}");
        }
    }

    #[test]
    fn a_request_is_counted_by_route_and_resource() {
        let http = Http::new(2);
        for (route, dio, seen) in [
            (Route::Row, Some(1), Some(1)),
            (Route::RowEvents, Some(0), Some(0)),
            (Route::Rows, None, None),
            (Route::Rows, Some(2), None),
            (Route::None, None, None),
        ] {
            let running = http.begin(&Method::GET, route, dio);
            assert_eq!((running.route(), running.dio), (route.template(), seen));
            running.end(StatusCode::OK);
        }
        assert_eq!((http.seen().count(), http.in_flight()), (4, 0));
    }

    #[test]
    fn unknown_methods_and_statuses_share_one_count_each() {
        let http = Http::new(2);
        for method in ["BREW", "WHEN"] {
            http.begin(&method.parse().unwrap(), Route::Rows, Some(1)).end(StatusCode::IM_A_TEAPOT);
        }
        let seen: Vec<RequestStats> = http.seen().collect();
        assert_eq!((seen.len(), seen[0].method, seen[0].dio), (1, "other", Some(1)));
        assert_eq!((seen[0].statuses.clone(), seen[0].times.count), (vec![(None, 2)], 2));
    }

    /// Prints the time that counting takes per request; run it with `--release --ignored --nocapture`.
    #[test]
    #[ignore = "a measurement"]
    fn time_of_counting_a_request() {
        let http = Http::new(2);
        const ROUNDS: u32 = 1_000_000;
        let started = std::time::Instant::now();
        for _ in 0..ROUNDS {
            let running = http.begin(&Method::GET, std::hint::black_box(Route::Row), Some(1));
            std::hint::black_box(running.end(StatusCode::OK));
        }
        println!("{:?} per request", started.elapsed() / ROUNDS);
    }
}
