//! From TOML to rules. Whatever cannot work is refused here, at its place, so that deliveries meet no surprises.

use std::cell::RefCell;
use std::collections::HashMap;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::select::{Path, Selector};
use super::table::Table;
use super::{Action, Check, Map, Mode, Op, Row, Rule, TemplatePart, Test, ValueSource};
use diorama_core::record::CborValue;

/// Rules of one mapping, and entries of one list in it, at most.
const MOST_ENTRIES: usize = 1_000;

/// A mistake in a mapping.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Where it stands in the text, in bytes.
    pub at: usize,
    /// What is wrong, and what to write instead.
    pub message: String,
}

type Value<'a> = Spanned<DeValue<'a>>;

impl Map {
    /// The mapping in the table at `path` of the TOML document `text`. What it leaves out is as `base` says, the text of another
    /// mapping.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn read(text: &str, path: &[&str], base: Option<&str>) -> Result<Map, Vec<Problem>> {
        Map::read_filled(text, path, base, &|text| Ok(text.to_string()))
    }

    /// [`Map::read`] with every text as `fill_in` makes it.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn read_filled(
        text: &str,
        path: &[&str],
        base: Option<&str>,
        fill_in: &dyn Fn(&str) -> Result<String, String>,
    ) -> Result<Map, Vec<Problem>> {
        let document = |text| DeTable::parse(text).map_err(|error: toml::de::Error| vec![syntax(&error)]);
        let mut own = document(text)?;
        let base = base.map(DeTable::parse).transpose().map_err(|error| vec![syntax(&error)])?;
        let problems = RefCell::new(Vec::new());
        if let Some(table) = find_mut(own.get_mut(), path) {
            table.iter_mut().for_each(|(_, value)| filled(value, fill_in, &problems));
        }
        let (at, own) = find(own.get_ref(), path);
        let rules = rules(own, base.as_ref().map(Spanned::get_ref), at, &problems);
        match problems.into_inner() {
            problems if problems.is_empty() => Ok(Map { rules }),
            problems => Err(problems),
        }
    }
}

fn syntax(error: &toml::de::Error) -> Problem {
    let at = error.span().map_or(0, |span| span.start);
    Problem { at, message: format!("this is no TOML: {}", error.message()) }
}

fn find_mut<'t, 'a>(table: &'t mut DeTable<'a>, path: &[&str]) -> Option<&'t mut DeTable<'a>> {
    let [name, rest @ ..] = path else { return Some(table) };
    let (_, value) = table.iter_mut().find(|(own, _)| own.get_ref() == name)?;
    match value.get_mut() {
        DeValue::Table(inner) => find_mut(inner, rest),
        _ => None,
    }
}

/// Fills in the texts of `value`. Names of members are left as they are.
fn filled(value: &mut Value<'_>, fill_in: &dyn Fn(&str) -> Result<String, String>, problems: &RefCell<Vec<Problem>>) {
    let at = value.span().start;
    match value.get_mut() {
        DeValue::String(text) if text.contains("${") => match fill_in(text) {
            Ok(made) => *text = made.into(),
            Err(message) => problems.borrow_mut().push(Problem { at, message }),
        },
        DeValue::Array(items) => items.iter_mut().for_each(|item| filled(item, fill_in, problems)),
        DeValue::Table(table) => table.iter_mut().for_each(|(_, value)| filled(value, fill_in, problems)),
        _ => {}
    }
}

/// The table at `path`, and where it stands; the place of the last table on the way, if it ends before.
fn find<'t, 'a>(table: &'t DeTable<'a>, path: &[&str]) -> (usize, Option<&'t DeTable<'a>>) {
    let mut place = (0, table);
    for name in path {
        match place.1.iter().find(|(own, _)| own.get_ref() == name) {
            Some((own, value)) => match value.get_ref().as_table() {
                Some(table) => place = (own.span().start, table),
                None => return (own.span().start, None),
            },
            None => return (place.0, None),
        }
    }
    (place.0, Some(place.1))
}

fn rules(
    own: Option<&DeTable<'_>>,
    base: Option<&DeTable<'_>>,
    at: usize,
    problems: &RefCell<Vec<Problem>>,
) -> Vec<Rule> {
    let listed = |table: &DeTable<'_>| table.iter().any(|(name, _)| name.get_ref() == "rule");
    if let Some(own) = own.filter(|own| listed(own)) {
        let table = Table::new("map", at, vec![own], problems);
        if base.is_some() {
            table.problem(at, "a map with rules stands for itself: leave format away");
        }
        let rules = each(&table, "rule", |value, at| {
            let rule = value.as_table().or_else(|| table.wrong(at, "a rule is a table: [[webhook.NAME.map.rule]]"));
            Some(rule_of(&Table::new("map.rule", at, vec![rule?], problems)))
        });
        table.finish();
        return rules.unwrap_or_default();
    }
    let empty = DeTable::new();
    let own = own.unwrap_or(&empty);
    match base.filter(|base| listed(base)) {
        Some(base) => {
            let table = Table::new("map", at, vec![base], problems);
            let each = each(&table, "rule", |value, _| {
                Some(rule_of(&Table::new("map", at, vec![own, value.as_table()?], problems)))
            });
            each.unwrap_or_default()
        }
        None => vec![rule_of(&Table::new("map", at, [Some(own), base].into_iter().flatten().collect(), problems))],
    }
}

fn rule_of(table: &Table<'_, '_>) -> Rule {
    let scope = table.read("scope", |value, at| {
        texts(value).map(|all| all.into_iter().filter_map(|text| table.try_at(at, Path::pointer(text))).collect())
    });
    let each = table.read("each", |value, at| table.try_at(at, Path::pointer(value.as_str()?)));
    let (matching, when) = (tests(table, "match"), tests(table, "when"));
    let op = table.read("op", |value, at| op(table, value, at));
    if op.is_none() && table.value("op").is_none() {
        table.problem(table.at, "a map needs op = \"upsert\", or op = { sel = \"/type\", cases = { .. } }");
    }
    let op = op.unwrap_or(Op::Always(Action::Ignore));
    let rule = Rule {
        scope: scope.unwrap_or_default(),
        matching,
        each,
        when,
        id: table.read("id", |value, at| source(table, value, at)),
        old_id: table.read("old_id", |value, at| source(table, value, at)),
        row: table.read("row", |value, at| row(table, value, at)),
        mode: table.read("row_mode", |value, at| mode(table, value, at)).unwrap_or(Mode::Full),
        version: table.read("version", |value, at| source(table, value, at)),
        delivery: table.read("delivery", |value, at| source(table, value, at)),
        op,
    };
    if rule.id.is_none() && rule.op.makes_rows() && table.value("id").is_none() {
        table.problem(table.at, "a map whose op is about rows needs id = \"/path/to/the/id\"");
    }
    table.finish();
    rule
}

impl Op {
    fn makes_rows(&self) -> bool {
        let about_row = |action: &Action| matches!(action, Action::Insert | Action::Update | Action::Delete);
        match self {
            Op::Always(action) => about_row(action),
            Op::Cases { exact, globs, otherwise, .. } => {
                exact.values().chain(globs.iter().map(|(_, action)| action)).chain([otherwise]).any(about_row)
            }
        }
    }
}

fn action(table: &Table<'_, '_>, value: &DeValue<'_>, at: usize) -> Option<Action> {
    Some(match value.as_str() {
        Some("insert") => Action::Insert,
        // Whether a row is new is for the receiver to see.
        Some("update" | "upsert") => Action::Update,
        Some("delete") => Action::Delete,
        Some("invalidate") => Action::Invalidate,
        Some("ignore") => Action::Ignore,
        Some("reject") => Action::Reject,
        _ => return table.wrong(at, "an action is one of insert, update, upsert, delete, invalidate, ignore, reject"),
    })
}

fn op(table: &Table<'_, '_>, value: &DeValue<'_>, at: usize) -> Option<Op> {
    let DeValue::Table(inner) = value else { return action(table, value, at).map(Op::Always) };
    let inner = table.inner("op", at, inner);
    let source = inner.read("sel", |value, at| source(table, value, at));
    let cases = inner.read("cases", |value, at| {
        let cases = value.as_table().or_else(|| table.wrong(at, "cases is a table: { created = \"insert\" }"))?;
        let mut exact = HashMap::new();
        let mut globs = Vec::new();
        for (name, value) in cases.iter() {
            let Some(action) = action(table, value.get_ref(), value.span().start) else { continue };
            match name.get_ref().contains('*') {
                true => globs.push((name.get_ref().to_string(), action)),
                false => drop(exact.insert(name.get_ref().to_string(), action)),
            }
        }
        // Of two that are equally long, the same wins every time.
        globs.sort_by(|(a, _), (b, _)| b.len().cmp(&a.len()).then_with(|| a.cmp(b)));
        Some((exact, globs))
    });
    let otherwise = inner.read("else", |value, at| action(table, value, at)).unwrap_or(Action::Reject);
    if inner.value("sel").is_none() || inner.value("cases").is_none() {
        table.problem(
            at,
            "op needs sel and cases: { sel = \"/type\", cases = { created = \"insert\" }, else = \"ignore\" }",
        );
    }
    inner.finish();
    let (exact, globs) = cases?;
    Some(Op::Cases { source: source?, exact, globs, otherwise })
}

fn mode(table: &Table<'_, '_>, value: &DeValue<'_>, at: usize) -> Option<Mode> {
    match value.as_str() {
        Some("full") => Some(Mode::Full),
        Some("partial") => Some(Mode::Partial),
        Some("none") => Some(Mode::None),
        _ => table.wrong(at, "row_mode is one of full, partial, none"),
    }
}

/// A selector, several of them, or a template.
fn source(table: &Table<'_, '_>, value: &DeValue<'_>, at: usize) -> Option<ValueSource> {
    if let DeValue::Table(inner) = value {
        let inner = table.inner("template", at, inner);
        let pieces = inner.read("template", |value, at| table.try_at(at, template(value.as_str()?)));
        if inner.value("template").is_none() {
            table.problem(at, "a table here is a template: { template = \"{/a}:{/b}\" }");
        }
        inner.finish();
        return pieces.map(ValueSource::Template);
    }
    let Some(all) = texts(value).filter(|all| !all.is_empty()) else {
        return table.wrong(at, "this is a selector like \"/data/id\", or an array of them");
    };
    let parsed: Vec<_> = all.iter().filter_map(|text| table.try_at(at, Selector::parse(text))).collect();
    (parsed.len() == all.len()).then_some(ValueSource::First(parsed))
}

fn template(text: &str) -> Result<Vec<TemplatePart>, String> {
    let mut pieces = Vec::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('{') {
        pieces.extend((!before.is_empty()).then(|| TemplatePart::Text(before.into())));
        let (inner, after) = after.split_once('}').ok_or("the template has a { without }")?;
        pieces.push(TemplatePart::Value(Selector::parse(inner)?));
        rest = after;
    }
    pieces.extend((!rest.is_empty()).then(|| TemplatePart::Text(rest.into())));
    match pieces.iter().any(|piece| matches!(piece, TemplatePart::Value(_))) {
        true => Ok(pieces),
        false => Err("the template holds no {selector}".into()),
    }
}

fn tests(table: &Table<'_, '_>, key: &'static str) -> Vec<Test> {
    let tests = each(table, key, |value, at| {
        let inner =
            value.as_table().or_else(|| table.wrong(at, "a test is like { sel = \"/table\", eq = \"products\" }"))?;
        let inner = table.inner(key, at, inner);
        let source = inner.read("sel", |value, at| source(table, value, at));
        let value_of = |value: &DeValue<'_>, at| {
            scalar(value).or_else(|| table.wrong(at, "this is a text, number or truth value"))
        };
        let checks = [
            inner.read("eq", |value, at| value_of(value, at).map(Check::Eq)),
            inner.read("ne", |value, at| value_of(value, at).map(Check::Ne)),
            inner.read("in", |value, at| {
                let all = value.as_array().or_else(|| table.wrong(at, "in is an array"))?;
                all.iter().map(|value| value_of(value.get_ref(), at)).collect::<Option<_>>().map(Check::In)
            }),
            inner.read("exists", |value, at| {
                value.as_bool().or_else(|| table.wrong(at, "exists is true or false")).map(Check::Exists)
            }),
            inner.read("glob", |value, at| {
                let glob = value.as_str().or_else(|| table.wrong(at, "glob is a text with * in it"));
                glob.map(|glob| Check::Glob(glob.into()))
            }),
        ];
        let checks: Vec<_> = checks.into_iter().flatten().collect();
        let clean = inner.finish();
        match (<[Check; 1]>::try_from(checks), inner.value("sel")) {
            (Ok([check]), Some(_)) => Some(Test { source: source?, check }),
            _ if clean => table.wrong(at, "a test has sel and one of eq, ne, in, exists, glob"),
            _ => None,
        }
    });
    tests.unwrap_or_default()
}

fn row(table: &Table<'_, '_>, value: &DeValue<'_>, at: usize) -> Option<Row> {
    let plain = |source| Row { source, pick: None, drop: Vec::new(), rename: Vec::new(), set: Vec::new(), unset: None };
    let DeValue::Table(inner) = value else { return source(table, value, at).map(plain) };
    let inner = table.inner("row", at, inner);
    let names = |key, what| {
        inner.read(key, |value, at| {
            let names = value.as_array().and_then(|_| texts(value)).or_else(|| table.wrong(at, what))?;
            Some(names.into_iter().map(String::from).collect::<Vec<_>>())
        })
    };
    let pick = names("pick", "pick is an array of names");
    let drop = names("drop", "drop is an array of names").unwrap_or_default();
    let rename = inner.read("rename", |value, at| {
        let pairs = value.as_table().or_else(|| table.wrong(at, "rename is a table: { from = \"to\" }"))?;
        let pair = |(from, to): (&Spanned<_>, &Value<'_>)| {
            let from: &std::borrow::Cow<'_, str> = from.get_ref();
            Some((from.to_string(), to.get_ref().as_str()?.to_string()))
        };
        pairs
            .iter()
            .map(pair)
            .collect::<Option<_>>()
            .or_else(|| table.wrong(at, "rename is a table: { from = \"to\" }"))
    });
    let set = inner.read("set", |value, at| {
        let pairs = value.as_table().or_else(|| table.wrong(at, "set is a table: { column = \"/selector\" }"))?;
        let pair = |(name, value): (&Spanned<_>, &Value<'_>)| {
            let name: &std::borrow::Cow<'_, str> = name.get_ref();
            Some((name.to_string(), source(table, value.get_ref(), value.span().start)?))
        };
        Some(pairs.iter().filter_map(pair).collect())
    });
    let unset = inner.read("unset_marker", |value, at| {
        scalar(value).or_else(|| table.wrong(at, "unset_marker is a text, number or truth value"))
    });
    let from = inner.read("sel", |value, at| source(table, value, at));
    if inner.value("sel").is_none() {
        table.problem(at, "row needs sel: where the row is");
    }
    inner.finish();
    let set = set.unwrap_or_default();
    Some(Row { source: from?, pick, drop, rename: rename.unwrap_or_default(), set, unset })
}

fn scalar(value: &DeValue<'_>) -> Option<CborValue> {
    Some(match value {
        DeValue::String(text) => CborValue::Text(text.to_string()),
        DeValue::Boolean(value) => CborValue::Bool(*value),
        DeValue::Integer(number) => i64::from_str_radix(&number.as_str().replace('_', ""), number.radix()).ok()?.into(),
        DeValue::Float(number) => number.as_str().parse::<f64>().ok()?.into(),
        _ => return None,
    })
}

/// A text, or an array of texts.
fn texts<'t>(value: &'t DeValue<'_>) -> Option<Vec<&'t str>> {
    match value {
        DeValue::Array(items) => items.iter().map(|item| item.get_ref().as_str()).collect(),
        other => other.as_str().map(|text| vec![text]),
    }
}

/// The entries of the array at `key` as `read` understands them.
fn each<T>(
    table: &Table<'_, '_>,
    key: &'static str,
    read: impl Fn(&DeValue<'_>, usize) -> Option<T>,
) -> Option<Vec<T>> {
    table.read(key, |value, at| {
        let items = value.as_array().filter(|items| items.len() <= MOST_ENTRIES);
        let items = items.or_else(|| table.wrong(at, &format!("{key} is an array of tables")))?;
        Some(items.iter().filter_map(|item| read(item.get_ref(), item.span().start)).collect())
    })
}
