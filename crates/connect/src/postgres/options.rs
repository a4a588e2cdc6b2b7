//! Options of a PostgreSQL source.

use std::path::PathBuf;

use super::address::PostgresTls;
use diorama_core::vista::Column;

/// Options for opening a table, view or query. By default everything is taken from its declaration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PostgresOptions {
    /// The id column, or several with commas between them; by default the primary key. A view or query requires one, or a
    /// column `id`.
    pub id: Option<String>,
    /// Columns with declared types and flags, which replace those of the database.
    pub columns: Vec<Column>,
    /// True to refuse writes and advertise none.
    pub read_only: bool,
    /// Use of TLS; `None` leaves it to `sslmode` in the URL.
    pub tls: Option<PostgresTls>,
    /// File with the certificates, as PEM, of the authorities to trust instead of the public ones.
    pub ca: Option<PathBuf>,
}
