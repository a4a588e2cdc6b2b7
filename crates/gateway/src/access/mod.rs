//! Access rules: which rows and columns a caller may see, and what it may do.
//!
//! `principal.rs` is the identity of a caller, which authentication (`auth/`) yields. `verb.rs` has the actions that a rule
//! can permit.

mod principal;
mod verb;

pub use principal::{ANONYMOUS, Identity, Principal};
pub use verb::{Verb, Verbs};
