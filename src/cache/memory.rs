//! Rows in memory: for tests, and for Dios that are reseeded at every start.
/// Rows in memory.
#[derive(Debug, Default)]
pub struct MemoryCache;
