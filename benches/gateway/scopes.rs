//! Event sockets that have a scope each, beside unscoped ones: `cargo bench --bench gateway -- --scopes`, with `--rows N` sockets.
//!
//! Each caller has a claim of its own, and a rule shows it the rows of this value, so that there are as many scopes as sockets. There are
//! two regimes, and in each of them the same number of sockets is open, the same changes are made and the same number of frames is
//! delivered, with scopes and without. A change reaches one socket: without scopes, that is one which follows the whole resource while the
//! others follow another, quiet one, or each follows a row of its own. A change reaches all sockets: with scopes, its row is visible in
//! each of them. Figures are deliveries in a second of server CPU; the changes and their journal are in them.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, LazyLock, Mutex};

use axum::Router;
use axum::body::Body;
use axum::extract::{Path as Segments, Request, State};
use axum::middleware::{Next, from_fn};
use axum::response::Response;
use axum::routing::post;
use diorama::connect::MemoryTable;
use diorama::gateway::access::{Allow, Identity, Principal, Verb, Verbs};
use diorama::gateway::{Gateway, MountOptions, Sockets};
use diorama::{CborValue, Column, ColumnType, Dio, Lens, Record, Schema};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::client::{self, Ask};
use crate::servers::{self, Server};
use crate::sockets::{Heard, PATIENCE, fresh, now, publish, read, subscribe};
use crate::{Plan, products, ready, text};

/// Header with the role and the number of the caller.
const CALLER: &str = "x-caller";
/// Id of the row that all scopes have, and its value of the column that rules compare.
const SHARED: (&str, i64) = ("shared", -1);

fn schema() -> Schema {
    let mut columns = products::schema().columns().to_vec();
    columns.push(Column::new("org_id", ColumnType::Integer));
    Schema::new("id", columns)
}

/// Row number `at` of an organization, whose price is the time.
fn stamped(id: &str, at: usize, org: i64) -> Record {
    let cells = products::record(at);
    let cells = cells.iter().map(|(name, value)| match name.as_ref() {
        "price" => ("price".to_string(), now().into()),
        "id" => ("id".to_string(), id.into()),
        name => (name.to_string(), value.clone()),
    });
    cells.chain([("org_id".to_string(), org.into())]).collect()
}

fn rules() -> Vec<Allow> {
    let can: Verbs = [Verb::Read, Verb::Events].into_iter().collect();
    let allow = |role: &str, filter: &str| Allow {
        role: role.into(),
        dio: "*".into(),
        can,
        filter: filter.into(),
        check: None,
        columns: None,
    };
    vec![allow("member", "or=(org_id.eq.{claims.org_id},org_id.eq.-1)"), allow("reader", "")]
}

async fn authenticate(mut request: Request<Body>, next: Next) -> Response {
    static KNOWN: LazyLock<Mutex<HashMap<String, Arc<Identity>>>> = LazyLock::new(Mutex::default);
    let caller = request.headers().get(CALLER).and_then(|caller| caller.to_str().ok()).unwrap_or_default().to_string();
    if let Some((role, org)) = caller.split_once(' ') {
        let identity = || {
            let org: i64 = org.parse().expect("a number");
            let claims = CborValue::Map(vec![("org_id".into(), org.into())]);
            let (name, role, verbs) = (format!("key:{caller}").into(), role.into(), Verbs::ALL);
            Arc::new(Identity { name, role, claims, verbs, unrestricted: false, expires: None })
        };
        let identity = Arc::clone(KNOWN.lock().expect("a lock").entry(caller.clone()).or_insert_with(identity));
        request.extensions_mut().insert(Principal::from(identity));
    }
    next.run(request).await
}

/// Serves a resource with a row for each of `sockets` organizations, and publishes when told to.
pub(crate) async fn serve(sockets: usize, folder: &Path) {
    let lens = Lens::new().cache_at(folder.join("scopes.redb")).build().expect("a Lens");
    let rows = (0..sockets).map(|at| (products::id(at), stamped(&products::id(at), at, at as i64)));
    let shared = (SHARED.0.to_string(), stamped(SHARED.0, 0, SHARED.1));
    let dio = lens.make_dio(MemoryTable::vista("products", schema(), rows.chain([shared]))).await.expect("a Dio");
    let quiet = lens.make_dio(MemoryTable::vista("quiet", schema(), [])).await.expect("a Dio");
    let told = async |State((dio, sockets)): State<(Dio, usize)>,
                      Segments((count, rate, all)): Segments<(usize, u64, bool)>| {
        publish((count, rate), |at| {
            let dio = dio.clone();
            // Neighbours in time are no neighbours in the list.
            let at = at * 7_919 % sockets;
            let (id, row) = match all {
                true => (SHARED.0.to_string(), stamped(SHARED.0, at, SHARED.1)),
                false => (products::id(at), stamped(&products::id(at), at, at as i64)),
            };
            async move { dio.patched(id, row).await.expect("an event") }
        })
        .await;
    };
    let router = Router::new().route("/publish/{count}/{rate}/{all}", post(told)).with_state((dio.clone(), sockets));
    let gateway = Gateway::new().try_mount(dio, MountOptions::default()).expect("a mount");
    let gateway =
        gateway.try_mount(quiet, MountOptions::default()).expect("a mount").sockets(Sockets::new(sockets + 10));
    let gateway = gateway.try_allow(&rules()).expect("rules").into_router().layer(from_fn(authenticate));
    servers::listen(router.fallback_service(gateway)).await;
}

/// Sockets of a case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Each follows everything that its scope has.
    Scoped,
    /// Each follows the whole resource.
    Unscoped,
    /// The first follows the whole resource, the others a quiet one.
    One,
    /// Each follows a row.
    Rows,
}

/// Prints a line for each case and round.
pub(crate) async fn compare(plan: &Plan, sockets: usize) {
    let folder = tempfile::tempdir().expect("a folder");
    let own = std::env::current_exe().expect("a path");
    println!(
        "| a change reaches | {sockets} sockets | deliveries | per second of server CPU | p50 | p99 | kB of a socket |"
    );
    println!("|---|---|---|---|---|---|---|");
    for _ in 0..plan.rounds {
        for (all, kinds) in
            [(false, &[Kind::One, Kind::Rows, Kind::Scoped][..]), (true, &[Kind::Unscoped, Kind::Scoped])]
        {
            for kind in kinds {
                let arguments =
                    ["--serve-scopes", text(&fresh(folder.path())), "--rows", &sockets.to_string()].map(str::to_string);
                let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
                let server = Server::start(&own, &arguments, plan.pinned);
                ready(server.address).await;
                let line = round(&server, sockets, *kind, all).await;
                println!("| {} | {kind:?} | {line} |", if all { "all" } else { "one" });
            }
        }
    }
}

async fn round(server: &Server, sockets: usize, kind: Kind, all: bool) -> String {
    let before = server.resident();
    let mut readers = JoinSet::new();
    // At a rate at which the one core of the server is not full.
    let (count, rate) = if all { (40, 10) } else { (sockets, 1_000) };
    for at in 0..sockets {
        let role = if kind == Kind::Scoped { "member" } else { "reader" };
        let path = match kind {
            Kind::Scoped | Kind::Unscoped => "/products/events".to_string(),
            Kind::One if at > 0 => "/quiet/events".to_string(),
            Kind::One => "/products/events".to_string(),
            Kind::Rows => format!("/products/{}/events", products::id(at)),
        };
        let mut stream = subscribe(server.address, &path, &format!("{CALLER}: {role} {at}\r\n"), false).await;
        let expected = match (all, kind, at) {
            (true, ..) | (false, Kind::One, 0) => count,
            (false, Kind::One, _) => 0,
            (false, ..) => count / sockets,
        };
        readers.spawn(async move {
            let mut heard = Heard::default();
            let _ = timeout(2 * PATIENCE, read(&mut stream, expected, &mut heard)).await;
            // All sockets stay open until the last one has its events.
            (heard, stream)
        });
    }
    let each = (server.resident() - before) as f64 * 1_000.0 / sockets as f64;
    let spent = server.cpu();
    let ask = Ask::new("POST", &format!("/publish/{count}/{rate}/{all}"), "", "", 200);
    let answer = client::ask(server.address, &ask).await.expect("an answer");
    assert_eq!(answer.status, 200, "{answer:?}");
    let (mut times, mut open) = (Vec::new(), Vec::with_capacity(sockets));
    while let Some(reader) = readers.join_next().await {
        let (heard, stream) = reader.expect("a reader");
        times.extend(heard.times);
        open.push(stream);
    }
    let (spent, deliveries) = ((server.cpu() - spent).as_secs_f64(), times.len());
    let [p50, p99] = [0.5, 0.99].map(|share| crate::writes::percentile(&mut times, share));
    format!("{deliveries} | {:.0} | {p50:.1} ms | {p99:.1} ms | {each:.1}", deliveries as f64 / spent)
}
