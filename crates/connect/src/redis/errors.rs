//! Errors of a server as messages that say what to do.

use redis::{ErrorKind, RedisError};

use super::address::RedisAddress;
use diorama_core::vista::Error;

/// A failed command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Failure {
    /// The problem, for people.
    pub(super) message: String,
    /// True if the command had no effect, false if that is not known.
    pub(super) is_refused: bool,
    /// True if another connection may help.
    pub(super) is_of_connection: bool,
    /// True if the command needs a key that does not exist.
    pub(super) is_missing: bool,
}

impl Failure {
    /// A command that was not sent.
    pub(super) fn refused(message: String) -> Failure {
        Failure { message, is_refused: true, is_of_connection: true, is_missing: false }
    }

    /// A command without an answer.
    pub(super) fn silence(address: &RedisAddress) -> Failure {
        let message = format!("{address}: no answer within {} s", super::address::PATIENCE.as_secs());
        Failure { message, is_refused: false, is_of_connection: true, is_missing: false }
    }

    /// A failed login, before any command.
    pub(super) fn of_login(address: &RedisAddress, error: &RedisError) -> Failure {
        Failure { is_refused: true, is_of_connection: true, ..Failure::of(address, error) }
    }

    /// A failed command.
    pub(super) fn of(address: &RedisAddress, error: &RedisError) -> Failure {
        let text = error.to_string();
        let hint = hint(error.kind(), &text);
        let message = match hint {
            Some(hint) => format!("{address}: {hint} ({text})"),
            None => format!("{address}: {text}"),
        };
        let answered = answered(error);
        let other_server = ["READONLY", "LOADING", "BUSYLOADING", "NOAUTH", "MASTERDOWN"];
        let is_of_connection = !answered || other_server.iter().any(|code| has_word(&text, code));
        Failure { message, is_refused: answered, is_of_connection, is_missing: text.contains("no such key") }
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Error {
        match failure.is_refused {
            true => Error::transient(failure.message),
            false => Error::unknown(failure.message),
        }
    }
}

/// True if the server has answered with an error, so that the command had no effect.
fn answered(error: &RedisError) -> bool {
    match error.kind() {
        ErrorKind::Server(_) | ErrorKind::Extension | ErrorKind::AuthenticationFailed => true,
        _ => error.code().is_some(),
    }
}

/// True if `text` contains `word`, in any case.
fn has_word(text: &str, word: &str) -> bool {
    text.split(|letter: char| !letter.is_alphanumeric()).any(|other| other.eq_ignore_ascii_case(word))
}

/// Advice about an error; `None` if its text says it all. The client writes some codes in another case.
fn hint(kind: ErrorKind, text: &str) -> Option<&'static str> {
    let hints = [
        ("WRONGPASS", "the user or the password is wrong"),
        ("NOAUTH", "the server requires a password: set user and password"),
        ("NOPERM", "the user lacks a right, which ACL SETUSER gives"),
        ("WRONGTYPE", "the key has a value of another type"),
        ("OOM", "the memory of the server is full: raise maxmemory, or set maxlen"),
        ("READONLY", "this server is a replica: write the address of the primary"),
        ("MISCONF", "the server cannot write to its disk and refuses writes"),
        ("LOADING", "the server is still loading its data"),
        ("BUSYLOADING", "the server is still loading its data"),
        ("MOVED", "the server is a node of a cluster, which is not supported: use a server without cluster mode"),
        ("CROSSSLOT", "the server is a node of a cluster, which is not supported: use a server without cluster mode"),
    ];
    let found = hints.iter().find(|(code, _)| has_word(text, code)).map(|(_, hint)| *hint);
    found.or(matches!(kind, ErrorKind::AuthenticationFailed).then_some("the user or the password is wrong"))
}
