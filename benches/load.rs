//! Loading: what it costs to read a source for the first time, to start from a kept copy, and to read again what has not changed.
//!
//! `cargo bench --bench load`; `-- --rows 5000000` for one size. Prints CPU time a row and memory beside the size of the rows' JSON.
//! Needs Linux, for the figures of a process. Nothing is asserted.

mod products;
mod program;

use std::fmt;
use std::fs::File;
use std::io::{BufWriter, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;

use diorama::CborValue;
use program::{Diorama, Memory};

const CONFIGURATION: &str = "[dio.goods]\nsource = { csv = \"goods.csv\" }\n";
const IN_MEMORY: &str = "[lens]\ncache = \"memory\"\n\n[dio.goods]\nsource = { csv = \"goods.csv\" }\n";

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let asked = arguments.iter().position(|word| word == "--rows").and_then(|at| arguments.get(at + 1)?.parse().ok());
    println!("{:<34} {:>10} {:>9} {:>11} {:>11} {:>9}", "", "rows", "us a row", "peak", "resident", "of JSON");
    for rows in asked.map_or(vec![100_000, 1_000_000, 5_000_000], |rows: usize| vec![rows]) {
        measure(rows);
    }
}

fn measure(rows: usize) {
    let mut json = 0;
    let first = Diorama::serve(CONFIGURATION, &[], |folder| json = write(&folder.join("goods.csv"), rows));
    let print = |what: &str, cpu: f64, memory: Memory, counted: u64| {
        let (row, share) = (cpu * 1e6 / rows as f64, counted as f64 / json as f64);
        println!("{what:<34} {rows:>10} {row:>9.2} {:>11} {:>11} {share:>8.2}x", Mega(counted), Mega(memory.resident));
    };
    let loaded = first.memory();
    print("first start, cache file", first.cpu(), loaded, loaded.peak);

    let again = first.again();
    let loaded = again.memory();
    print("start from the cache file", again.cpu(), loaded, loaded.peak);

    // The same rows in a file that looks new.
    write(&again.folder().join("goods.csv"), rows);
    std::thread::sleep(std::time::Duration::from_secs(6));
    again.forget_peak();
    let (before, spent) = (again.memory(), again.cpu());
    refresh(again.address);
    let after = again.memory();
    print("unchanged rows, above resident", again.cpu() - spent, after, after.peak.saturating_sub(before.resident));
    drop(again);

    let unkept = Diorama::serve(IN_MEMORY, &[], |folder| {
        write(&folder.join("goods.csv"), rows);
    });
    let loaded = unkept.memory();
    print("first start, cache in memory", unkept.cpu(), loaded, loaded.peak);
}

/// Writes the first `rows` products to a CSV file. Returns the size of their JSON.
fn write(path: &Path, rows: usize) -> u64 {
    let mut file = BufWriter::new(File::create(path).expect("a file"));
    let mut json = 0;
    for at in 0..rows {
        let record = products::record(at);
        json += serde_json::to_vec(&record).expect("JSON").len() as u64;
        if at == 0 {
            writeln!(file, "{}", record.columns().collect::<Vec<_>>().join(",")).expect("a line");
        }
        let cells = record.iter().map(|(_, cell)| match cell {
            CborValue::Text(text) => format!("\"{text}\""),
            CborValue::Integer(number) => i128::from(*number).to_string(),
            _ => String::new(),
        });
        writeln!(file, "{}", cells.collect::<Vec<_>>().join(",")).expect("a line");
    }
    file.flush().expect("a file");
    json
}

/// Has the source read again, and waits for it.
fn refresh(address: SocketAddr) {
    let mut connection = TcpStream::connect(address).expect("a connection");
    let request =
        format!("POST /goods/_refresh HTTP/1.1\r\nHost: {address}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    connection.write_all(request.as_bytes()).expect("a request");
    let mut answer = String::new();
    connection.read_to_string(&mut answer).expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

/// Bytes, shown as megabytes.
struct Mega(u64);

impl fmt::Display for Mega {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{:.1} MB", self.0 as f64 / 1e6))
    }
}
