//! Requests by route, method, status and resource.
//!
//! A request finds its place by arithmetic on three small numbers; places are made when the first request comes to them. No
//! lock, no allocation and no name is made per request.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use axum::http::{Method, StatusCode};
use tokio::time::Instant;

use crate::dio::{Histogram, Times};

/// Methods by place; the last stands for all others.
const METHODS: [&str; 9] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "QUERY", "other"];

/// Statuses that the gateway answers with.
const STATUSES: [u16; 36] = [
    101, 200, 201, 202, 204, 206, 303, 304, 307, 308, 400, 401, 403, 404, 405, 406, 408, 409, 410, 411, 412, 413, 414,
    415, 416, 417, 421, 422, 426, 428, 429, 500, 502, 503, 504, 507,
];

/// Counts of requests.
#[derive(Debug)]
pub(in crate::gateway) struct Http {
    /// Longest first, so that the first one that a matched path ends with is its own.
    templates: Vec<&'static str>,
    dios: usize,
    /// By resource (0 for none), route (the last for paths that have none) and method.
    places: Box<[OnceLock<Box<Place>>]>,
    in_flight: AtomicI64,
}

#[derive(Debug)]
struct Place {
    /// By place in [`STATUSES`]; the last for all others.
    statuses: [AtomicU64; STATUSES.len() + 1],
    times: Histogram,
}

/// What is known of one place.
pub(super) struct Seen {
    pub(super) route: &'static str,
    pub(super) method: &'static str,
    /// Place of the resource among the gateway's.
    pub(super) dio: Option<usize>,
    /// Statuses (`None` for unusual ones) that were answered, and how often.
    pub(super) statuses: Vec<(Option<u16>, u64)>,
    pub(super) times: Times,
}

impl Http {
    pub(super) fn new(mut templates: Vec<&'static str>, dios: usize) -> Http {
        templates.sort_by_key(|template| std::cmp::Reverse(template.len()));
        let places = (templates.len() + 1) * METHODS.len() * (dios + 1);
        Http {
            templates,
            dios,
            places: std::iter::repeat_with(OnceLock::new).take(places).collect(),
            in_flight: AtomicI64::new(0),
        }
    }

    /// A request begins. `matched` is the template that the router found, behind whatever the gateway is nested under; `dio`
    /// finds the place of a resource by its name in `path`.
    pub(in crate::gateway) fn begin(
        &self,
        method: &Method,
        matched: Option<&str>,
        path: &str,
        dio: impl FnOnce(&str) -> Option<usize>,
    ) -> Running<'_> {
        let started = Instant::now();
        let route = match matched {
            // What ends with none of them is the root of a prefix.
            Some(matched) => {
                let own = self.templates.iter().position(|template| matched.ends_with(template));
                own.unwrap_or(self.templates.len().saturating_sub(1))
            }
            None => self.templates.len(),
        };
        let dio = match self.templates.get(route) {
            Some(template) if template.starts_with("/{dio}") => {
                dio(path.trim_start_matches('/').split('/').next().unwrap_or_default())
            }
            _ => None,
        };
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        Running { http: self, route, method: place_of(method), dio: dio.filter(|dio| *dio < self.dios), started }
    }

    pub(super) fn in_flight(&self) -> i64 {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// Everything that was ever asked for.
    pub(super) fn seen(&self) -> impl Iterator<Item = Seen> {
        let routes = self.templates.len() + 1;
        self.places.iter().enumerate().filter_map(move |(at, place)| {
            let place = place.get()?;
            let (method, rest) = (at % METHODS.len(), at / METHODS.len());
            Some(Seen {
                route: self.template(rest % routes),
                method: METHODS[method],
                dio: (rest / routes).checked_sub(1),
                statuses: place.answered(),
                times: place.times.read(),
            })
        })
    }

    fn template(&self, route: usize) -> &'static str {
        self.templates.get(route).copied().unwrap_or("none")
    }
}

fn place_of(method: &Method) -> usize {
    METHODS.iter().position(|known| *known == method.as_str()).unwrap_or(METHODS.len() - 1)
}

impl Place {
    fn new() -> Box<Place> {
        let statuses = [const { AtomicU64::new(0) }; STATUSES.len() + 1];
        Box::new(Place { statuses, times: Histogram::default() })
    }

    fn answered(&self) -> Vec<(Option<u16>, u64)> {
        let names = STATUSES.iter().copied().map(Some).chain([None]);
        let counts = self.statuses.iter().map(|count| count.load(Ordering::Relaxed));
        names.zip(counts).filter(|(_, count)| *count > 0).collect()
    }
}

/// A request that is being answered.
#[derive(Debug)]
pub(in crate::gateway) struct Running<'a> {
    http: &'a Http,
    route: usize,
    method: usize,
    pub(in crate::gateway) dio: Option<usize>,
    started: Instant,
}

impl Running<'_> {
    /// The route's template.
    pub(in crate::gateway) fn route(&self) -> &'static str {
        self.http.template(self.route)
    }

    /// The method, `other` if nobody knows it.
    pub(in crate::gateway) fn method(&self) -> &'static str {
        METHODS[self.method]
    }

    /// Counts the answer; gives the time it took.
    pub(in crate::gateway) fn end(&self, status: StatusCode) -> Duration {
        let took = self.started.elapsed();
        let routes = self.http.templates.len() + 1;
        let at = (self.dio.map_or(0, |dio| dio + 1) * routes + self.route) * METHODS.len() + self.method;
        let Some(place) = self.http.places.get(at) else { return took };
        let place = place.get_or_init(Place::new);
        let status = STATUSES.binary_search(&status.as_u16()).unwrap_or(STATUSES.len());
        place.statuses[status].fetch_add(1, Ordering::Relaxed);
        place.times.add(took);
        took
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.http.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gateway::Code;

    fn http() -> Http {
        Http::new(vec!["/", "/healthz", "/{dio}", "/{dio}/events", "/{dio}/{id}", "/{dio}/{id}/events"], 2)
    }

    fn dio(name: &str) -> Option<usize> {
        ["breads", "cakes"].iter().position(|known| *known == name)
    }

    #[test]
    fn every_status_of_a_refusal_is_counted_by_itself() {
        assert!(STATUSES.is_sorted());
        for code in Code::ALL {
            assert!(STATUSES.contains(&code.status().as_u16()), "{code:?}");
        }
    }

    #[test]
    fn a_request_is_found_by_its_template_wherever_the_gateway_is_nested() {
        let http = http();
        for (matched, path, route, place) in [
            (Some("/{dio}/{id}"), "/cakes/7", "/{dio}/{id}", Some(1)),
            (Some("/api/{dio}/{id}/events"), "/breads/7/events", "/{dio}/{id}/events", Some(0)),
            (Some("/{tenant}/{dio}/events"), "/breads/events", "/{dio}/events", Some(0)),
            (Some("/{dio}"), "/unknown", "/{dio}", None),
            (Some("/healthz"), "/healthz", "/healthz", None),
            (Some("/api"), "/", "/", None),
            (None, "/cakes/7/8/9", "none", None),
        ] {
            let running = http.begin(&Method::GET, matched, path, dio);
            assert_eq!((running.route(), running.dio), (route, place), "{matched:?}");
            running.end(StatusCode::OK);
        }
        assert_eq!((http.seen().count(), http.in_flight()), (7, 0));
    }

    #[test]
    fn methods_and_statuses_that_nobody_knows_are_one_each() {
        let http = http();
        for method in ["BREW", "WHEN"] {
            http.begin(&method.parse().unwrap(), Some("/{dio}"), "/cakes", dio).end(StatusCode::IM_A_TEAPOT);
        }
        let seen: Vec<Seen> = http.seen().collect();
        assert_eq!((seen.len(), seen[0].method, seen[0].dio), (1, "other", Some(1)));
        assert_eq!((seen[0].statuses.clone(), seen[0].times.count), (vec![(None, 2)], 2));
    }

    /// Prints what counting costs a request; run it with `--release --ignored --nocapture`.
    #[test]
    #[ignore = "a measurement"]
    fn what_counting_costs() {
        let http = Http::new(
            vec![
                "/",
                "/healthz",
                "/readyz",
                "/metrics",
                "/problems/{code}",
                "/operations",
                "/operations/_retry",
                "/operations/{id}",
                "/operations/{id}/retry",
                "/webhooks/{hook}",
                "/{dio}",
                "/{dio}/events",
                "/{dio}/_query",
                "/{dio}/_refresh",
                "/{dio}/_schema",
                "/{dio}/{id}",
                "/{dio}/{id}/events",
            ],
            2,
        );
        let dios: indexmap::IndexMap<&str, ()> = ["breads", "cakes"].map(|name| (name, ())).into();
        const ROUNDS: u32 = 1_000_000;
        for matched in ["/{dio}/{id}/events", "/{dio}/{id}", "/{dio}"] {
            let started = std::time::Instant::now();
            for _ in 0..ROUNDS {
                let matched = std::hint::black_box(Some(matched));
                let running = http.begin(&Method::GET, matched, "/cakes/7", |name| dios.get_index_of(name));
                std::hint::black_box(running.end(StatusCode::OK));
            }
            println!("{matched}: {:?} per request", started.elapsed() / ROUNDS);
        }
    }
}
