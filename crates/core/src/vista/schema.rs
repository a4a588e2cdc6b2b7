//! Schemas: columns, their types and their roles.

use std::sync::Arc;

use jiff::tz::TimeZone;

use crate::record::Layout;

/// Type of a column's cells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ColumnType {
    /// Text.
    String,
    /// 64-bit signed integers.
    Integer,
    /// Any number.
    Number,
    /// true and false.
    Boolean,
    /// Exact decimals, stored as text.
    Decimal,
    /// `YYYY-MM-DD`, stored as text.
    Date,
    /// RFC 3339, stored as text.
    Datetime,
    /// Bytes; base64url in JSON.
    Bytes,
    /// UUIDs, stored as text.
    Uuid,
    /// Any value, nested or not.
    Json,
}

/// Role of a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Flag {
    /// Identifies the row.
    Id,
    /// Names the row for people.
    Title,
    /// Searched; if no column is flagged, all are.
    Searchable,
    /// Can be sorted by.
    Orderable,
    /// Not shown by default.
    Hidden,
    /// Must not be null or missing.
    Mandatory,
}

/// A column of a schema.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Column {
    /// The column's name in rows.
    pub name: Arc<str>,
    /// Type of the cells.
    pub ty: ColumnType,
    /// The source's own name of the type.
    pub original_type: String,
    /// Roles of the column.
    pub flags: Vec<Flag>,
    /// IANA name of the time zone that applies to dates and times without an offset; `None` is UTC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timezone: Option<Arc<str>>,
}

impl Column {
    /// A column without flags.
    pub fn new(name: impl Into<Arc<str>>, ty: ColumnType) -> Column {
        Column { name: name.into(), ty, original_type: String::new(), flags: Vec::new(), timezone: None }
    }

    /// Adds `flag`.
    #[must_use]
    pub fn with(mut self, flag: Flag) -> Column {
        if !self.has(flag) {
            self.flags.push(flag);
        }
        self
    }

    /// Sets the source's own name of the type.
    #[must_use]
    pub fn original(mut self, name: impl Into<String>) -> Column {
        self.original_type = name.into();
        self
    }

    /// Sets the time zone of dates and times without an offset by its IANA name, such as `Europe/Berlin`.
    #[must_use]
    pub fn in_zone(mut self, name: impl Into<Arc<str>>) -> Column {
        self.timezone = Some(name.into());
        self
    }

    /// Time zone of dates and times without an offset: UTC if none is set or its name is not known.
    pub(crate) fn zone(&self) -> TimeZone {
        self.timezone.as_deref().and_then(|name| TimeZone::get(name).ok()).unwrap_or(TimeZone::UTC)
    }

    /// True if the column has `flag`.
    pub fn has(&self, flag: Flag) -> bool {
        self.flags.contains(&flag)
    }
}

/// A relation to another Vista: `column` here holds the other row's id (or, for `many`, `column` there holds this row's id).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reference {
    /// Name of the relation.
    pub relation: String,
    /// Name of the other Vista.
    pub target: String,
    /// The joining column.
    pub column: String,
    /// True if there can be many rows on the other side.
    pub many: bool,
}

/// The shape of a source's rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schema {
    columns: Vec<Column>,
    references: Vec<Reference>,
    layout: Arc<Layout>,
    /// True if ids are UUIDs.
    uuid_ids: bool,
}

impl Schema {
    /// Creates a schema whose rows are identified by `id_column`, which is added in front if `columns` lacks it.
    pub fn new(id_column: &str, mut columns: Vec<Column>) -> Schema {
        match columns.iter_mut().find(|column| &*column.name == id_column) {
            Some(column) if !column.has(Flag::Id) => column.flags.push(Flag::Id),
            Some(_) => {}
            None => columns.insert(0, Column::new(id_column, ColumnType::String).with(Flag::Id)),
        }
        let integer_id = columns.iter().any(|column| &*column.name == id_column && column.ty == ColumnType::Integer);
        let layout = Arc::new(Layout::new(id_column, integer_id, columns.iter().map(|column| &*column.name)));
        let uuid_ids = columns.iter().any(|column| &*column.name == id_column && column.ty == ColumnType::Uuid);
        Schema { columns, references: Vec::new(), layout, uuid_ids }
    }

    /// Sets the relations.
    #[must_use]
    pub fn with_references(mut self, references: Vec<Reference>) -> Schema {
        self.references = references;
        self
    }

    /// Adds `flag` to every column, for example the flags that a cache of the whole table can offer.
    #[must_use]
    pub fn with_flag_on_all(mut self, flag: Flag) -> Schema {
        for column in &mut self.columns {
            if !column.has(flag) {
                column.flags.push(flag);
            }
        }
        self
    }

    /// The schema of rows of which only some columns are shown: the id and the columns for which `shows` is true.
    #[must_use]
    pub fn restricted(&self, shows: impl Fn(&str) -> bool) -> Schema {
        let shown = |column: &str| column == self.id_column() || shows(column);
        let columns = self.columns.iter().filter(|column| shown(&column.name)).cloned().collect();
        let references = self.references.iter().filter(|reference| reference.many || shown(&reference.column));
        Schema::new(self.id_column(), columns).with_references(references.cloned().collect())
    }

    /// The same schema, of which only `columns` are searched.
    #[must_use]
    pub fn searching(&self, columns: &[Arc<str>]) -> Schema {
        let mut schema = self.clone();
        for column in &mut schema.columns {
            column.flags.retain(|flag| *flag != Flag::Searchable);
            if columns.contains(&column.name) {
                column.flags.push(Flag::Searchable);
            }
        }
        schema
    }

    /// The columns in order.
    pub fn columns(&self) -> &[Column] {
        &self.columns
    }

    /// A column by name.
    pub fn column(&self, name: &str) -> Option<&Column> {
        self.columns.iter().find(|column| &*column.name == name)
    }

    /// Name of the column that holds the id.
    pub fn id_column(&self) -> &str {
        self.layout.id_column()
    }

    /// True if `a` and `b` are the same id. Ids in a UUID column are the same if they spell the same UUID.
    pub fn is_same_id(&self, a: &str, b: &str) -> bool {
        let uuid = |id: &str| self.uuid_of(id);
        a == b || uuid(a).is_some_and(|a| uuid(b) == Some(a))
    }

    /// The UUID that `id` spells, if ids are UUIDs.
    pub(crate) fn uuid_of(&self, id: &str) -> Option<uuid::Uuid> {
        if self.uuid_ids { uuid::Uuid::try_parse(id).ok() } else { None }
    }

    /// Relations to other Vistas.
    pub fn references(&self) -> &[Reference] {
        &self.references
    }

    /// Encoding parameters of rows with this schema.
    pub fn layout(&self) -> &Arc<Layout> {
        &self.layout
    }

    /// Names of the columns that a search covers: those flagged searchable, or all if none is.
    pub fn searchable(&self) -> Vec<Arc<str>> {
        let flagged: Vec<_> =
            self.columns.iter().filter(|c| c.has(Flag::Searchable)).map(|c| Arc::clone(&c.name)).collect();
        if flagged.is_empty() { self.columns.iter().map(|c| Arc::clone(&c.name)).collect() } else { flagged }
    }
}
