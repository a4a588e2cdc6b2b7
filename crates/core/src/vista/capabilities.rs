//! Operations that a source supports by itself.

/// Operations that a [`Vista`](crate::Vista) supports. An operation whose flag is `false` fails with `Unsupported`.
///
/// Every source can list all rows and read one row by id. The default is no more than that.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct Capabilities {
    /// `add_condition_eq` and `with_id` narrow.
    pub can_filter: bool,
    /// `add_order` sorts.
    pub can_order: bool,
    /// `add_search` searches.
    pub can_search: bool,
    /// `get_count` counts without listing.
    pub can_count: bool,
    /// `fetch_page` gives numbered pages.
    pub can_fetch_page: bool,
    /// `set_page_size` is honoured.
    pub can_set_page_size: bool,
    /// `fetch_next` continues from a token.
    pub can_fetch_next: bool,
    /// `insert` works.
    pub can_insert: bool,
    /// `replace_value` and `patch_value` work.
    pub can_update: bool,
    /// `delete` works.
    pub can_delete: bool,
    /// `delete_all` without narrowing is one operation.
    pub can_delete_all: bool,
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
