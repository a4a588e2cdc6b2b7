//! Ids of rows in subjects.

use percent_encoding::{AsciiSet, CONTROLS, percent_decode_str, utf8_percent_encode};

/// Place of the row's id in the subject of a route.
const ID: &str = "{id}";

/// Characters that a token of a subject cannot have, and the one that encodes them:
/// <https://docs.nats.io/nats-concepts/subjects#characters-allowed-and-recommended-for-subject-names>.
const TOKEN: &AsciiSet = &CONTROLS.add(b' ').add(b'.').add(b'*').add(b'>').add(b'%');

/// Returns the subject of a message about the row `id`: `template` with the encoded id in place of `{id}`.
pub(super) fn of_row(template: &str, id: &str) -> String {
    template.replace(ID, &utf8_percent_encode(id, TOKEN).to_string())
}

/// Returns the part of a message's `subject` that the wildcards of `filter` stand for, decoded: the row's id. `None` without wildcards.
pub(super) fn id_in(filter: &str, subject: &str) -> Option<String> {
    let wildcard = filter.find(['*', '>'])?;
    let rest = subject.get(wildcard..).filter(|rest| !rest.is_empty())?;
    decoded(rest)
}

/// Returns a percent-encoded id as it is; `None` if it is not UTF-8.
pub(super) fn decoded(id: &str) -> Option<String> {
    percent_decode_str(id).decode_utf8().ok().map(String::from)
}

/// Returns the reason why a subject cannot be published to, apart from `{id}`.
pub(super) fn check_route(template: &str) -> Result<(), String> {
    let text = template.replace(ID, "id");
    if text.contains(['*', '>', '{', '}']) {
        return Err("the subject of a route has no wildcards; {id} stands for the row's id".into());
    }
    check_filter(&text)
}

/// Returns the reason why a subject cannot be subscribed to.
pub(super) fn check_filter(subject: &str) -> Result<(), String> {
    let is_wrong = |token: &str| token.is_empty() || token.contains(char::is_whitespace);
    match subject.split('.').any(is_wrong) {
        true => Err("a subject is made of words with dots between them, without blanks".into()),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn subjects_have_one_token_for_an_id() {
        assert_eq!(of_row("shop.{id}.writes", "a.b *>%é"), "shop.a%2Eb%20%2A%3E%25%C3%A9.writes");
        assert_eq!(of_row("shop.writes", "7"), "shop.writes");
        assert_eq!(id_in("$KV.shop.>", "$KV.shop.a.b").as_deref(), Some("a.b"));
        assert_eq!(id_in("shop.writes", "shop.writes"), None);
        assert_eq!(id_in("shop.*", "shop."), None);
        assert!(check_route("shop.{id}").is_ok() && check_filter("shop.*.x").is_ok());
        assert!(check_route("shop.*").is_err() && check_route("shop..x").is_err() && check_filter("a b").is_err());
    }

    proptest! {
        #[test]
        fn an_id_is_found_in_the_subject_of_its_route(id in ".{1,30}") {
            let subject = of_row("shop.writes.{id}", &id);
            prop_assert_eq!(subject.split('.').count(), 3);
            prop_assert!(check_filter(&subject).is_ok());
            prop_assert_eq!(id_in("shop.writes.*", &subject), Some(id));
        }
    }
}
