//! `diorama access`: what the access rules permit a caller.

use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;

use super::{Failure, opened, read};
use diorama_core::record::CborValue;
use diorama_gateway::access::{Identity, Permission, Principal, Verb, Verbs};

/// Print what the rules of a configuration permit a caller.
#[derive(Args, Debug)]
pub struct Access {
    /// Role and claims of the caller, like role=member,org_id=7. Without a role, the caller is anonymous.
    #[arg(long = "as", value_name = "CLAIMS", default_value = "")]
    caller: String,
    /// Resource to print (default: all).
    resource: Option<String>,
    /// Configuration.
    #[arg(long, default_value = "diorama.toml")]
    config: PathBuf,
}

/// Prints the permissions of a caller.
///
/// # Errors
/// A mistake in the configuration or the arguments, or a source that cannot be opened.
pub async fn run(arguments: Access) -> Result<(), Failure> {
    let principal = principal(&arguments.caller).map_err(Failure::config)?;
    let config = read(&arguments.config)?;
    let text = opened(&config, |gateway| {
        let all = gateway.permissions(&principal);
        let wanted = |name: &str| arguments.resource.as_deref().is_none_or(|resource| resource == name);
        let shown: Vec<String> =
            all.iter().filter(|(name, _)| wanted(name)).map(|(name, rules)| describe(name, rules.as_deref())).collect();
        match (shown.is_empty(), &arguments.resource) {
            (true, Some(resource)) => Err(format!("there is no resource {resource:?}")),
            _ => Ok(shown.concat()),
        }
    });
    let text = text.await?.map_err(Failure::config)?;
    super::ops::print(&text)
}

/// Parses `role=member,org_id=7`. Values that are numbers, booleans or null are that; all others are texts.
fn principal(text: &str) -> Result<Principal, String> {
    let (mut role, mut name, mut claims) = (None, None, Vec::new());
    for pair in text.split(',').filter(|pair| !pair.is_empty()) {
        let (key, value) = pair.split_once('=').ok_or_else(|| format!("{pair:?} is not a claim: write name=value"))?;
        match key {
            "role" => role = Some(value),
            "name" => name = Some(value),
            key => claims.push((key.into(), claim(value))),
        }
    }
    let Some(role) = role else {
        return match text.is_empty() {
            true => Ok(Principal::anonymous()),
            false => Err("--as requires a role: --as role=member,org_id=7".into()),
        };
    };
    let claims = CborValue::Map(claims);
    let (name, role, verbs) = (name.unwrap_or("someone").into(), role.into(), Verbs::ALL);
    Ok(Principal::from(Arc::new(Identity { name, role, claims, verbs, unrestricted: false, expires: None })))
}

fn claim(text: &str) -> CborValue {
    match (text, text.parse::<i64>()) {
        ("true" | "false", _) => (text == "true").into(),
        (_, Ok(number)) if number.to_string() == text => number.into(),
        _ => text.into(),
    }
}

/// Describes what the caller may do with one resource; `rules` is `None` if no rule restricts it.
fn describe(name: &str, rules: Option<&[Permission]>) -> String {
    let words = |verbs: Verbs| verbs.iter().map(Verb::as_str).collect::<Vec<_>>().join(", ");
    let Some(rules) = rules else { return format!("{name}: everything, because there are no rules\n") };
    if rules.is_empty() {
        return format!("{name}: nothing\n");
    }
    let rows = |rows: &Option<String>| match rows.as_deref() {
        None => "none, because a claim is missing or has another type".to_string(),
        Some("") => "all".to_string(),
        Some(rows) => rows.to_string(),
    };
    let mut text = format!("{name}:\n");
    for rule in rules {
        text += &format!("  can      {}\n  rows     {}\n", words(rule.can), rows(&rule.rows));
        if rule.check != rule.rows {
            text += &format!("  written  {}\n", rows(&rule.check));
        }
        text += &format!("  columns  {}\n", rule.columns.join(", "));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn claims_of_the_command_line_are_typed() {
        let caller = principal("role=member,org_id=7,team=007,active=true").unwrap();
        assert_eq!(caller.role(), "member");
        assert_eq!(caller.claim("org_id"), Some(&7.into()));
        assert_eq!((caller.claim("team"), caller.claim("active")), (Some(&"007".into()), Some(&true.into())));
        assert!(principal("org_id=7").is_err() && principal("role").is_err());
        assert!(principal("").unwrap().identity().is_none());
    }
}
