//! Configuration `source = { postgres = "URL", table = "TABLE" }`, and `write` likewise.

use std::sync::Arc;

use async_trait::async_trait;

use super::address::{Address, PostgresTls};
use super::cache::PostgresCache;
use super::follow::PostgresFeed;
use super::options::PostgresOptions;
use super::shared::Shared;
use super::slot::name_of;
use super::source::Postgres;
use super::table::PostgresRelation;
use crate::connector::{
    CacheRequest, CacheStore, Connector, Feed, FollowMode, Key, Route, Settings, Source, SourceRequest,
};
use diorama_core::vista::{Result, Schema, Vista};

/// Connector for PostgreSQL databases.
#[derive(Clone, Copy, Debug)]
pub struct PostgresConnector;

const FORM: &str = r#"{ postgres = "postgres://USER@HOST/DATABASE", table = "TABLE" }"#;

impl Connector for PostgresConnector {
    fn name(&self) -> &'static str {
        "postgres"
    }

    fn keys(&self) -> &'static [Key] {
        KEYS
    }

    fn source_form(&self) -> Option<&'static str> {
        Some(FORM)
    }

    fn source(&self, settings: &dyn Settings) -> Option<Arc<dyn Source>> {
        let (table, query) = (settings.text("table"), settings.text("query"));
        let relation = match (table, query) {
            (Some(table), None) => Some(PostgresRelation::Table(table)),
            (None, Some(query)) => Some(PostgresRelation::Query(query)),
            (Some(_), Some(_)) => {
                settings.wrong("query", "a postgres source has either table or query".into());
                None
            }
            (None, None) => {
                settings.wrong("table", r#"a postgres source requires table = "TABLE" or query = "SELECT ...""#.into());
                None
            }
        };
        let slot = settings.text("slot");
        Some(Arc::new(PostgresSource { slot, ..PostgresSource::read(settings, relation)? }))
    }

    fn cache_schemes(&self) -> &'static [&'static str] {
        &["postgres", "postgresql"]
    }

    fn cache(&self, request: CacheRequest) -> std::result::Result<CacheStore, String> {
        let address = Address::parse(&request.url, None, request.ca)?;
        let name = address.to_string();
        Ok(CacheStore { name, backend: Arc::new(PostgresCache::new(address, &request.prefix)) })
    }

    fn route_form(&self) -> Option<&'static str> {
        Some(FORM)
    }

    fn route(&self, settings: &dyn Settings) -> Option<Arc<dyn Route>> {
        let table = settings.text("table");
        if table.is_none() {
            settings.wrong("table", r#"a postgres route requires table = "TABLE""#.into());
        }
        Some(Arc::new(PostgresSource::read(settings, table.map(PostgresRelation::Table))?))
    }
}

/// A table, view or query of a database.
#[derive(Clone, Debug)]
struct PostgresSource {
    shared: Arc<Shared>,
    /// Name of replication slot and publication.
    slot: Option<String>,
}

impl PostgresSource {
    fn read(settings: &dyn Settings, relation: Option<PostgresRelation>) -> Option<PostgresSource> {
        let url = settings.secret("postgres");
        let tls = settings.word("tls", &PostgresTls::WORDS).map(PostgresTls::of);
        let ca = settings.path("ca");
        let address = match Address::parse(&url?, tls, ca) {
            Ok(address) => Some(address),
            Err(problem) => {
                settings.wrong("postgres", problem);
                None
            }
        };
        Some(PostgresSource { shared: Shared::new(address?, relation?), slot: None })
    }

    async fn open_with(&self, name: &str, options: PostgresOptions) -> Result<Vista> {
        let shared = Arc::clone(&self.shared);
        Ok(Vista::new(name, Postgres::connect(shared, options).await?))
    }
}

#[async_trait]
impl Source for PostgresSource {
    fn describe(&self) -> String {
        format!("{} {}", self.shared.address, self.shared.relation)
    }

    async fn open(&self, request: SourceRequest) -> Result<Vista> {
        let SourceRequest { name, id, columns, .. } = request;
        self.open_with(&name, PostgresOptions { id, columns, ..PostgresOptions::default() }).await
    }

    fn has_fixed_columns(&self) -> bool {
        true
    }

    fn follow(&self, name: &str, mode: FollowMode) -> Option<Arc<dyn Feed>> {
        let slot = self.slot.clone().unwrap_or_else(|| name_of(name));
        Some(Arc::new(PostgresFeed { shared: Arc::clone(&self.shared), mode, slot }))
    }
}

#[async_trait]
impl Route for PostgresSource {
    async fn open(&self, name: &str, _: &Arc<Schema>) -> Result<Vista> {
        self.open_with(name, PostgresOptions::default()).await
    }
}

const KEYS: &[Key] = &[
    Key::new(
        "source.postgres",
        "",
        "URL of a PostgreSQL database: `postgres://USER:PASSWORD@HOST/DATABASE`, or `env:NAME`, or `file:PATH`.",
    ),
    Key::new("source.table", "", "`postgres`: the table or view, perhaps with its schema: `sales.orders`."),
    Key::new("source.query", "", "`postgres`: a SELECT in place of a table. Its rows cannot be written."),
    Key::new(
        "source.tls",
        "\"prefer\"",
        "`postgres`: `require` encrypts and checks the server's certificate, `prefer` encrypts if the server can, `off` does not.",
    ),
    Key::new("source.ca", "public authorities", "`postgres`: a PEM file with the authorities to trust."),
    Key::new(
        "source.slot",
        "`diorama_` and the resource's name",
        "`postgres`: the name of replication slot and publication, which no other program may use.",
    ),
    Key::new("write.postgres", "", "URL of a PostgreSQL database."),
    Key::new("write.tls", "\"prefer\"", "`postgres`: use of TLS, as for a source."),
    Key::new("write.ca", "public authorities", "`postgres`: a PEM file with the authorities to trust."),
];
