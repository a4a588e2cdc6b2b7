//! An HTTP API as a source.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use http::Method;
use indexmap::IndexMap;
use parking_lot::Mutex;
use url::Url;

use super::auth::HttpAuth;
use super::budget::Budget;
use super::client::{Call, Client, Reply, shown};
use super::errors::Failure;
use super::list::{LastList, PageStart};
use super::options::HttpOptions;
use super::pager::PageRequest;
use super::row::{RowShape, document, find_rows, id_of, rows_at};
use super::write::HttpWrites;
use super::{pointer, template};
use crate::file::infer::{IdChoice, Kinds, Uniqueness, choose_id};
use crate::rows::{apply, declare};
use diorama_core::record::{CborValue, Record, Rows, id_from_value};
use diorama_core::vista::{
    Capabilities, Column, ColumnType, Error, Inferred, Query, Result, Schema, TableShell, Vista, WriteOp, Written,
};

/// Time for which a request about one row waits for the rate limit. Less than a delivery may take.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);

/// An HTTP API that lists rows as JSON.
#[derive(Clone, Debug)]
pub struct Http(Arc<Inner>);

/// State that the clones of an [`Http`] share.
#[derive(Debug)]
pub(super) struct Inner {
    pub(super) client: Client,
    pub(super) url: Url,
    pub(super) options: HttpOptions,
    pub(super) schema: Arc<Schema>,
    /// JSON Pointer to the rows of a page.
    pub(super) rows_at: String,
    pub(super) row_shape: RowShape,
    pub(super) last: Mutex<LastList>,
    pub(super) inferred: Vec<Inferred>,
}

impl Http {
    /// Reads the first page at `url` to infer columns, their types and the id.
    ///
    /// # Errors
    /// [`Error::Config`] if the URL or an option is not valid; [`Error::Source`] if the API refuses the request, cannot be reached, or
    /// answers without rows that the options describe.
    pub async fn open(name: &str, url: &str, options: HttpOptions) -> Result<Vista> {
        let (url, options) = parse_url(url, options).map_err(Error::Config)?;
        let budget = Arc::new(Budget::new(&options.rate));
        Ok(Vista::new(name, Http::connect(name, url, options, budget).await?))
    }

    /// Reads the first page at `url`, within the rate limit `budget`.
    pub(super) async fn connect(name: &str, url: Url, options: HttpOptions, budget: Arc<Budget>) -> Result<Http> {
        let mut inner = Inner::new(url, options, budget)?;
        let (_, document) = inner.first_page().await?;
        inner.describe(name, &document)?;
        crate::file::log_inferred(name, std::path::Path::new(&shown(&inner.url)), &inner.inferred);
        Ok(Http(Arc::new(inner)))
    }
}

/// Parses the URL of a list. User and password in it are credentials.
pub(crate) fn parse_url(text: &str, mut options: HttpOptions) -> Result<(Url, HttpOptions), String> {
    let mut url: Url = text.parse().map_err(|error| format!("the URL is not valid: {error}"))?;
    if !matches!(url.scheme(), "http" | "https") || url.host().is_none() {
        return Err("the URL must begin with http:// or https://".into());
    }
    if !url.username().is_empty() {
        let part = |text: &str| percent_encoding::percent_decode_str(text).decode_utf8_lossy().into_owned();
        let credentials = HttpAuth::Basic(part(url.username()), part(url.password().unwrap_or_default()));
        if options.auth != HttpAuth::None {
            return Err("the URL has a user, so that auth cannot be set as well".into());
        }
        options.auth = credentials;
        // Both succeed for a URL with a host.
        let _ = (url.set_username(""), url.set_password(None));
    }
    url.set_fragment(None);
    Ok((url, options))
}

#[async_trait]
impl TableShell for Http {
    fn schema(&self) -> Arc<Schema> {
        Arc::clone(&self.0.schema)
    }

    fn capabilities(&self) -> Capabilities {
        let mut can = Capabilities::default();
        can.can_filter = true;
        if let Some(writes) = &self.0.options.writes {
            (can.can_insert, can.can_update, can.can_delete) = writes.capabilities();
            can.chooses_ids = writes.choose_ids();
        }
        can
    }

    async fn list(&self, query: &Query) -> Result<Rows> {
        let rows = match *query == Query::default() {
            true => self.0.read_copy(None).await?.unwrap_or_default(),
            false => self.0.read_list().await?,
        };
        Ok(apply(query, &self.0.schema, rows))
    }

    async fn list_changed(&self, fingerprint: &str) -> Result<Option<Rows>> {
        self.0.read_copy(Some(fingerprint)).await
    }

    async fn list_since(&self, since: &str) -> Result<Option<Rows>> {
        self.0.read_list_since(since).await
    }

    async fn get(&self, id: &str) -> Result<Option<Record>> {
        match &self.0.options.one {
            Some(path) => self.0.read_one(path, id).await,
            None => Ok(self.0.read_list().await?.get(id)),
        }
    }

    fn reads_one(&self) -> bool {
        self.0.options.one.is_some()
    }

    fn inferred(&self) -> Vec<Inferred> {
        self.0.inferred.clone()
    }

    async fn write(&self, op: &WriteOp) -> Result<Written> {
        self.0.write(None, op).await
    }

    async fn write_once(&self, operation: &str, op: &WriteOp) -> Result<Written> {
        self.0.write(Some(operation), op).await
    }

    fn writes_once(&self) -> bool {
        self.0.options.writes.as_ref().is_some_and(HttpWrites::are_idempotent)
    }

    async fn insert_return_id(&self, record: &Record) -> Result<Written> {
        self.0.insert_return_id(record).await
    }
}

impl Inner {
    /// Without columns, until a page is described.
    pub(super) fn new(url: Url, options: HttpOptions, budget: Arc<Budget>) -> Result<Inner> {
        options.check_pointers().map_err(Error::Config)?;
        let client = Client::new(url.clone(), &options, budget)?;
        let row_shape = RowShape { cells: options.cells.clone() };
        let schema = Arc::new(Schema::new(options.id.as_deref().unwrap_or("id"), Vec::new()));
        let (rows_at, last) = (options.rows.clone().unwrap_or_default(), Mutex::default());
        Ok(Inner { client, url, options, schema, rows_at, row_shape, last, inferred: Vec::new() })
    }

    /// Reads the first page.
    pub(super) async fn first_page(&self) -> Result<(Reply, CborValue)> {
        let call = self.page_call(&PageRequest::First, &PageStart::default())?;
        let reply = self.client.send(&call).await.map_err(Failure::of_read)?;
        let document = match reply.is_nothing {
            true => CborValue::Array(Vec::new()),
            false => document(&reply.body, &shown(&self.url))?,
        };
        Ok((reply, document))
    }

    /// Infers what is not declared from the first page.
    pub(super) fn describe(&mut self, name: &str, document: &CborValue) -> Result<()> {
        let place = shown(&self.url);
        if self.options.rows.is_none() {
            let (at, guess) = find_rows(document, &place)?;
            self.rows_at = at;
            self.inferred.extend(guess);
        }
        let items = rows_at(document, &self.rows_at, &place)?;
        let columns = FoundColumns::of(items, &self.row_shape, &place)?;
        let (schema, guess) = columns.schema(name, self.options.id.as_deref(), &self.options.columns)?;
        self.inferred.extend(guess);
        self.schema = Arc::new(schema);
        Ok(())
    }

    /// Returns the URL of a path: below the list's, or of the same origin if it begins with `//`.
    pub(super) fn below(&self, path: &str) -> Url {
        let (path, query) = path.split_once('?').map_or((path, None), |(path, query)| (path, Some(query)));
        let mut url = self.url.clone();
        let joined = match path.strip_prefix('/') {
            Some(rest) if rest.starts_with('/') => rest.to_string(),
            _ => format!("{}{path}", self.url.path().trim_end_matches('/')),
        };
        let is_list = joined.trim_end_matches('/') == self.url.path().trim_end_matches('/');
        url.set_path(if is_list { self.url.path() } else { &joined });
        url.set_query(query);
        url
    }

    async fn read_one(&self, path: &str, id: &str) -> Result<Option<Record>> {
        match self.get_one(path, id).await? {
            Some(reply) => self.row_of(&reply, id),
            None => Ok(None),
        }
    }

    /// Returns the row `id` in an answer about it; `None` if the answer is about a row of another id that equals it as a number.
    pub(super) fn row_of(&self, reply: &Reply, id: &str) -> Result<Option<Record>> {
        let record = self.record_of(reply)?;
        let found = id_of(&record, self.schema.id_column());
        match found {
            Ok(found) if self.schema.is_same_id(&found, id) => Ok(Some(record)),
            // The API takes another spelling of the number for the same id.
            Ok(found) if found.parse::<i64>().is_ok_and(|found| id.parse() == Ok(found)) => Ok(None),
            Ok(found) => Err(Error::permanent(format!("the API answers row {found:?} for {id:?} (one in source)"))),
            Err(problem) => Err(Error::permanent(format!("the answer about row {id:?} {problem}"))),
        }
    }

    /// Requests one row; `None` if it does not exist.
    pub(super) async fn get_one(&self, path: &str, id: &str) -> Result<Option<Reply>> {
        let mut url = self.below(&template::path(path, id).map_err(Error::permanent)?);
        if url.query().is_none() {
            let own = self.options.query.iter().filter(|(name, _)| self.is_for_one(name));
            let pairs: Vec<&(String, String)> = own.collect();
            if !pairs.is_empty() {
                url.query_pairs_mut().extend_pairs(pairs.iter().map(|(name, value)| (name, value)));
            }
        }
        let call = Call::new(Method::GET, url, PATIENCE);
        match self.client.send(&call).await {
            Ok(reply) if reply.is_nothing => Ok(None),
            Ok(reply) => Ok(Some(reply)),
            Err(Failure::Refused { status, .. }) if matches!(status.as_u16(), 404 | 410) => Ok(None),
            Err(failure) => Err(failure.of_read()),
        }
    }

    /// Parameters of the list that select columns apply to one row as well.
    fn is_for_one(&self, name: &str) -> bool {
        matches!(name, "fields" | "select" | "$select" | "expand" | "$expand" | "include" | "populate" | "properties")
    }

    /// Returns the row in an answer about one row.
    pub(super) fn record_of(&self, reply: &Reply) -> Result<Record> {
        let document = document(&reply.body, &shown(&self.url))?;
        let at = &self.options.row;
        let item = pointer::take(document, at)
            .ok_or_else(|| Error::permanent(format!("the answer about a row has nothing at {at:?} (row in source)")))?;
        self.row_shape.record(item).map_err(|problem| Error::permanent(format!("the answer about a row {problem}")))
    }
}

/// Columns of the rows of a page.
#[derive(Default)]
struct FoundColumns {
    columns: IndexMap<String, FoundColumn>,
    rows: usize,
}

#[derive(Default)]
struct FoundColumn {
    kinds: Kinds,
    unique: Uniqueness,
    rows: usize,
}

impl FoundColumns {
    fn of(items: &[CborValue], shape: &RowShape, place: &str) -> Result<FoundColumns> {
        let mut found = FoundColumns::default();
        for (at, item) in items.iter().enumerate() {
            let record = shape
                .record(item.clone())
                .map_err(|problem| Error::permanent(format!("row {at} of the first page of {place} {problem}")))?;
            found.rows += 1;
            for (name, value) in record {
                let column = found.columns.entry(name).or_default();
                column.rows += 1;
                column.kinds.see_value(&value);
                let id = id_from_value(&value).filter(|id| !id.is_empty());
                column.unique.see(id.as_deref(), || format!("row {at}"));
            }
        }
        Ok(found)
    }

    fn schema(&self, name: &str, id: Option<&str>, declared: &[Column]) -> Result<(Schema, Option<Inferred>)> {
        let kinds = self.columns.iter();
        let columns =
            kinds.map(|(name, column)| Column::new(name.as_str(), column.kinds.column_type(ColumnType::Json)));
        let mut columns: Vec<Column> = columns.collect();
        if self.rows == 0 {
            // An empty list says nothing about its columns.
            return Ok((Schema::new(id.unwrap_or("id"), declared.to_vec()), None));
        }
        // A column that no row of the first page has is still one.
        columns.extend(declared.iter().filter(|own| !self.columns.contains_key(&*own.name)).cloned());
        let columns = declare(name, columns, declared)?;
        let unique = |name: &str| self.columns.get(name).is_some_and(|own| own.rows == self.rows && own.unique.holds());
        let unfit = |name: &str| self.columns.get(name).and_then(|own| own.unique.unfit((self.rows - own.rows) as u64));
        let (id, guess) = choose_id(name, id, &columns, unique, unfit)?;
        match id {
            IdChoice::Column(id) => Ok((Schema::new(&id, columns), guess)),
            IdChoice::RowNumber(_) => {
                let names = columns.iter().map(|column| &*column.name).collect::<Vec<_>>().join(", ");
                let usual = unfit("id").map(|problem| format!(" (column \"id\" {problem})")).unwrap_or_default();
                Err(Error::permanent(format!(
                    "no column of {name} identifies its rows{usual}: set id to one of {names}"
                )))
            }
        }
    }
}
