//! Access rules: which rows and columns a caller may see, and what it may do.
//!
//! `principal.rs` is the identity of a caller, which authentication (`auth/`) yields. `verb.rs` has the actions that a rule can permit, `rule.rs`
//! the rules, and `policy.rs` all of them, compiled. For a caller and a resource they make a `Grant` (`grant.rs`), whose `View`s (`view.rs`)
//! are the rows and columns that `rows/scoped_rows.rs` shows.

mod describe;
mod grant;
mod policy;
mod principal;
mod rule;
mod verb;
mod view;

pub use describe::Permission;
pub(crate) use grant::Grant;
pub use policy::Policy;
pub use principal::{ANONYMOUS, Identity, Principal};
pub(crate) use principal::{TOKEN, claim, member};
pub use rule::Allow;
pub use verb::{Verb, Verbs};
pub(crate) use view::{View, ViewId};
