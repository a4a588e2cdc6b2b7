//! README.md and the guides in docs/, as somebody follows them: the console lines of a page are run in order in an empty folder,
//! their answers are compared.
//!
//! Tolerance: `...` stands for anything, as a line of its own for any lines; positions, ids of operations, epochs, sequence
//! numbers and times may be others of the same form; runs of spaces are one. Ports are the system's choice.

use std::path::Path;
use std::process::Command;

use futures_util::{SinkExt as _, StreamExt as _};
use regex::Regex;
use tempfile::TempDir;
use tokio_tungstenite::connect_async;
use tokio_tungstenite::tungstenite::Message;

use crate::process::{PATIENCE, Server, has_tools};

const PROGRAM: &str = env!("CARGO_BIN_EXE_diorama");

/// Where the README's servers are.
const ADDRESS: &str = "127.0.0.1:8080";

/// Forms in an answer that need not be the same text.
const TOLERATED: [&str; 7] = [
    r"\.\.\.",
    r"\b[0-9A-Z]{10}:\d+",
    r"\bop_[0-9A-Z]{26}",
    r"\d{4}-\d\d-\d\dT[0-9:.]+Z",
    r#""epoch":"[0-9A-Z]{10}""#,
    r#""(?:seq|position)":\d+"#,
    r" +",
];

/// The fenced blocks: language and lines.
fn blocks(page: &'static str) -> Vec<(&'static str, Vec<&'static str>)> {
    let (mut blocks, mut lines) = (Vec::new(), page.lines());
    while let Some(line) = lines.next() {
        if let Some(language) = line.strip_prefix("```") {
            blocks.push((language, lines.by_ref().take_while(|line| *line != "```").collect()));
        }
    }
    blocks
}

/// Commands with what is shown below them.
fn steps(lines: &[&'static str]) -> Vec<(&'static str, Vec<&'static str>)> {
    let mut steps: Vec<(&str, Vec<&str>)> = Vec::new();
    for line in lines {
        match (line.strip_prefix("$ "), steps.last_mut()) {
            (Some(command), _) => steps.push((command, Vec::new())),
            (None, Some((_, shown))) => shown.push(line),
            (None, None) => panic!("a console block begins with a command: {line}"),
        }
    }
    steps
}

/// Whether `got` is what the README shows.
fn matches<S: AsRef<str>>(shown: &[&str], got: &[S]) -> bool {
    match (shown, got) {
        ([], []) => true,
        (["...", rest @ ..], _) => (0..=got.len()).any(|from| matches(rest, &got[from..])),
        ([line, rest @ ..], [first, others @ ..]) => line_matches(line, first.as_ref()) && matches(rest, others),
        _ => false,
    }
}

fn line_matches(shown: &str, got: &str) -> bool {
    let tolerated = TOLERATED.map(|form| format!("({form})")).join("|");
    let (mut pattern, mut from) = (String::from("^"), 0);
    for found in Regex::new(&tolerated).unwrap().captures_iter(shown) {
        let form = (0..TOLERATED.len()).find(|form| found.get(form + 1).is_some()).unwrap();
        let whole = found.get(0).unwrap();
        pattern.push_str(&regex::escape(&shown[from..whole.start()]));
        pattern.push_str(if form == 0 { ".*" } else { TOLERATED[form] });
        from = whole.end();
    }
    pattern.push_str(&regex::escape(&shown[from..]));
    Regex::new(&(pattern + "$")).unwrap().is_match(got)
}

/// Somebody at a terminal, in a folder of their own.
struct Terminal {
    dir: TempDir,
    server: Option<Server>,
}

impl Terminal {
    fn new() -> Terminal {
        let dir = tempfile::tempdir().unwrap();
        // What the shell knows from one line to the next.
        std::fs::write(dir.path().join(".terminal"), "").unwrap();
        Terminal { dir, server: None }
    }

    fn shell(&self, line: &str) -> Command {
        let path = std::env::var("PATH").unwrap_or_default();
        let programs = Path::new(PROGRAM).parent().unwrap();
        let mut command = Command::new("sh");
        command.current_dir(self.dir.path()).env("PATH", format!("{}:{path}", programs.display()));
        command.args(["-c", &format!("set -a; . ./.terminal\n{line}")]);
        command
    }

    fn run(&mut self, command: &str, shown: &[&str]) {
        let got = match command {
            "./test.sh" => {
                assert!(Path::new(env!("CARGO_MANIFEST_DIR")).join("test.sh").is_file());
                Vec::new()
            }
            // The program under test stands for the one that would be installed.
            "cargo install --path ." => Vec::new(),
            // `tests/gateway/examples.rs` runs the examples.
            example if example.starts_with("cargo run --quiet --example ") => {
                let name = example.rsplit(' ').next().unwrap_or_default();
                assert!(Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("examples/{name}.rs")).is_file(), "{name}");
                return;
            }
            "cargo run --release" => self.serve("diorama demo"),
            serve if serve.starts_with("diorama serve") || serve.starts_with("diorama demo") => self.serve(serve),
            socket if socket.starts_with("websocat ") => return self.listen(socket, shown),
            other => self.execute(other),
        };
        assert!(matches(shown, &got), "$ {command}\nshown: {shown:#?}\ngot: {got:#?}");
    }

    fn serve(&mut self, command: &str) -> Vec<String> {
        self.server = None;
        let mut command = self.shell(&format!("exec {command} --listen 127.0.0.1:0"));
        let mut server = Server::spawn(command.stdout(std::process::Stdio::piped()));
        server.wait_for("ready");
        let got = server.printed.iter().map(|line| line.replace(&server.address, ADDRESS)).collect();
        self.server = Some(server);
        got
    }

    fn address(&self) -> &str {
        &self.server.as_ref().expect("something is served before it is asked").address
    }

    fn execute(&self, command: &str) -> Vec<String> {
        let command = self.server.as_ref().map_or(command.to_string(), |server| {
            command.replace("localhost:8080", &server.address).replace(ADDRESS, &server.address)
        });
        let output = self.shell(&format!("{command}\nended=$?; export -p > .terminal; exit $ended")).output().unwrap();
        assert!(output.status.success(), "$ {command}\n{output:?}");
        let said = String::from_utf8(output.stdout).unwrap().replace("\r\n", "\n");
        said.lines()
            .map(|line| line.replace(self.server.as_ref().map_or("?", |server| &server.address), ADDRESS))
            .collect()
    }

    /// A socket's frames, until they are what is shown.
    fn listen(&self, command: &str, shown: &[&str]) {
        let url = ws_url(command).replace("localhost:8080", self.address());
        tokio::runtime::Runtime::new().unwrap().block_on(async {
            let (mut socket, _) = connect_async(url).await.unwrap();
            let mut got: Vec<String> = Vec::new();
            while !matches(shown, &got) {
                match tokio::time::timeout(PATIENCE, socket.next()).await {
                    Ok(Some(Ok(Message::Text(frame)))) => got.push(frame.to_string()),
                    Ok(Some(Ok(_))) => {}
                    end => panic!("$ {command}\nshown: {shown:#?}\ngot: {got:#?}\n{end:?}"),
                }
            }
        });
    }
}

fn ws_url(text: &str) -> &str {
    let from = text.find("ws://").unwrap();
    text[from..].split(['\'', '"']).next().unwrap()
}

/// Does what a page says; there are at least so many commands.
fn follow(page: &'static str, at_least: usize) {
    if !has_tools("the commands of the pages", &["curl", "openssl", "od", "sed", "date"]) {
        return;
    }
    let mut terminal = Terminal::new();
    let mut commands = 0;
    for (language, lines) in blocks(page) {
        match language {
            "console" => {
                for (command, shown) in steps(&lines) {
                    terminal.run(command, &shown);
                    commands += 1;
                }
            }
            // `diorama check` and `serve` read it below.
            "toml" => std::fs::write(terminal.dir.path().join("diorama.toml"), lines.join("\n")).unwrap(),
            "js" => terminal.listen(&lines.join("\n"), &["{\"type\":\"hello\",...}"]),
            // Documentation tests compile Rust; the others show a part of an example or of an answer.
            "rust" | "html" | "json" | "sh" | "sql" | "text" => {}
            other => panic!("nothing is done about blocks of {other:?}"),
        }
    }
    assert!(commands >= at_least, "{commands}");
}

/// A test for each page with commands, of which there are at least so many.
macro_rules! pages {
    ($($test:ident: $page:literal, $at_least:literal;)*) => {
        const FOLLOWED: &[&str] = &[$($page),*];

        $(#[test]
        fn $test() {
            follow(include_str!(concat!("../../", $page)), $at_least);
        })*
    };
}

pages! {
    every_command_of_the_readme_does_what_it_shows: "README.md", 10;
    every_command_of_the_first_steps_does_what_it_shows: "docs/get-started.md", 15;
    every_command_of_the_guide_to_queries_does_what_it_shows: "docs/queries.md", 20;
    every_command_of_the_guide_to_writes_does_what_it_shows: "docs/writes.md", 15;
    every_command_of_the_guide_to_events_does_what_it_shows: "docs/events.md", 8;
    every_command_of_the_guide_to_webhooks_does_what_it_shows: "docs/webhooks.md", 9;
    every_command_of_the_guide_to_maps_does_what_it_shows: "docs/webhook-maps.md", 10;
    every_command_of_the_guide_to_access_does_what_it_shows: "docs/access.md", 10;
    every_command_of_the_guide_to_operating_does_what_it_shows: "docs/operating.md", 6;
    every_command_of_the_guide_to_tls_does_what_it_shows: "docs/tls.md", 12;
    every_command_of_the_guide_to_embedding_does_what_it_shows: "docs/embedding.md", 1;
}

#[test]
fn every_page_with_commands_is_followed() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for entry in std::fs::read_dir(root.join("docs")).unwrap() {
        let path = entry.unwrap().path();
        let page = path.strip_prefix(root).unwrap().display().to_string();
        if page.ends_with(".md") && std::fs::read_to_string(&path).unwrap().contains("```console") {
            assert!(FOLLOWED.contains(&&*page), "a line of `pages!` is missing for {page}");
        }
    }
}

#[test]
fn the_frame_of_the_guide_to_events_subscribes() {
    let guide = include_str!("../../docs/events.md");
    let command = Regex::new(r#"`(\{"type":"subscribe".*?)`"#).unwrap().captures(guide).unwrap()[1].to_string();
    let mut terminal = Terminal::new();
    terminal.serve("diorama demo");
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let (mut socket, _) = connect_async(format!("ws://{}/events", terminal.address())).await.unwrap();
        socket.send(Message::text(command)).await.unwrap();
        loop {
            let frame = tokio::time::timeout(PATIENCE, socket.next()).await.unwrap().unwrap().unwrap();
            let Message::Text(frame) = frame else { continue };
            let frame: serde_json::Value = serde_json::from_str(&frame).unwrap();
            assert_eq!((&frame["type"], &frame["sub"]), (&"hello".into(), &"cheap".into()), "{frame}");
            return;
        }
    });
}

#[test]
fn what_is_compared_is_compared() {
    assert!(line_matches(r#"{"id":1,...,"z":2}"#, r#"{"id":1,"a":3,"z":2}"#));
    assert!(!line_matches(r#"{"id":1,...,"z":2}"#, r#"{"id":1,"a":3,"z":3}"#));
    assert!(line_matches("dio-position: KPV9C3T8MH:2", "dio-position: 0123456789:14"));
    assert!(!line_matches("dio-position: KPV9C3T8MH:2", "dio-position: none"));
    assert!(line_matches("a   b", "a b") && !line_matches("a.b", "a,b"));
    assert!(matches(&["a", "...", "c"], &["a", "b", "b", "c"]) && matches(&["a", "..."], &["a"]));
    assert!(!matches(&["a"], &["a", "b"]) && !matches(&["a", "b"], &["a"]) && !matches::<&str>(&["a"], &[]));
}
