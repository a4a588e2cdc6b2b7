//! A subscriber of one table that keeps a copy of the rows from events only, and checks each event.

use std::collections::{HashMap, HashSet, VecDeque};
use std::io::ErrorKind;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use serde_json::Value;
use tokio_tungstenite::tungstenite::{Error, Message, WebSocket, client};

use super::table::Table;
use super::world::{World, pause};
use crate::process::ask;

/// Longest time without a frame: three heartbeats.
const SILENCE: Duration = Duration::from_secs(15);
/// Number of frames that are kept for the report of a fault.
const HISTORY: usize = 20_000;

/// What a subscriber knows.
#[derive(Default)]
pub(super) struct Copy {
    pub(super) rows: HashMap<String, Value>,
    /// Position up to which everything was told.
    pub(super) position: Option<(String, u64)>,
    /// The highest `n` of each row so far.
    highest: HashMap<String, u64>,
    /// Events in which `n` went back, by the operation that they undo: the operation must be told to have failed.
    undone: HashMap<String, String>,
    /// Position from which the rows are those of one moment again, after a snapshot or newest states; until then, a connection that
    /// is lost cannot be continued with these rows. `u64::MAX` before it is known.
    whole_at: Option<u64>,
    /// Operations that were told to have ended.
    ended: HashSet<String>,
    history: VecDeque<(Option<String>, String)>,
}

pub(super) struct Watcher<'w> {
    table: Table,
    world: &'w World,
    pub(super) copy: Mutex<Copy>,
}

/// What is to be done after a frame.
enum Next {
    Go,
    /// Connect again, with a snapshot.
    Snapshot,
}

impl<'w> Watcher<'w> {
    pub(super) fn new(table: Table, world: &'w World) -> Watcher<'w> {
        Watcher { table, world, copy: Mutex::default() }
    }

    /// Follows the events until the end, over all lives of Diorama.
    pub(super) fn watch(&self) {
        let mut snapshot = true;
        while !self.world.is_over() {
            match self.connect(snapshot) {
                Some(mut socket) => snapshot = self.listen(&mut socket),
                None => pause(30),
            }
        }
    }

    fn connect(&self, snapshot: bool) -> Option<WebSocket<TcpStream>> {
        let address = self.world.address();
        let stream = TcpStream::connect(&address).ok()?;
        stream.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        let kind = if snapshot { "full" } else { "auto" };
        if snapshot {
            // Also if the connection is lost before the snapshot begins.
            self.copy.lock().whole_at = Some(u64::MAX);
        }
        let mut url = format!("ws://{address}/{}/events?heartbeat=5&snapshot={kind}", self.table.name());
        if let Some((epoch, seq)) = self.copy.lock().position.as_ref().filter(|_| !snapshot) {
            url += &format!("&since={epoch}:{seq}");
        }
        let (socket, _) = client(url, stream).ok()?;
        self.world.count("sockets", 1);
        Some(socket)
    }

    /// Listens until the connection ends. Returns true if the rows must be told anew.
    fn listen(&self, socket: &mut WebSocket<TcpStream>) -> bool {
        let mut heard = Instant::now();
        while !self.world.is_over() {
            match socket.read() {
                Ok(Message::Text(text)) => {
                    heard = Instant::now();
                    let frame: Value = serde_json::from_str(&text).unwrap();
                    if let Next::Snapshot = self.hear(&mut self.copy.lock(), &frame, &text) {
                        return true;
                    }
                }
                Ok(_) => {}
                Err(Error::Io(error)) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    if heard.elapsed() > SILENCE {
                        self.world.fault(format!("{}: no frame for {SILENCE:?}", self.table.name()));
                    }
                }
                Err(_) => return self.copy.lock().whole_at.is_some(),
            }
        }
        false
    }

    /// Position of the rows that readers see now; `None` without an answer.
    fn position_now(&self) -> Option<u64> {
        let answer = ask(&self.world.address(), "GET", &format!("/{}?limit=1", self.table.name()), &[], "").ok()?;
        answer.raw_header("dio-position")?.split_once(':')?.1.parse().ok()
    }

    fn fault(&self, copy: &Copy, id: Option<&str>, what: &str, frame: &str) {
        let of_row = |entry: &&(Option<String>, String)| entry.0.as_deref() == id || entry.0.is_none();
        let before: Vec<String> =
            copy.history.iter().filter(of_row).rev().take(14).map(|entry| entry.1.clone()).collect();
        self.world.fault(format!("{}: {what}: {}\nnewest first: {before:#?}", self.table.name(), short(frame)));
    }

    fn hear(&self, copy: &mut Copy, frame: &Value, text: &str) -> Next {
        let kind = frame["type"].as_str().unwrap_or_default();
        let position = || {
            let epoch = frame["epoch"].as_str().unwrap_or_default().to_string();
            (epoch, frame["seq"].as_u64().unwrap_or_default())
        };
        match kind {
            "hello" => {
                if let Some((epoch, _)) = &copy.position
                    && frame["epoch"].as_str() != Some(epoch)
                {
                    self.fault(copy, None, "another epoch", text);
                }
                if copy.position.is_none() {
                    copy.position = Some(position());
                }
            }
            "reset" => {
                self.world.count("resets", 1);
                if !matches!(frame["reason"].as_str(), Some("overflow" | "trimmed")) {
                    self.fault(copy, None, "a reset", text);
                }
                return Next::Snapshot;
            }
            "snapshot_begin" => {
                copy.rows.clear();
                copy.whole_at = Some(u64::MAX);
            }
            "rows" => {
                for row in frame["rows"].as_array().into_iter().flatten() {
                    let id = row[0].as_str().unwrap_or_default();
                    self.check_n(copy, id, &row[1], frame, text);
                    copy.rows.insert(id.to_string(), row[1].clone());
                }
                return Next::Go;
            }
            "snapshot_end" => {
                copy.position = Some(position());
                copy.whole_at = Some(self.position_now().unwrap_or(u64::MAX));
            }
            "heartbeat" => {
                let (epoch, seq) = position();
                if copy.position.as_ref().is_none_or(|(_, before)| seq >= *before) {
                    if copy.whole_at == Some(u64::MAX) {
                        copy.whole_at = Some(self.position_now().unwrap_or(u64::MAX));
                    }
                    copy.whole_at.take_if(|whole_at| *whole_at <= seq);
                    copy.position = Some((epoch, seq));
                } else {
                    self.fault(copy, None, "a heartbeat goes back", text);
                }
                return Next::Go;
            }
            "bye" => {}
            _ => return self.event(copy, kind, frame, text),
        }
        remember(copy, None, text);
        Next::Go
    }

    fn event(&self, copy: &mut Copy, kind: &str, frame: &Value, text: &str) -> Next {
        self.world.count("events", 1);
        let seq = frame["seq"].as_u64().unwrap_or_default();
        let is_conflated = frame["conflated"] == true;
        match &mut copy.position {
            Some((_, before)) if seq > *before => *before = seq,
            Some((_, before)) if is_conflated && seq == *before => {}
            _ => self.fault(copy, frame["id"].as_str(), "positions do not rise", text),
        }
        match is_conflated {
            true => {
                self.world.count("newest states", 1);
                copy.whole_at = Some(u64::MAX);
            }
            false => drop(copy.whole_at.take_if(|whole_at| *whole_at <= seq)),
        }
        let (id, op) = (frame["id"].as_str().unwrap_or_default(), frame["op"].as_str());
        let mut next = Next::Go;
        match kind {
            "RecordInserted" | "RecordChanged" => {
                let known = copy.rows.get(id);
                if !is_conflated && known == Some(&frame["record"]) {
                    self.fault(copy, Some(id), "a row is told twice", text);
                } else if !is_conflated && (kind == "RecordChanged") != known.is_some() {
                    self.fault(copy, Some(id), "a row is told that was not there, or was", text);
                }
                self.check_n(copy, id, &frame["record"], frame, text);
                copy.rows.insert(id.to_string(), frame["record"].clone());
            }
            "RecordRemoved" => {
                if copy.rows.remove(id).is_none() && !is_conflated {
                    self.fault(copy, Some(id), "a removal of a row that is not there", text);
                }
            }
            "WriteCommitted" | "WriteFailed" => {
                let op = op.unwrap_or_default();
                let is_failure = kind == "WriteFailed";
                self.world.count(if is_failure { "writes failed" } else { "writes committed" }, 1);
                if !copy.ended.insert(op.to_string()) {
                    self.fault(copy, Some(id), "an operation ends twice", text);
                }
                if copy.undone.remove(op).is_some() && !is_failure {
                    self.fault(copy, Some(id), "n went back for an operation that did not fail", text);
                }
            }
            "Invalidated" => {
                self.world.count("refreshes told", 1);
                if frame["covered"] != true {
                    next = Next::Snapshot;
                }
            }
            _ => self.fault(copy, Some(id), "an unknown frame", text),
        }
        remember(copy, frame["id"].as_str(), text);
        next
    }

    /// Checks that `n` of a row has not gone back, unless a failed write is undone.
    fn check_n(&self, copy: &mut Copy, id: &str, record: &Value, frame: &Value, text: &str) {
        let Some(n) = record["n"].as_u64() else { return };
        let highest = copy.highest.insert(id.to_string(), n).unwrap_or_default();
        if n >= highest {
            return;
        }
        match frame["op"].as_str() {
            Some(op) => drop(copy.undone.insert(op.to_string(), text.to_string())),
            None => self.fault(copy, Some(id), &format!("n went back from {highest} to {n}"), text),
        }
    }

    /// Checks what must hold at rest.
    pub(super) fn check_rest(&self, rows: &HashMap<String, Value>) -> Result<(), String> {
        let copy = self.copy.lock();
        if let Some((op, event)) = copy.undone.iter().next() {
            return Err(format!("n went back for {op}, which did not fail: {event}"));
        }
        difference(&copy.rows, rows).map_or(Ok(()), Err)
    }

    /// The last frames about a row.
    pub(super) fn history(&self, id: &str) -> Vec<String> {
        let copy = self.copy.lock();
        let of_row = copy.history.iter().filter(|entry| entry.0.as_deref() == Some(id) || entry.0.is_none());
        of_row.rev().take(14).map(|entry| entry.1.clone()).collect()
    }
}

fn remember(copy: &mut Copy, id: Option<&str>, text: &str) {
    if copy.history.len() >= HISTORY {
        copy.history.pop_front();
    }
    copy.history.push_back((id.map(str::to_string), short(text)));
}

/// A text of bounded length: the middle is left out.
fn short(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    match chars.len() {
        0..=400 => text.to_string(),
        length => chars[..200]
            .iter()
            .chain(" ... ".chars().collect::<Vec<_>>().iter())
            .chain(&chars[length - 160..])
            .collect(),
    }
}

/// The first difference between rows and those that are expected, beginning with the id.
pub(super) fn difference(rows: &HashMap<String, Value>, expected: &HashMap<String, Value>) -> Option<String> {
    let ids: HashSet<&String> = rows.keys().chain(expected.keys()).collect();
    let mut different: Vec<&String> = ids.into_iter().filter(|id| rows.get(*id) != expected.get(*id)).collect();
    different.sort();
    let show = |row: Option<&Value>| row.map_or("none".into(), |row| short(&row.to_string()));
    let first = different.first()?;
    let (row, other) = (show(rows.get(*first)), show(expected.get(*first)));
    Some(format!("{first}\n{} rows differ, the first is {row} and not {other}", different.len()))
}
