//! Sources: one file (or folder) per driver, each a [`TableShell`](crate::TableShell).
