//! The contract of caches with tables.

use std::sync::Arc;

use diorama_core::cache::CacheBackend;

use super::*;
use crate::contract::cache::{CacheServer, caches};
use crate::postgres::cache::PostgresCache;

struct Cache {
    server: PostgresServer,
    proxy: CutProxy,
}

fn url(server: &PostgresServer, port: u16) -> String {
    server.url("postgres").replace(&format!(":{}/", server.port()), &format!(":{port}/"))
}

impl CacheServer for Cache {
    fn backend(&self) -> Arc<dyn CacheBackend> {
        let address = Address::parse(&url(&self.server, self.proxy.port()), None, None).unwrap();
        Arc::new(PostgresCache::new(address, "Diorama_cache"))
    }

    fn proxy(&self) -> &CutProxy {
        &self.proxy
    }

    fn kill(&mut self) {
        self.server.kill();
    }

    fn restart(&mut self) {
        self.server.restart();
    }

    fn lose(&self) {
        self.server.psql("TRUNCATE \"Diorama_cache_rows\", \"Diorama_cache_metas\"");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_keep_the_contract_of_caches() {
    let Some(server) = PostgresServer::start() else { return };
    let proxy = CutProxy::start(server.port());
    caches(Cache { server, proxy }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_without_the_right_to_create_tables_is_told_what_to_do() {
    let Some(server) = PostgresServer::start() else { return };
    server.psql("CREATE ROLE cache LOGIN PASSWORD 'diorama'; REVOKE CREATE ON SCHEMA public FROM PUBLIC");
    let own = server.url("postgres");
    let (_, rest) = own.split_once('@').unwrap();
    let cache = || {
        let address = Address::parse(&format!("postgres://cache:diorama@{rest}"), None, None).unwrap();
        PostgresCache::new(address, "diorama_cache")
    };
    let load = async |cache: &PostgresCache| cache.open_table("t").await.unwrap().load(&mut |_| {}).await;
    let lacking = cache();
    let error = load(&lacking).await.unwrap_err();
    assert!(error.to_string().contains("cache-stores.md") && !error.to_string().contains("diorama@"), "{error}");
    let administrator = PostgresCache::new(Address::parse(&own, None, None).unwrap(), "diorama_cache");
    load(&administrator).await.unwrap();
    server.psql("GRANT SELECT, INSERT, UPDATE, DELETE ON diorama_cache_rows, diorama_cache_metas TO cache");
    load(&lacking).await.unwrap();
    server.psql("DROP TABLE diorama_cache_rows, diorama_cache_metas");
    let table = administrator.open_table("t").await.unwrap();
    assert!(table.commit(vec![], vec![], None).await.is_err());
    assert!(table.commit(vec![], vec![], None).await.unwrap_err().to_string().contains("lost"));
    table.clear().await.unwrap();
}
