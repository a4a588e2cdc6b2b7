//! Contract between a double and the API behind it.

use super::answer::Answer;
use super::limit::{Limit, Pace, Usage};
use super::request::Request;
use super::rows::Content;
use super::store::Store;

/// An API behind a double. Rows are stored in the form in which it answers them.
pub(super) trait Api: Send + Sync + 'static {
    /// Path of the list.
    fn list_path(&self) -> &'static str;

    /// Headers that a client must send.
    fn headers(&self) -> Vec<(&'static str, String)>;

    /// Documented rate limit.
    fn limit(&self) -> Limit;

    /// Way in which requests are counted.
    fn pace(&self) -> Pace;

    /// Rows.
    fn content(&self) -> Content;

    /// Refuses a request without a valid credential.
    fn authorize(&self, request: &Request) -> Result<(), Answer>;

    /// Answer to a request that is authorized and within the limit.
    fn answer(&self, request: &Request, store: &mut Store) -> Result<Answer, Answer>;

    /// Answer to a request beyond the limit.
    fn refuse(&self, usage: &Usage) -> Answer;

    /// Adds the headers that tell about the limit.
    fn label(&self, answer: Answer, _request: &Request, _usage: &Usage) -> Answer {
        answer
    }

    /// Error in the form of the API.
    fn error(&self, status: u16, message: &str) -> Answer;
}
