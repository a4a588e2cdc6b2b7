//! The query string of a list: the PostgREST grammar, and what json-server's and simple-rest's clients send.
//!
//! Everything becomes one [`Query`](super::Query); nothing is ignored. A value is an operator only if it begins like one (`gte.5`,
//! `not.is.null`); any other is equality, and repeated it is `in`.

mod conditions;
mod dialects;
mod encoding;
mod error;
mod grammar;
mod paging;
mod parser;
mod reader;
#[cfg(test)]
mod tests;

pub use encoding::{percent_decoded, segment};
pub use error::{ParamCode, ParamError};
pub use parser::{ListQuery, ParamOptions, parse};
pub use reader::split_outside_quotes;
