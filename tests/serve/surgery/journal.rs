//! The journal and its head.

use super::*;

/// What lies beside a journal that was put back.
#[derive(Clone, Copy, Debug)]
enum Beside {
    Newer,
    Older,
    Nothing,
}

impl Beside {
    fn arrange(self, shop: &Shop, file: &str) {
        match self {
            Beside::Newer => {}
            Beside::Older => shop.put_back("old", &[file]),
            Beside::Nothing => shop.delete(file),
        }
    }
}

#[test]
fn an_older_journal_keeps_its_open_writes_whatever_lies_beside_it() {
    use Beside::{Newer, Nothing, Older};
    for (cache, head) in [(Newer, Newer), (Newer, Older), (Newer, Nothing), (Nothing, Newer), (Older, Newer)] {
        let mut shop = Shop::new();
        shop.hold();
        let mut server = shop.start();
        let first = epoch(&server, "products");
        let held = [put(&server, "/products/q1", 1), put(&server, "/products/q2", 2), put(&server, "/orders/o1", 1)];
        let key = [("content-type", "application/json"), ("idempotency-key", "once")];
        let keyed = accepted(&server.request("PUT", "/orders/o2", &key, r#"{"item":"Bun","n":2}"#));
        server.kill();
        shop.keep("old", &[CACHE, JOURNAL, HEAD]);
        let mut server = shop.start();
        assert_eq!(epoch(&server, "products"), first, "a kill costs nobody the place");
        for at in 3..6 {
            put(&server, &format!("/products/q{at}"), at);
            put(&server, &format!("/orders/p{at}"), at);
        }
        server.signal("TERM");
        assert!(server.ended().success());
        shop.put_back("old", &[JOURNAL]);
        cache.arrange(&shop, CACHE);
        head.arrange(&shop, HEAD);
        shop.said();

        let mut server = shop.start();
        let case = format!("cache {cache:?}, head {head:?}");
        assert_ne!(epoch(&server, "products"), first, "{case}: subscribers must read again");
        assert!(shop.said().contains("new epoch"), "{case}");
        for (path, n) in [("/products/q1", 1), ("/products/q2", 2), ("/orders/o1", 1), ("/orders/o2", 2)] {
            assert_eq!(shown(&server, path), Some(n), "{case}: {path}");
        }
        for operation in &held {
            assert!(
                matches!(&*state(&server, operation), "unknown" | "running"),
                "{case}: {}",
                state(&server, operation)
            );
        }
        let again = server.request("PUT", "/orders/o2", &key, r#"{"item":"Bun","n":2}"#);
        assert_eq!(accepted(&again), keyed, "{case}: the key was carried over");
        // What was carried over is carried over the next kill as well, as what it is.
        let second = epoch(&server, "products");
        server.kill();
        let server = shop.start();
        assert_eq!(epoch(&server, "products"), second, "{case}");
        assert!(held.iter().all(|operation| matches!(&*state(&server, operation), "unknown" | "running")), "{case}");
        shop.release();
        for operation in held.iter().chain([&keyed]) {
            assert_eq!(end(&server, operation), "applied", "{case}: {operation}");
        }
        assert_eq!((shop.stored("products", "q1"), shop.stored("products", "q2")), (Some(1), Some(2)), "{case}");
        assert_eq!((shop.stored("orders", "o1"), shop.stored("orders", "o2")), (Some(1), Some(2)), "{case}");
    }
}

/// Writes of an older journal that were delivered after it was copied: they and what came after them are at the master.
fn overtaken(shop: &mut Shop, forget: bool) -> (Server, [String; 4]) {
    let seed = "INSERT INTO orders VALUES ('a', 'Bun', 0), ('b', 'Bun', 0), ('c', 'Bun', 0);";
    shop.database().execute_batch(seed).unwrap();
    shop.hold();
    let mut server = shop.start();
    let held = [
        put(&server, "/orders/a", 1),
        delete(&server, "/orders/b"),
        put(&server, "/orders/c", 1),
        put(&server, "/products/csv-1", 7),
    ];
    server.kill();
    shop.keep("old", &[JOURNAL]);
    shop.release();
    let mut server = shop.start();
    for operation in &held {
        assert_eq!(end(&server, operation), "applied");
    }
    let later = [put(&server, "/orders/a", 2), put(&server, "/orders/b", 2), put(&server, "/products/csv-1", 8)];
    for operation in &later {
        assert_eq!(end(&server, operation), "applied");
    }
    server.kill();
    if forget {
        shop.database().execute_batch("DELETE FROM _diorama_ops").unwrap();
    }
    shop.put_back("old", &[JOURNAL]);
    (shop.start(), held)
}

fn check_newest(shop: &Shop) {
    assert_eq!((shop.stored("orders", "a"), shop.stored("orders", "b")), (Some(2), Some(2)));
    assert_eq!((shop.stored("orders", "c"), shop.stored("products", "csv-1")), (Some(1), Some(8)));
}

#[test]
fn writes_of_an_older_journal_that_the_master_knows_are_not_done_again() {
    let mut shop = Shop::new();
    let (server, held) = overtaken(&mut shop, false);
    for operation in &held {
        assert_eq!(end(&server, operation), "applied", "{operation}");
    }
    check_newest(&shop);
    eventually("readers see the newest", || shown(&server, "/orders/a") == Some(2));
    assert_eq!(shown(&server, "/orders/b"), Some(2));
}

#[test]
fn writes_of_an_older_journal_that_nobody_knows_are_parked_where_the_row_has_moved_on() {
    let mut shop = Shop::new();
    let (server, held) = overtaken(&mut shop, true);
    let ends = held.each_ref().map(|operation| end(&server, operation));
    assert_eq!(ends, ["parked", "parked", "applied", "parked"]);
    check_newest(&shop);
    let parked = &lines(&server.get("/operations?state=parked").body)[0];
    assert_eq!(parked["error"]["code"], "outcome-unknown");
    // A person decides.
    let retried = server.post(&format!("/operations/{}/retry", held[0]), "").json();
    assert_eq!(end(&server, retried["id"].as_str().unwrap()), "applied");
    assert_eq!(shop.stored("orders", "a"), Some(1));
}

#[test]
fn writes_of_an_older_journal_are_delivered_in_their_order_where_nothing_has_changed() {
    let mut shop = Shop::new();
    let seed = "INSERT INTO orders VALUES ('a', 'Bun', 0), ('b', 'Bun', 0);";
    shop.database().execute_batch(seed).unwrap();
    shop.hold();
    let mut server = shop.start();
    let held = [
        put(&server, "/orders/a", 1),
        put(&server, "/orders/a", 2),
        delete(&server, "/orders/b"),
        put(&server, "/orders/b", 5),
        put(&server, "/products/csv-1", 7),
        delete(&server, "/products/csv-1"),
    ];
    server.kill();
    shop.delete(HEAD);
    let server = shop.start();
    shop.release();
    for operation in &held {
        assert_eq!(end(&server, operation), "applied", "{operation}");
    }
    assert_eq!((shop.stored("orders", "a"), shop.stored("orders", "b")), (Some(2), Some(5)));
    assert_eq!(shop.stored("products", "csv-1"), None);
}

#[test]
fn a_journal_put_back_with_its_head_and_cache_goes_on_where_it_was() {
    let mut shop = Shop::new();
    shop.hold();
    let mut server = shop.start();
    let (first, held) = (epoch(&server, "orders"), put(&server, "/orders/o1", 1));
    server.kill();
    shop.keep("old", &[CACHE, JOURNAL, HEAD]);
    let mut server = shop.start();
    put(&server, "/orders/o2", 2);
    server.kill();
    shop.put_back("old", &[CACHE, JOURNAL, HEAD]);
    let server = shop.start();
    assert_eq!(epoch(&server, "orders"), first, "nothing tells it from a kill");
    shop.release();
    assert_eq!(end(&server, &held), "applied");
}

#[test]
fn a_deleted_journal_is_said_aloud_and_what_the_master_has_is_served() {
    let mut shop = Shop::new();
    let mut server = shop.start();
    let first = epoch(&server, "orders");
    assert_eq!(end(&server, &put(&server, "/orders/o1", 1)), "applied");
    shop.hold();
    let lost = put(&server, "/orders/o2", 2);
    server.kill();
    shop.delete(JOURNAL);
    shop.said();
    let server = shop.start();
    let said = shop.said();
    assert!(said.contains("the earlier journal file is missing") && said.contains(JOURNAL), "{said}");
    assert_ne!(epoch(&server, "orders"), first);
    // What the cache had not learnt yet comes with the list.
    eventually("the source is read", || shown(&server, "/orders/o1") == Some(1));
    assert_eq!(shown(&server, "/orders/o2"), None);
    assert_eq!(server.get(&format!("/operations/{lost}")).status, 404);
    drop(server);
    let server = shop.start();
    assert!(!shop.said().contains("is gone"), "it is said once");
    shop.release();
    assert_eq!(end(&server, &put(&server, "/orders/o3", 3)), "applied");
}

#[test]
fn a_journal_of_another_server_changes_no_row_that_is_not_as_it_was_there() {
    let (mut ours, mut theirs) = (Shop::new(), Shop::new());
    for shop in [&mut ours, &mut theirs] {
        shop.database().execute_batch("INSERT INTO orders VALUES ('a', 'Bun', 0), ('b', 'Bun', 0)").unwrap();
        shop.hold();
    }
    ours.database().execute_batch("SELECT 1").unwrap();
    let (mut server, mut other) = (ours.start(), theirs.start());
    let own = put(&server, "/orders/own", 1);
    let foreign = [put(&other, "/orders/a", 9), put(&other, "/orders/b", 9), put(&other, "/orders/new", 9)];
    let first = epoch(&server, "orders");
    server.kill();
    other.kill();
    ours.release();
    ours.database().execute_batch("UPDATE orders SET n = 5 WHERE id = 'b'").unwrap();
    ours.keep("own", &[CACHE, JOURNAL, HEAD]);
    std::fs::copy(theirs.path(JOURNAL), ours.path(JOURNAL)).unwrap();
    ours.said();
    let mut server = ours.start();
    let said = ours.said();
    assert!(said.contains("it is not the journal that was here before"), "{said}");
    assert_ne!(epoch(&server, "orders"), first);
    assert_eq!(foreign.each_ref().map(|operation| end(&server, operation)), ["applied", "parked", "applied"]);
    assert_eq!(ours.stored("orders", "b"), Some(5), "it is not what it was there");
    server.kill();
    // Its own one is put back: the other was here meanwhile.
    ours.put_back("own", &[JOURNAL]);
    let server = ours.start();
    assert!(ours.said().contains("it is not the journal that was here before"));
    assert_eq!(end(&server, &own), "applied");
    assert_eq!(ours.stored("orders", "own"), Some(1));
}

/// Makes the journal say that it has this format.
fn set_format(shop: &Shop, format: u32) {
    let journal = redb::Database::open(shop.path(JOURNAL)).unwrap();
    let transaction = journal.begin_write().unwrap();
    let meta = redb::TableDefinition::<&str, &[u8]>::new("meta");
    transaction.open_table(meta).unwrap().insert("format", format.to_le_bytes().as_slice()).unwrap();
    transaction.commit().unwrap();
}

#[test]
fn a_journal_of_a_newer_program_stops_the_start_and_keeps_what_it_holds() {
    let mut shop = Shop::new();
    shop.hold();
    let mut server = shop.start();
    let (first, held) = (epoch(&server, "orders"), put(&server, "/orders/o1", 1));
    server.kill();
    set_format(&shop, 99);
    for _ in 0..2 {
        let said = refusal(shop.dir.path()).unwrap();
        assert!(said.contains(JOURNAL) && said.contains("has format 99"), "{said}");
    }
    set_format(&shop, 2);
    let server = shop.start();
    assert_eq!(epoch(&server, "orders"), first);
    shop.release();
    assert_eq!(end(&server, &held), "applied");
}

#[test]
fn files_on_another_machine_go_on_and_without_the_head_as_a_copy() {
    for files in [&[CACHE, JOURNAL, HEAD][..], &[CACHE, JOURNAL], &[JOURNAL]] {
        let mut shop = Shop::new();
        shop.hold();
        let mut server = shop.start();
        let (first, held) = (epoch(&server, "orders"), put(&server, "/orders/o1", 1));
        server.kill();
        shop.release();
        let other = Shop::new();
        for file in files {
            std::fs::copy(shop.path(file), other.path(file)).unwrap();
        }
        let server = other.start();
        assert_eq!(epoch(&server, "orders") == first, files.contains(&HEAD), "{files:?}");
        assert_eq!(end(&server, &held), "applied", "{files:?}");
        assert_eq!(other.stored("orders", "o1"), Some(1), "{files:?}");
    }
}

#[test]
fn another_id_column_is_refused_while_writes_wait_under_the_old_one() {
    let mut shop = Shop::new();
    shop.hold();
    let mut server = shop.start();
    let held = put(&server, "/products/q1", 1);
    server.kill();
    let config = CONFIG.replace("csv = \"products.csv\" }", "csv = \"products.csv\" }\nid = \"item\"");
    std::fs::write(shop.path("diorama.toml"), config).unwrap();
    let said = refusal(shop.dir.path()).unwrap();
    assert!(said.contains("1 accepted writes wait") && said.contains("id = \"id\""), "{said}");
    std::fs::write(shop.path("diorama.toml"), CONFIG).unwrap();
    let server = shop.start();
    shop.release();
    assert_eq!(end(&server, &held), "applied");
}
