//! Query strings of lists with related rows, divided by the relations that they name.
//!
//! `select=name,category(name,order=name.asc)` embeds: the text in parentheses is the query of the related rows, with commas between
//! its parameters and a select without its name. `category.name=eq.Bread` is a condition. `_embed=category` and `_expand=category` are
//! json-server's words for `select=*,category(*)`.

use std::collections::BTreeMap;

use crate::http::problem::{ApiError, Code};
use diorama_core::vista::query::url::percent_decoded;
use diorama_core::vista::query::{split_name, unquoted};

/// Maximum number of relations that one query names.
pub(super) const MAX_RELATED: usize = 16;
/// Maximum number of relations between a row and one that is embedded in it.
pub(super) const MAX_LEVELS: usize = 2;

/// Parameters of a query, with their values.
pub(super) type Parameters = Vec<(String, String)>;

/// Query of one level: of the listed rows, or of related ones.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct LevelText {
    /// Parameters about the rows of this level, without `select`.
    pub(super) parameters: Parameters,
    /// Select of this level without embedded rows; `None` if there is none.
    pub(super) select: Option<String>,
    pub(super) embeds: Vec<EmbedText>,
    /// Conditions on related rows, by the name of the relation.
    pub(super) conditions: BTreeMap<String, LevelText>,
}

/// Embedded rows: `KEY:RELATION!inner(...)`.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct EmbedText {
    /// Name of the member that holds them.
    pub(super) key: String,
    pub(super) relation: String,
    /// Column of the relation, if there are several to the same resource: `RELATION!COLUMN`.
    pub(super) column: Option<String>,
    /// True if rows without related ones are left out.
    pub(super) inner: bool,
    /// Query of the related rows; `None` for their number.
    pub(super) level: Option<LevelText>,
}

/// Query string of a list, divided.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct ListText {
    /// Query string of the listed rows, as it was sent. It lacks `select` if rows are embedded.
    pub(super) own: String,
    pub(super) level: LevelText,
    /// Parameters that `own` lacks, as they were sent.
    pub(super) rest: String,
}

impl ListText {
    /// False if a query string cannot name a relation. Most do not, and are not divided.
    pub(super) fn may_be_related(raw: &str) -> bool {
        raw.split('&').any(|piece| {
            let (key, value) = piece.split_once('=').unwrap_or((piece, ""));
            let is_select = key == "select" && value.contains(['(', '%']);
            is_select || key.contains(['.', '%']) || matches!(key, "_embed" | "_expand")
        })
    }

    /// Divides a query string. `is_own` is true for names of the listed rows' own columns.
    ///
    /// # Errors
    /// 400 for parentheses that are not closed, and for too many relations.
    pub(super) fn parse(raw: &str, is_own: impl Fn(&str) -> bool) -> Result<ListText, ApiError> {
        let mut list = ListText::default();
        for piece in raw.split('&').filter(|piece| !piece.is_empty()) {
            let (key, value) = piece.split_once('=').unwrap_or((piece, ""));
            // What cannot be decoded is refused by the parser of the own part.
            let decoded = percent_decoded(key, true).zip(percent_decoded(value, true));
            let (key, value) = decoded.unwrap_or_default();
            let is_related = match &*key {
                "select" if value.contains('(') => {
                    list.level.select(&value, 1)?;
                    true
                }
                "_embed" | "_expand" => {
                    for name in split(&value) {
                        list.level.embeds.push(EmbedText::whole(name));
                    }
                    true
                }
                _ => list.level.condition(&key, &value, &is_own),
            };
            let text = if is_related { &mut list.rest } else { &mut list.own };
            if !text.is_empty() {
                text.push('&');
            }
            text.push_str(piece);
        }
        match list.level.count() {
            0..=MAX_RELATED => Ok(list),
            _ => Err(ApiError::new(Code::LimitTooLarge, format!("a query names at most {MAX_RELATED} relations"))),
        }
    }
}

impl LevelText {
    /// Number of relations that it names.
    fn count(&self) -> usize {
        let embeds = self.embeds.iter().filter_map(|embed| embed.level.as_ref()).map(LevelText::count);
        let conditions = self.conditions.values().map(LevelText::count);
        self.embeds.len() + self.conditions.len() + embeds.chain(conditions).sum::<usize>()
    }

    /// Reads a select with embedded rows.
    fn select(&mut self, text: &str, level: usize) -> Result<(), ApiError> {
        let mut own: Vec<&str> = Vec::new();
        for item in split(text) {
            match item.find('(') {
                Some(_) => self.embeds.push(EmbedText::parse(item.trim(), level)?),
                None => own.push(item),
            }
        }
        self.select = Some(own.join(","));
        Ok(())
    }

    /// Reads a condition on related rows, `RELATION.PARAMETER=VALUE`. False if it is none.
    fn condition(&mut self, key: &str, value: &str, is_own: impl Fn(&str) -> bool) -> bool {
        let (name, Some(parameter)) = split_name(key, '.') else { return false };
        let name = unquoted(name);
        // `not.or` and `not.and` are groups of conditions on own columns.
        if name == "not" || is_own(&name) || is_own(key) {
            return false;
        }
        let related = self.conditions.entry(name).or_default();
        related.parameters.push((parameter.to_string(), value.to_string()));
        true
    }

    /// Moves parameters that begin with the name of a relation to the conditions.
    pub(super) fn find_conditions(&mut self, is_own: impl Fn(&str) -> bool) {
        for (key, value) in std::mem::take(&mut self.parameters) {
            if !self.condition(&key, &value, &is_own) {
                self.parameters.push((key, value));
            }
        }
    }

    /// Reads the text in the parentheses of an embed.
    fn parse(text: &str, level: usize) -> Result<LevelText, ApiError> {
        let mut own = LevelText::default();
        let mut selected = String::new();
        for item in split(text).map(str::trim) {
            match split_parameter(item) {
                Some((key, value)) => own.parameters.push((key.to_string(), value.to_string())),
                None => {
                    selected.push_str(if selected.is_empty() { "" } else { "," });
                    selected.push_str(item);
                }
            }
        }
        if !selected.is_empty() {
            own.select(&selected, level)?;
        }
        Ok(own)
    }
}

impl EmbedText {
    /// All columns of the related rows.
    fn whole(name: &str) -> EmbedText {
        let (key, relation) = (name.trim().to_string(), name.trim().to_string());
        EmbedText { key, relation, column: None, inner: false, level: Some(LevelText::default()) }
    }

    fn parse(item: &str, level: usize) -> Result<EmbedText, ApiError> {
        let broken = |detail: String| {
            ApiError::new(Code::InvalidParameter, format!("select: {detail}"))
                .hint("related rows are written relation(columns), such as category(name)")
        };
        if level > MAX_LEVELS {
            return Err(broken(format!("rows are embedded {MAX_LEVELS} levels deep at most")));
        }
        let (head, rest) = item.split_once('(').unwrap_or((item, ""));
        let inside = rest.strip_suffix(')').ok_or_else(|| broken(format!("{item:?} does not end with )")))?;
        let (alias, name) = match split_name(head, ':') {
            (alias, Some(name)) => (Some(unquoted(alias.trim())), name),
            (name, None) => (None, name),
        };
        let mut words = name.split('!').map(str::trim);
        let relation = unquoted(words.next().unwrap_or_default());
        let (mut inner, mut column) = (false, None);
        for word in words {
            match word {
                "inner" => inner = true,
                "left" => {}
                word => column = Some(unquoted(word)),
            }
        }
        if relation.is_empty() {
            return Err(broken(format!("{item:?} names no relation")));
        }
        let level = match inside.trim() {
            "count" | "count()" => None,
            inside => Some(LevelText::parse(inside, level + 1)?),
        };
        Ok(EmbedText { key: alias.unwrap_or_else(|| relation.clone()), relation, column, inner, level })
    }
}

/// Splits `NAME=VALUE`, unless a parenthesis comes first.
fn split_parameter(item: &str) -> Option<(&str, &str)> {
    let (name, value) = split_name(item, '=');
    value.filter(|_| split_name(item, '(').0.len() > name.len()).map(|value| (name, value))
}

/// Splits a list at its commas, except those in double quotes or parentheses.
fn split(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = Some(text).filter(|text| !text.trim().is_empty());
    std::iter::from_fn(move || {
        let text = rest?;
        let (mut depth, mut in_quotes, mut escaped) = (0_usize, false, false);
        for (at, c) in text.char_indices() {
            match c {
                _ if escaped => escaped = false,
                '\\' if in_quotes => escaped = true,
                '"' => in_quotes = !in_quotes,
                _ if in_quotes => {}
                '(' => depth += 1,
                ')' => depth = depth.saturating_sub(1),
                ',' if depth == 0 => {
                    rest = Some(&text[at + 1..]);
                    return Some(&text[..at]);
                }
                _ => {}
            }
        }
        rest = None;
        Some(text)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(raw: &str) -> ListText {
        ListText::parse(raw, |name| matches!(name, "id" | "name" | "meta")).unwrap()
    }

    #[test]
    fn a_query_string_is_divided_by_relations() {
        let list = parse("name=eq.a&select=*,category(name),tags:labels!inner(*,order=name.desc,limit=3)&limit=5");
        assert_eq!((&*list.own, list.level.select.as_deref()), ("name=eq.a&limit=5", Some("*")));
        let [category, tags] = &*list.level.embeds else { panic!("two") };
        assert_eq!((&*category.key, &*category.relation, category.inner), ("category", "category", false));
        assert_eq!((&*tags.key, &*tags.relation, tags.inner), ("tags", "labels", true));
        let level = tags.level.as_ref().unwrap();
        assert_eq!(level.select.as_deref(), Some("*"));
        let parameters = [("order", "name.desc"), ("limit", "3")].map(|(key, value)| (key.into(), value.into()));
        assert_eq!(level.parameters, parameters);
        assert_eq!(list.rest, "select=*,category(name),tags:labels!inner(*,order=name.desc,limit=3)");
    }

    #[test]
    fn conditions_on_related_rows_are_told_from_paths_and_groups() {
        let list = parse("category.name=eq.Bread&category.section.name=eq.x&meta.size=1&not.or=(id.eq.1)&name=a.b");
        assert_eq!(list.own, "meta.size=1&not.or=(id.eq.1)&name=a.b");
        let category = &list.level.conditions["category"];
        let expected = [("name", "eq.Bread"), ("section.name", "eq.x")].map(|(key, value)| (key.into(), value.into()));
        assert_eq!(category.parameters, expected);
    }

    #[test]
    fn parameters_in_parentheses_may_have_lists_and_quotes() {
        let list = parse("select=id,lines(sku,price=in.(1,2),note=eq.\"a,(b\",product(name))");
        let level = list.level.embeds[0].level.as_ref().unwrap();
        let expected = [("price", "in.(1,2)"), ("note", "eq.\"a,(b\"")].map(|(key, value)| (key.into(), value.into()));
        assert_eq!(level.parameters, expected);
        assert_eq!((level.select.as_deref(), &*level.embeds[0].relation), (Some("sku"), "product"));
    }

    #[test]
    fn counts_have_no_query() {
        for raw in ["select=lines(count)", "select=n:lines(count())"] {
            assert!(parse(raw).level.embeds[0].level.is_none(), "{raw}");
        }
        assert_eq!(parse("_embed=lines,category").level.embeds.len(), 2);
    }

    #[test]
    fn what_is_too_deep_too_much_or_not_closed_is_refused() {
        let refused = |raw: &str| ListText::parse(raw, |_| false).unwrap_err().detail().to_string();
        assert!(refused("select=a(b(c(d)))").contains("2 levels"));
        assert!(refused("select=a(b").contains("does not end with )"));
        assert!(refused("select=(b)").contains("names no relation"));
        assert!(refused(&format!("_embed={}", ["a"; 17].join(","))).contains("at most 16 relations"));
    }
}
