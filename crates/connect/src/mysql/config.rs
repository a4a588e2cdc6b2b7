//! Configuration `source = { mysql = "URL", table = "TABLE" }`, and `write` likewise.

use std::sync::Arc;

use async_trait::async_trait;

use super::address::{Address, MySqlTls};
use super::follow::MySqlFeed;
use super::options::MySqlOptions;
use super::shared::Shared;
use super::source::MySql;
use super::table::MySqlRelation;
use crate::connector::{Connector, Feed, FollowMode, Key, Route, Settings, Source, SourceRequest};
use diorama_core::vista::{Result, Schema, Vista};

/// Connector for MariaDB and MySQL databases.
#[derive(Clone, Copy, Debug)]
pub struct MySqlConnector;

const FORM: &str = r#"{ mysql = "URL", table = "TABLE" }"#;

impl Connector for MySqlConnector {
    fn name(&self) -> &'static str {
        "mysql"
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
            (Some(table), None) => Some(MySqlRelation::Table(table)),
            (None, Some(query)) => Some(MySqlRelation::Query(query)),
            (Some(_), Some(_)) => {
                settings.wrong("query", "a mysql source has either table or query".into());
                None
            }
            (None, None) => {
                settings.wrong("table", r#"a mysql source requires table = "TABLE" or query = "SELECT ...""#.into());
                None
            }
        };
        Some(Arc::new(MySqlSource::read(settings, relation)?))
    }

    fn route_form(&self) -> Option<&'static str> {
        Some(FORM)
    }

    fn route(&self, settings: &dyn Settings) -> Option<Arc<dyn Route>> {
        let table = settings.text("table");
        if table.is_none() {
            settings.wrong("table", r#"a mysql route requires table = "TABLE""#.into());
        }
        Some(Arc::new(MySqlSource::read(settings, table.map(MySqlRelation::Table))?))
    }
}

/// A table, view or query of a database.
#[derive(Clone, Debug)]
struct MySqlSource {
    shared: Arc<Shared>,
}

impl MySqlSource {
    fn read(settings: &dyn Settings, relation: Option<MySqlRelation>) -> Option<MySqlSource> {
        let url = settings.secret("mysql");
        let tls = settings.word("tls", &MySqlTls::WORDS).map(MySqlTls::of);
        let ca = settings.path("ca");
        let address = match Address::parse(&url?, tls, ca) {
            Ok(address) => Some(address),
            Err(problem) => {
                settings.wrong("mysql", problem);
                None
            }
        };
        Some(MySqlSource { shared: Shared::new(address?, relation?) })
    }

    async fn open_with(&self, name: &str, options: MySqlOptions) -> Result<Vista> {
        Ok(Vista::new(name, MySql::connect(Arc::clone(&self.shared), options).await?))
    }
}

#[async_trait]
impl Source for MySqlSource {
    fn describe(&self) -> String {
        format!("{} {}", self.shared.address, self.shared.relation)
    }

    async fn open(&self, request: SourceRequest) -> Result<Vista> {
        let SourceRequest { name, id, columns, .. } = request;
        self.open_with(&name, MySqlOptions { id, columns, ..MySqlOptions::default() }).await
    }

    fn has_fixed_columns(&self) -> bool {
        true
    }

    fn follow(&self, _: &str, mode: FollowMode) -> Option<Arc<dyn Feed>> {
        Some(Arc::new(MySqlFeed { shared: Arc::clone(&self.shared), mode }))
    }
}

#[async_trait]
impl Route for MySqlSource {
    async fn open(&self, name: &str, _: &Arc<Schema>) -> Result<Vista> {
        self.open_with(name, MySqlOptions::default()).await
    }
}

const KEYS: &[Key] = &[
    Key::new(
        "source.mysql",
        "",
        "URL of a MariaDB or MySQL database: `mysql://USER:PASSWORD@HOST/DATABASE`, or `env:NAME`, or `file:PATH`.",
    ),
    Key::new("source.table", "", "`mysql`: the table or view, perhaps with its database: `sales.orders`."),
    Key::new("source.query", "", "`mysql`: the same."),
    Key::new("source.tls", "\"prefer\"", "`mysql`: the same."),
    Key::new("source.ca", "public authorities", "`mysql`: the same."),
    Key::new("write.mysql", "", "URL of a MariaDB or MySQL database."),
    Key::new("write.table", "required by databases", "The table."),
    Key::new("write.tls", "\"prefer\"", "`mysql`: the same."),
    Key::new("write.ca", "public authorities", "`mysql`: the same."),
];
