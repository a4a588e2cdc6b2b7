//! Doubles of public HTTP APIs, written from their documentation.
//!
//! ```no_run
//! # async fn example() {
//! use std::time::Duration;
//! use diorama_servers::apis::{Fault, GitHub, Limit};
//!
//! let api = GitHub::start(GitHub::rows(10_000)).await;
//! let (_url, _headers) = (api.list_url(), api.headers()); // a client that sends these headers may read and write
//! api.set_limit(Limit::new(5, Duration::from_secs(1))); // refuses the sixth request of a second
//! api.fail_next(2, Fault::Status(502));
//! api.before(3, |rows| assert!(rows.delete("7"))); // after three more requests, that is between two pages
//! // ... the client under test reads ...
//! assert_eq!(api.refused(), 0);
//! assert!(api.most_within(Duration::from_secs(1)) <= 5);
//! # }
//! ```
//!
//! Each double is a server at 127.0.0.1 on a thread of its own, which ends with its [`Double`]. URLs in answers (`Link` headers, links in
//! bodies) name the host that the request named, so that a [`CutProxy`](crate::CutProxy) may stand in between.
//!
//! A request passes these steps: the scripted [`Fault`], the check of the credential, the rate limit, the API itself. Each is recorded as
//! [`Received`] with its time. Limits are off until [`Double::set_limit`]; [`Double::documented_limit`] is what the documentation states.
//!
//! The ids of rows are what the API's URL of one row takes: the number of an issue, the `documentId` of Strapi.
//!
//! | double | rows | pages | limit |
//! |---|---|---|---|
//! | [`GitHub`] | issues | `page`, `per_page`, `Link` | 403 with `x-ratelimit-reset`, or 429 with `Retry-After` |
//! | [`GitLab`] | issues | as GitHub with `X-Next-Page`, or keyset | 429 with `RateLimit-*` and `Retry-After`, plain text |
//! | [`Stripe`] | customers | `starting_after`, `has_more` | 429 without `Retry-After` |
//! | [`Shopify`] | products | `page_info` in `Link` | leaky bucket; 429 with `Retry-After: 2.0` |
//! | [`Airtable`] | records | `offset` | 429, and nothing for 30 seconds |
//! | [`Notion`] | pages | POST with `start_cursor` | 429 with `Retry-After` |
//! | [`HubSpot`] | contacts | `paging.next.after` | 429 without `Retry-After`, rolling window |
//! | [`JsonApi`] | articles | `links.next` | 429 with `Retry-After` |
//! | [`OData`] | products | `@odata.nextLink` | 429 with `Retry-After` |
//! | [`Strapi`] | articles | `pagination[page]`, `meta.pagination` | 429 |
//!
//! The documentation of each type names the pages it was written from, and lists what is not verified and what is missing.

mod airtable;
mod answer;
mod api;
mod double;
mod fault;
mod filter;
mod github;
mod gitlab;
mod hubspot;
mod json_api;
mod limit;
mod notion;
mod odata;
mod page;
mod params;
mod request;
mod rows;
mod sample;
mod server;
mod shopify;
mod store;
mod strapi;
mod stripe;

pub use airtable::Airtable;
pub use double::Double;
pub use fault::Fault;
pub use github::GitHub;
pub use gitlab::GitLab;
pub use hubspot::HubSpot;
pub use json_api::JsonApi;
pub use limit::Limit;
pub use notion::Notion;
pub use odata::OData;
pub use server::{Received, Rows};
pub use shopify::Shopify;
pub use strapi::Strapi;
pub use stripe::Stripe;
