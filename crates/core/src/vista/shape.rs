//! What is known of a source without asking it: kept beside its rows, so that they can be served while it is away.

use serde::{Deserialize, Serialize};

use super::{Capabilities, Column, Schema, Vista};

/// The columns of a source and what it can do, as it said when it was last there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceShape {
    id_column: String,
    columns: Vec<Column>,
    /// What it can do.
    pub capabilities: Capabilities,
    /// [`TableShell::reads_one`](super::TableShell::reads_one).
    pub reads_one: bool,
    /// [`TableShell::writes_once`](super::TableShell::writes_once).
    pub writes_once: bool,
}

impl SourceShape {
    /// What `vista` says of itself.
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

    /// The shape of its rows, without relations.
    pub fn schema(&self) -> Schema {
        Schema::new(&self.id_column, self.columns.clone())
    }
}
