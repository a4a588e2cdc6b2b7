//! The contract of caches with a hash.

use std::sync::Arc;

use diorama_core::cache::CacheBackend;

use super::*;
use crate::contract::cache::{CacheServer, caches};
use crate::redis::cache::RedisCache;

struct Cache {
    server: RedisServer,
    proxy: CutProxy,
}

impl CacheServer for Cache {
    fn backend(&self) -> Arc<dyn CacheBackend> {
        let address = RedisAddress::parse(&format!("redis://127.0.0.1:{}/3", self.proxy.port())).unwrap();
        Arc::new(RedisCache::new(address, "diorama_cache"))
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
        self.server.run::<String>(&["FLUSHALL"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hash_keeps_the_contract_of_caches() {
    let Some(server) = RedisServer::start() else { return };
    let proxy = CutProxy::start(server.port());
    caches(Cache { server, proxy }).await;
}

/// A key of another program is not removed.
#[tokio::test(flavor = "multi_thread")]
async fn a_key_of_another_type_is_left_alone() {
    let Some(server) = RedisServer::start() else { return };
    server.run::<String>(&["SET", "diorama_cache:t", "text"]);
    let table =
        RedisCache::new(RedisAddress::parse(&server.url()).unwrap(), "diorama_cache").open_table("t").await.unwrap();
    let error = table.load(&mut |_| {}).await.unwrap_err();
    assert!(error.to_string().contains("another type"), "{error}");
    assert!(table.clear().await.is_err());
    assert_eq!(server.run::<String>(&["GET", "diorama_cache:t"]), "text");
}
