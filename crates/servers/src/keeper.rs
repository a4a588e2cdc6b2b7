//! A helper process that outlives the test's: it ends a server whose test was killed.

use std::io::{self, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};

/// Reads process ids until its input ends, which happens however the test's process ends. The last id is the server's; an empty
/// line means that it has ended. The folder is removed in any case.
const SCRIPT: &str = r#"
trap '' HUP INT TERM
server=
while read -r line; do server=$line; done
if [ -n "$server" ] && kill -QUIT "$server" 2>/dev/null; then
    tries=0
    while [ $tries -lt 50 ] && kill -0 "$server" 2>/dev/null; do sleep 0.1; tries=$((tries + 1)); done
    kill -KILL "$server" 2>/dev/null
fi
rm -rf "$1"
"#;

/// The helper process of one server. `PR_SET_PDEATHSIG` would need unsafe code, and ends with the thread, not with the process.
#[derive(Debug)]
pub(crate) struct Keeper {
    shell: Child,
    input: Option<ChildStdin>,
}

impl Keeper {
    /// Starts the helper of the server in `folder`.
    pub(crate) fn start(folder: &Path) -> io::Result<Keeper> {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", SCRIPT, "diorama-keeper"]).arg(folder).current_dir("/");
        // Of a group of its own: signals to the group of the test do not reach it.
        command.process_group(0).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut shell = command.spawn()?;
        Ok(Keeper { input: shell.stdin.take(), shell })
    }

    /// Tells the helper the process id of the server, or that none runs.
    pub(crate) fn watch(&mut self, server: Option<u32>) {
        let line = server.map(|id| id.to_string()).unwrap_or_default();
        if let Some(input) = &mut self.input {
            let _gone = writeln!(input, "{line}");
        }
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.input = None;
        let _ended = self.shell.wait();
    }
}
