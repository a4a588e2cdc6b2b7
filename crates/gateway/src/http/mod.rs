//! Steps and types that all requests share: origins, limits, content negotiation, refusals.

pub(crate) mod body;
pub(crate) mod bounds;
pub(crate) mod budget;
pub(crate) mod client_certificate;
pub(crate) mod coding;
pub(crate) mod extract;
pub(crate) mod failures;
pub(crate) mod limits;
pub(crate) mod negotiate;
pub(crate) mod origin;
pub(crate) mod prefer;
pub(crate) mod problem;
pub(crate) mod rates;
pub(crate) mod recent;
pub(crate) mod refusals;
pub(crate) mod request_id;
pub(crate) mod response;
pub(crate) mod route;
pub(crate) mod schemas;
pub(crate) mod spool;
