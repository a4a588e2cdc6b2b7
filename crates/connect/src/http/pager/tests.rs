use proptest::prelude::*;

use super::*;
use diorama_core::record::{JsonLimits, parse_json};

/// Reads a list by `pages` from `rows`, the ids of an API, which changes between requests. Returns the ids, or the error.
fn read(pages: &HttpPages, rows: &mut Vec<u32>, size: usize, changes: &[(bool, usize)]) -> Result<Vec<u32>, PageError> {
    let (mut pager, mut read, mut next) = (Pager::new(pages, false), Vec::new(), Some(PageRequest::First));
    let mut changes = changes.iter();
    let headers = HeaderMap::new();
    let mut new = 1_000;
    while let Some(request) = next {
        let number = match &request {
            PageRequest::With(_, value) => text(value).parse().unwrap(),
            _ => 0,
        };
        let start = if matches!(pages.paging, Paging::Offset { .. }) { number } else { number * size };
        let page: Vec<u32> = rows.iter().skip(start).take(size).copied().collect();
        let document = format!("{{\"total\":{}}}", rows.len());
        let document = parse_json(document.as_bytes(), JsonLimits::default()).unwrap();
        let ends = page.first().zip(page.last()).map(|(first, last)| (first.to_string(), last.to_string()));
        read.extend(&page);
        next = pager.next(&Page { headers: &headers, document: &document, rows: page.len(), ends })?;
        if let Some((insert, at)) = changes.next() {
            let at = at % (rows.len() + 1);
            match insert {
                true => {
                    new += 1;
                    rows.insert(at, new);
                }
                false if at < rows.len() => drop(rows.remove(at)),
                false => {}
            }
        }
    }
    Ok(read)
}

proptest! {
    #[test]
    fn an_offset_hides_no_row_that_was_there_throughout(
        count in 0..40_u32,
        size in 2..8_usize,
        changes in prop::collection::vec((any::<bool>(), 0..60_usize), 0..10),
    ) {
        let paging = Paging::Offset { parameter: PageParameter::Query("offset".into()), overlap: true };
        let pages = HttpPages { paging, ..HttpPages::default() };
        let mut rows: Vec<u32> = (0..count).collect();
        if let Ok(read) = read(&pages, &mut rows, size, &changes) {
            let throughout = rows.into_iter().filter(|row| *row < count);
            let missing: Vec<u32> = throughout.filter(|row| !read.contains(row)).collect();
            prop_assert_eq!(missing, Vec::<u32>::new());
        }
    }
}

#[test]
fn rows_that_move_at_the_end_of_a_page_are_noticed() {
    let paging = Paging::Offset { parameter: PageParameter::Query("offset".into()), overlap: true };
    let pages = HttpPages { paging, ..HttpPages::default() };
    let rows = || (0..10).collect::<Vec<u32>>();
    assert_eq!(read(&pages, &mut rows(), 4, &[]).unwrap(), [0, 1, 2, 3, 3, 4, 5, 6, 6, 7, 8, 9, 9]);
    assert_eq!(read(&pages, &mut rows(), 4, &[(false, 0)]), Err(PageError::Moved));
    assert_eq!(read(&pages, &mut rows(), 4, &[(true, 0)]), Err(PageError::Moved));
}

#[test]
fn an_api_that_repeats_its_last_page_ends_the_list() {
    let paging = Paging::PageNumber { parameter: PageParameter::Query("page".into()), first: 1, pages: None };
    let pages = HttpPages { paging, ..HttpPages::default() };
    let (mut pager, headers, document) = (Pager::new(&pages, false), HeaderMap::new(), CborValue::Null);
    let mut next = |first: &str, last: &str| {
        let ends = Some((first.to_string(), last.to_string()));
        pager.next(&Page { headers: &headers, document: &document, rows: 2, ends }).unwrap()
    };
    assert!(next("1", "2").is_some());
    assert!(next("3", "4").is_some());
    assert_eq!(next("3", "4"), None);
}

#[test]
fn a_stated_total_ends_numbered_pages() {
    let paging = Paging::PageNumber { parameter: PageParameter::Query("page".into()), first: 0, pages: None };
    let total = Some(StatedTotal::Body("/total".into()));
    let pages = HttpPages { paging: paging.clone(), total, ..HttpPages::default() };
    let rows = || (0..10).collect::<Vec<u32>>();
    assert_eq!(read(&pages, &mut rows(), 5, &[]).unwrap(), rows());
    // Without it an empty page does.
    let pages = HttpPages { paging, ..HttpPages::default() };
    assert_eq!(read(&pages, &mut rows(), 5, &[]).unwrap(), rows());
    let most = HttpPages { most: 2, ..pages };
    assert!(matches!(read(&most, &mut rows(), 2, &[]), Err(PageError::Wrong(_))));
}

#[test]
fn an_api_that_repeats_its_cursor_is_refused() {
    let pages = HttpPages {
        paging: Paging::Cursor {
            at: "/next".into(),
            parameter: PageParameter::Query("cursor".into()),
            more: Some("/more".into()),
        },
        ..HttpPages::default()
    };
    let headers = HeaderMap::new();
    let mut pager = Pager::new(&pages, false);
    let mut next = |text: &str| {
        let document = parse_json(text.as_bytes(), JsonLimits::default()).unwrap();
        pager.next(&Page { headers: &headers, document: &document, rows: 1, ends: None })
    };
    let with = |value: CborValue| Ok(Some(PageRequest::With(PageParameter::Query("cursor".into()), value)));
    assert_eq!(next(r#"{"next":"a","more":true}"#), with("a".into()));
    assert_eq!(next(r#"{"next":7}"#), Ok(None), "a flag that is missing is false");
    assert_eq!(next(r#"{"next":7,"more":true}"#), with(7.into()));
    assert!(matches!(next(r#"{"next":"a","more":true}"#), Err(PageError::Wrong(_))));
    assert!(matches!(next(r#"{"next":null,"more":true}"#), Err(PageError::Wrong(_))));
    assert_eq!(next(r#"{"next":"b","more":false}"#), Ok(None));
}

fn query(name: &str) -> PageParameter {
    PageParameter::Query(name.into())
}

/// Gives a pager the first page, of two rows, with this document.
fn first(paging: Paging, document: &str) -> Result<Option<PageRequest>, PageError> {
    next(&mut Pager::new(&HttpPages { paging, ..HttpPages::default() }, false), document, 2, ("1", "2"))
}

fn next(
    pager: &mut Pager<'_>,
    document: &str,
    rows: usize,
    (first, last): (&str, &str),
) -> Result<Option<PageRequest>, PageError> {
    let document = parse_json(document.as_bytes(), JsonLimits::default()).unwrap();
    let ends = (rows > 0).then(|| (first.to_string(), last.to_string()));
    pager.next(&Page { headers: &HeaderMap::new(), document: &document, rows, ends })
}

fn cursor(at: &str, parameter: &str, more: Option<&str>) -> Paging {
    Paging::Cursor { at: at.into(), parameter: PageParameter::of(parameter), more: more.map(Into::into) }
}

fn wrong(result: Result<Option<PageRequest>, PageError>) -> String {
    match result {
        Err(PageError::Wrong(detail)) => detail,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_flag_that_no_answer_has_refuses_the_list() {
    let stripe = r#"{"data":[{"id":1},{"id":2}],"has_more":true}"#;
    let of = |more| first(cursor("/data/-1/id", "starting_after", Some(more)), stripe);
    assert!(of("/has_more").unwrap().is_some());
    for misspelt in ["/has_mor", "/hasMore", "/data/has_more", "/nothing"] {
        let detail = wrong(of(misspelt));
        assert!(detail.contains(&format!("{misspelt:?} (page.more)")), "{detail}");
    }
}

#[test]
fn the_flag_of_the_last_page_has_the_forms_that_apis_use() {
    let of = |more: &str| {
        let document = format!(r#"{{"data":[{{"id":1}},{{"id":2}}],"more":{more}}}"#);
        first(cursor("/data/-1/id", "after", Some("/more")), &document)
    };
    for more in ["true", "1", "30", r#""true""#, r#""TRUE""#] {
        assert!(of(more).unwrap().is_some(), "{more}");
    }
    for last in ["false", "0", "null", r#""""#, r#""false""#] {
        assert_eq!(of(last), Ok(None), "{last}");
    }
    for neither in [r#""yes""#, "[]", "{}", "1.5"] {
        assert!(wrong(of(neither)).contains("neither true nor false (page.more)"), "{neither}");
    }
}

#[test]
fn a_pointer_to_the_next_page_that_no_answer_has_refuses_the_list() {
    let detail = wrong(first(cursor("/nxt", "cursor", None), r#"{"rows":[],"next":"abc"}"#));
    assert_eq!(detail, r#"the answer has nothing at "/nxt" (page.cursor), but "/next""#);
    let detail = wrong(first(Paging::JsonLink("/links/nxt".into()), r#"{"links":{"next":"/x?page=2"}}"#));
    assert_eq!(detail, r#"the answer has nothing at "/links/nxt" (page.json_link), but "/links/next""#);
    let detail = wrong(first(Paging::JsonLink("/links".into()), r#"{"links":{"next":"/x?page=2"}}"#));
    assert!(detail.contains("is not a URL (page.json_link)"), "{detail}");
    let total = HttpPages { total: Some(StatedTotal::Body("/totl".into())), ..HttpPages::default() };
    let detail = wrong(next(&mut Pager::new(&total, false), r#"{"total":2}"#, 2, ("1", "2")));
    assert!(detail.contains(r#""/totl" (page.total)"#), "{detail}");
}

#[test]
fn a_cursor_keeps_its_type_in_a_body() {
    for json in [r#""42""#, "42", "-7", "1.5", r#""0042""#, r#"["a",7]"#, r#"{"id":{"N":"7"}}"#] {
        let value = parse_json(json.as_bytes(), JsonLimits::default()).unwrap();
        let request = first(cursor("/next", "/after", None), &format!(r#"{{"next":{json}}}"#)).unwrap();
        assert_eq!(request, Some(PageRequest::With(PageParameter::Body("/after".into()), value)), "{json}");
    }
    for none in ["null", "false", r#""""#, "[]", "{}"] {
        assert_eq!(first(cursor("/next", "/after", None), &format!(r#"{{"next":{none}}}"#)), Ok(None), "{none}");
    }
    let detail = wrong(first(cursor("/next", "after", None), r#"{"next":["a",7]}"#));
    assert!(detail.contains("page.param must begin with /"), "{detail}");
    assert!(wrong(first(cursor("/next", "after", None), r#"{"next":true}"#)).contains("not a cursor"));
}

#[test]
fn an_offset_that_is_no_multiple_of_the_page_size_names_the_setting() {
    let offset =
        |overlap| HttpPages { paging: Paging::Offset { parameter: query("offset"), overlap }, ..HttpPages::default() };
    // The API rounds down: the page at 1 is the one at 0.
    let pages = offset(true);
    let mut pager = Pager::new(&pages, false);
    assert_eq!(next(&mut pager, "{}", 2, ("1", "2")), Ok(Some(PageRequest::With(query("offset"), 1.into()))));
    let Err(PageError::Repeated(detail)) = next(&mut pager, "{}", 2, ("1", "2")) else { panic!("not noticed") };
    assert!(detail.contains("page.overlap = false"), "{detail}");
    let pages = offset(false);
    let mut pager = Pager::new(&pages, false);
    assert!(pages.is_checked());
    assert_eq!(next(&mut pager, "{}", 2, ("1", "2")), Ok(Some(PageRequest::With(query("offset"), 2.into()))));
    assert_eq!(next(&mut pager, "{}", 2, ("3", "4")), Ok(Some(PageRequest::With(query("offset"), 4.into()))));
    assert_eq!(next(&mut pager, "{}", 0, ("", "")), Ok(None));
}

#[test]
fn a_parameter_that_the_api_ignores_is_noticed() {
    let numbered = |pages: Option<&str>, size| HttpPages {
        paging: Paging::PageNumber { parameter: query("pge"), first: 1, pages: pages.map(Into::into) },
        size: Some((query("size"), size)),
        ..HttpPages::default()
    };
    let again = |pages: &HttpPages, document: &str| {
        let mut pager = Pager::new(pages, false);
        assert!(next(&mut pager, document, 2, ("1", "2")).unwrap().is_some());
        next(&mut pager, document, 2, ("1", "2"))
    };
    for (pages, document) in [
        (numbered(Some("/pages"), 9), r#"{"pages":2}"#),
        (numbered(None, 2), "{}"),
        (numbered(None, 9), r#"{"total":5}"#),
        (numbered(None, 9), r#"{"has_more":true}"#),
    ] {
        let Err(PageError::Repeated(detail)) = again(&pages, document) else { panic!("{document}") };
        assert!(detail.contains("pge (page.page_number)"), "{detail}");
    }
    // One page that an API repeats for every number.
    assert_eq!(again(&numbered(None, 9), r#"{"total":2}"#), Ok(None));
}

#[test]
fn pages_whose_numbers_begin_with_zero_are_not_counted_from_one() {
    let numbered = |first| HttpPages {
        paging: Paging::PageNumber { parameter: query("page"), first, pages: Some("/totalPages".into()) },
        ..HttpPages::default()
    };
    let (zero, one) = (numbered(0), numbered(1));
    let mut pager = Pager::new(&one, false);
    assert!(next(&mut pager, r#"{"number":0,"totalPages":5}"#, 2, ("1", "2")).unwrap().is_some());
    let detail = wrong(next(&mut pager, r#"{"number":2,"totalPages":5}"#, 2, ("5", "6")));
    assert!(detail.contains("set page.first = 0"), "{detail}");
    let mut pager = Pager::new(&zero, false);
    assert!(next(&mut pager, r#"{"number":0,"totalPages":2}"#, 2, ("1", "2")).unwrap().is_some());
    assert_eq!(next(&mut pager, r#"{"number":1,"totalPages":2}"#, 2, ("3", "4")), Ok(None));
    // Spring can count its parameter from one and its pages from zero.
    let mut pager = Pager::new(&one, false);
    assert!(next(&mut pager, r#"{"number":0,"totalPages":3}"#, 2, ("1", "2")).unwrap().is_some());
    assert!(next(&mut pager, r#"{"number":1,"totalPages":3}"#, 2, ("3", "4")).unwrap().is_some());
}
