//! Mapping language: a table of `diorama.toml` that describes how to extract changes from a sender's body.
//!
//! Rules are tried in order, and the first one whose `match` holds is applied: `scope` selects the root, `each` the items in it,
//! `when` the relevant items; `op`, `id`, `row` and `version` describe the change. `read.rs` parses and validates rules,
//! `select.rs` evaluates selectors, and this module applies the rules.

mod read;
mod select;
mod table;

pub use read::Problem;

use std::borrow::Cow;
use std::cell::Cell;
use std::collections::HashMap;

use jiff::Timestamp;

use super::body::Documents;
use super::{Change, DecodeError, DecodedDelivery, MOST_CHANGES, Request};
use diorama_core::record::{CborValue, Record, id_from_value};
use diorama_core::vista::{ChangeEvent, Coercion};
use select::{Path, Scope, SelectError, Selector, glob_matches, plain};

/// Maximum size in bytes of the changes made from one delivery.
const MOST_MADE: usize = 64 << 20;

/// A mapping of a sender's bodies to changes.
#[derive(Clone, Debug, PartialEq)]
pub struct Map {
    rules: Vec<Rule>,
}

/// A rule of a mapping; see the module documentation.
#[derive(Clone, Debug, PartialEq)]
struct Rule {
    scope: Vec<Path>,
    matching: Vec<Test>,
    each: Option<Path>,
    when: Vec<Test>,
    op: Op,
    id: Option<ValueSource>,
    /// The row's previous id, if the change gives it another.
    old_id: Option<ValueSource>,
    row: Option<Row>,
    mode: Mode,
    version: Option<ValueSource>,
    delivery: Option<ValueSource>,
}

/// Source of a value.
#[derive(Clone, Debug, PartialEq)]
enum ValueSource {
    /// The first selector that yields a value.
    First(Vec<Selector>),
    /// Text with values, all of which must exist.
    Template(Vec<TemplatePart>),
}

/// Part of a template.
#[derive(Clone, Debug, PartialEq)]
enum TemplatePart {
    Text(String),
    Value(Selector),
}

/// Test of a value of the body.
#[derive(Clone, Debug, PartialEq)]
struct Test {
    source: ValueSource,
    check: Check,
}

/// Check of a value.
#[derive(Clone, Debug, PartialEq)]
enum Check {
    Eq(CborValue),
    Ne(CborValue),
    In(Vec<CborValue>),
    Exists(bool),
    Glob(String),
}

/// Effect of a message on the rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    Insert,
    Update,
    Delete,
    Invalidate,
    Ignore,
    Reject,
}

/// Choice of the action.
#[derive(Clone, Debug, PartialEq)]
enum Op {
    Always(Action),
    Cases {
        source: ValueSource,
        exact: HashMap<String, Action>,
        /// Patterns with stars, the longest first.
        globs: Vec<(String, Action)>,
        otherwise: Action,
    },
}

/// Extent of the row in a message (`row_mode`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Full,
    Partial,
    None,
}

/// Selection of the row, and the changes to be made to it.
#[derive(Clone, Debug, PartialEq)]
struct Row {
    source: ValueSource,
    pick: Option<Vec<String>>,
    drop: Vec<String>,
    rename: Vec<(String, String)>,
    set: Vec<(String, ValueSource)>,
    unset: Option<CborValue>,
}

impl Map {
    /// Decodes a body for a resource with the id column `id_column`.
    pub(super) fn decode(
        &self,
        documents: Documents,
        request: &Request<'_>,
        id_column: &str,
    ) -> Result<DecodedDelivery, DecodeError> {
        let mut decoded = DecodedDelivery::default();
        let values = match documents {
            Documents::Nothing => Vec::new(),
            // A batch is an array of the messages that the sender otherwise sends one by one.
            Documents::One(CborValue::Array(values)) if !self.reads_arrays() => values,
            Documents::One(value) => vec![value],
            Documents::Lines(values) => values,
        };
        if values.len() > MOST_CHANGES {
            return Err(DecodeError::TooMany);
        }
        if values.is_empty() {
            decoded.ignore("the body is empty".into());
        }
        let budget = Cell::new(MOST_MADE);
        for value in &values {
            let scope = Scope { request, id_column, root: value, item: value, key: None, budget: &budget };
            self.document(&scope, values.len() > 1, &mut decoded)?;
        }
        if budget.get() == 0 {
            return Err(DecodeError::Syntax("the changes in this delivery are too large".into()));
        }
        Ok(decoded)
    }

    /// Returns true if a rule expects a body that is an array.
    fn reads_arrays(&self) -> bool {
        self.rules.iter().any(|rule| rule.each.iter().chain(&rule.scope).any(Path::begins_in_array))
    }

    /// Decodes one message. `several` is true if the delivery has more than one.
    fn document(&self, scope: &Scope<'_>, several: bool, decoded: &mut DecodedDelivery) -> Result<(), DecodeError> {
        for rule in &self.rules {
            let root = rule.scope.iter().find_map(|path| path.find(scope.root)).unwrap_or(scope.root);
            let scope = Scope { root, item: root, ..*scope };
            if root.is_null() {
                decoded.ignore("the body is empty".into());
                return Ok(());
            }
            if rule.matching.iter().all(|test| test.holds(&scope)) {
                return rule.apply(&scope, several, decoded);
            }
        }
        let detail = "no rule of the mapping matches (a last rule with op = \"ignore\" would skip such messages)";
        decoded.reject(detail.into());
        Ok(())
    }
}

impl Rule {
    fn apply(&self, scope: &Scope<'_>, several: bool, decoded: &mut DecodedDelivery) -> Result<(), DecodeError> {
        let delivery = self.delivery.as_ref().and_then(|source| plain(&*source.find(scope)?));
        let first = decoded.changes.len();
        let done = first + decoded.ignored;
        let items = match &self.each {
            None => vec![(CborValue::Null, scope.root)],
            Some(path) => match path.fan(scope.root, MOST_CHANGES - done.min(MOST_CHANGES)) {
                Ok(items) => items,
                Err(SelectError::TooMany) => return Err(DecodeError::TooMany),
                Err(SelectError::Absent) => {
                    decoded.reject(format!(
                        "each = {:?} does not lead to a list in the body: correct the path, or add a rule for such bodies",
                        path.to_string()
                    ));
                    return Ok(());
                }
            },
        };
        if items.is_empty() {
            decoded.ignore("the body has no items".into());
        }
        for (key, item) in &items {
            let scope = Scope { item, key: self.each.as_ref().map(|_| key), ..*scope };
            match self.change(&scope) {
                Ok(ItemOutcome::Changes { old, change, remark }) => {
                    decoded.changes.extend(old.map(|old| Ok(*old)));
                    decoded.changes.push(Ok(*change));
                    decoded.why = decoded.why.take().or(remark);
                }
                Ok(ItemOutcome::Nothing(why)) => decoded.ignore(why),
                Err(detail) => decoded.reject(detail),
            }
        }
        if several {
            // Each message of a batch has its own id.
            for (number, change) in decoded.changes[first..].iter_mut().enumerate() {
                if let (Ok(change), Some(delivery)) = (change, &delivery) {
                    change.delivery = Some(if number == 0 { delivery.clone() } else { format!("{delivery}#{number}") });
                }
            }
        } else {
            decoded.delivery = delivery;
        }
        Ok(())
    }

    /// Returns the changes, or the reason why the item does not concern the resource.
    fn change(&self, scope: &Scope<'_>) -> Result<ItemOutcome, String> {
        if !self.when.iter().all(|test| test.holds(scope)) {
            return Ok(ItemOutcome::Nothing("it is not about this resource".into()));
        }
        let (action, operation) = self.op.action(scope);
        let id = || {
            let source = self.id.as_ref().ok_or("the mapping has no id")?;
            let value = source.find(scope).ok_or("the id is missing")?;
            let id = id_from_value(&value).filter(|id| scope.spend(id.len()));
            id.ok_or("the id must be a text that is not empty, or an integer")
        };
        let mut partial = false;
        let event = match action {
            Action::Ignore => return Ok(ItemOutcome::Nothing(format!("{operation} is ignored by the mapping"))),
            Action::Reject => return Err(format!("{operation} is not known to the mapping")),
            Action::Invalidate => ChangeEvent::Invalidated,
            Action::Delete => ChangeEvent::Deleted { id: id()? },
            Action::Insert | Action::Update => {
                let id = id()?;
                let row = self.row.as_ref().filter(|_| self.mode != Mode::None);
                let new = row.map(|row| row.make(scope)).transpose()?.flatten();
                partial = new.as_ref().is_some_and(|(_, cut)| *cut || self.mode == Mode::Partial);
                let new = new.map(|(row, _)| row);
                match action {
                    Action::Insert => ChangeEvent::Inserted { id, new },
                    _ => ChangeEvent::Updated { id, new },
                }
            }
        };
        let version_value =
            self.version.as_ref().filter(|_| action != Action::Invalidate).and_then(|source| source.find(scope));
        let version = version_value.as_deref().and_then(comparable);
        let remark = version_value.filter(|_| version.is_none()).map(|version_value| {
            let shown: String = plain(&version_value).unwrap_or_default().chars().take(64).collect();
            format!("the version {shown:?} is neither a number nor a time, so the change was accepted without it")
        });
        let old = self.old_id.as_ref().filter(|_| matches!(action, Action::Insert | Action::Update));
        let old =
            old.and_then(|source| id_from_value(&*source.find(scope)?)).filter(|old| event.id() != Some(old.as_str()));
        let change = |event, partial| Change {
            event,
            version: version.clone(),
            partial,
            delivery: None,
            coercion: Coercion::Loose,
        };
        let old = old.map(|id| Box::new(change(ChangeEvent::Deleted { id }, false)));
        Ok(ItemOutcome::Changes { old, change: Box::new(change(event, partial)), remark })
    }
}

/// Outcome of one item.
enum ItemOutcome {
    Changes {
        /// Removal of the row under its previous id.
        old: Option<Box<Change>>,
        change: Box<Change>,
        /// Remark on a part that was left out.
        remark: Option<String>,
    },
    /// Reason why the item does not concern the resource.
    Nothing(String),
}

/// Returns the version if it can be compared: a number, or a time.
fn comparable(value: &CborValue) -> Option<CborValue> {
    match value {
        CborValue::Integer(_) | CborValue::Float(_) => Some(value.clone()),
        CborValue::Text(text) => text.parse::<Timestamp>().ok().map(|_| value.clone()),
        _ => None,
    }
}

impl ValueSource {
    fn find<'s>(&'s self, scope: &Scope<'s>) -> Option<Cow<'s, CborValue>> {
        match self {
            ValueSource::First(all) => {
                all.iter().find_map(|selector| selector.find(scope).filter(|value| !value.is_null()))
            }
            ValueSource::Template(pieces) => {
                let mut text = String::new();
                for piece in pieces {
                    match piece {
                        TemplatePart::Text(own) => text.push_str(own),
                        TemplatePart::Value(selector) => text.push_str(&plain(&*selector.find(scope)?)?),
                    }
                }
                scope.spend(text.len()).then_some(Cow::Owned(CborValue::Text(text)))
            }
        }
    }
}

impl Test {
    fn holds(&self, scope: &Scope<'_>) -> bool {
        let value = self.source.find(scope);
        let value = value.as_deref();
        match &self.check {
            Check::Eq(wanted) => value == Some(wanted),
            Check::Ne(wanted) => value != Some(wanted),
            Check::In(wanted) => value.is_some_and(|value| wanted.contains(value)),
            Check::Exists(wanted) => value.is_some() == *wanted,
            Check::Glob(pattern) => value.and_then(CborValue::as_text).is_some_and(|text| glob_matches(pattern, text)),
        }
    }
}

impl Op {
    /// Returns the action and a description of the operation that selected it.
    fn action(&self, scope: &Scope<'_>) -> (Action, String) {
        match self {
            Op::Always(action) => (*action, "everything".into()),
            Op::Cases { source, exact, globs, otherwise } => {
                let Some(operation) = source.find(scope).and_then(|value| plain(&value)) else {
                    return (*otherwise, "a missing operation".into());
                };
                let glob =
                    || globs.iter().find(|(pattern, _)| glob_matches(pattern, &operation)).map(|(_, action)| action);
                let action = *exact.get(&operation).or_else(glob).unwrap_or(otherwise);
                let shown: String = operation.chars().take(64).collect();
                (action, format!("the operation {shown:?}"))
            }
        }
    }
}

impl Row {
    /// Returns the row, and true if unset members were removed from it; `None` if there is no row.
    fn make(&self, scope: &Scope<'_>) -> Result<Option<(Record, bool)>, String> {
        let Some(value) = self.source.find(scope) else { return Ok(None) };
        let CborValue::Map(members) = value.as_ref() else { return Err("the row must be an object".into()) };
        let fits_any = |patterns: &[String], name: &str| patterns.iter().any(|pattern| glob_matches(pattern, name));
        let mut row = Record::new();
        for (name, value) in members {
            let Some(name) = name.as_text() else { continue };
            if self.pick.as_ref().is_some_and(|pick| !fits_any(pick, name)) || fits_any(&self.drop, name) {
                continue;
            }
            let renamed = self.rename.iter().find(|(from, _)| from == name).map_or(name, |(_, to)| to);
            if !scope.spend(renamed.len() + weight(value)) {
                return Ok(None);
            }
            row.insert(renamed, value.clone());
        }
        for (name, source) in &self.set {
            match source.find(scope) {
                Some(value) if scope.spend(weight(&value)) => drop(row.insert(name, value.into_owned())),
                _ => drop(row.remove(name)),
            }
        }
        let before = row.len();
        if let Some(marker) = &self.unset {
            row = row.into_iter().filter(|(_, value)| value != marker).collect();
        }
        let cut = row.len() < before;
        Ok(Some((row, cut)))
    }
}

/// Approximate size of a copy of `value` in bytes.
fn weight(value: &CborValue) -> usize {
    32 + match value {
        CborValue::Text(text) => text.len(),
        CborValue::Bytes(bytes) => bytes.len(),
        CborValue::Array(items) => items.iter().map(weight).sum(),
        CborValue::Map(members) => members.iter().map(|(name, value)| weight(name) + weight(value)).sum(),
        CborValue::Tag(_, inner) => weight(inner),
        _ => 0,
    }
}

#[cfg(test)]
mod tests;
