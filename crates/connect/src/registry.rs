//! List of all connectors.

use std::path::Path;
use std::sync::Arc;

use crate::connector::{CacheRequest, CacheStore, Connector, Source};

/// Connectors available to a configuration.
#[derive(Clone, Default)]
pub struct Registry {
    connectors: Vec<Arc<dyn Connector>>,
    /// Connectors that this program was built without. Each is behind the feature of its name.
    left_out: Vec<&'static str>,
}

impl std::fmt::Debug for Registry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.connectors().map(Connector::name)).finish()
    }
}

/// Fills a registry with each connector whose feature is enabled.
macro_rules! fill {
    ($registry:ident, $($feature:literal => $connector:expr),+ $(,)?) => {
        $(
            #[cfg(feature = $feature)]
            $registry.connectors.push(Arc::new($connector));
            #[cfg(not(feature = $feature))]
            if !$registry.left_out.contains(&$feature) {
                $registry.left_out.push($feature);
            }
        )+
    };
}

impl Registry {
    /// Returns the connectors of this crate.
    pub fn builtin() -> Registry {
        let mut registry = Registry::default();
        fill!(registry,
            "csv" => crate::csv::CsvConnector,
            "json" => crate::json::JsonConnector,
            "parquet" => crate::parquet::ParquetConnector,
            "spreadsheet" => crate::spreadsheet::SpreadsheetConnector,
            "sqlite" => crate::sqlite::SqliteConnector,
            "http" => crate::http::HttpConnector::default(),
            "http" => crate::http::DioramaConnector,
            "postgres" => crate::postgres::PostgresConnector,
            "mysql" => crate::mysql::MySqlConnector,
            "surrealdb" => crate::surrealdb::SurrealConnector,
            "amqp" => crate::amqp::AmqpConnector,
            "mqtt" => crate::mqtt::MqttConnector,
            "kafka" => crate::kafka::KafkaConnector,
            "nats" => crate::nats::NatsConnector,
            "redis" => crate::redis::RedisConnector,
            "ws" => crate::ws::WsConnector,
        );
        registry
    }

    /// Adds a connector and replaces one of the same name.
    #[must_use]
    pub fn with(mut self, connector: impl Connector) -> Registry {
        self.connectors.retain(|own| own.name() != connector.name());
        self.left_out.retain(|name| *name != connector.name());
        self.connectors.push(Arc::new(connector));
        self
    }

    /// Returns all connectors, in the order used by messages and documentation.
    pub fn connectors(&self) -> impl Iterator<Item = &dyn Connector> {
        self.connectors.iter().map(AsRef::as_ref)
    }

    /// Returns the names of the connectors that this program was built without.
    pub fn left_out(&self) -> &[&'static str] {
        &self.left_out
    }

    /// Returns the cache on a server, selected by the scheme of its URL.
    ///
    /// # Errors
    /// The mistake in the request, without secrets.
    pub fn cache(&self, request: CacheRequest) -> Result<CacheStore, String> {
        let scheme = request.url.split_once("://").map_or("", |(scheme, _)| scheme).to_string();
        if let Some(found) = self.connectors().find(|connector| connector.cache_schemes().contains(&scheme.as_str())) {
            return found.cache(request);
        }
        let left_out = self.left_out.iter().find(|name| scheme.starts_with(**name));
        if let Some(name) = left_out {
            return Err(format!("this program was built without {name}: build it with --features {name}"));
        }
        let known: Vec<&str> = self.connectors().flat_map(Connector::cache_schemes).copied().collect();
        Err(format!("a cache on a server has a URL that begins with one of {}", known.join(", ")))
    }

    /// Returns the source of a file, selected by its extension; `None` if no connector serves that extension.
    pub fn file(&self, ending: &str, path: &Path) -> Option<Arc<dyn Source>> {
        self.connectors().find(|connector| connector.endings().contains(&ending))?.file(path)
    }
}
