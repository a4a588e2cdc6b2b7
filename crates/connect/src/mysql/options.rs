//! Options of a MariaDB or MySQL source.

use std::path::PathBuf;

use super::address::MySqlTls;
use diorama_core::vista::Column;

/// Options for opening a table, view or query. By default everything is taken from its declaration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MySqlOptions {
    /// The id column, or several with commas between them; by default the primary key. A view or query requires one, or a
    /// column `id`.
    pub id: Option<String>,
    /// Columns with declared types and flags, which replace those of the database. A declared type also says how values are
    /// read: `TINYINT(1)` as integer, text as JSON, `BIGINT UNSIGNED` as decimal.
    pub columns: Vec<Column>,
    /// True to refuse writes and advertise none.
    pub read_only: bool,
    /// Use of TLS; `None` leaves it to `require_ssl` in the URL.
    pub tls: Option<MySqlTls>,
    /// File with the certificates, as PEM, of the authorities to trust instead of the public ones.
    pub ca: Option<PathBuf>,
}
