//! A journal in memory.
/// A journal in memory.
#[derive(Debug, Default)]
pub struct MemoryJournal;
