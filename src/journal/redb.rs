//! A journal in a redb file.
/// A journal in a redb file.
#[derive(Debug)]
pub struct RedbJournal;
