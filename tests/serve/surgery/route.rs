//! The database at the other end of a write route.

use super::*;

#[test]
fn a_route_that_is_deleted_stops_the_start_until_it_is_back_and_loses_no_write() {
    let mut shop = Shop::new();
    shop.hold();
    let mut server = shop.start();
    let held = put(&server, "/products/q1", 1);
    server.kill();
    shop.release();
    drop(shop.database().query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())));
    std::fs::rename(shop.path("shop.db"), shop.path("away.db")).unwrap();
    assert!(refusal(shop.dir.path()).is_some_and(|said| said.contains("shop.db")));
    std::fs::rename(shop.path("away.db"), shop.path("shop.db")).unwrap();
    let server = shop.start();
    assert_eq!(end(&server, &held), "applied");
    assert_eq!(shop.stored("products", "q1"), Some(1));
}

#[test]
fn an_older_route_gets_what_waits_and_what_it_lacks_is_still_shown() {
    let mut shop = Shop::new();
    let mut server = shop.start();
    let checkpoint = |shop: &Shop| drop(shop.database().query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())));
    checkpoint(&shop);
    shop.keep("old", &["shop.db"]);
    assert_eq!(end(&server, &put(&server, "/products/q1", 1)), "applied");
    shop.hold();
    let held = put(&server, "/products/q2", 2);
    server.kill();
    shop.release();
    for file in ["shop.db-wal", "shop.db-shm"] {
        let _ = std::fs::remove_file(shop.path(file));
    }
    shop.put_back("old", &["shop.db"]);
    let server = shop.start();
    assert_eq!(end(&server, &held), "applied");
    assert_eq!((shop.stored("products", "q1"), shop.stored("products", "q2")), (None, Some(2)));
    assert_eq!(shown(&server, "/products/q1"), Some(1), "it was acknowledged, and the source has not said otherwise");
}
