//! [`FilterTemplate`]: a filter with holes, which values fill.
//!
//! A rule such as `org_id=eq.{claims.org_id}` is parsed once. A hole is a node of the parsed filter, so that a value that fills it is
//! never read as a part of the query.

use super::url::{self, ParamCode, ParamError, ParamOptions};
use super::{Filter, Literal, MAX_IN, Path, Query, Test};
use crate::record::CborValue;
use crate::vista::Schema;

/// CBOR tag of holes, from the range for private use. Values of rows and claims have no tags.
const HOLE: u64 = 0x4449_4f52_484f_4c45;

/// Name of the hole that `text` is: the part in braces of `{name}`.
pub(super) fn hole_name(text: &str) -> Option<&str> {
    let name = text.strip_prefix('{')?.strip_suffix('}')?;
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | ':' | '/');
    (!name.is_empty() && name.chars().all(plain)).then_some(name)
}

/// The value that stands for the hole `name`.
pub(super) fn hole(name: &str) -> CborValue {
    CborValue::Tag(HOLE, Box::new(name.into()))
}

/// A filter of the query language with holes (`{name}`) in place of values.
#[derive(Clone, Debug, PartialEq)]
pub struct FilterTemplate {
    filter: Filter,
    holes: Vec<String>,
}

impl FilterTemplate {
    /// Parses conditions in the language of query strings. An empty text is the filter that every row passes.
    ///
    /// # Errors
    /// Errors as of [`url::parse`], and an error for any parameter that is not a condition or search, such as `limit`.
    pub fn parse(text: &str, schema: &Schema) -> Result<FilterTemplate, ParamError> {
        let options = ParamOptions { holes: true, ..ParamOptions::default() };
        let query = url::parse(text, schema, &options)?.query;
        if query != (Query { filter: query.filter.clone(), ..Query::default() }) {
            let detail = "a rule has conditions only: no order, select, limit, cursor or search".to_string();
            return Err(ParamError { code: ParamCode::InvalidParameter, parameter: String::new(), detail, hint: None });
        }
        let mut holes = Vec::new();
        collect(&query.filter, &mut holes);
        if text.matches('{').count() != holes.len() {
            let detail = "a {name} must be the whole value of eq, neq, gt, gte, lt, lte, in or isdistinct".to_string();
            return Err(ParamError { code: ParamCode::InvalidParameter, parameter: String::new(), detail, hint: None });
        }
        holes.sort();
        holes.dedup();
        Ok(FilterTemplate { filter: query.filter, holes })
    }

    /// Names of the holes, sorted.
    pub fn holes(&self) -> &[String] {
        &self.holes
    }

    /// Columns and paths of all conditions, with repetitions.
    pub fn columns(&self) -> Vec<&str> {
        self.filter.columns()
    }

    /// Fills the holes. A list fills a hole of `in` with all its values.
    ///
    /// `None`, which matches no row, if a value is missing, null, an object, a list outside of `in`, or not of the column's type.
    pub fn bind<'v>(&self, schema: &Schema, value: impl Fn(&str) -> Option<&'v CborValue>) -> Option<Filter> {
        fill(&self.filter, schema, &value)
    }
}

/// Appends the name of every hole in `filter`.
fn collect(filter: &Filter, holes: &mut Vec<String>) {
    let mut add = |value: &CborValue| holes.extend(name_of(value).map(str::to_string));
    match filter {
        Filter::All(parts) | Filter::Any(parts) => parts.iter().for_each(|part| collect(part, holes)),
        Filter::Not(inner) => collect(inner, holes),
        Filter::Test { test: Test::In(values), .. } => values.iter().for_each(add),
        Filter::Test { test, .. } => operand(test).into_iter().for_each(&mut add),
    }
}

/// Name of the hole that `value` stands for.
fn name_of(value: &CborValue) -> Option<&str> {
    match value {
        CborValue::Tag(HOLE, name) => name.as_text(),
        _ => None,
    }
}

/// The value that a test compares with, if it is a single one.
fn operand(test: &Test) -> Option<&CborValue> {
    match test {
        Test::Eq(value)
        | Test::Neq(value)
        | Test::Gt(value)
        | Test::Gte(value)
        | Test::Lt(value)
        | Test::Lte(value)
        | Test::IsDistinct(value) => Some(value),
        Test::In(_) | Test::Is(_) | Test::Like(_) | Test::Ilike(_) | Test::Match(_) | Test::Imatch(_) => None,
    }
}

fn fill<'v>(filter: &Filter, schema: &Schema, value: &impl Fn(&str) -> Option<&'v CborValue>) -> Option<Filter> {
    let all = |parts: &[Filter]| parts.iter().map(|part| fill(part, schema, value)).collect::<Option<Vec<_>>>();
    Some(match filter {
        Filter::All(parts) => Filter::All(all(parts)?),
        Filter::Any(parts) => Filter::Any(all(parts)?),
        Filter::Not(inner) => fill(inner, schema, value)?.not(),
        Filter::Test { column, test } => Filter::test(column, fill_test(column, test, schema, value)?),
    })
}

fn fill_test<'v>(
    column: &str,
    test: &Test,
    schema: &Schema,
    value: &impl Fn(&str) -> Option<&'v CborValue>,
) -> Option<Test> {
    let ty = Path::resolve(column, schema).column_type(schema);
    let typed = |given: &CborValue| match given {
        CborValue::Null | CborValue::Array(_) | CborValue::Map(_) | CborValue::Tag(..) => None,
        scalar => Literal::of_json(scalar, ty).ok(),
    };
    if let Test::In(values) = test {
        let mut filled = Vec::with_capacity(values.len());
        for operand in values {
            match name_of(operand).map(value) {
                None => filled.push(operand.clone()),
                Some(Some(CborValue::Array(given))) if given.len() <= MAX_IN => {
                    filled.extend(given.iter().map(typed).collect::<Option<Vec<_>>>()?);
                }
                Some(given) => filled.push(typed(given?)?),
            }
        }
        return (filled.len() <= MAX_IN).then_some(Test::In(filled));
    }
    let Some(name) = operand(test).and_then(name_of) else { return Some(test.clone()) };
    let filled = typed(value(name)?)?;
    Some(match test {
        Test::Eq(_) => Test::Eq(filled),
        Test::Neq(_) => Test::Neq(filled),
        Test::Gt(_) => Test::Gt(filled),
        Test::Gte(_) => Test::Gte(filled),
        Test::Lt(_) => Test::Lt(filled),
        Test::Lte(_) => Test::Lte(filled),
        Test::IsDistinct(_) => Test::IsDistinct(filled),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vista::{Column, ColumnType};

    fn schema() -> Schema {
        let columns = [
            ("id", ColumnType::String),
            ("org", ColumnType::Integer),
            ("owner", ColumnType::String),
            ("meta", ColumnType::Json),
        ];
        Schema::new("id", columns.map(|(name, ty)| Column::new(name, ty)).to_vec())
    }

    fn bound(text: &str, claim: &CborValue) -> Option<Filter> {
        let template = FilterTemplate::parse(text, &schema()).unwrap();
        template.bind(&schema(), |name| (name == "claims.x").then_some(claim))
    }

    #[test]
    fn a_hole_is_filled_with_a_value_of_the_columns_type() {
        assert_eq!(bound("org=eq.{claims.x}", &7.into()), bound("org=eq.7", &CborValue::Null));
        assert_eq!(bound("org=eq.{claims.x}", &"7".into()), bound("org=eq.7", &CborValue::Null), "a number in a text");
        assert_eq!(bound("owner=eq.{claims.x}", &7.into()), bound("owner=eq.7", &CborValue::Null));
        assert_eq!(bound("org={claims.x}", &7.into()), bound("org=7", &CborValue::Null));
        let list = CborValue::Array(vec![1.into(), 2.into()]);
        assert_eq!(bound("org=in.({claims.x},3)", &list), bound("org=in.(1,2,3)", &CborValue::Null));
        assert_eq!(
            bound("or=(owner.eq.{claims.x},org.gt.5)", &"a".into()),
            bound("or=(owner.eq.a,org.gt.5)", &CborValue::Null)
        );
    }

    #[test]
    fn a_value_in_a_hole_is_never_a_part_of_the_query() {
        for text in
            ["a,org.gt.0", "*", "a)", "\"", "eq.a", "not.is.null", "{claims.x}", "in.(a,b)", "a&org=gt.0", "%2A"]
        {
            let Some(Filter::All(parts)) = bound("owner=eq.{claims.x}", &text.into()) else { panic!("{text}") };
            assert_eq!(parts, [Filter::eq("owner", text.into())], "{text}");
        }
    }

    #[test]
    fn a_missing_or_unfit_value_matches_nothing_also_beneath_a_negation() {
        let list = CborValue::Array(vec![1.into()]);
        for unfit in [CborValue::Null, "seven".into(), CborValue::Map(Vec::new()), list] {
            for text in ["org=eq.{claims.x}", "org=not.eq.{claims.x}", "or=(org.eq.{claims.x},org.gt.0)"] {
                assert_eq!(bound(text, &unfit), None, "{text} {unfit:?}");
            }
        }
        assert_eq!(bound("owner=neq.{claims.other}", &1.into()), None);
        assert_eq!(bound("org=in.({claims.x})", &CborValue::Array(Vec::new())), bound("org=in.()", &CborValue::Null));
    }

    #[test]
    fn a_template_has_conditions_only_and_holes_are_whole_values() {
        for refused in [
            "limit=5",
            "order=org",
            "select=id",
            "q=a",
            "owner=like.{claims.x}*",
            "owner=eq.a{claims.x}",
            "owner=match.{claims.x}",
            "org=is.{claims.x}",
            "{claims.x}=eq.1",
            "nope=eq.{claims.x}",
        ] {
            assert!(FilterTemplate::parse(refused, &schema()).is_err(), "{refused}");
        }
        let two = FilterTemplate::parse("org=eq.{claims.b}&owner=in.({claims.a},{claims.b})", &schema()).unwrap();
        assert_eq!(two.holes(), ["claims.a", "claims.b"]);
    }
}
