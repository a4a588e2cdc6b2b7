//! Ids of rows in topics.

use percent_encoding::{AsciiSet, CONTROLS, percent_decode_str, utf8_percent_encode};

/// Place of the row's id in the topic of a route.
const ID: &str = "{id}";
/// Maximum length of a topic in bytes.
pub(super) const MAX_TOPIC: usize = 65_535;
/// Characters that a level of a topic cannot have, and the one that encodes them.
const LEVEL: &AsciiSet = &CONTROLS.add(b'/').add(b'+').add(b'#').add(b'%');

/// Returns the topic of a message about the row `id`: `template` with the encoded id in place of `{id}`.
pub(super) fn of_row(template: &str, id: &str) -> String {
    template.replace(ID, &utf8_percent_encode(id, LEVEL).to_string())
}

/// True if each row has a topic of its own.
pub(super) fn is_per_row(template: &str) -> bool {
    template.contains(ID)
}

/// Returns the part of a message's `topic` that the wildcards of `filter` stand for, decoded: the row's id. `None` without wildcards.
pub(super) fn id_in(filter: &str, topic: &str) -> Option<String> {
    let wildcard = filter.find(['+', '#'])?;
    let end = filter.rfind(['+', '#'])?;
    let rest = topic.get(wildcard..)?.strip_suffix(filter.get(end + 1..)?).filter(|rest| !rest.is_empty())?;
    percent_decode_str(rest).decode_utf8().ok().map(String::from)
}

/// Returns the reason why a topic cannot be published to, apart from `{id}`.
pub(super) fn check_route(template: &str) -> Result<(), String> {
    let text = template.replace(ID, "id");
    if text.is_empty() || text.contains(['+', '#', '{', '}', '\0']) {
        return Err("the topic of a route has no wildcards; {id} stands for the row's id".into());
    }
    if text.starts_with('$') {
        return Err("topics that begin with $ are the broker's own".into());
    }
    Ok(())
}

/// Returns the reason why a filter cannot be subscribed to.
pub(super) fn check_filter(filter: &str) -> Result<(), String> {
    let levels: Vec<&str> = filter.split('/').collect();
    let is_whole = |level: &&str| !level.contains(['+', '#', '\0']) || matches!(*level, "+" | "#");
    let ends = levels.iter().position(|level| *level == "#").is_none_or(|at| at + 1 == levels.len());
    match !filter.is_empty() && ends && levels.iter().all(is_whole) {
        true => Ok(()),
        false => Err(
            "a topic filter has levels with / between them, of which + stands for one and # at the end for all others"
                .into(),
        ),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn topics_have_one_level_for_an_id() {
        assert_eq!(of_row("shop/{id}/writes", "a/b +#%é"), "shop/a%2Fb %2B%23%25%C3%A9/writes");
        assert_eq!(of_row("shop/writes", "7"), "shop/writes");
        assert_eq!(id_in("shop/#", "shop/a/b").as_deref(), Some("a/b"));
        assert_eq!(id_in("shop/writes", "shop/writes"), None);
        assert_eq!(id_in("shop/+/new", "shop/7/new").as_deref(), Some("7"));
        assert_eq!(id_in("shop/+", "shop/"), None);
        assert!(check_route("shop/{id}").is_ok() && check_filter("shop/+/x").is_ok() && check_filter("#").is_ok());
        for topic in ["shop/+", "", "$SYS/x", "a{b"] {
            assert!(check_route(topic).is_err(), "{topic}");
        }
        for filter in ["", "a+", "a/#/b", "a#"] {
            assert!(check_filter(filter).is_err(), "{filter}");
        }
    }

    proptest! {
        #[test]
        fn an_id_is_found_in_the_topic_of_its_route(id in ".{1,30}") {
            let topic = of_row("shop/writes/{id}", &id);
            prop_assert_eq!(topic.split('/').count(), 3);
            prop_assert_eq!(id_in("shop/writes/+", &topic), Some(id));
        }
    }
}
