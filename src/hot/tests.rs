//! The state machine against its guarantees: single scenes here, every interleaving in [`model`], restarts in [`restart`].

mod model;

use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::record::{Body, Id, Record};
use crate::vista::{Column, ColumnType, Error, Schema};

fn schema() -> Arc<Schema> {
    let columns = ["n", "m", "v"].map(|name| Column::new(name, ColumnType::Integer)).to_vec();
    Arc::new(Schema::new("id", columns))
}

fn rules(versioned: bool, trust: bool) -> Arc<Rules> {
    thread_local!(static SCHEMA: Arc<Schema> = schema());
    let rules = Rules::new(SCHEMA.with(Arc::clone));
    Arc::new(Rules { version: versioned.then(|| "v".into()), trust_payload: trust, ..rules })
}

fn id(key: usize) -> Id {
    Id::from(["a", "b", "c", "d", "e"][key])
}

/// A body of these columns, as the schema orders them.
fn body(key: usize, n: u64, m: Option<u64>, v: Option<u64>) -> Body {
    let column = |name: &str, value: Option<u64>| value.map_or(String::new(), |value| format!(r#","{name}":{value}"#));
    let json = format!(r#"{{"id":"{}","n":{n}{}{}}}"#, id(key), column("m", m), column("v", v));
    Body::from_parts(json.into(), None)
}

fn plain(key: usize, n: u64) -> Body {
    body(key, n, None, None)
}

fn row(versioned: bool, key: usize, n: u64, version: usize) -> Body {
    body(key, n, None, versioned.then_some(version as u64))
}

/// A patch that sets `n`.
fn part(n: u64) -> Body {
    Body::from_parts(format!(r#"{{"n":{n}}}"#).into(), None)
}

/// What `n` is.
fn value_of(body: &Body) -> u64 {
    let text = std::str::from_utf8(body.json()).unwrap();
    let digits = text.split("\"n\":").nth(1).unwrap();
    digits.split([',', '}']).next().unwrap().parse().unwrap()
}

fn op_id(n: u64) -> OpId {
    OpId::from_u128(n.into())
}

fn write(op: u64, id: Option<&Id>, effect: Effect) -> NewWrite {
    NewWrite { op: op_id(op), id: id.cloned(), effect, condition: Condition::None, retry_of: None }
}

fn refusal() -> OpError {
    OpError { code: "refused".into(), detail: "no".into() }
}

/// Decides and does it; panics on a refusal.
fn run(state: &mut State, cmd: &Cmd) -> Decision {
    let decision = state.decide(cmd, 7).unwrap();
    for entry in &decision.entries {
        state.apply(entry);
    }
    for note in &decision.notes {
        state.note(note);
    }
    decision
}
