//! Query strings of lists: PostgREST's grammar, and the dialects of json-server's and simple-rest's clients.
//!
//! All of them become one [`Query`](super::Query); unknown parameters are errors. A value is an operator only if it begins like
//! one (`gte.5`, `not.is.null`). Any other value is an equality, and a repeated one is `in`.

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
pub use parser::{ListQuery, ParamOptions, parse, parse_parameters};
pub use reader::split_outside_quotes;
