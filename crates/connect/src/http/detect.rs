//! Detection of pages in answers of an API whose paging is not configured.

use http::HeaderMap;
use http::header::LINK;

use super::pager::Page;
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
        Some(at) if page.rows > 0 => {
            Err(format!("the answer has {at}, so that there are more pages: set page in source (page.none = true if not)"))
        }
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
