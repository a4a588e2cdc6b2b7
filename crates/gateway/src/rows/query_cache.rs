//! Query strings as they were read, kept for the next time: clients ask for the same over and over, if for other pages.
//!
//! What is kept is the text without `limit` and `offset`, read and checked against the schema, with the plan of its last
//! answer. How many texts there are is bounded; those that were not asked for in a while go.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::RwLock;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::rows::scoped_rows::{ScopeId, ScopedRows};
use diorama_core::plan::{Page, PreparedQuery};
use diorama_core::vista::query::url::{self, ListQuery, ParamError, ParamOptions};

/// Texts of a generation. With its plan, a text takes some 10 KiB at most: patterns are compiled when a query runs, and not kept.
const MOST_TEXTS: usize = 1_024;
/// Longer ones are read each time.
const LONGEST: usize = 1_024;

/// A query string but for the page that it asks for.
#[derive(Debug)]
pub(crate) struct ParsedQuery {
    text: Box<str>,
    scope: ScopeId,
    /// As it is asked in the scope.
    pub(crate) query: Arc<PreparedQuery>,
    /// Parameters that the route reads itself.
    pub(crate) extra: Vec<(String, String)>,
    /// What links to other pages begin with.
    pub(crate) without_paging: String,
}

impl ParsedQuery {
    fn read(rows: &ScopedRows, text: &str, options: &ParamOptions<'_>) -> Result<Arc<ParsedQuery>, ParamError> {
        let ListQuery { query, extra, without_paging } = url::parse(text, rows.schema(), options)?;
        let query = rows.prepare(query);
        Ok(Arc::new(ParsedQuery { text: text.into(), scope: rows.id(), query, extra, without_paging }))
    }
}

/// The texts that one resource was asked for, by hash. When the young are too many they become the old, and the old go.
#[derive(Debug, Default)]
pub(crate) struct QueryCache(RwLock<Generations>);

#[derive(Debug, Default)]
struct Generations {
    young: HashMap<u64, Arc<ParsedQuery>>,
    old: HashMap<u64, Arc<ParsedQuery>>,
}

impl QueryCache {
    /// Reads a query string, or finds it read.
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
        // What is wrong is said of the whole.
        if let Some((text, page)) = split(raw).filter(|(text, page)| text.len() <= LONGEST && fits(page))
            && let Ok(asked) = self.find(rows, &text, options)
        {
            match page {
                None => {
                    let page = Page::of(asked.query.query());
                    return Ok((asked, page));
                }
                Some(page) if asked.without_paging == *text => return Ok((asked, page)),
                // There is a page in other words as well.
                Some(_) => {}
            }
        }
        let asked = ParsedQuery::read(rows, raw, options)?;
        let page = Page::of(asked.query.query());
        Ok((asked, page))
    }

    fn find(&self, rows: &ScopedRows, text: &str, options: &ParamOptions<'_>) -> Result<Arc<ParsedQuery>, ParamError> {
        let hash = xxh3_64_with_seed(text.as_bytes(), rows.id().halves().1);
        let (known, is_young) = {
            let texts = self.0.read();
            let found = |texts: &HashMap<u64, Arc<ParsedQuery>>| {
                texts.get(&hash).filter(|asked| *asked.text == *text && asked.scope == rows.id()).cloned()
            };
            match found(&texts.young) {
                Some(asked) => (Some(asked), true),
                None => (found(&texts.old), false),
            }
        };
        let asked = match known {
            Some(asked) if is_young => return Ok(asked),
            Some(asked) => asked,
            None => ParsedQuery::read(rows, text, options)?,
        };
        let mut texts = self.0.write();
        if texts.young.len() >= MOST_TEXTS {
            texts.old = std::mem::take(&mut texts.young);
        }
        texts.young.insert(hash, Arc::clone(&asked));
        Ok(asked)
    }
}

/// A query string without its `limit` and `offset`, and the page that these make if one of them is there. `None` if one is not
/// plain or stands twice, or if there is a cursor: then all has to be read together.
fn split(raw: &str) -> Option<(Cow<'_, str>, Option<Page>)> {
    let (mut limit, mut offset, mut kept) = (None, None, Cow::Borrowed(""));
    let mut next = 0;
    for piece in raw.split('&') {
        let start = next;
        next += piece.len() + 1;
        let (place, digits) = match (piece.strip_prefix("limit="), piece.strip_prefix("offset=")) {
            (Some(digits), _) => (&mut limit, digits),
            (None, Some(digits)) => (&mut offset, digits),
            (None, None) if piece.starts_with("after=") => return None,
            (None, None) => {
                match &mut kept {
                    // So far nothing was left out.
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
        if !plain || place.replace(digits.parse::<u64>().ok()?).is_some() {
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
    use crate::http::auth::Principal;
    use diorama_connect::MemoryTable;
    use diorama_core::Lens;
    use diorama_core::cache::MemoryCache;
    use diorama_core::vista::{Column, ColumnType, Filter, Query, Schema};
    use tokio::runtime::Runtime;

    fn schema() -> Schema {
        Schema::new("id", vec![Column::new("id", ColumnType::Integer), Column::new("a", ColumnType::Json)])
    }

    /// All rows of a Dio that has none.
    fn rows() -> (Runtime, ScopedRows) {
        let runtime = Runtime::new().unwrap();
        let dio = runtime.block_on(async {
            let lens = Lens::new().cache_source(MemoryCache::default()).build().unwrap();
            lens.make_dio(MemoryTable::vista("a", schema(), [])).await.unwrap()
        });
        let rows = ScopedRows::new(&dio, &dio.schema(), Principal::Anybody, Filter::default());
        (runtime, rows)
    }

    const OPTIONS: ParamOptions<'_> = ParamOptions { max_limit: 100, extra: &["explain"] };

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
        /// Whatever was asked before, a text is read as if it were the first.
        #[test]
        fn a_text_that_is_known_means_what_it_says(
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
    fn texts_are_bounded_and_those_in_use_stay() {
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
