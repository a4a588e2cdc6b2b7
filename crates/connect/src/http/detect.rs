//! Detection of pages in answers of an API whose paging is not configured.

use http::HeaderMap;
use http::header::LINK;

use super::pager::{Page, PageParameter, Paging};
use super::pointer;
use diorama_core::record::CborValue;

/// Members that hold the URL of the next page.
pub(super) const LINKS: [&str; 8] = [
    "/links/next",
    "/links/next/href",
    "/_links/next/href",
    "/@odata.nextLink",
    "/next",
    "/next_url",
    "/paging/next",
    "/pagination/next",
];

/// Members that say that there is more, or hold a cursor.
pub(super) const SIGNS: [&str; 14] = [
    "/has_more",
    "/hasMore",
    "/has_next",
    "/hasNextPage",
    "/next_cursor",
    "/nextCursor",
    "/nextPageToken",
    "/next_page_token",
    "/next_page",
    "/offset",
    "/paging/next/after",
    "/meta/next_cursor",
    "/meta/pagination/pageCount",
    "/response_metadata/next_cursor",
];

/// Returns the paging that an answer shows; `None` if it shows none.
pub(super) fn paging(headers: &HeaderMap, document: &CborValue, rows_at: &str) -> Option<Paging> {
    if header_link(headers, "next").is_some() {
        return Some(Paging::HeaderLink("next".into()));
    }
    let get = |at: &str| pointer::get(document, at);
    let is_url = |at: &&&str| get(at).and_then(CborValue::as_text).is_some_and(|text| text.contains('/'));
    if let Some(at) = LINKS.iter().find(is_url) {
        return Some(Paging::JsonLink((*at).to_string()));
    }
    let has_cursor = |(at, _): &&(&str, &str)| get(at).and_then(pointer::text).is_some();
    if let Some((at, parameter)) = CURSORS.iter().find(has_cursor) {
        let more = ["/has_more", "/hasMore"].into_iter().find(|at| get(at).is_some_and(CborValue::is_bool));
        let (at, parameter) = ((*at).to_string(), PageParameter::Query((*parameter).to_string()));
        return Some(Paging::Cursor { at, parameter, more: more.map(str::to_string) });
    }
    if get("/has_more") == Some(&CborValue::Bool(true)) {
        let (at, more) = (format!("{rows_at}/-1/id"), Some("/has_more".to_string()));
        return Some(Paging::Cursor { at, parameter: PageParameter::Query("starting_after".into()), more });
    }
    let (at, parameter) = PAGES.iter().find(|(at, _)| get(at).is_some())?;
    let parameter = PageParameter::Query((*parameter).to_string());
    Some(Paging::PageNumber { parameter, first: 1, pages: Some((*at).to_string()) })
}

/// Members with cursors, and the usual parameter for each.
const CURSORS: [(&str, &str); 8] = [
    ("/next_cursor", "cursor"),
    ("/nextCursor", "cursor"),
    ("/nextPageToken", "pageToken"),
    ("/next_page_token", "page_token"),
    ("/paging/next/after", "after"),
    ("/meta/next_cursor", "cursor"),
    ("/response_metadata/next_cursor", "cursor"),
    ("/offset", "offset"),
];
/// Members with a number of pages, and the usual parameter for the number of one.
const PAGES: [(&str, &str); 5] = [
    ("/meta/pagination/pageCount", "pagination[page]"),
    ("/meta/pagination/total_pages", "page"),
    ("/meta/last_page", "page"),
    ("/total_pages", "page"),
    ("/totalPages", "page"),
];

/// Returns the URL in the `Link` header (RFC 8288) with this relation.
pub(super) fn header_link(headers: &HeaderMap, rel: &str) -> Option<String> {
    headers.get_all(LINK).iter().filter_map(|value| value.to_str().ok()).find_map(|value| link_of(value, rel))
}

fn link_of(header: &str, rel: &str) -> Option<String> {
    let mut rest = header;
    loop {
        let (_, after) = rest.split_once('<')?;
        let (url, after) = after.split_once('>')?;
        let end = end_of_parameters(after);
        let has_rel = after[..end].split(';').filter_map(|parameter| parameter.split_once('=')).any(|(name, value)| {
            let mut relations = value.trim().trim_matches('"').split_ascii_whitespace();
            name.trim().eq_ignore_ascii_case("rel") && relations.any(|own| own.eq_ignore_ascii_case(rel))
        });
        if has_rel {
            return Some(url.to_string());
        }
        rest = &after[end..];
    }
}

/// Position of the comma after the parameters of a link, outside of quotes.
fn end_of_parameters(text: &str) -> usize {
    let mut is_quoted = false;
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'"' => is_quoted = !is_quoted,
            b',' if !is_quoted => return at,
            _ => {}
        }
    }
    text.len()
}

/// Returns the URL of the next page, if there is one.
///
/// # Errors
/// The text that tells what the answer shows, if it has more pages in a way that has to be configured.
pub(super) fn next(page: &Page<'_>) -> Result<Option<String>, String> {
    if let Some(url) = header_link(page.headers, "next") {
        return Ok(Some(url));
    }
    let get = |at: &&str| pointer::get(page.document, at);
    let is_url = |text: &&str| text.starts_with("http://") || text.starts_with("https://") || text.starts_with('/');
    if let Some(url) = LINKS.iter().filter_map(get).filter_map(CborValue::as_text).find(is_url) {
        return Ok(Some(url.to_string()));
    }
    let says_more = |value: &CborValue| match value {
        CborValue::Bool(more) => *more,
        CborValue::Integer(pages) => i128::from(*pages) > 1,
        CborValue::Text(cursor) => !cursor.is_empty(),
        _ => false,
    };
    match SIGNS.iter().find(|at| get(at).is_some_and(says_more)) {
        Some(at) if page.rows > 0 => Err(format!(
            "the answer has {at}, so that there are more pages: set page in source (page.none = true if not)"
        )),
        _ => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_page_of_a_link_header_is_found() {
        let of = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(LINK, text.parse().unwrap());
            header_link(&headers, "next")
        };
        let github = r#"<https://api.example.com/issues?page=1>; rel="prev", <https://api.example.com/issues?page=3>; rel="next""#;
        assert_eq!(of(github).unwrap(), "https://api.example.com/issues?page=3");
        assert_eq!(of(r#"</x?a=1,2>; title="a, b"; rel=next"#).unwrap(), "/x?a=1,2");
        assert_eq!(of(r#"</a>; rel="first prev", </b>; title="<x>"; rel="Next last""#).unwrap(), "/b");
        assert_eq!(of(r#"</a>; rel="nextish""#), None);
        assert_eq!(of("nonsense"), None);
    }
}
