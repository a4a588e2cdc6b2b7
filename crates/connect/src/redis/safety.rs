//! How safely a server stores what it has accepted.

use std::collections::HashMap;

use redis::cmd;

use super::errors::Failure;
use super::session::Session;

/// Asks the server for its settings, and returns a warning for each with which it may lose what it has accepted.
///
/// # Errors
/// A lost connection. A server that refuses to tell is a warning.
pub(super) async fn warnings(session: &Session) -> Result<Vec<String>, Failure> {
    let mut settings = HashMap::new();
    for pattern in ["append*", "maxmemory*"] {
        match session.run::<HashMap<String, String>>(cmd("CONFIG").arg("GET").arg(pattern)).await {
            Ok(found) => settings.extend(found),
            Err(failure) if failure.is_of_connection => return Err(failure),
            Err(failure) => return Ok(vec![unknown(session, &failure.message)]),
        }
    }
    Ok(judge(&settings).into_iter().map(|warning| format!("{}: {warning}", session.address())).collect())
}

fn unknown(session: &Session, why: &str) -> String {
    let address = session.address();
    format!(
        "{address}: it is unknown whether the server keeps what it accepts, because it does not tell its settings: {why}"
    )
}

/// Returns the warnings about `settings`, as `CONFIG GET` returns them.
fn judge(settings: &HashMap<String, String>) -> Vec<String> {
    let setting = |name: &str| settings.get(name).map(String::as_str);
    let mut warnings = Vec::new();
    match (setting("appendonly"), setting("appendfsync")) {
        (Some("yes"), Some("always")) => {}
        (Some("yes"), Some(other)) => warnings.push(format!(
            "the server loses what it has accepted lately if its machine fails, because appendfsync is {other}: set appendfsync always"
        )),
        (Some("no"), _) => warnings.push(
            "the server loses what it has accepted since its last snapshot if it fails, because appendonly is no: set \
             appendonly yes and appendfsync always"
                .to_string(),
        ),
        _ => warnings
            .push("it is unknown whether the server keeps what it accepts: it has no appendonly and appendfsync".to_string()),
    }
    let policy = setting("maxmemory-policy").filter(|policy| policy.starts_with("allkeys"));
    if let Some(policy) = policy.filter(|_| setting("maxmemory") != Some("0")) {
        warnings.push(format!(
            "the server removes any key when its memory is full, because maxmemory-policy is {policy}: set noeviction"
        ));
    }
    warnings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_that_lose_data_are_told() {
        let judged = |settings: &[(&str, &str)]| {
            judge(&settings.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect())
        };
        let safe =
            [("appendonly", "yes"), ("appendfsync", "always"), ("maxmemory", "0"), ("maxmemory-policy", "allkeys-lru")];
        assert!(judged(&safe).is_empty());
        let evicting = judged(&[safe[0], safe[1], ("maxmemory", "100"), safe[3]]);
        assert!(evicting.len() == 1 && evicting[0].contains("allkeys-lru"), "{evicting:?}");
        assert!(judged(&[safe[0], ("appendfsync", "everysec")])[0].contains("appendfsync is everysec"));
        assert!(judged(&[("appendonly", "no"), ("appendfsync", "always")])[0].contains("appendonly is no"));
        assert!(judged(&[])[0].contains("unknown"));
    }
}
