//! SIGKILL at random instants under load, on real files. The test binary runs itself as the process that is killed.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use diorama::connect::MemoryTable;
use diorama::dio::{Dio, WriteOptions};
use diorama::{DioEvent, Lens, LensBuilder, Vista};
use diorama_core::state::{Entry, Frame, OpChange, OpState};
use parking_lot::Mutex;

use super::harness::pairs::*;

const DIR: &str = "DIORAMA_PROOF_KILL_DIR";
const LIFE: &str = "DIORAMA_PROOF_KILL_LIFE";
const DIOS: [&str; 3] = ["x", "y", "z"];
const LIVES: usize = 20;
/// Routed writes of one row that are kept one by one.
const MOST_OVER_A_ROW: usize = 32;

fn vista(name: &str) -> Vista {
    MemoryTable::vista(name, schema(), std::iter::empty())
}

/// A lens that appends what it delivers to a file: `dio op id`, one line each, in the order of delivery.
fn recording(dir: &Path) -> LensBuilder {
    let file = std::fs::OpenOptions::new().create(true).append(true).open(dir.join("master")).unwrap();
    let file = Arc::new(Mutex::new(file));
    Lens::new().cache_at(dir.join("cache.redb")).write_concurrency(4).on_write(move |dio, op| {
        let line = format!("{} {} {}\n", dio.name(), dio.current_operation().unwrap(), op.id().unwrap());
        let file = Arc::clone(&file);
        async move {
            file.lock().write_all(line.as_bytes())?;
            tokio::task::yield_now().await;
            Ok(())
        }
    })
}

/// One line in one write: what is not printed whole was not said.
fn say(line: &str) {
    std::io::stdout().lock().write_all(format!("\n@ {line}\n").as_bytes()).unwrap();
}

/// The process that is killed.
async fn load(dir: PathBuf, life: u64) {
    let lens = recording(&dir).build().unwrap();
    let mut tasks = Vec::new();
    for name in DIOS {
        let dio = lens.make_dio(vista(name)).await.unwrap();
        say(&format!("epoch {name} {}", dio.position().epoch));
        let mut events = dio.subscribe_events();
        tasks.push(tokio::spawn(async move {
            while let Ok(entry) = events.recv_entry().await {
                if let Some(position) = entry.position {
                    say(&format!("event {name} {} {}", position.seq, kind(&entry.event)));
                }
            }
        }));
        for writer in 0..3 {
            tasks.push(tokio::spawn(write_on(dio.clone(), name, life, writer)));
        }
    }
    say("ready");
    for task in tasks {
        task.await.unwrap();
    }
}

async fn write_on(dio: Dio, name: &'static str, life: u64, writer: u64) {
    for turn in 0.. {
        // Each id has one writer, so that the order of its acknowledgements is known.
        let id = format!("r{writer}-{}", turn % 5);
        let op = replace(&id, (life as i64, turn as i64));
        let ticket = dio.write(op, WriteOptions::default()).await.unwrap();
        say(&format!("ack {name} {} {id} {}", ticket.operation.unwrap(), ticket.position.seq));
    }
}

fn kind(event: &DioEvent) -> &'static str {
    match event {
        DioEvent::RecordInserted { .. } => "inserted",
        DioEvent::RecordChanged { .. } => "changed",
        DioEvent::WriteCommitted { .. } => "committed",
        _ => "other",
    }
}

fn kind_of(frame: &Frame) -> &'static str {
    match frame {
        Frame::Inserted => "inserted",
        Frame::Changed => "changed",
        Frame::WriteCommitted => "committed",
        _ => "other",
    }
}

/// What the killed processes said.
#[derive(Default)]
struct Said {
    epochs: HashMap<String, HashSet<String>>,
    /// Dio -> position -> kind.
    events: HashMap<String, BTreeMap<u64, String>>,
    /// (Dio, id) -> operations in the order of their acknowledgement.
    acks: HashMap<(String, String), Vec<(String, u64)>>,
}

impl Said {
    fn hear(&mut self, line: &str) {
        let words: Vec<&str> = line.split(' ').collect();
        match words[..] {
            ["epoch", dio, epoch] => drop(self.epochs.entry(dio.into()).or_default().insert(epoch.into())),
            ["event", dio, seq, kind] => {
                let seq = seq.parse().unwrap();
                let known = self.events.entry(dio.into()).or_default().insert(seq, kind.into());
                assert_eq!(known, None, "position {seq} of {dio} was told twice");
            }
            ["ack", dio, op, id, seq] => {
                let acks = self.acks.entry((dio.into(), id.into())).or_default();
                acks.push((op.into(), seq.parse().unwrap()));
            }
            _ => panic!("{line:?}"),
        }
    }
}

#[test]
fn no_kill_takes_back_what_was_acknowledged_or_told() {
    if let Ok(dir) = std::env::var(DIR) {
        let life = std::env::var(LIFE).unwrap().parse().unwrap();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        return runtime.block_on(load(dir.into(), life));
    }
    let dir = tempfile::tempdir().unwrap();
    let mut said = Said::default();
    let mut random = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().subsec_nanos();
    for life in 0..LIVES {
        random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        live_and_die(dir.path(), life, Duration::from_micros(u64::from(random >> 8) % 120_000), &mut said);
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(check(dir.path(), &said));
}

fn live_and_die(dir: &Path, life: usize, age: Duration, said: &mut Said) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["kill::no_kill_takes_back", "--nocapture", "--test-threads=1"])
        .env(DIR, dir)
        .env(LIFE, life.to_string())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let (ready, is_ready) = std::sync::mpsc::channel();
    let listener = std::thread::spawn(move || {
        let mut heard = Vec::new();
        for line in lines.map_while(Result::ok) {
            match line.strip_prefix("@ ") {
                Some("ready") => drop(ready.send(())),
                Some(line) => heard.push(line.to_string()),
                None => {}
            }
        }
        heard
    });
    is_ready.recv_timeout(Duration::from_secs(20)).expect("the process starts");
    std::thread::sleep(age);
    child.kill().unwrap();
    child.wait().unwrap();
    let mut heard = listener.join().unwrap();
    // The last line may have been cut off.
    if let Some(last) = heard.last()
        && last.split(' ').next().is_some_and(|word| match word {
            "ack" => last.split(' ').count() < 5,
            "event" => last.split(' ').count() < 4,
            _ => false,
        })
    {
        heard.pop();
    }
    heard.iter().for_each(|line| said.hear(line));
}

async fn check(dir: &Path, said: &Said) {
    let lens = recording(dir).build().unwrap();
    let mut applied: HashMap<(String, String), Vec<String>> = HashMap::new();
    let mut acked = 0;
    for name in DIOS {
        let dio = lens.make_dio(vista(name)).await.unwrap();
        let epoch = dio.position().epoch.to_string();
        assert_eq!(said.epochs[name], HashSet::from([epoch]), "the epoch lasts");
        while dio.state().backlog().0 > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        check_log(&lens, &dio, said).await;
        for ((_, id), acks) in said.acks.iter().filter(|((dio, _), _)| dio == name) {
            acked += acks.len();
            let (last, _) = acks.last().unwrap();
            let state = dio.state();
            let over = &state.fold(id).unwrap().ops;
            let newest = over.last().unwrap();
            assert!(newest.to_string() >= *last, "{id} shows what was acknowledged last, or newer");
            assert!(over.len() >= acks.len().min(MOST_OVER_A_ROW), "{} writes lie over {id}", over.len());
            for (op, _) in acks {
                let known = state.op(op.parse().unwrap()).unwrap_or_else(|| panic!("{op} was lost"));
                // Older ones were taken together, and are done.
                let expected = if over.contains(&known.id) { OpState::Routed } else { OpState::Applied };
                assert_eq!(known.state, expected, "{op}");
            }
        }
        dio.close().await;
    }
    lens.close().await;
    for line in std::fs::read_to_string(dir.join("master")).unwrap().lines() {
        let words: Vec<&str> = line.split(' ').collect();
        let [dio, op, id] = words[..] else { panic!("{line:?}") };
        applied.entry((dio.into(), id.into())).or_default().push(op.into());
    }
    assert!(acked > LIVES, "there was some load: {acked}");
    for (row, acks) in &said.acks {
        let mut seen = HashSet::new();
        let delivered = &applied[row];
        let order: Vec<&String> = delivered.iter().filter(|op| seen.insert(op.as_str())).collect();
        assert!(order.is_sorted(), "{row:?}: the order of delivery is the order of acceptance");
        // A repetition is one of what was under way at a kill: nothing of the same row came in between.
        let mut runs = delivered.clone();
        runs.dedup();
        assert_eq!(runs.len(), order.len(), "{row:?}: delivered again after its successor");
        let mut order = order.into_iter();
        for (op, _) in acks {
            assert!(order.any(|delivered| delivered == op), "{row:?}: {op} was not delivered, or not in order");
        }
    }
}

/// What was told is in the log, where it was said to be.
async fn check_log(lens: &Lens, dio: &Dio, said: &Said) {
    let entries = lens.journal().await.unwrap().read(dio.name(), 0, usize::MAX).await.unwrap();
    assert!(entries.windows(2).all(|pair| pair[0].seq + 1 == pair[1].seq));
    let log: HashMap<u64, Entry> =
        entries.iter().map(|entry| (entry.seq, Entry::decode(&entry.bytes).unwrap())).collect();
    for (seq, kind) in &said.events[dio.name()] {
        let entry = log.get(seq).unwrap_or_else(|| panic!("position {seq} was told and taken back"));
        assert_eq!(kind_of(&entry.frame), kind, "position {seq}");
    }
    for (op, seq) in said.acks.iter().filter(|((name, _), _)| name == dio.name()).flat_map(|(_, acks)| acks) {
        let OpChange::Stage(staged) = &log[seq].op else { panic!("{op} is not at {seq}") };
        assert_eq!(staged.id.to_string(), *op);
    }
}
