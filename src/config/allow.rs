//! `[[allow]]`: the access rules.

use super::value::{Reader, nearest};
use diorama_gateway::access::{Allow, Verb, Verbs};

/// Reads the rules of the file. `names` are the resources.
pub(super) fn read(root: &Reader<'_>, names: &[String]) -> Vec<Allow> {
    root.array("allow").into_iter().filter_map(|reader| rule(reader, names)).collect()
}

fn rule(reader: Reader<'_>, names: &[String]) -> Option<Allow> {
    let role = required(&reader, "role", "role = \"NAME\", or \"*\" for every authenticated role");
    let dio = required(&reader, "dio", "dio = \"NAME\", or \"*\" for every resource");
    if let Some(dio) = dio.as_deref().filter(|dio| *dio != "*" && !names.iter().any(|name| name == dio)) {
        let meant = nearest(dio, names.iter().map(String::as_str));
        let hint = meant.map(|meant| format!("; did you mean {meant:?}?")).unwrap_or_default();
        let at = reader.position("dio").unwrap_or(reader.at);
        reader.problem(at, format!("allow.dio: there is no resource {dio:?}{hint}"));
    }
    let can = verbs(&reader);
    let filter = reader.text("where").unwrap_or_default();
    let check = reader.text("check");
    let columns = reader.texts("columns");
    reader.finish();
    Some(Allow { role: role?, dio: dio?, can: can?, filter, check, columns })
}

fn required(reader: &Reader<'_>, key: &'static str, example: &str) -> Option<String> {
    let text = reader.text(key).filter(|text| !text.is_empty());
    if text.is_none() && reader.position(key).is_none() {
        reader.problem(reader.at, format!("[[allow]] requires {example}"));
    }
    text
}

fn verbs(reader: &Reader<'_>) -> Option<Verbs> {
    let at = reader.position("can").unwrap_or(reader.at);
    let words = reader.texts("can");
    let Some(words) = words.filter(|words| !words.is_empty()) else {
        reader.problem(at, format!("[[allow]] requires can, an array of {}", known().join(", ")));
        return None;
    };
    let verb = |word: &String| {
        let verb = Verb::parse(word);
        if verb.is_none() {
            let hint = match nearest(word, known()) {
                Some(meant) => format!("did you mean {meant:?}?"),
                None => format!("the actions are {}", known().join(", ")),
            };
            reader.problem(at, format!("allow.can: {word:?} is not a valid action; {hint}"));
        }
        verb
    };
    let verbs: Vec<Option<Verb>> = words.iter().map(verb).collect();
    verbs.into_iter().collect()
}

fn known() -> Vec<&'static str> {
    Verb::ALL.into_iter().map(Verb::as_str).collect()
}
