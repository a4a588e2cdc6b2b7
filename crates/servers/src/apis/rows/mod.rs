//! The content of the rows, in the form in which each API answers them.

use jiff::Timestamp;
use serde_json::Value;

pub(crate) mod airtable;
pub(crate) mod github;
pub(crate) mod gitlab;
pub(crate) mod hubspot;
pub(crate) mod json_api;
pub(crate) mod notion;
pub(crate) mod odata;
pub(crate) mod shopify;
pub(crate) mod strapi;
pub(crate) mod stripe;

/// Content of the rows of one API.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Content {
    /// Id of a row, as the URL of one row has it.
    pub(crate) id: fn(&Value) -> String,
    /// Complete row from a unique number, the content of a create request, and the time.
    pub(crate) create: fn(u64, &Value, Timestamp) -> Value,
    /// Changes a row as an update request with this content does.
    pub(crate) update: fn(&mut Value, &Value, Timestamp),
}
