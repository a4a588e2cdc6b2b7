//! The cache.

use super::*;

#[test]
fn a_cache_that_is_deleted_or_older_costs_neither_a_write_nor_a_subscribers_place() {
    for older in [false, true] {
        let mut shop = Shop::new();
        let mut server = shop.start();
        assert_eq!(end(&server, &put(&server, "/orders/o1", 1)), "applied");
        let first = epoch(&server, "orders");
        server.signal("TERM");
        assert!(server.ended().success());
        shop.keep("old", &[CACHE]);
        let mut server = shop.start();
        assert_eq!(end(&server, &put(&server, "/orders/o1", 2)), "applied");
        shop.hold();
        let held = [put(&server, "/orders/o2", 2), put(&server, "/products/csv-1", 5)];
        server.kill();
        match older {
            true => shop.put_back("old", &[CACHE]),
            false => shop.delete(CACHE),
        }
        let server = shop.start();
        assert_eq!(epoch(&server, "orders"), first, "older: {older}");
        assert_eq!((shown(&server, "/orders/o1"), shown(&server, "/orders/o2")), (Some(2), Some(2)));
        shop.release();
        for operation in &held {
            assert_eq!(end(&server, operation), "applied");
        }
        assert_eq!(shop.stored("products", "csv-1"), Some(5));
    }
}

#[test]
fn a_cache_of_another_server_is_replaced_by_what_the_source_has() {
    let (mut ours, theirs) = (Shop::new(), Shop::new());
    theirs.database().execute_batch("INSERT INTO orders VALUES ('theirs', 'Bun', 1), ('both', 'Bun', 1)").unwrap();
    ours.database().execute_batch("INSERT INTO orders VALUES ('ours', 'Bun', 2), ('both', 'Bun', 2)").unwrap();
    for shop in [&ours, &theirs] {
        let mut server = shop.start();
        assert_eq!(end(&server, &put(&server, "/orders/o1", 1)), "applied");
        server.signal("TERM");
        assert!(server.ended().success());
    }
    ours.hold();
    let mut server = ours.start();
    let held = [put(&server, "/orders/both", 3), put(&server, "/orders/new", 3)];
    server.kill();
    std::fs::copy(theirs.path(CACHE), ours.path(CACHE)).unwrap();
    let server = ours.start();
    eventually("the source is read", || {
        server.get("/orders/theirs").status == 404 && shown(&server, "/orders/ours") == Some(2)
    });
    assert_eq!((shown(&server, "/orders/both"), shown(&server, "/orders/new")), (Some(3), Some(3)));
    ours.release();
    for operation in &held {
        assert_eq!(end(&server, operation), "applied");
    }
    assert_eq!((ours.stored("orders", "both"), ours.stored("orders", "new")), (Some(3), Some(3)));
}

#[test]
fn a_cache_of_a_newer_program_is_set_aside_and_filled_again() {
    let shop = Shop::new();
    let mut server = shop.start();
    assert_eq!(end(&server, &put(&server, "/orders/o1", 1)), "applied");
    server.signal("TERM");
    assert!(server.ended().success());
    let cache = redb::Database::open(shop.path(CACHE)).unwrap();
    let transaction = cache.begin_write().unwrap();
    let meta = redb::TableDefinition::<&str, &[u8]>::new("_meta");
    transaction.open_table(meta).unwrap().insert("format", 99_u32.to_le_bytes().as_slice()).unwrap();
    transaction.commit().unwrap();
    drop(cache);
    let server = shop.start();
    assert_eq!(shown(&server, "/orders/o1"), Some(1));
    assert!(shop.path("cache.redb.corrupt-1").exists());
}
