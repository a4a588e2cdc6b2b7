//! Ids of rows in routing keys.

use percent_encoding::{AsciiSet, CONTROLS, percent_decode_str, utf8_percent_encode};

/// Place of the row's id in the routing key of a route.
const ID: &str = "{id}";
/// Maximum length of a name in AMQP, in bytes.
pub(super) const MAX_NAME: usize = 255;
/// Characters with a meaning in routing keys and bindings of topic exchanges, and the one that encodes them.
const WORD: &AsciiSet = &CONTROLS.add(b' ').add(b'.').add(b'*').add(b'#').add(b'%');

/// Returns the routing key of a message about the row `id`: `template` with the encoded id in place of `{id}`.
pub(super) fn of_row(template: &str, id: &str) -> String {
    template.replace(ID, &utf8_percent_encode(id, WORD).to_string())
}

/// Returns the part of a message's routing `key` that the wildcards of `pattern` stand for, decoded: the row's id. `None` without
/// wildcards.
pub(super) fn id_in(pattern: &str, key: &str) -> Option<String> {
    let wildcard = pattern.find(['*', '#'])?;
    let end = pattern.rfind(['*', '#'])?;
    let rest = key.get(wildcard..)?.strip_suffix(pattern.get(end + 1..)?).filter(|rest| !rest.is_empty())?;
    percent_decode_str(rest).decode_utf8().ok().map(String::from)
}

/// Returns the reason why a routing key cannot be published to, apart from `{id}`.
pub(super) fn check_route(template: &str) -> Result<(), String> {
    match template.replace(ID, "").contains(['*', '#', '{', '}']) {
        true => Err("the routing key of a route has no wildcards; {id} stands for the row's id".into()),
        false => check_length(template),
    }
}

/// Returns the reason why a text cannot be the name of a queue or an exchange, or a routing key.
pub(super) fn check_length(name: &str) -> Result<(), String> {
    match name.len() {
        0..=MAX_NAME => Ok(()),
        _ => Err(format!("AMQP has names of at most {MAX_NAME} bytes")),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn routing_keys_have_one_word_for_an_id() {
        assert_eq!(of_row("shop.{id}.writes", "a.b *#%é"), "shop.a%2Eb%20%2A%23%25%C3%A9.writes");
        assert_eq!(of_row("shop.writes", "7"), "shop.writes");
        assert_eq!(id_in("shop.#", "shop.a.b").as_deref(), Some("a.b"));
        assert_eq!(id_in("shop.writes", "shop.writes"), None);
        assert_eq!(id_in("shop.*.new", "shop.7.new").as_deref(), Some("7"));
        assert_eq!(id_in("shop.*", "shop."), None);
        assert!(check_route("shop.{id}").is_ok() && check_route("shop.*").is_err());
        assert!(check_length(&"a".repeat(255)).is_ok() && check_length(&"a".repeat(256)).is_err());
    }

    proptest! {
        #[test]
        fn an_id_is_found_in_the_routing_key_of_its_route(id in ".{1,30}") {
            let key = of_row("shop.writes.{id}", &id);
            prop_assert_eq!(key.split('.').count(), 3);
            prop_assert_eq!(id_in("shop.writes.*", &key), Some(id));
        }
    }
}
