//! Paging parameters of all dialects: limit, offset and cursor.

use super::dialects::json;
use super::error::{ParamError, Parsed};
use super::parser::{Paging, Parser, once};
use crate::record::CborValue;
use crate::vista::query::Cursor;

impl Parser<'_> {
    /// Reads one parameter if it is about paging. Returns true if it is.
    pub(super) fn page_parameter(&mut self, key: &str, value: &str) -> Parsed<bool> {
        match key {
            "limit" => once(key, &mut self.paging.limit, number(key, value)?)?,
            "offset" => once(key, &mut self.paging.offset, number(key, value)?)?,
            "_page" => once(key, &mut self.paging.page, number(key, value)?)?,
            "_limit" | "_per_page" => once(key, &mut self.paging.page_size, number(key, value)?)?,
            "_start" => once(key, &mut self.paging.start, number(key, value)?)?,
            "_end" => once(key, &mut self.paging.end, number(key, value)?)?,
            "after" => once(key, &mut self.out.query.after, cursor(value)?)?,
            "range" if value.starts_with('[') => self.range(value)?,
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// Computes limit and offset from the parameters of any dialect.
    pub(super) fn slice(&mut self) -> Parsed<()> {
        let Paging { limit, offset, page, page_size, start, end, .. } = self.paging;
        let foreign = page.or(page_size).or(start).or(end).is_some();
        if foreign && limit.or(offset).is_some() {
            return Err(ParamError::invalid(
                "limit",
                "limit and offset cannot be combined with _page, _limit, _per_page, _start or _end",
            ));
        }
        if self.out.query.after.is_some() && offset.or(page).or(start).or(end).is_some() {
            let detail = "it cannot be combined with an offset or a page: a cursor already determines the position";
            return Err(ParamError::invalid("after", detail));
        }
        let (limit, offset) = match (page, start.unwrap_or(0), end) {
            (Some(0), ..) => return Err(ParamError::invalid("_page", "pages are numbered from 1")),
            (Some(page), ..) => {
                let size = page_size.unwrap_or(10);
                (Some(size), (page - 1).saturating_mul(size))
            }
            (None, start, Some(end)) => (Some(end.saturating_sub(start)), start),
            (None, start, None) if foreign => (page_size, start),
            (None, ..) => (limit, offset.unwrap_or(0)),
        };
        if limit.is_some_and(|limit| limit > self.options.max_limit) {
            let detail = format!("at most {} rows can be requested at once", self.options.max_limit);
            return Err(
                ParamError::too_many("limit", detail).hint("page with offset, or request NDJSON, which has no limit")
            );
        }
        self.out.query.limit = limit;
        self.out.query.offset = offset;
        Ok(())
    }

    /// Reads `range=[0,24]`, both ends included.
    pub(super) fn range(&mut self, value: &str) -> Parsed<()> {
        let wrong = || ParamError::invalid("range", "range must be [first,last], counted from 0, both included");
        let CborValue::Array(ends) = json("range", value)? else { return Err(wrong()) };
        let ends: Option<Vec<u64>> =
            ends.iter().map(|end| end.as_integer().and_then(|end| u64::try_from(end).ok())).collect();
        match ends.as_deref() {
            Some([first, last]) if last.saturating_add(1) >= *first => {
                once("range", &mut self.paging.offset, *first)?;
                once("range", &mut self.paging.limit, last.saturating_add(1) - first)
            }
            _ => Err(wrong()),
        }
    }
}

fn number(parameter: &str, value: &str) -> Parsed<u64> {
    if value.is_empty() || !value.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(ParamError::invalid(parameter, format!("{value:?} is not a whole number, 0 or more")));
    }
    value.parse().map_err(|_| ParamError::too_many(parameter, format!("{value} is too large")))
}

fn cursor(value: &str) -> Parsed<Cursor> {
    Cursor::parse(value).map_err(|error| ParamError::invalid("after", error.to_string()))
}
