//! Detection of pages in answers of an API whose paging is not configured.

use http::HeaderMap;
use http::header::LINK;
use url::Url;

use super::pager::Page;
use super::paging::{PageParameter, Paging, StatedTotal};
use super::pointer;
use diorama_core::record::CborValue;

/// Members that hold the URL of the next page.
const LINKS: [&str; 8] = [
    "/links/next",
    "/links/next/href",
    "/_links/next/href",
    "/@odata.nextLink",
    "/next",
    "/next_url",
    "/paging/next",
    "/pagination/next",
];

/// Other members that say that there is more, or hold a cursor.
const SIGNS: [&str; 6] = ["/has_more", "/hasMore", "/has_next", "/hasNextPage", "/next", "/next_page"];
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
const PAGES: [(&str, &str); 10] = [
    ("/meta/pagination/pageCount", "pagination[page]"),
    ("/meta/pagination/total_pages", "page"),
    ("/meta/last_page", "page"),
    ("/meta/total_pages", "page"),
    ("/pagination/total_pages", "page"),
    ("/total_pages", "page"),
    ("/totalPages", "page"),
    ("/page/totalPages", "page"),
    ("/last_page", "page"),
    ("/pages", "page"),
];
/// Members with the number of this page.
const NUMBERS: [&str; 9] = [
    "/number",
    "/page",
    "/page/number",
    "/current_page",
    "/currentPage",
    "/pageNumber",
    "/meta/pagination/page",
    "/meta/current_page",
    "/pagination/page",
];
/// Members with the number of rows that this page leaves out.
const OFFSETS: [&str; 2] = ["/offset", "/skip"];
/// Members with the number of all rows.
const TOTALS: [&str; 12] = [
    "/total",
    "/total_count",
    "/totalCount",
    "/count",
    "/items",
    "/totalItems",
    "/totalResults",
    "/totalElements",
    "/page/totalElements",
    "/meta/total",
    "/meta/total_count",
    "/@odata.count",
];
/// Headers with the number of all rows.
const TOTAL_HEADERS: [&str; 2] = ["x-total-count", "x-total"];

/// Returns the paging that the answer to a request for `url` shows; `None` if it shows none.
pub(super) fn paging(url: &Url, headers: &HeaderMap, document: &CborValue, rows_at: &str) -> Option<Paging> {
    if header_link(headers, "next").is_some() {
        return Some(Paging::HeaderLink("next".into()));
    }
    let get = |at: &str| pointer::get(document, at);
    let is_url = |at: &&&str| get(at).and_then(CborValue::as_text).is_some_and(|text| text.contains('/'));
    if let Some(at) = LINKS.iter().find(is_url) {
        return Some(Paging::JsonLink((*at).to_string()));
    }
    let query = |name: &str| PageParameter::Query(name.to_string());
    let is_number = |at: &&&str| get(at).is_some_and(CborValue::is_integer);
    if total(headers, document).is_some()
        && let Some(at) = OFFSETS.iter().find(is_number)
    {
        return Some(Paging::Offset { parameter: query(&at[1..]), overlap: true });
    }
    let has_cursor = |(at, _): &&(&str, &str)| get(at).and_then(pointer::text).is_some();
    if let Some((at, parameter)) = CURSORS.iter().find(has_cursor) {
        let more = ["/has_more", "/hasMore"].into_iter().find(|at| get(at).is_some_and(CborValue::is_bool));
        let (at, parameter) = ((*at).to_string(), query(parameter));
        return Some(Paging::Cursor { at, parameter, more: more.map(str::to_string) });
    }
    if get("/has_more") == Some(&CborValue::Bool(true)) {
        let (at, more) = (format!("{rows_at}/-1/id"), Some("/has_more".to_string()));
        return Some(Paging::Cursor { at, parameter: query("starting_after"), more });
    }
    let (at, parameter) = PAGES.iter().find(|(at, _)| get(at).is_some_and(CborValue::is_integer))?;
    let own = page_in(url);
    let is_zero = NUMBERS.iter().any(|at| get(at) == Some(&CborValue::from(0)));
    let first = own.as_ref().map_or(u64::from(!is_zero), |(_, number)| *number);
    let parameter = own.map_or_else(|| query(parameter), |(name, _)| PageParameter::Query(name));
    Some(Paging::PageNumber { parameter, first, pages: Some((*at).to_string()) })
}

/// Returns the parameter of a URL with the number of a page.
fn page_in(url: &Url) -> Option<(String, u64)> {
    url.query_pairs().find_map(|(name, value)| {
        let word: String = name.chars().filter(char::is_ascii_alphanumeric).collect();
        let is_page = matches!(
            word.to_ascii_lowercase().as_str(),
            "page" | "p" | "pageno" | "pagenumber" | "pageindex" | "currentpage" | "paginationpage"
        );
        Some((name.into_owned(), value.parse().ok().filter(|_| is_page)?))
    })
}

/// Returns the number of all rows that an answer states, and its place.
pub(super) fn total(headers: &HeaderMap, document: &CborValue) -> Option<(StatedTotal, u64)> {
    let in_header = |name: &&str| {
        let number = headers.get(*name)?.to_str().ok()?.trim().parse().ok()?;
        Some((StatedTotal::Header((*name).to_string()), number))
    };
    let in_body = |at: &&str| match pointer::get(document, at)? {
        CborValue::Integer(number) => Some((StatedTotal::Body((*at).to_string()), u64::try_from(*number).ok()?)),
        _ => None,
    };
    TOTAL_HEADERS.iter().find_map(in_header).or_else(|| TOTALS.iter().find_map(in_body))
}

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

/// Returns the number that a page states of itself.
pub(super) fn page_number(document: &CborValue) -> Option<u64> {
    let number = |at: &&str| u64::try_from(pointer::get(document, at)?.as_integer()?).ok();
    NUMBERS.iter().find_map(number)
}

/// Returns the usual member that has the URL of the next page, and the URL.
pub(super) fn next_url(document: &CborValue) -> Option<(&'static str, &str)> {
    let is_url = |text: &str| text.starts_with("http://") || text.starts_with("https://") || text.starts_with('/');
    let url = |at: &&'static str| Some((*at, pointer::get(document, at)?.as_text().filter(|text| is_url(text))?));
    LINKS.iter().find_map(url)
}

/// Returns a usual member that says that there are more pages.
pub(super) fn sign(document: &CborValue) -> Option<&'static str> {
    let says_more = |value: &CborValue| match value {
        CborValue::Bool(more) => *more,
        CborValue::Integer(pages) => i128::from(*pages) > 1,
        CborValue::Text(cursor) => !cursor.is_empty(),
        _ => false,
    };
    let mut members = SIGNS.into_iter().chain(CURSORS.into_iter().chain(PAGES).map(|(at, _)| at));
    members.find(|at| pointer::get(document, at).is_some_and(says_more))
}

/// Returns the URL of the page after `page`, if there is one. Of the first page, the number of all rows is compared as well.
///
/// # Errors
/// The text that tells what the answer shows, if it has more pages in a way that has to be configured.
pub(super) fn next(page: &Page<'_>, is_first: bool) -> Result<Option<String>, String> {
    if let Some(url) = header_link(page.headers, "next") {
        return Ok(Some(url));
    }
    if let Some((_, url)) = next_url(page.document) {
        return Ok(Some(url.to_string()));
    }
    if page.rows == 0 {
        return Ok(None);
    }
    let shown = match sign(page.document) {
        Some(at) => format!("the answer has {at}"),
        None => match total(page.headers, page.document).filter(|(_, total)| is_first && *total > page.rows as u64) {
            Some((_, total)) => format!("the answer has {} rows and says that there are {total}", page.rows),
            None => return Ok(None),
        },
    };
    Err(format!("{shown}, so that there are more pages: set page in source (page.none = true if not)"))
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

    fn json(text: &str) -> CborValue {
        super::super::client::parse(text.as_bytes()).unwrap()
    }

    #[test]
    fn numbered_pages_and_offsets_are_found_with_their_parameters() {
        let of = |url: &str, text: &str| paging(&url.parse().unwrap(), &HeaderMap::new(), &json(text), "/data");
        let numbered = |name: &str, first, pages: &str| {
            let parameter = PageParameter::Query(name.into());
            Some(Paging::PageNumber { parameter, first, pages: Some(pages.into()) })
        };
        let json_server = r#"{"first":1,"prev":null,"next":2,"last":5,"pages":5,"items":125,"data":[{"id":1}]}"#;
        assert_eq!(of("http://h/x?_page=1&_per_page=30", json_server), numbered("_page", 1, "/pages"));
        let spring = r#"{"content":[{"id":1}],"number":0,"size":20,"totalPages":3,"totalElements":60}"#;
        assert_eq!(of("http://h/x", spring), numbered("page", 0, "/totalPages"));
        let offset = Some(Paging::Offset { parameter: PageParameter::Query("skip".into()), overlap: true });
        assert_eq!(of("http://h/x", r#"{"products":[{"id":1}],"total":194,"skip":0,"limit":30}"#), offset);
        let cursor = of("http://h/x", r#"{"records":[{"id":1}],"offset":"itr5/rec9"}"#);
        assert!(matches!(cursor, Some(Paging::Cursor { at, .. }) if at == "/offset"));
        assert_eq!(of("http://h/x", r#"{"data":[{"id":1}]}"#), None);
    }

    #[test]
    fn an_answer_that_shows_more_pages_in_another_way_is_refused() {
        let next_of = |header: Option<&str>, text: &str| {
            let mut headers = HeaderMap::new();
            headers
                .extend(header.map(|total| (http::HeaderName::from_static("x-total-count"), total.parse().unwrap())));
            next(&Page { headers: &headers, document: &json(text), rows: 2, ends: None }, true)
        };
        for more in [
            r#"{"data":[],"next":2,"pages":3}"#,
            r#"{"data":[],"totalPages":2}"#,
            r#"{"data":[],"meta":{"last_page":4}}"#,
            r#"{"data":[],"next_cursor":"x"}"#,
            r#"{"data":[],"total":3}"#,
        ] {
            assert!(next_of(None, more).unwrap_err().contains("set page in source"), "{more}");
        }
        assert!(next_of(Some("3"), "[]").unwrap_err().contains("2 rows and says that there are 3"));
        for last in [r#"{"next":null,"pages":1,"total":2}"#, r#"{"total":0}"#, "[]"] {
            assert_eq!(next_of(Some("2"), last), Ok(None), "{last}");
        }
    }
}
