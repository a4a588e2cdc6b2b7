//! Configuration `source = { surrealdb = "URL", namespace = "NAME", database = "NAME", table = "TABLE" }`, and `write` likewise.

use std::sync::Arc;

use async_trait::async_trait;

use super::address::Address;
use super::feed::SurrealFeed;
use super::shared::Shared;
use super::source::Surreal;
use super::table::Options;
use crate::connector::{Connector, Feed, FollowMode, Key, Route, Settings, Source, SourceRequest};
use diorama_core::vista::{Column, Error, Result, Schema, Vista};

/// Connector for SurrealDB databases.
#[derive(Clone, Copy, Debug)]
pub struct SurrealConnector;

const FORM: &str = r#"{ surrealdb = "ws://HOST:PORT", namespace = "NAME", database = "NAME", table = "TABLE" }"#;

impl Connector for SurrealConnector {
    fn name(&self) -> &'static str {
        "surrealdb"
    }

    fn keys(&self) -> &'static [Key] {
        KEYS
    }

    fn source_form(&self) -> Option<&'static str> {
        Some(FORM)
    }

    fn source(&self, settings: &dyn Settings) -> Option<Arc<dyn Source>> {
        Some(Arc::new(SurrealSource::read(settings)?))
    }

    fn route_form(&self) -> Option<&'static str> {
        Some(FORM)
    }

    fn route(&self, settings: &dyn Settings) -> Option<Arc<dyn Route>> {
        Some(Arc::new(SurrealSource::read(settings)?))
    }
}

/// A table of a database.
#[derive(Clone, Debug)]
struct SurrealSource {
    shared: Arc<Shared>,
}

impl SurrealSource {
    fn read(settings: &dyn Settings) -> Option<SurrealSource> {
        let table = settings.text("table").filter(|table| !table.is_empty());
        if table.is_none() {
            settings.wrong("table", r#"a surrealdb source or route requires table = "TABLE""#.into());
        }
        let address = Address::read(settings);
        Some(SurrealSource { shared: Shared::new(address?, table?) })
    }
}

#[async_trait]
impl Source for SurrealSource {
    fn describe(&self) -> String {
        format!("{}/{}", self.shared.address, self.shared.name)
    }

    async fn open(&self, request: SourceRequest) -> Result<Vista> {
        let SourceRequest { name, id, columns, .. } = request;
        let options = Options { id, columns, ..Options::default() };
        Ok(Vista::new(name, Surreal::connect(Arc::clone(&self.shared), &options).await?))
    }

    fn follow(&self, _: &str, mode: FollowMode) -> Option<Arc<dyn Feed>> {
        Some(Arc::new(SurrealFeed { shared: Arc::clone(&self.shared), mode }))
    }
}

#[async_trait]
impl Route for SurrealSource {
    async fn open(&self, name: &str, schema: &Arc<Schema>) -> Result<Vista> {
        // A table without rows does not show the types of its columns.
        let column = |column: &Column| match &*column.name == schema.id_column() {
            true => Column { name: super::table::ID.into(), ..column.clone() },
            false => column.clone(),
        };
        let options = Options { columns: schema.columns().iter().map(column).collect(), ..Options::default() };
        let surreal = Surreal::connect(Arc::clone(&self.shared), &options).await?;
        if !surreal.is_writable() {
            let problem = "the user may not write: give it the role EDITOR; a view cannot be written at all";
            return Err(Error::Config(format!("{}/{}: {problem}", self.shared.address, self.shared.name)));
        }
        Ok(Vista::new(name, surreal))
    }
}

const KEYS: &[Key] = &[
    Key::new("source.surrealdb", "", "Server of SurrealDB: `ws://HOST:PORT` or `wss://HOST:PORT`."),
    Key::new("source.namespace", "required by `surrealdb`", "The namespace."),
    Key::new("source.database", "required by `surrealdb`", "The database."),
    Key::new("source.table", "", "`surrealdb`: the table."),
    Key::new("source.user", "", "`surrealdb`: the user to log in as."),
    Key::new("source.password", "", "`surrealdb`: its password, or `env:NAME`, or `file:PATH`."),
    Key::new(
        "source.level",
        "all, one after the other",
        "`surrealdb`: where the user is defined: `\"database\"`, `\"namespace\"` or `\"root\"`.",
    ),
    Key::new("source.token", "", "`surrealdb`: a token to log in with, in place of a user."),
    Key::new("source.ca", "public authorities", "`surrealdb`: the same."),
    Key::new("write.surrealdb", "", "Server of SurrealDB: `ws://HOST:PORT` or `wss://HOST:PORT`."),
    Key::new("write.namespace", "required by `surrealdb`", "The namespace."),
    Key::new("write.database", "required by `surrealdb`", "The database."),
    Key::new("write.table", "required by databases", "`surrealdb`: the table."),
    Key::new("write.user", "", "`surrealdb`: the user to log in as."),
    Key::new("write.password", "", "`surrealdb`: its password, or `env:NAME`, or `file:PATH`."),
    Key::new(
        "write.level",
        "all, one after the other",
        "`surrealdb`: where the user is defined: `\"database\"`, `\"namespace\"` or `\"root\"`.",
    ),
    Key::new("write.token", "", "`surrealdb`: a token to log in with, in place of a user."),
    Key::new("write.ca", "public authorities", "`surrealdb`: the same."),
];
