//! Cache of parsed query strings: clients repeat the same query, often for other pages.
//!
//! An entry is the query string without `limit` and `offset`, parsed and checked against the schema, with the plan of its last
//! execution. The number of entries is bounded; entries that were not used recently are evicted.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::RwLock;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::access::ViewId;
use crate::rows::scoped_rows::ScopedRows;
use diorama_core::plan::{Page, PreparedQuery};
use diorama_core::vista::query::url::{self, ListQuery, ParamError, ParamOptions};

/// Maximum number of entries in a generation. An entry takes about 10 KiB at most: compiled patterns are not cached.
const MOST_TEXTS: usize = 1_024;
/// Maximum length of a cached query string; longer ones are parsed each time.
const LONGEST: usize = 1_024;

/// Parsed query string, without its page.
#[derive(Debug)]
pub(crate) struct ParsedQuery {
    text: Box<str>,
    scope: ViewId,
    /// Query, narrowed to the scope.
    pub(crate) query: Arc<PreparedQuery>,
    /// Parameters that the route handles itself.
    pub(crate) extra: Vec<(String, String)>,
    /// Query string without paging, for links to other pages.
    pub(crate) without_paging: String,
}

impl ParsedQuery {
    fn read(rows: &ScopedRows, text: &str, options: &ParamOptions<'_>) -> Result<Arc<ParsedQuery>, ParamError> {
        let ListQuery { query, extra, without_paging } = url::parse(text, rows.schema(), options)?;
        let query = rows.prepare(query);
        Ok(Arc::new(ParsedQuery { text: text.into(), scope: rows.id(), query, extra, without_paging }))
    }
}

/// Parsed query strings of one resource, by hash, in two generations. When the young generation is full, it replaces the old one.
#[derive(Debug, Default)]
pub(crate) struct QueryCache(RwLock<Generations>);

/// Entries since the last change of generations, and those before it.
#[derive(Debug, Default)]
struct Generations {
    young: HashMap<u64, Arc<ParsedQuery>>,
    old: HashMap<u64, Arc<ParsedQuery>>,
}

impl QueryCache {
    /// Parses a query string, or returns it from the cache.
    ///
    /// # Errors
    /// As [`url::parse`].
    pub(crate) fn read(
        &self,
        rows: &ScopedRows,
        raw: &str,
        options: &ParamOptions<'_>,
    ) -> Result<(Arc<ParsedQuery>, Page), ParamError> {
        let fits = |page: &Option<Page>| page.and_then(|page| page.limit).is_none_or(|most| most <= options.max_limit);
        // On an error, the whole query string is parsed again, so that the error is about all of it.
        if let Some((text, page)) = split(raw).filter(|(text, page)| text.len() <= LONGEST && fits(page))
            && let Ok(parsed) = self.find(rows, &text, options)
        {
            match page {
                None => {
                    let page = Page::of(parsed.query.query());
                    return Ok((parsed, page));
                }
                Some(page) if parsed.without_paging == *text => return Ok((parsed, page)),
                // The query string has paging parameters of another dialect as well.
                Some(_) => {}
            }
        }
        let parsed = ParsedQuery::read(rows, raw, options)?;
        let page = Page::of(parsed.query.query());
        Ok((parsed, page))
    }

    fn find(&self, rows: &ScopedRows, text: &str, options: &ParamOptions<'_>) -> Result<Arc<ParsedQuery>, ParamError> {
        let hash = xxh3_64_with_seed(text.as_bytes(), rows.id().halves().1);
        let (known, is_young) = {
            let texts = self.0.read();
            let lookup = |texts: &HashMap<u64, Arc<ParsedQuery>>| {
                texts.get(&hash).filter(|parsed| *parsed.text == *text && parsed.scope == rows.id()).cloned()
            };
            match lookup(&texts.young) {
                Some(parsed) => (Some(parsed), true),
                None => (lookup(&texts.old), false),
            }
        };
        let parsed = match known {
            Some(parsed) if is_young => return Ok(parsed),
            Some(parsed) => parsed,
            None => ParsedQuery::read(rows, text, options)?,
        };
        let mut texts = self.0.write();
        if texts.young.len() >= MOST_TEXTS {
            texts.old = std::mem::take(&mut texts.young);
        }
        texts.young.insert(hash, Arc::clone(&parsed));
        Ok(parsed)
    }
}

/// Splits a query string into the part without `limit` and `offset`, and the page, if one of them is given.
///
/// Returns `None` if one of them is repeated or not a plain number, or if there is a cursor. The whole has to be parsed then.
fn split(raw: &str) -> Option<(Cow<'_, str>, Option<Page>)> {
    let (mut limit, mut offset, mut kept) = (None, None, Cow::Borrowed(""));
    let mut next = 0;
    for piece in raw.split('&') {
        let start = next;
        next += piece.len() + 1;
        let (number, digits) = match (piece.strip_prefix("limit="), piece.strip_prefix("offset=")) {
            (Some(digits), _) => (&mut limit, digits),
            (None, Some(digits)) => (&mut offset, digits),
            (None, None) if piece.starts_with("after=") => return None,
            (None, None) => {
                match &mut kept {
                    // Nothing was left out so far.
                    Cow::Borrowed(text) if start == 0 || start == text.len() + 1 => *text = &raw[..start + piece.len()],
                    kept => {
                        let kept = kept.to_mut();
                        kept.push_str(if kept.is_empty() { "" } else { "&" });
                        kept.push_str(piece);
                    }
                }
                continue;
            }
        };
        let plain = (1..=18).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_digit());
        if !plain || number.replace(digits.parse::<u64>().ok()?).is_some() {
            return None;
        }
    }
    let page = (limit.is_some() || offset.is_some()).then(|| Page { limit, offset: offset.unwrap_or(0) });
    Some((kept, page))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use diorama_connect::MemoryTable;
    use diorama_core::Lens;
    use diorama_core::cache::MemoryCache;
    use diorama_core::vista::{Column, ColumnType, Query, Schema};
    use tokio::runtime::Runtime;

    fn schema() -> Schema {
        Schema::new("id", vec![Column::new("id", ColumnType::Integer), Column::new("a", ColumnType::Json)])
    }

    /// All rows of an empty Dio.
    fn rows() -> (Runtime, ScopedRows) {
        let runtime = Runtime::new().unwrap();
        let dio = runtime.block_on(async {
            let lens = Lens::new().cache_source(MemoryCache::default()).build().unwrap();
            lens.make_dio(MemoryTable::vista("a", schema(), [])).await.unwrap()
        });
        let rows = crate::events::testing::scope_of(dio).rows;
        (runtime, rows)
    }

    const OPTIONS: ParamOptions<'_> = ParamOptions { max_limit: 100, extra: &["explain"], holes: false };

    fn piece() -> impl Strategy<Value = &'static str> {
        prop::sample::select(vec![
            "limit=5",
            "limit=0",
            "limit=101",
            "limit=x",
            "limit=",
            "limit=%35",
            "lim%69t=5",
            "offset=7",
            "offset=7",
            "offset=-1",
            "offset=99999999999999999999",
            "after=",
            "_page=2",
            "_limit=5",
            "_start=0",
            "_end=4",
            "a=1",
            "a=1",
            "a=gte.2",
            "order=a",
            "order=a.desc",
            "q=x+y",
            "",
            "b=1",
            "range=[0,4]",
            "explain=true",
            "select=id",
        ])
    }

    proptest! {
        /// Earlier queries do not change the result of parsing a text.
        #[test]
        fn a_cached_text_parses_like_a_new_one(
            asked in proptest::collection::vec(proptest::collection::vec(piece(), 0..5), 1..12),
        ) {
            let ((_runtime, rows), texts) = (rows(), QueryCache::default());
            for pieces in asked {
                let raw = pieces.join("&");
                let read = texts.read(&rows, &raw, &OPTIONS).map(|(asked, page)| {
                    let query = Query { limit: page.limit, offset: page.offset, ..asked.query.query().clone() };
                    ListQuery { query, extra: asked.extra.clone(), without_paging: asked.without_paging.clone() }
                });
                prop_assert_eq!(read, url::parse(&raw, rows.schema(), &OPTIONS), "{}", raw);
            }
        }
    }

    #[test]
    fn entries_are_bounded_and_entries_in_use_stay() {
        let ((_runtime, rows), texts) = (rows(), QueryCache::default());
        let ask = |raw: &str| texts.read(&rows, raw, &OPTIONS).unwrap().0;
        let first = ask("a=0&limit=5");
        for number in 1..5 * MOST_TEXTS {
            ask(&format!("a={number}"));
            assert!(Arc::ptr_eq(&first, &ask(&format!("a=0&offset={number}"))), "{number}");
        }
        let kept = texts.0.read();
        assert!(kept.young.len() <= MOST_TEXTS && kept.old.len() <= MOST_TEXTS);
    }
}
