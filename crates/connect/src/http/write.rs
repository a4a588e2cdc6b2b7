//! Writes as requests to the API.

use bytes::Bytes;
use http::header::{HeaderName, HeaderValue, IF_MATCH, IF_NONE_MATCH, LOCATION};
use http::{HeaderMap, Method, StatusCode};
use uuid::Uuid;

use super::client::{Call, Reply};
use super::errors::Failure;
use super::list::{ATTEMPTS, BACKOFF};
use super::row::id_of;
use super::source::{Inner, PATIENCE};
use super::template::{self, BodyTemplate};
use diorama_core::dio::Backoff;
use diorama_core::record::{CborValue, Record, id_to_value, merge_patch};
use diorama_core::vista::{Error, ErrorKind, Result, WriteOp, Written};

/// Attempts of a write that requires the row's newest version.
const VERSIONS: usize = 3;

/// A method and a path with `{id}`.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Request {
    pub(super) method: Method,
    pub(super) path: String,
}

impl Request {
    /// Parses `PATCH /{id}`.
    pub(super) fn parse(text: &str) -> Result<Request, String> {
        let wrong = || format!("{text:?} must be a method and a path, like \"PATCH /{{id}}\"");
        let (method, path) = text.trim().split_once(' ').ok_or_else(wrong)?;
        let (method, path) = (method.to_ascii_uppercase(), path.trim());
        if !matches!(method.as_str(), "POST" | "PUT" | "PATCH" | "DELETE")
            || !(path.starts_with('/') || path.starts_with('('))
        {
            return Err(wrong());
        }
        Ok(Request { method: method.parse().map_err(|_| wrong())?, path: path.to_string() })
    }
}

/// `If-Match` header of changes and deletes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HttpIfMatch {
    /// The row's entity tag, which is read before the write.
    Read,
    /// `*`: the row must exist.
    Any,
}

/// How writes are requested. A kind of write without a request is derived from another one if possible, or not supported.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HttpWrites {
    pub(super) create: Option<Request>,
    pub(super) replace: Option<Request>,
    pub(super) patch: Option<Request>,
    pub(super) delete: Option<Request>,
    pub(super) body: Option<BodyTemplate>,
    /// Body of a new row; as `body` without.
    pub(super) create_body: Option<BodyTemplate>,
    pub(super) idempotency: Option<HeaderName>,
    pub(super) if_match: Option<HttpIfMatch>,
    pub(super) content_type: Option<HeaderValue>,
    /// Columns that the API sets by itself.
    pub(super) omit: Vec<String>,
    /// True to send the id column of a new row.
    pub(super) sends_id: bool,
    /// Body of deletes.
    pub(super) delete_body: Option<CborValue>,
}

impl HttpWrites {
    /// Returns the requests `METHOD PATH` for new rows, whole rows, changed columns and deletes.
    ///
    /// # Errors
    /// The text that is not a request.
    pub fn new(
        create: Option<&str>,
        replace: Option<&str>,
        patch: Option<&str>,
        delete: Option<&str>,
    ) -> Result<HttpWrites, String> {
        let parse = |text: Option<&str>| text.map(Request::parse).transpose();
        Ok(HttpWrites {
            create: parse(create)?,
            replace: parse(replace)?,
            patch: parse(patch)?,
            delete: parse(delete)?,
            ..HttpWrites::default()
        })
    }

    /// Sets the header that carries the operation's id. The API must answer a repeated id without acting again.
    #[must_use]
    pub fn with_idempotency(mut self, header: HeaderName) -> HttpWrites {
        self.idempotency = Some(header);
        self
    }

    /// Sets the place of the columns in a body: a JSON Pointer, or a document in which `"{row}"` stands for the columns and `"{id}"`
    /// for the id.
    #[must_use]
    pub fn with_body(mut self, body: CborValue) -> HttpWrites {
        self.body = Some(BodyTemplate::of(body));
        self
    }

    /// Sets the `If-Match` header of changes and deletes.
    #[must_use]
    pub fn with_if_match(mut self, if_match: HttpIfMatch) -> HttpWrites {
        self.if_match = Some(if_match);
        self
    }

    /// JSON Pointers into bodies.
    pub(super) fn pointers(&self) -> impl Iterator<Item = &String> {
        [&self.body, &self.create_body].into_iter().flatten().filter_map(|body| match body {
            BodyTemplate::At(at) => Some(at),
            BodyTemplate::Json(_) => None,
        })
    }

    /// Returns whether rows can be inserted, updated and deleted.
    pub(super) fn capabilities(&self) -> (bool, bool, bool) {
        let can_update = self.replace.is_some() || self.patch.is_some();
        (self.create.is_some() || self.replace.is_some(), can_update, self.delete.is_some())
    }

    /// Returns true if the API chooses the ids of new rows.
    pub(super) fn choose_ids(&self) -> bool {
        self.create.as_ref().is_some_and(|create| !create.path.contains("{id}")) && !self.sends_id
    }

    /// Returns true if the API recognizes a repeated write.
    pub(super) fn are_idempotent(&self) -> bool {
        self.idempotency.is_some()
    }
}

impl Inner {
    pub(super) async fn write(&self, operation: Option<&str>, op: &WriteOp) -> Result<Written> {
        let writes = self.options.writes.as_ref().ok_or_else(|| self.unsupported("write"))?;
        match op {
            WriteOp::Insert { id, record } => match &writes.create {
                Some(create) => self.create(writes, create, operation, Some(id), record).await,
                None => {
                    let replace = writes.replace.as_ref().ok_or_else(|| self.unsupported("insert"))?;
                    let absent = (IF_NONE_MATCH, HeaderValue::from_static("*"));
                    self.check_absent(id).await?;
                    self.change(writes, replace, operation, id, record, vec![absent]).await
                }
            },
            WriteOp::Replace { id, record } => match (&writes.replace, &writes.patch) {
                (Some(replace), _) => self.change(writes, replace, operation, id, record, Vec::new()).await,
                (None, Some(patch)) => {
                    self.change(writes, patch, operation, id, &self.with_nulls(record), Vec::new()).await
                }
                (None, None) => Err(self.unsupported("update")),
            },
            WriteOp::Patch { id, record } => match (&writes.patch, &writes.replace) {
                (Some(patch), _) => self.change(writes, patch, operation, id, record, Vec::new()).await,
                (None, Some(replace)) => {
                    let whole = self.patched(id, record).await?;
                    self.change(writes, replace, operation, id, &whole, Vec::new()).await
                }
                (None, None) => Err(self.unsupported("update")),
            },
            WriteOp::Delete { id } => {
                let delete = writes.delete.as_ref().ok_or_else(|| self.unsupported("delete"))?;
                self.send_version(writes, delete, operation, id, None, Vec::new()).await.map(drop)?;
                Ok(Written::default())
            }
            WriteOp::DeleteAll => Err(self.unsupported("delete all rows at once")),
        }
    }

    pub(super) async fn insert_return_id(&self, record: &Record) -> Result<Written> {
        let writes = self.options.writes.as_ref();
        let create = writes.and_then(|writes| writes.create.as_ref());
        match (writes, create) {
            (Some(writes), Some(create)) => self.create_once(writes, create, record).await,
            _ => Err(self.unsupported("choose an id")),
        }
    }

    /// Creates a row whose id the API chooses. If the API recognizes repeated writes, one whose answer was lost is repeated under the
    /// same key.
    async fn create_once(&self, writes: &HttpWrites, create: &Request, record: &Record) -> Result<Written> {
        let key = writes.are_idempotent().then(|| Uuid::now_v7().to_string());
        let mut backoff = Backoff::new(BACKOFF.0, BACKOFF.1);
        let mut attempt = 0;
        loop {
            attempt += 1;
            match self.create(writes, create, key.as_deref(), None, record).await {
                Err(error) if error.kind() == ErrorKind::Unknown && key.is_some() && attempt < ATTEMPTS => {
                    tokio::time::sleep(backoff.rest_jittered()).await;
                }
                created => return created,
            }
        }
    }

    fn unsupported(&self, what: &'static str) -> Error {
        Error::Unsupported { vista: super::client::shown(&self.url).as_str().into(), what }
    }

    /// Creates a row. The API may choose another id.
    async fn create(
        &self,
        writes: &HttpWrites,
        create: &Request,
        operation: Option<&str>,
        id: Option<&str>,
        record: &Record,
    ) -> Result<Written> {
        let mut cells = record.clone();
        if let Some(id) = id.filter(|_| writes.sends_id) {
            cells.insert(self.schema.id_column(), id_to_value(id, self.schema.layout()));
        }
        let path = template::path(&create.path, id.unwrap_or_default()).map_err(Error::invalid)?;
        let call = self.call(writes, create, &path, operation, id, Some(&cells), Vec::new())?;
        let failed = |failure| match failure {
            // There is no row yet: the path of new rows does not exist.
            Failure::Refused { status, message } if matches!(status.as_u16(), 404 | 410) => Error::permanent(message),
            failure => failure.of_write(id.unwrap_or("new")),
        };
        let reply = self.client.send(&call).await.map_err(failed)?;
        self.written(id, &reply)
    }

    async fn change(
        &self,
        writes: &HttpWrites,
        request: &Request,
        operation: Option<&str>,
        id: &str,
        record: &Record,
        headers: Vec<(HeaderName, HeaderValue)>,
    ) -> Result<Written> {
        let reply = self.send_version(writes, request, operation, id, Some(record), headers).await?;
        self.written(Some(id), &reply)
    }

    /// Sends a change or a delete. If it requires the row's version, it is read before, and again if it has changed meanwhile.
    async fn send_version(
        &self,
        writes: &HttpWrites,
        request: &Request,
        operation: Option<&str>,
        id: &str,
        record: Option<&Record>,
        headers: Vec<(HeaderName, HeaderValue)>,
    ) -> Result<Reply> {
        let is_conditional = headers.iter().any(|(name, _)| *name == IF_NONE_MATCH);
        let mut attempt = 0;
        loop {
            attempt += 1;
            let mut headers = headers.clone();
            let versioned = match writes.if_match.filter(|_| !is_conditional) {
                None => false,
                Some(HttpIfMatch::Any) => {
                    headers.push((IF_MATCH, HeaderValue::from_static("*")));
                    false
                }
                Some(HttpIfMatch::Read) => {
                    headers.push((IF_MATCH, self.version(id).await?));
                    true
                }
            };
            let path = template::path(&request.path, id).map_err(Error::invalid)?;
            let call = self.call(writes, request, &path, operation, Some(id), record, headers)?;
            match self.client.send(&call).await {
                Err(Failure::Refused { status: StatusCode::PRECONDITION_FAILED, .. })
                    if versioned && attempt < VERSIONS => {}
                Err(Failure::Refused { status: StatusCode::PRECONDITION_FAILED, message }) if is_conditional => {
                    return Err(Error::Conflict { id: id.to_string(), detail: format!("exists already: {message}") });
                }
                Err(failure) => return Err(failure.of_write(id)),
                Ok(reply) => return Ok(reply),
            }
        }
    }

    /// Reads the entity tag of a row: from the header, or from OData's member.
    async fn version(&self, id: &str) -> Result<HeaderValue> {
        let path = self.options.one.as_deref().unwrap_or("/{id}");
        let reply = self.get_one(path, id).await?.ok_or_else(|| Error::NotFound { id: id.to_string() })?;
        let tag = etag(&reply.headers).or_else(|| {
            let record = self.record_of(&reply).ok()?;
            HeaderValue::from_str(record.get("@odata.etag")?.as_text()?).ok()
        });
        tag.ok_or_else(|| {
            Error::permanent("the API has sent no ETag for the row, which if_match = \"read\" requires".to_string())
        })
    }

    #[allow(clippy::too_many_arguments, reason = "the parts of one request")]
    pub(super) fn call(
        &self,
        writes: &HttpWrites,
        request: &Request,
        path: &str,
        operation: Option<&str>,
        id: Option<&str>,
        record: Option<&Record>,
        headers: Vec<(HeaderName, HeaderValue)>,
    ) -> Result<Call> {
        let mut call = Call::new(request.method.clone(), self.below(path), PATIENCE);
        call.headers = headers;
        if let (Some(header), Some(operation)) = (&writes.idempotency, operation)
            && let Ok(value) = HeaderValue::from_str(operation)
        {
            call.headers.push((header.clone(), value));
        }
        if let Some(content_type) = &writes.content_type {
            call.content_type = content_type.clone();
        }
        if let Some(body) = writes.delete_body.as_ref().filter(|_| record.is_none()) {
            call.body = Some(Bytes::from(template::encode(body, &call.content_type).map_err(Error::invalid)?));
        }
        if let Some(record) = record {
            // The id of a new row is the API's choice, unless it is sent on purpose.
            let is_new = writes.create.as_ref() == Some(request);
            let id = id.filter(|_| !is_new || writes.sends_id).map(|id| id_to_value(id, self.schema.layout()));
            let cells = self.cells(writes, record);
            let template = writes.create_body.as_ref().filter(|_| is_new).or(writes.body.as_ref());
            let body = match template {
                Some(template) => template.fill(id.as_ref(), cells),
                None => cells,
            };
            call.body = Some(Bytes::from(template::encode(&body, &call.content_type).map_err(Error::invalid)?));
        }
        Ok(call)
    }

    /// Returns the columns of a record that are sent.
    fn cells(&self, writes: &HttpWrites, record: &Record) -> CborValue {
        let has_id = writes.sends_id;
        let is_sent =
            |name: &str| !writes.omit.iter().any(|own| own == name) && (has_id || name != self.schema.id_column());
        let cells = record.iter().filter(|(name, _)| is_sent(name));
        CborValue::Map(cells.map(|(name, value)| (name.as_str().into(), value.clone())).collect())
    }

    /// Returns `record` with null for the columns that it lacks, so that a change of some columns replaces the row.
    fn with_nulls(&self, record: &Record) -> Record {
        let mut whole = record.clone();
        for column in self.schema.columns() {
            if !whole.contains(&column.name) && *column.name != *self.schema.id_column() {
                whole.insert(&*column.name, CborValue::Null);
            }
        }
        whole
    }

    /// Returns the row of the API with the changed columns.
    async fn patched(&self, id: &str, patch: &Record) -> Result<Record> {
        let path = self.options.one.as_deref().unwrap_or("/{id}");
        let reply = self.get_one(path, id).await?.ok_or_else(|| Error::NotFound { id: id.to_string() })?;
        Ok(merge_patch(self.record_of(&reply)?, patch, self.schema.layout()))
    }

    async fn check_absent(&self, id: &str) -> Result<()> {
        let path = self.options.one.as_deref().unwrap_or("/{id}");
        match self.get_one(path, id).await? {
            Some(_) => Err(Error::Conflict { id: id.to_string(), detail: "exists already".into() }),
            None => Ok(()),
        }
    }

    /// Returns what an answer to a write says about the row: its new state, if the body has it, and the id that the API chose.
    pub(super) fn written(&self, requested: Option<&str>, reply: &Reply) -> Result<Written> {
        let record = if reply.body.is_empty() { None } else { self.record_of(reply).ok() };
        let record = record.and_then(|record| id_of(&record, self.schema.id_column()).ok().map(|id| (id, record)));
        let (id, record) = match record {
            Some((id, record)) => (Some(id), Some(record)),
            None => (id_in_location(&reply.headers), None),
        };
        let other = id.filter(|id| requested.is_none_or(|requested| !self.schema.is_same_id(id, requested)));
        match (&other, requested, &record) {
            // A row without a body is found under the id of its URL, which may have another form.
            (Some(_), Some(_), None) => Ok(Written::default()),
            _ => Ok(Written { id: other, record, ..Written::default() }),
        }
    }
}

fn etag(headers: &HeaderMap) -> Option<HeaderValue> {
    headers.get(http::header::ETAG).cloned()
}

/// Returns the last segment of the URL of a new row.
fn id_in_location(headers: &HeaderMap) -> Option<String> {
    let location = headers.get(LOCATION)?.to_str().ok()?;
    let path = location.split(['?', '#']).next()?.trim_end_matches('/');
    let segment = path.rsplit('/').next().filter(|segment| !segment.is_empty())?;
    Some(percent_encoding::percent_decode_str(segment).decode_utf8().ok()?.into_owned())
}
