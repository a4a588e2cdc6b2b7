//! [`Allow`]: an access rule as it is written, and [`Rule`]: the rule compiled for one resource.

use std::collections::HashSet;
use std::sync::Arc;

use super::principal::{ANONYMOUS, Principal};
use super::verb::{Verb, Verbs};
use diorama_core::record::CborValue;
use diorama_core::vista::query::{FilterTemplate, nearest};
use diorama_core::vista::{Filter, Schema};

/// Word for any resource, for any authenticated role, and for all columns.
const ANY: &str = "*";

/// An access rule. A caller may do what at least one rule permits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Allow {
    /// Role of the callers, or `*` for all callers but anonymous ones.
    pub role: String,
    /// Name of the resource, or `*` for all.
    pub dio: String,
    /// Permitted actions.
    pub can: Verbs,
    /// Condition of the rows in the language of queries, with holes: `{claims.NAME}`, `{name}` and `{role}`. Empty for all rows.
    pub filter: String,
    /// Condition of rows after a write; `None` for `filter`.
    pub check: Option<String>,
    /// Visible and writable columns; `None` for all. The id is always visible.
    pub columns: Option<Vec<String>>,
}

impl Allow {
    /// Returns true if the rule is about the resource `dio`.
    pub(super) fn is_about(&self, dio: &str) -> bool {
        self.dio == ANY || self.dio == dio
    }

    /// Returns true if one caller can be meant by both rules.
    fn shares_callers(&self, other: &Allow) -> bool {
        let any = |a: &str, b: &str| a == ANY && b != ANONYMOUS;
        self.role == other.role || any(&self.role, &other.role) || any(&other.role, &self.role)
    }

    /// Returns the visible and writable columns; `None` for all.
    fn columns(&self) -> Option<HashSet<&str>> {
        let columns = self.columns.as_ref().filter(|columns| !columns.iter().any(|column| column == ANY))?;
        Some(columns.iter().map(String::as_str).collect())
    }

    /// Returns a verb of rows which one caller could have by both rules with different columns: which columns the caller then sees
    /// would depend on the row.
    pub(super) fn contradicts(&self, other: &Allow) -> Option<Verb> {
        let same_dio = self.dio == other.dio || self.dio == ANY || other.dio == ANY;
        if !same_dio || !self.shares_callers(other) || self.columns() == other.columns() {
            return None;
        }
        let both = self.can.intersection(other.can);
        Verb::OF_ROWS.into_iter().find(|verb| both.has(*verb))
    }
}

/// A rule compiled for one resource.
#[derive(Debug)]
pub(super) struct Rule {
    role: Arc<str>,
    pub(super) can: Verbs,
    filter: FilterTemplate,
    check: FilterTemplate,
    /// Visible and writable columns; `None` for all.
    pub(super) columns: Option<HashSet<Arc<str>>>,
    /// Conditions of rows before and after a write, as written.
    pub(super) texts: (String, String),
}

impl Rule {
    /// Compiles a rule for a resource with `schema`. Appends every mistake to `problems`.
    pub(super) fn compile(allow: &Allow, schema: &Schema, problems: &mut Vec<String>) -> Option<Rule> {
        let before = problems.len();
        let mut template = |key: &str, text: &str| match FilterTemplate::parse(text, schema) {
            Ok(template) => {
                problems.extend(template.holes().iter().filter_map(|hole| unknown_hole(key, hole)));
                Some(template)
            }
            Err(error) => {
                let hint = error.hint.as_deref().map(|hint| format!("; {hint}")).unwrap_or_default();
                problems.push(format!("{key}: {error}{hint}"));
                None
            }
        };
        let filter = template("where", &allow.filter);
        let written = allow.check.as_ref().unwrap_or(&allow.filter);
        let check = template("check", written);
        let columns = allow.columns().map(|names| {
            let mut known: HashSet<Arc<str>> = HashSet::new();
            for name in names {
                match schema.column(name) {
                    Some(column) => drop(known.insert(Arc::clone(&column.name))),
                    None => problems.push(unknown_column(name, schema)),
                }
            }
            known
        });
        if let Some(columns) = &columns
            && let Some(hidden) =
                schema.columns().iter().find(|own| own.name.contains("->") && !columns.contains(&own.name))
        {
            let name = &hidden.name;
            problems.push(format!(
                "columns: {name:?} cannot be hidden, because its name is that of a path; rename the column"
            ));
        }
        let (filter, check) = (filter?, check?);
        (problems.len() == before).then(|| Rule {
            role: allow.role.as_str().into(),
            can: allow.can,
            filter,
            check,
            columns,
            texts: (allow.filter.clone(), written.clone()),
        })
    }

    /// Returns true if the rule is about `principal`.
    pub(super) fn is_about(&self, principal: &Principal) -> bool {
        *self.role == *principal.role() || *self.role == *ANY && principal.identity().is_some()
    }

    /// Returns the condition of rows for `principal`; `None` if no row passes.
    pub(super) fn filter(&self, principal: &Principal, schema: &Schema) -> Option<Filter> {
        bind(&self.filter, principal, schema)
    }

    /// Returns the condition of rows after a write of `principal`; `None` if no row passes.
    pub(super) fn check(&self, principal: &Principal, schema: &Schema) -> Option<Filter> {
        bind(&self.check, principal, schema)
    }
}

fn unknown_hole(key: &str, hole: &str) -> Option<String> {
    let known = matches!(hole, "name" | "role") || hole.strip_prefix("claims.").is_some_and(|rest| !rest.is_empty());
    (!known).then(|| format!("{key}: {{{hole}}} is not a valid value; write {{claims.NAME}}, {{name}} or {{role}}"))
}

fn unknown_column(name: &str, schema: &Schema) -> String {
    let known = schema.columns().iter().map(|column| &*column.name);
    match nearest(name, known) {
        Some(meant) => format!("columns: there is no column {name:?}; did you mean {meant:?}?"),
        None => format!("columns: there is no column {name:?}"),
    }
}

fn bind(template: &FilterTemplate, principal: &Principal, schema: &Schema) -> Option<Filter> {
    let own = |name: &str| match name {
        "name" => principal.name().map(|name| CborValue::from(&**name)),
        _ => Some(principal.role().into()),
    };
    let (name, role) = (own("name"), own("role"));
    template.bind(schema, |hole| match hole {
        "name" => name.as_ref(),
        "role" => role.as_ref(),
        _ => principal.claim(hole.strip_prefix("claims.")?),
    })
}
