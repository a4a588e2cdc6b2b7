//! Operations that a source supports by itself.

/// Operations that a [`Vista`](crate::Vista) supports. An operation whose flag is `false` fails with `Unsupported`.
///
/// Every source can list all rows and read one row by id. By default it can do only that.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct Capabilities {
    /// Narrowing by `add_condition_eq`, `add_filter` and `with_id`.
    pub can_filter: bool,
    /// Sorting by `add_order`.
    pub can_order: bool,
    /// Searching by `add_search`.
    pub can_search: bool,
    /// Counting by `get_count`, without listing the rows.
    pub can_count: bool,
    /// Numbered pages by `fetch_page`.
    pub can_fetch_page: bool,
    /// Choice of the page size by `set_page_size`.
    pub can_set_page_size: bool,
    /// Continuing from a token by `fetch_next`.
    pub can_fetch_next: bool,
    /// Inserting by `insert`.
    pub can_insert: bool,
    /// Updating by `replace_value` and `patch_value`.
    pub can_update: bool,
    /// Deleting by `delete`.
    pub can_delete: bool,
    /// Deleting all rows in one operation by `delete_all`, without narrowing.
    pub can_delete_all: bool,
    /// Ids of new rows are the source's choice: [`TableShell::insert_return_id`](crate::TableShell::insert_return_id) returns them.
    pub chooses_ids: bool,
}

impl Capabilities {
    /// Every operation, as a database table supports.
    pub fn all() -> Capabilities {
        Capabilities { can_insert: true, can_update: true, can_delete: true, can_delete_all: true, ..Self::reads() }
    }

    /// Every read operation and no write.
    pub fn reads() -> Capabilities {
        Capabilities {
            can_filter: true,
            can_order: true,
            can_search: true,
            can_count: true,
            can_fetch_page: true,
            can_set_page_size: true,
            can_fetch_next: true,
            ..Capabilities::default()
        }
    }
}
