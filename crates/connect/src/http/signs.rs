//! Signs in an answer that its list has more pages, for a list that ends with its first page: a pointer or a header that is misspelt
//! is in no answer, and would end each list unnoticed.

use super::detect;
use super::pager::{Page, flag};
use super::paging::{Paging, StatedTotal};
use super::pointer;
use diorama_core::record::CborValue;

/// Members that may count something else than rows.
const OTHER_COUNTS: [&str; 2] = ["/count", "/items"];

/// Returns the contradiction between `paging`, by which `page` is the whole list, and the answer; `None` if there is none.
pub(super) fn contradiction(paging: &Paging, page: &Page<'_>, lists_changes: bool) -> Option<String> {
    if page.rows == 0 {
        return None;
    }
    let (lacks, key, similar) = match paging {
        Paging::None | Paging::Detected | Paging::PageNumber { pages: None, .. } | Paging::Offset { .. } => {
            return None;
        }
        Paging::HeaderLink(rel) => (format!("no link with the relation {rel:?}"), "header_link", None),
        Paging::JsonLink(at) => {
            let similar = resembling(page.document, at)?
                .filter(|(_, value)| value.as_text().is_some_and(|url| url.contains('/')));
            (format!("nothing at {at:?}"), "json_link", similar.map(|(at, _)| at))
        }
        Paging::Cursor { at, more, .. } => {
            let more = more.as_ref().and_then(|more| pointer::get(page.document, more));
            if flag(more, "") == Ok(Some(false)) {
                return None;
            }
            let similar = resembling(page.document, at)?.filter(|(_, value)| pointer::text(value).is_some());
            (format!("nothing at {at:?}"), "cursor", similar.map(|(at, _)| at))
        }
        Paging::HeaderCursor { header, .. } => {
            if page.headers.contains_key(header) {
                return None;
            }
            let similar = page.headers.keys().find(|name| resembles(name.as_str(), header));
            (format!("no header {header:?}"), "header_cursor", similar.map(ToString::to_string))
        }
        Paging::PageNumber { pages: Some(at), .. } => (format!("one page by {at:?}"), "pages", None),
    };
    let shown = similar.map(|similar| format!("{similar:?}")).or_else(|| further_page(page, lists_changes))?;
    Some(format!("the answer has {lacks} (page.{key}), but {shown}"))
}

/// Returns what shows that there is a page after `page`.
pub(super) fn further_page(page: &Page<'_>, lists_changes: bool) -> Option<String> {
    if detect::header_link(page.headers, "next").is_some() {
        return Some("a link with the relation \"next\"".into());
    }
    let member = detect::next_url(page.document).map(|(at, _)| at).or_else(|| detect::sign(page.document));
    if let Some(at) = member {
        return Some(format!("{at:?}, so that there are more pages"));
    }
    let (place, total) = detect::total(page.headers, page.document)?;
    let is_other = matches!(&place, StatedTotal::Body(at) if OTHER_COUNTS.contains(&at.as_str()));
    let is_more = !lists_changes && !is_other && total > page.rows as u64;
    is_more.then(|| format!("{} of {total} rows", page.rows))
}

/// Returns the value that a pointer like `at` has; the outer `None` if there is a value at `at` itself.
fn resembling<'v>(document: &'v CborValue, at: &str) -> Option<Option<(String, &'v CborValue)>> {
    if pointer::get(document, at).is_some() {
        return None;
    }
    let step = |(place, value): (String, &'v CborValue), step: String| {
        let own = match value {
            CborValue::Map(members) => {
                let exact = members.iter().find(|(name, _)| name.as_text() == Some(&step));
                let like =
                    || members.iter().find(|(name, _)| name.as_text().is_some_and(|name| resembles(name, &step)));
                let (name, value) = exact.or_else(like)?;
                (name.as_text()?.to_string(), value)
            }
            value => (step.clone(), pointer::get(value, &format!("/{step}"))?),
        };
        Some((format!("{place}/{}", own.0), own.1))
    };
    Some(pointer::steps(at).try_fold((String::new(), document), step))
}

/// Returns true if two names are the same but for their case, their marks, or a slip.
fn resembles(name: &str, other: &str) -> bool {
    let plain = |name: &str| name.to_ascii_lowercase().replace(['_', '-', ' ', '.'], "");
    let (name, other) = (plain(name), plain(other));
    let most = match name.len().min(other.len()) {
        0..3 => 0,
        3..8 => 1,
        _ => 2,
    };
    name == other || strsim::osa_distance(&name, &other) <= most
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;

    use super::super::paging::PageParameter;
    use super::*;

    fn of(paging: &Paging, headers: &[(&'static str, &str)], text: &str) -> Option<String> {
        let headers: HeaderMap =
            headers.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect();
        let document = super::super::client::parse(text.as_bytes()).unwrap();
        contradiction(paging, &Page { headers: &headers, document: &document, rows: 2, ends: None }, false)
    }

    fn cursor(at: &str, more: Option<&str>) -> Paging {
        Paging::Cursor { at: at.into(), parameter: PageParameter::Query("cursor".into()), more: more.map(Into::into) }
    }

    #[test]
    fn a_pointer_that_no_answer_has_is_noticed_by_what_the_answer_has() {
        let is_noticed =
            |paging: &Paging, text: &str| of(paging, &[], text).is_some_and(|text| text.contains("(page."));
        for (at, text) in [
            ("/nxt", r#"{"rows":[],"next":"abc"}"#),
            ("/next_curser", r#"{"rows":[],"next_cursor":"abc"}"#),
            ("/metta/token", r#"{"rows":[],"meta":{"token":7}}"#),
            ("/continuationTokn", r#"{"rows":[],"continuationToken":"x"}"#),
            ("/continuation_token", r#"{"rows":[],"continuationToken":"x"}"#),
            ("/row/-1/id", r#"{"rows":[{"id":1},{"id":2}]}"#),
            ("/cursor", r#"{"rows":[],"has_more":true}"#),
            ("/cursor", r#"{"rows":[],"total":3}"#),
        ] {
            assert!(is_noticed(&cursor(at, None), text), "{at} in {text}");
        }
        assert!(is_noticed(&Paging::JsonLink("/links/nxt".into()), r#"{"links":{"next":"/x?page=2"}}"#));
        assert!(is_noticed(&Paging::JsonLink("/paging/url".into()), r#"{"paging":{"urls":"/x?page=2"}}"#));
        let pages = Paging::PageNumber {
            parameter: PageParameter::Query("page".into()),
            first: 1,
            pages: Some("/meta/pagination/page".into()),
        };
        assert!(is_noticed(&pages, r#"{"meta":{"pagination":{"page":1,"pageCount":3}}}"#));
        let next = [("link", r#"</x?page=2>; rel="next""#)];
        assert!(of(&Paging::HeaderLink("nxt".into()), &next, "[]").is_some());
        let parameter = PageParameter::Query("cursor".into());
        let header = Paging::HeaderCursor { header: "x-nxt-cursor".into(), parameter };
        assert!(of(&header, &[("x-next-cursor", "abc")], "[]").is_some());
        assert!(of(&header, &[("x-total-count", "9")], "[]").is_some());
    }

    #[test]
    fn a_list_of_one_page_is_not_contradicted() {
        for (paging, text) in [
            (cursor("/next_cursor", None), r#"{"rows":[],"next_cursor":null,"total":2}"#),
            (cursor("/next_cursor", Some("/has_more")), r#"{"rows":[],"has_more":false,"total":9}"#),
            (cursor("/paging/next/after", None), r#"{"results":[],"total":2}"#),
            (cursor("/offset", None), r#"{"records":[]}"#),
            (cursor("/cursor", None), r#"{"rows":[],"count":100}"#),
            (Paging::JsonLink("/links/next".into()), r#"{"data":[],"links":{"self":"/x","prev":null}}"#),
            (Paging::JsonLink("/@odata.nextLink".into()), r#"{"value":[],"@odata.count":2}"#),
            (Paging::HeaderLink("next".into()), "[]"),
        ] {
            assert_eq!(of(&paging, &[("link", r#"</x>; rel="first""#)], text), None, "{text}");
        }
    }
}
