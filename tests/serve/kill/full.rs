//! Disks that are full or broken under the command as it is shipped. `tests/disk.sh` makes them; without it these are ignored.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::json;
use tempfile::TempDir;

use super::journal::start_or_refusal;
use super::wire::Wire;
use super::{CONFIG, SOURCE, kill_folder, stored};
use crate::process::{Answer, PATIENCE, Server, TOKEN, serving};

/// Writes that were sent, and whether they were acknowledged.
#[derive(Default)]
struct Writes {
    next: u64,
    acknowledged: Vec<u64>,
    refused: u64,
}

impl Writes {
    fn send(&mut self, wire: &mut Wire) -> Answer {
        self.next += 1;
        let row = json!({ "item": "x".repeat(6_000), "n": self.next }).to_string();
        let headers = [("content-type", "application/json")];
        let answer = wire.ask("POST", &format!("/orders/o{}", self.next), &headers, &row).unwrap();
        match answer.status {
            202 => self.acknowledged.push(self.next),
            _ => self.refused += 1,
        }
        answer
    }

    /// Writes until there is no room.
    fn fill(&mut self, wire: &mut Wire) -> Answer {
        for _ in 0..5_000 {
            let answer = self.send(wire);
            if answer.status != 202 {
                return answer;
            }
        }
        panic!("5,000 writes found room");
    }

    /// Writes until one is accepted.
    fn until_accepted(&mut self, wire: &mut Wire) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let answer = self.send(wire);
            if answer.status == 202 {
                return;
            }
            assert!(Instant::now() < deadline, "writes stay refused: {answer:?}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Writes until readiness says that writes are refused. A delivered operation that is settled meanwhile frees a page, and then it
    /// rightly says nothing until the next write that finds no room.
    fn until_said(&mut self, wire: &mut Wire) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let ready = wire.get("/readyz").unwrap();
            assert_eq!(ready.status, 200, "reads go on");
            if ready.body.contains("writes are refused") {
                return;
            }
            assert!(Instant::now() < deadline, "nothing is said of the full disk: {ready:?}");
            self.send(wire);
        }
    }

    fn check(&self, wire: &mut Wire) {
        for at in &self.acknowledged {
            let answer = wire.get(&format!("/orders/o{at}")).unwrap();
            assert_eq!(answer.status, 200, "o{at} was acknowledged: {answer:?}");
        }
    }

    /// Waits until the source has everything that was acknowledged.
    fn settle(&self, dir: &Path, wire: &mut Wire) {
        let deadline = Instant::now() + PATIENCE;
        while wire.get("/readyz").unwrap().json()["dios"]["orders"]["queued"] != 0 {
            assert!(Instant::now() < deadline, "writes do not get through");
            std::thread::sleep(Duration::from_millis(20));
        }
        let rows = stored(dir, "orders");
        assert!(self.acknowledged.iter().all(|at| rows.contains_key(&format!("o{at}"))));
    }
}

/// A folder whose server keeps its two files in `small`.
fn folder_on(small: &Path) -> TempDir {
    let dir = kill_folder();
    let config = CONFIG.replace("cache.redb", small.join("cache.redb").to_str().unwrap());
    std::fs::write(dir.path().join("diorama.toml"), config).unwrap();
    std::fs::write(dir.path().join("products.csv"), SOURCE).unwrap();
    drop(super::stock::Stock::open(dir.path()));
    dir
}

/// Waits until reads are answered, which is before anything could be written down.
fn until_ready(wire: &mut Wire) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let ready = wire.get("/readyz").unwrap();
        if ready.status == 200 {
            return;
        }
        assert!(Instant::now() < deadline, "{ready:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
#[ignore = "needs a file system of 4 MiB: tests/disk.sh mounts one"]
fn a_full_disk_refuses_writes_keeps_reads_and_heals_without_a_restart() {
    let small = PathBuf::from(std::env::var("DIORAMA_SMALL_DISK").unwrap());
    let ballast = ["one", "two"].map(|name| small.join(name));
    ballast.iter().for_each(|path| std::fs::write(path, vec![1; 512 << 10]).unwrap());
    let dir = folder_on(&small);
    let mut server = Server::start(dir.path(), &[]);
    let mut wire = Wire::connect(&server.address).unwrap();
    let mut writes = Writes::default();
    for freed in &ballast {
        let refused = writes.fill(&mut wire);
        assert_eq!(refused.status, 507, "{refused:?}");
        assert_eq!(refused.json()["code"], "insufficient-storage");
        for _ in 0..20 {
            let answer = writes.send(&mut wire);
            assert!(matches!(answer.status, 202 | 507), "{answer:?}");
        }
        writes.check(&mut wire);
        assert_eq!(wire.get("/orders?limit=10").unwrap().status, 200);
        writes.until_said(&mut wire);
        // The process ends while there is no room, and comes back while there is none.
        server.kill();
        server = Server::launch(dir.path(), &[]);
        wire = Wire::connect(&server.address).unwrap();
        until_ready(&mut wire);
        writes.check(&mut wire);
        let refused = writes.fill(&mut wire);
        assert_eq!(refused.status, 507, "{refused:?}");
        std::fs::remove_file(freed).unwrap();
        writes.until_accepted(&mut wire);
        writes.check(&mut wire);
    }
    // What was told of the failed refreshes has taken the room again.
    let larger = Command::new("mount").args(["-o", "remount,size=64m"]).arg(&small).status().unwrap();
    assert!(larger.success());
    writes.settle(dir.path(), &mut wire);
    server.signal("TERM");
    assert!(server.ended().success());
    println!("{} writes acknowledged, {} refused", writes.acknowledged.len(), writes.refused);
}

/// The command under strace, with faults in the system calls on one file only.
fn injected(dir: &Path, fault: &str) -> Command {
    let plain = serving(dir, &[]);
    let mut command = Command::new("strace");
    let file = dir.join("cache.journal.redb");
    command.args(["-D", "-f", "-qq", "-o", "/dev/null", "-P", file.to_str().unwrap()]);
    command.args(["-e", &format!("inject={fault}")]).arg(plain.get_program()).args(plain.get_args());
    command.current_dir(dir).env("TOKEN", TOKEN);
    command
}

#[test]
#[ignore = "needs strace: tests/disk.sh installs it"]
fn a_disk_that_fails_now_and_then_costs_no_acknowledged_write_and_no_restart() {
    let mut refused = 0;
    for fault in [
        "pwrite64:error=EIO:when=9+40",
        "pwrite64:error=EIO:when=30+31",
        "fdatasync,fsync:error=EIO:when=12+9",
        "fdatasync,fsync:error=EIO:when=25+20",
        "pwrite64:error=ENOSPC:when=12+37",
    ] {
        let dir = folder_on(Path::new("."));
        // The file is there before anything fails.
        Server::start(dir.path(), &[]).kill();
        let (address, mut child) = match start_or_refusal(dir.path(), injected(dir.path(), fault)) {
            Ok(started) => started,
            // The fault may strike while the file is opened.
            Err((code, said)) => {
                assert!(code == Some(78) && said.contains("cache.journal.redb"), "{fault}: {code:?}: {said}");
                println!("{fault}: refused to start: {said}");
                continue;
            }
        };
        let mut wire = Wire::connect(&address).unwrap();
        let mut writes = Writes::default();
        for _ in 0..60 {
            let answer = writes.send(&mut wire);
            assert!(matches!(answer.status, 202 | 503 | 507), "{fault}: {answer:?}");
            assert_eq!(wire.get("/orders?limit=1").unwrap().status, 200, "{fault}: reads go on");
        }
        writes.until_accepted(&mut wire);
        writes.check(&mut wire);
        child.kill().unwrap();
        child.wait().unwrap();
        let server = Server::start(dir.path(), &[]);
        let mut wire = Wire::connect(&server.address).unwrap();
        writes.check(&mut wire);
        writes.settle(dir.path(), &mut wire);
        println!("{fault}: {} acknowledged, {} refused", writes.acknowledged.len(), writes.refused);
        refused += writes.refused;
    }
    assert!(refused > 0, "nothing was injected");
}
