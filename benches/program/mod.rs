//! The program as a process of its own, for benchmarks.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

/// `diorama serve` with cache and journal in a folder of its own; killed when it is dropped.
pub(crate) struct Diorama {
    child: Child,
    pub(crate) address: SocketAddr,
    /// `None` once another process has taken it over.
    folder: Option<TempDir>,
}

/// Memory of a process in bytes.
#[derive(Clone, Copy, Debug)]
#[allow(dead_code, reason = "not every benchmark measures memory")]
pub(crate) struct Memory {
    pub(crate) resident: u64,
    pub(crate) peak: u64,
}

impl Diorama {
    /// Serves this configuration and waits until everything is read. `prepare` makes other files in the folder.
    pub(crate) fn serve(configuration: &str, environment: &[(&str, &str)], prepare: impl FnOnce(&Path)) -> Diorama {
        let folder = tempfile::tempdir().expect("a folder");
        prepare(folder.path());
        fs::write(folder.path().join("diorama.toml"), configuration).expect("a file");
        Diorama::start(folder, environment)
    }

    fn start(folder: TempDir, environment: &[(&str, &str)]) -> Diorama {
        let mut command = Command::new(env!("CARGO_BIN_EXE_diorama"));
        command.current_dir(folder.path()).args(["serve", "--listen", "127.0.0.1:0"]);
        command.envs(environment.iter().copied()).env("RUST_LOG", "warn").stdout(Stdio::piped());
        let mut child = command.spawn().expect("the program");
        let mut lines = BufReader::new(child.stdout.take().expect("its output")).lines().map_while(Result::ok);
        let address = lines.find_map(|line| line.strip_prefix("listening on http://")?.parse().ok());
        assert!(lines.any(|line| line == "ready"), "the program ended early");
        // Closed, its output would be an error for the program.
        std::thread::spawn(move || lines.for_each(drop));
        Diorama { child, address: address.expect("an address"), folder: Some(folder) }
    }

    /// Stops the program and starts it again on the same files.
    #[cfg(target_os = "linux")]
    #[allow(dead_code, reason = "not every benchmark restarts")]
    pub(crate) fn again(mut self) -> Diorama {
        let stopped = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status();
        assert!(stopped.expect("kill").success() && self.child.wait().expect("the program").success());
        Diorama::start(self.folder.take().expect("a folder"), &[])
    }

    /// Folder of its files.
    #[allow(dead_code, reason = "not every benchmark changes files")]
    pub(crate) fn folder(&self) -> &Path {
        self.folder.as_ref().expect("a folder, until it is started again").path()
    }

    /// Memory of the process.
    #[cfg(target_os = "linux")]
    #[allow(dead_code, reason = "not every benchmark measures memory")]
    pub(crate) fn memory(&self) -> Memory {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("its figures");
        let line = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)?.split_whitespace().next());
        let bytes = |name: &str| line(name).and_then(|size| size.parse::<u64>().ok()).unwrap_or_default() * 1024;
        Memory { resident: bytes("VmRSS:"), peak: bytes("VmHWM:") }
    }

    /// Begins a new peak.
    #[cfg(target_os = "linux")]
    #[allow(dead_code, reason = "not every benchmark measures memory")]
    pub(crate) fn forget_peak(&self) {
        fs::write(format!("/proc/{}/clear_refs", self.child.id()), "5").expect("its peak is forgotten");
    }

    /// Seconds of CPU that the process has used.
    #[cfg(target_os = "linux")]
    pub(crate) fn cpu(&self) -> f64 {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id())).expect("its figures");
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        let ticks = |at: usize| fields.get(at).and_then(|field| field.parse::<f64>().ok()).unwrap_or_default();
        // User and system time are fields 14 and 15 of proc_pid_stat(5); a tick is 10 ms.
        (ticks(11) + ticks(12)) / 100.0
    }
}

impl Drop for Diorama {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
