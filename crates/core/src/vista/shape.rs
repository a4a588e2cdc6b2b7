//! Schema and capabilities of a source, stored beside its cached rows so that they can be served while it is unreachable.

use serde::{Deserialize, Serialize};

use super::{Capabilities, Column, Schema, Vista};

/// Columns and capabilities of a source, as of the last time it was reachable.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceShape {
    id_column: String,
    columns: Vec<Column>,
    /// Operations that the source supports.
    pub capabilities: Capabilities,
    /// [`TableShell::reads_one`](super::TableShell::reads_one).
    pub reads_one: bool,
    /// [`TableShell::writes_once`](super::TableShell::writes_once).
    pub writes_once: bool,
}

impl SourceShape {
    /// The shape of `vista`'s source.
    pub fn of(vista: &Vista) -> SourceShape {
        let (schema, shell) = (vista.schema(), vista.shell());
        SourceShape {
            id_column: schema.id_column().into(),
            columns: schema.columns().to_vec(),
            capabilities: shell.capabilities(),
            reads_one: shell.reads_one(),
            writes_once: shell.writes_once(),
        }
    }

    /// Schema of the rows, without relations.
    pub fn schema(&self) -> Schema {
        Schema::new(&self.id_column, self.columns.clone())
    }
}
