//! Selectors: expressions that select a value of a delivery.
//!
//! `/a/0/b` and `$.a[0]['b']` select from the current item, `root:/a` from the whole body, `header:NAME` and `query:name` from
//! the request. `key` is the item's name or number, `const:text` a literal. Filters follow after bars.

use std::borrow::Cow;
use std::cell::Cell;

use http::header::HeaderName;

use crate::Request;
use crate::body::{json, member, parameter};
use diorama_core::record::{CborValue, id_from_value};

/// Maximum number of characters of a selector.
const MOST_LETTERS: usize = 256;

/// Context in which selectors are evaluated.
pub(super) struct Scope<'a> {
    pub(super) request: &'a Request<'a>,
    pub(super) id_column: &'a str,
    pub(super) root: &'a CborValue,
    pub(super) item: &'a CborValue,
    /// The item's name or number.
    pub(super) key: Option<&'a CborValue>,
    /// Bytes that may still be copied. The budget bounds bodies in which a small part is selected many times.
    pub(super) budget: &'a Cell<usize>,
}

impl Scope<'_> {
    /// Takes `bytes` from the budget; returns false if it is exhausted.
    pub(super) fn spend(&self, bytes: usize) -> bool {
        let left = self.budget.get();
        self.budget.set(left.saturating_sub(bytes));
        left >= bytes
    }
}

/// A selector: a base and the filters applied to its value.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Selector {
    base: Base,
    filters: Vec<Filter>,
}

/// Base of a selector.
#[derive(Clone, Debug, PartialEq)]
enum Base {
    Item(Path),
    Root(Path),
    Header(HeaderName),
    Query(String),
    Key,
    Const(CborValue),
}

/// Reason why a path selects nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SelectError {
    /// There is no list at the path.
    Absent,
    /// The path selects too many values.
    TooMany,
}

/// Steps into a value.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Path(Vec<Step>);

/// Step of a path.
#[derive(Clone, Debug, PartialEq)]
enum Step {
    /// A member, or an element by its number in digits.
    Token(String),
    /// A member.
    Name(String),
    /// An element, from the end if negative.
    Index(i64),
}

/// Filter of a selected value.
#[derive(Clone, Debug, PartialEq)]
enum Filter {
    Json,
    Str,
    Int,
    Lower,
    Type,
    Id,
    After(String),
    Before(String),
}

impl Selector {
    pub(super) fn parse(text: &str) -> Result<Selector, String> {
        if text.chars().count() > MOST_LETTERS {
            return Err(format!("a selector must have at most {MOST_LETTERS} characters"));
        }
        let (base, rest) = match text {
            text if text.starts_with('$') => {
                let (path, rest) = Path::query(text)?;
                (Base::Item(path), rest)
            }
            text => {
                let (own, rest) = text.split_at(text.find('|').unwrap_or(text.len()));
                (Base::parse(own)?, rest)
            }
        };
        // The text before the first bar is empty.
        let filters = rest.split('|').skip(1).map(Filter::parse).collect::<Result<_, _>>()?;
        Ok(Selector { base, filters })
    }

    pub(super) fn find<'s>(&'s self, scope: &Scope<'s>) -> Option<Cow<'s, CborValue>> {
        let text = |text: &str| Some(Cow::Owned(CborValue::Text(text.to_string())));
        let found = match &self.base {
            Base::Item(path) => path.find(scope.item).map(Cow::Borrowed),
            Base::Root(path) => path.find(scope.root).map(Cow::Borrowed),
            Base::Header(name) => text(scope.request.headers.get(name)?.to_str().ok()?),
            Base::Query(name) => text(&parameter(scope.request.query?, name)?),
            Base::Key => scope.key.map(Cow::Borrowed),
            Base::Const(value) => Some(Cow::Borrowed(value)),
        };
        self.filters.iter().try_fold(found?, |value, filter| filter.apply(value, scope))
    }
}

impl Base {
    fn parse(text: &str) -> Result<Base, String> {
        Ok(match text.split_once(':') {
            Some(("root", path)) => Base::Root(Path::pointer(path)?),
            Some(("header", name)) => {
                Base::Header(name.parse().map_err(|_| format!("{name:?} is not a valid header name"))?)
            }
            Some(("query", name)) => Base::Query(name.into()),
            Some(("const", text)) => Base::Const(CborValue::Text(text.into())),
            _ if text == "key" => Base::Key,
            _ if text.is_empty() || text.starts_with('/') => Base::Item(Path::pointer(text)?),
            _ => {
                return Err(format!(
                    "{text:?} is not a valid selector: it must begin with / (a JSON Pointer) or $ (a JSONPath), or be root:/.., \
                     header:NAME, query:name, const:text, key, or empty for the whole item"
                ));
            }
        })
    }
}

impl Path {
    /// Parses a JSON Pointer (RFC 6901).
    pub(super) fn pointer(text: &str) -> Result<Path, String> {
        if text.is_empty() {
            return Ok(Path::default());
        }
        let rest = text.strip_prefix('/').ok_or_else(|| format!("the JSON Pointer {text:?} does not begin with /"))?;
        let token = |token: &str| {
            let mut pieces = token.split('~');
            let mut out = pieces.next().unwrap_or_default().to_string();
            for piece in pieces {
                let (escaped, rest) = match (piece.strip_prefix('0'), piece.strip_prefix('1')) {
                    (Some(rest), _) => ('~', rest),
                    (_, Some(rest)) => ('/', rest),
                    _ => return Err(format!("in the JSON Pointer {text:?}, write ~ as ~0, and / within a name as ~1")),
                };
                out.push(escaped);
                out.push_str(rest);
            }
            Ok(Step::Token(out))
        };
        rest.split('/').map(token).collect::<Result<_, _>>().map(Path)
    }

    /// Parses a singular query of RFC 9535: names and numbers. Returns the path and the rest of the text.
    fn query(text: &str) -> Result<(Path, &str), String> {
        let wrong = || format!("{text:?} is not a valid JSONPath of names and numbers, like $.a['b c'][-1]");
        let mut steps = Vec::new();
        let mut rest = text.strip_prefix('$').ok_or_else(wrong)?;
        loop {
            if let Some(after) = rest.strip_prefix('.') {
                let end = after.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(after.len());
                let (name, after) = after.split_at(end);
                if name.is_empty() || name.starts_with(|c: char| c.is_ascii_digit()) {
                    return Err(wrong());
                }
                steps.push(Step::Name(name.into()));
                rest = after;
            } else if let Some(after) = rest.strip_prefix('[') {
                let (step, after) = match after.chars().next() {
                    Some(quote @ ('\'' | '"')) => {
                        let (name, after) = after[1..].split_once(quote).ok_or_else(wrong)?;
                        (Step::Name(name.into()), after)
                    }
                    _ => {
                        let end = after.find(']').ok_or_else(wrong)?;
                        (Step::Index(after[..end].parse().map_err(|_| wrong())?), &after[end..])
                    }
                };
                steps.push(step);
                rest = after.strip_prefix(']').ok_or_else(wrong)?;
            } else if rest.is_empty() || rest.starts_with('|') {
                return Ok((Path(steps), rest));
            } else {
                return Err(wrong());
            }
        }
    }

    pub(super) fn find<'v>(&self, value: &'v CborValue) -> Option<&'v CborValue> {
        self.0.iter().try_fold(value, |value, step| step.find(value))
    }

    /// Returns true if the first step leads into an array.
    pub(super) fn begins_in_array(&self) -> bool {
        match self.0.first() {
            Some(Step::Token(token)) => token == "*" || token.bytes().all(|byte| byte.is_ascii_digit()),
            Some(Step::Index(_)) => true,
            _ => false,
        }
    }

    /// Returns every selected value with its name or number; a step `*` selects all members or elements. At most `most` values
    /// are returned.
    pub(super) fn fan<'v>(
        &self,
        value: &'v CborValue,
        most: usize,
    ) -> Result<Vec<(CborValue, &'v CborValue)>, SelectError> {
        let mut found = vec![(CborValue::Null, value)];
        for step in &self.0 {
            let mut next = Vec::new();
            let is_list = |value: &CborValue| matches!(value, CborValue::Array(_) | CborValue::Map(_));
            let lists =
                matches!(step, Step::Token(token) if token == "*") && found.iter().all(|(_, value)| is_list(value));
            for (_, value) in found {
                match (step, value) {
                    (Step::Token(token), CborValue::Array(items)) if token == "*" => {
                        next.extend(items.iter().enumerate().map(|(at, item)| (CborValue::from(at as u64), item)));
                    }
                    (Step::Token(token), CborValue::Map(members)) if token == "*" => {
                        next.extend(members.iter().map(|(name, item)| (name.clone(), item)));
                    }
                    (Step::Token(token), value) if token != "*" => {
                        let key = CborValue::Text(token.clone());
                        next.extend(step.find(value).map(|item| (key, item)));
                    }
                    _ => {}
                }
                if next.len() > most {
                    return Err(SelectError::TooMany);
                }
            }
            match next.is_empty() {
                true if lists => return Ok(Vec::new()),
                true => return Err(SelectError::Absent),
                false => found = next,
            }
        }
        Ok(found)
    }
}

impl std::fmt::Display for Path {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|step| match step {
            Step::Token(name) | Step::Name(name) => write!(f, "/{name}"),
            Step::Index(at) => write!(f, "/{at}"),
        })
    }
}

impl Step {
    fn find<'v>(&self, value: &'v CborValue) -> Option<&'v CborValue> {
        match (self, value) {
            (Step::Token(name) | Step::Name(name), CborValue::Map(_)) => member(value, name),
            (Step::Token(number), CborValue::Array(items)) => {
                let plain =
                    number == "0" || !number.starts_with('0') && number.bytes().all(|byte| byte.is_ascii_digit());
                items.get(number.parse::<usize>().ok().filter(|_| plain)?)
            }
            (Step::Index(at), CborValue::Array(items)) => match usize::try_from(*at) {
                Ok(at) => items.get(at),
                Err(_) => {
                    items.len().checked_sub(usize::try_from(at.unsigned_abs()).ok()?).and_then(|at| items.get(at))
                }
            },
            _ => None,
        }
    }
}

impl Filter {
    fn parse(text: &str) -> Result<Filter, String> {
        Ok(match text.split_once(':') {
            None if text == "json" => Filter::Json,
            None if text == "str" => Filter::Str,
            None if text == "int" => Filter::Int,
            None if text == "lower" => Filter::Lower,
            None if text == "type" => Filter::Type,
            None if text == "id" => Filter::Id,
            Some(("after", mark)) if !mark.is_empty() => Filter::After(mark.into()),
            Some(("before", mark)) if !mark.is_empty() => Filter::Before(mark.into()),
            _ => {
                let known = "json, str, int, lower, type, id, after:X and before:X";
                return Err(format!("filter {text:?} does not exist: the filters are {known}"));
            }
        })
    }

    fn apply<'v>(&self, value: Cow<'v, CborValue>, scope: &Scope<'_>) -> Option<Cow<'v, CborValue>> {
        let text = |text: &str| scope.spend(text.len()).then(|| Cow::Owned(CborValue::Text(text.to_string())));
        match self {
            Filter::Json => {
                let text = value.as_text().filter(|text| scope.spend(text.len() * 4))?;
                json(text.as_bytes()).ok().map(Cow::Owned)
            }
            Filter::Str => text(&plain(&value)?),
            Filter::Int => integer(&value).map(Cow::Owned),
            Filter::Lower => text(&value.as_text()?.to_lowercase()),
            Filter::Type => text(kind(&value)),
            Filter::Id => match value {
                Cow::Borrowed(value) => member(value, scope.id_column).map(Cow::Borrowed),
                Cow::Owned(value) => member(&value, scope.id_column).cloned().map(Cow::Owned),
            },
            Filter::After(mark) => {
                let own = value.as_text()?;
                text(own.rsplit_once(mark.as_str()).map_or(own, |(_, after)| after))
            }
            Filter::Before(mark) => {
                let own = value.as_text()?;
                text(own.split_once(mark.as_str()).map_or(own, |(before, _)| before))
            }
        }
    }
}

/// Returns a text, number or boolean as text.
pub(super) fn plain(value: &CborValue) -> Option<String> {
    match value {
        CborValue::Text(text) => Some(text.clone()),
        CborValue::Bool(value) => Some(value.to_string()),
        CborValue::Float(value) => Some(value.to_string()),
        other => id_from_value(other),
    }
}

fn integer(value: &CborValue) -> Option<CborValue> {
    match value {
        CborValue::Integer(_) => Some(value.clone()),
        CborValue::Text(text) => text.trim().parse::<i64>().ok().map(CborValue::from),
        // Larger floats are not exact.
        CborValue::Float(value) if value.fract() == 0.0 && value.abs() < 9e15 => Some(CborValue::from(*value as i64)),
        _ => None,
    }
}

fn kind(value: &CborValue) -> &'static str {
    match value {
        CborValue::Null => "null",
        CborValue::Bool(_) => "boolean",
        CborValue::Integer(_) | CborValue::Float(_) => "number",
        CborValue::Array(_) => "array",
        CborValue::Map(_) => "object",
        _ => "string",
    }
}

/// Returns true if `text` matches `pattern`, in which `*` matches any characters.
pub(super) fn glob_matches(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = text.strip_prefix(parts.next().unwrap_or_default()) else { return false };
    let Some(last) = parts.next_back() else { return rest.is_empty() };
    for part in parts {
        match rest.split_once(part) {
            Some((_, after)) => rest = after,
            None => return false,
        }
    }
    rest.ends_with(last)
}
