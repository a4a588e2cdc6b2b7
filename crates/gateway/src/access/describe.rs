//! [`Permission`]: what a caller may do with a resource by one rule, for people.

use super::principal::Principal;
use super::rule::Rule;
use super::verb::Verbs;
use diorama_core::record::value_to_json;
use diorama_core::vista::Schema;

/// Permissions of a caller for a resource by one rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Permission {
    /// Permitted actions.
    pub can: Verbs,
    /// Condition of the rows with the caller's values, empty for all rows; `None` if a value is missing, so that no row passes.
    pub rows: Option<String>,
    /// Condition of rows after a write, as `rows`.
    pub check: Option<String>,
    /// Visible and writable columns in the order of the schema.
    pub columns: Vec<String>,
}

impl Permission {
    /// Describes `rule` for `principal`.
    pub(super) fn of(rule: &Rule, principal: &Principal, schema: &Schema) -> Permission {
        let most = principal.identity().map_or(Verbs::ALL, |identity| identity.verbs);
        let filled = |bound: bool, text: &str| bound.then(|| fill(text, principal));
        let shown = |name: &str| {
            *name == *schema.id_column() || rule.columns.as_ref().is_none_or(|columns| columns.contains(name))
        };
        let names = schema.columns().iter().map(|column| &*column.name).filter(|name| shown(name));
        Permission {
            can: rule.can.intersection(most),
            rows: filled(rule.filter(principal, schema).is_some(), &rule.texts.0),
            check: filled(rule.check(principal, schema).is_some(), &rule.texts.1),
            columns: names.map(str::to_string).collect(),
        }
    }
}

/// Replaces the holes of a condition by the caller's values, for reading only.
fn fill(text: &str, principal: &Principal) -> String {
    let (mut filled, mut rest) = (String::new(), text);
    while let Some((before, after)) = rest.split_once('{') {
        let Some((name, after)) = after.split_once('}') else { break };
        filled.push_str(before);
        match name {
            "name" => filled.push_str(principal.name().map_or("", |name| name)),
            "role" => filled.push_str(principal.role()),
            _ => {
                let value = name.strip_prefix("claims.").and_then(|claim| principal.claim(claim));
                let json = value.map(value_to_json).unwrap_or_default();
                filled.push_str(String::from_utf8_lossy(&json).trim_matches('"'));
            }
        }
        rest = after;
    }
    filled + rest
}
