//! Point reads of one client: alone, beside four threads that burn CPU, and beside four clients that aggregate all rows without an index.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use crate::cases;
use crate::client::{self, Ask, Times};
use crate::servers::Server;
use crate::writes::percentile;
use crate::{Plan, ready, text, write_rows};

/// Number of clients that aggregate, and of threads that burn CPU.
const OTHERS: usize = 4;

/// Prints the times of point reads in each company.
pub(crate) async fn compare(plan: &Plan) {
    let folder = tempfile::tempdir().expect("a folder");
    let (file, lengths) = write_rows(folder.path(), plan.rows);
    let products = format!("products={}", file.display());
    let arguments = ["serve", &products, "--listen", "127.0.0.1:0"];
    let server = Server::start(Path::new(env!("CARGO_BIN_EXE_diorama")), &arguments, plan.pinned);
    ready(server.address).await;
    let reads = cases::all(&lengths).into_iter().find(|case| case.name == "one record").expect("a case").ours(None);
    // Other filters each time, so that no groups are kept.
    let aggregate = |number: usize| {
        let path = format!("/products/_aggregate?select=category_id,count(),sum(price)&stock=gt.{}", number * 7 % 150);
        Ask::new("GET", &path, "", "", 200)
    };
    let aggregates: Arc<[Ask]> = (0..1_000).map(aggregate).collect();
    client::drive(server.address, &aggregates, 1, plan.time).await;
    let (mut alone, mut burning, mut aggregating) = (Times::new(), Times::new(), Times::new());
    let mut answered = 0;
    for _ in 0..plan.rounds {
        alone.extend(client::drive(server.address, &reads, 1, plan.time).await);
        let burners = Burners::start(plan.pinned);
        burning.extend(client::drive(server.address, &reads, 1, plan.time).await);
        drop(burners);
        let (times, others) = tokio::join!(
            client::drive(server.address, &reads, 1, plan.time),
            client::drive(server.address, &aggregates, OTHERS, plan.time)
        );
        aggregating.extend(times);
        answered += others.len();
    }
    println!("{} rows, {} rounds of {:?}: one client that reads records", plan.rows, plan.rounds, plan.time);
    for (name, mut times) in [
        ("alone".to_string(), alone),
        (format!("beside {OTHERS} threads that burn CPU"), burning),
        (format!("beside {OTHERS} clients that aggregate ({answered} answers)"), aggregating),
    ] {
        let (p50, p99) = (percentile(&mut times, 0.5), percentile(&mut times, 0.99));
        println!("  {name}: p50 {p50:.2} ms, p99 {p99:.2} ms, {} reads", times.len());
    }
}

/// A process that burns CPU on the core of the servers; killed when it is dropped.
struct Burners(Child);

impl Burners {
    fn start(pinned: bool) -> Burners {
        let own = std::env::current_exe().expect("a path");
        let mut command = match pinned {
            true => Command::new("taskset"),
            false => Command::new(&own),
        };
        if pinned {
            command.args(["-c", "0", text(&own)]);
        }
        Burners(command.arg("--burn").stdout(Stdio::null()).spawn().expect("a process"))
    }
}

impl Drop for Burners {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Burns CPU until the process is killed.
pub(crate) fn burn() {
    let burn = || {
        let mut number = 1_u64;
        loop {
            number = std::hint::black_box(number.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        }
    };
    let threads: Vec<_> = (0..OTHERS).map(|_| std::thread::spawn(burn)).collect();
    threads.into_iter().for_each(|thread| thread.join().expect("a thread"));
}
