//! What a person may do to a source file while it is served: each cell of the table in `docs/operating.md`.

mod database;
mod text;

use std::path::Path;
use std::time::{Duration, Instant};

use crate::process::{Answer, PATIENCE, Server, ask};

pub(crate) const JSON: (&str, &str) = ("content-type", "application/json");

/// Time that a doubtful file has to stay the same in these tests.
pub(crate) const SETTLE: Duration = Duration::from_secs(2);

/// A server of `source` as `/goods`.
pub(crate) fn serve(dir: &Path, source: &str) -> Server {
    std::fs::write(dir.join("diorama.toml"), format!("[dio.goods]\n{source}\n")).unwrap();
    Server::start(dir, &[])
}

/// Puts a new file in the place of `name`, in one step.
pub(crate) fn rename(dir: &Path, name: &str, content: &str) {
    std::fs::write(dir.join("new"), content).unwrap();
    std::fs::rename(dir.join("new"), dir.join(name)).unwrap();
}

/// Asks for a refresh; how long it took, too.
pub(crate) fn refresh(server: &Server) -> (Answer, Duration) {
    refresh_at(&server.address)
}

fn refresh_at(address: &str) -> (Answer, Duration) {
    let started = Instant::now();
    (ask(address, "POST", "/goods/_refresh", &[JSON], "").unwrap(), started.elapsed())
}

/// Asks for a refresh, and has `meanwhile` look at the server until it is answered.
pub(crate) fn refresh_while(server: &Server, meanwhile: impl FnOnce()) -> (Answer, Duration) {
    let address = server.address.clone();
    let refreshing = std::thread::spawn(move || refresh_at(&address));
    meanwhile();
    refreshing.join().unwrap()
}

/// The number of rows that are served.
pub(crate) fn rows(server: &Server) -> usize {
    let list = server.get("/goods?limit=10000");
    assert_eq!(list.status, 200, "{}", list.body);
    list.json().as_array().unwrap().len()
}

/// What `/readyz` says is wrong.
pub(crate) fn reasons(server: &Server) -> String {
    server.get("/readyz").json()["dios"]["goods"]["reasons"].to_string()
}

/// Waits until `holds`.
pub(crate) fn eventually(what: &str, holds: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Puts everything that is no regular file in the place of `name`: each is refused at once, and reads go on.
pub(crate) fn refuses_what_is_no_file(dir: &Path, server: &Server, name: &str, expected: usize) {
    let path = dir.join(name);
    std::fs::rename(&path, dir.join("aside")).unwrap();
    for what in ["a directory", "a FIFO", "a socket", "a device"] {
        match what {
            "a directory" => std::fs::create_dir(&path).unwrap(),
            "a FIFO" => assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success()),
            "a socket" => drop(std::os::unix::net::UnixListener::bind(&path).unwrap()),
            _ => std::os::unix::fs::symlink("/dev/zero", &path).unwrap(),
        }
        let (refused, took) = refresh(server);
        assert_eq!(refused.status, 502, "{}", refused.body);
        assert!(refused.body.contains(&format!("is {what}, not a regular file")), "{}", refused.body);
        assert!(took < SETTLE, "{what}: {took:?}");
        assert_eq!(rows(server), expected);
        match what {
            "a directory" => std::fs::remove_dir(&path).unwrap(),
            _ => std::fs::remove_file(&path).unwrap(),
        }
    }
    std::fs::rename(dir.join("aside"), &path).unwrap();
    assert_eq!(refresh(server).0.status, 200);
}

/// Takes the permissions of `name`; `None` where that keeps nobody from reading, as it does not root.
pub(crate) fn without_permissions(dir: &Path, name: &str) -> Option<()> {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(dir.join(name), std::fs::Permissions::from_mode(0o000)).unwrap();
    if std::fs::File::open(dir.join(name)).is_ok() {
        println!("SKIPPED: this user reads files without permissions");
        return None;
    }
    Some(())
}

pub(crate) fn with_permissions(dir: &Path, name: &str) {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(dir.join(name), std::fs::Permissions::from_mode(0o644)).unwrap();
}
