//! Rows in a redb file.
/// Rows in a redb file.
#[derive(Debug)]
pub struct RedbCache;
