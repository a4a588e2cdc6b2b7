//! Contract suite of all caches on servers, beside that of every backend in `diorama_core::cache::contract`.

use std::sync::Arc;
use std::time::Duration;

use diorama_core::cache::contract::{contents, keeps_the_contract, row};
use diorama_core::cache::{CacheBackend, CacheError, CacheTable, Id};
use diorama_servers::CutProxy;

/// A server behind a proxy.
pub(crate) trait CacheServer: Send {
    /// Returns a backend as a new process makes it.
    fn backend(&self) -> Arc<dyn CacheBackend>;

    /// Returns the proxy that backends connect to.
    fn proxy(&self) -> &CutProxy;

    /// Ends the server as a crash does.
    fn kill(&mut self);

    /// Starts the server again.
    fn restart(&mut self);

    /// Removes everything that the cache has stored.
    fn lose(&self);
}

/// Checks everything that a cache on a server must do.
pub(crate) async fn caches(mut server: impl CacheServer) {
    keeps_the_contract(&*server.backend()).await;
    rows_are_there_for_another_process(&server).await;
    a_process_that_was_replaced_stores_nothing(&server).await;
    a_loss_is_noticed(&server).await;
    a_server_that_is_away_is_an_error(&mut server).await;
    commits_are_whole_over_kills_and_cuts(&mut server).await;
}

/// Opens a table as a new process does, and reads it, so that it is that of this process.
async fn open(server: &impl CacheServer) -> Arc<dyn CacheTable> {
    let table = server.backend().open_table("t").await.unwrap();
    contents(&*table).await;
    table
}

async fn rows_are_there_for_another_process(server: &impl CacheServer) {
    let table = open(server).await;
    table.clear().await.unwrap();
    let large = "x".repeat(100_000);
    let puts = (0..3_000).map(|at| row(&at.to_string(), if at % 100 == 0 { &large } else { "small" })).collect();
    table.commit(puts, vec![], Some("m".into())).await.unwrap();
    let (rows, meta) = contents(&*server.backend().open_table("t").await.unwrap()).await;
    assert_eq!((rows.len(), meta), (3_000, Some("m".into())));
    assert_eq!(rows["100"]["text"], large.as_str().into());
}

async fn a_process_that_was_replaced_stores_nothing(server: &impl CacheServer) {
    let first = open(server).await;
    first.commit(vec![row("a", "first")], vec![], Some("1".into())).await.unwrap();
    let second = open(server).await;
    for refused in [first.commit(vec![], vec!["a".into()], None).await, first.clear().await] {
        let error = refused.unwrap_err();
        assert!(matches!(error, CacheError::Io { .. }) && error.to_string().contains("another process"), "{error}");
    }
    second.commit(vec![row("b", "second")], vec![], None).await.unwrap();
    let (rows, meta) = contents(&*second).await;
    assert!(rows.contains_key("a") && rows.contains_key("b") && meta == Some("1".into()));
}

/// Changes upon rows that are gone would make a copy that is not whole.
async fn a_loss_is_noticed(server: &impl CacheServer) {
    let table = open(server).await;
    table.commit(vec![row("a", "x")], vec![], Some("1".into())).await.unwrap();
    server.lose();
    for _ in 0..2 {
        let refused = table.commit(vec![row("b", "x")], vec![], Some("2".into())).await;
        assert!(matches!(refused, Err(CacheError::Corrupt { .. })), "{refused:?}");
    }
    assert_eq!(contents(&*server.backend().open_table("t").await.unwrap()).await, Default::default());
    let table = open(server).await;
    server.lose();
    table.clear().await.unwrap();
    table.commit(vec![row("b", "x")], vec![], Some("3".into())).await.unwrap();
    let (rows, meta) = contents(&*table).await;
    assert_eq!((rows.len(), meta), (1, Some("3".into())));
}

async fn a_server_that_is_away_is_an_error(server: &mut impl CacheServer) {
    let table = open(server).await;
    server.kill();
    let commit = || table.commit(vec![row("a", "x")], vec![], None);
    for _ in 0..2 {
        assert!(matches!(commit().await, Err(CacheError::Io { .. })));
        let another = server.backend().open_table("t").await.unwrap();
        assert!(matches!(another.load(&mut |_| {}).await, Err(CacheError::Io { .. })));
        assert!(matches!(another.meta().await, Err(CacheError::Io { .. })));
    }
    server.restart();
    commit().await.unwrap();
    assert!(contents(&*table).await.0.contains_key("a"));
}

/// Number of rows of each commit of [`commits_are_whole_over_kills_and_cuts`].
const ROWS: usize = 40;

/// Each commit replaces all rows and the meta by its number. At any time, each row has the number of the meta, and a confirmed commit is
/// there.
async fn commits_are_whole_over_kills_and_cuts(server: &mut impl CacheServer) {
    open(server).await.clear().await.unwrap();
    let (mut number, mut confirmed) = (0_usize, 0);
    for round in 0..24_u64 {
        let table = server.backend().open_table("t").await.unwrap();
        let (rows, meta) = contents(&*table).await;
        let stored = meta.map_or(0, |meta| std::str::from_utf8(&meta).unwrap().parse::<usize>().unwrap());
        assert!((confirmed..=number).contains(&stored), "round {round}: {stored} of {confirmed} to {number}");
        let expected = if stored == 0 { 0 } else { ROWS / 2 };
        assert_eq!(rows.len(), expected, "round {round}");
        assert!(rows.values().all(|row| row["text"] == stored.to_string().as_str().into()), "round {round}: {rows:?}");
        for attempt in 0..3 {
            number += 1;
            // Half of the rows are there at odd numbers, the others at even ones.
            let (puts, deletes): (Vec<usize>, Vec<usize>) = (0..ROWS).partition(|id| (id + number).is_multiple_of(2));
            let puts = puts.iter().map(|id| row(&id.to_string(), &number.to_string())).collect();
            let deletes = deletes.iter().map(|id| Id::from(id.to_string())).collect();
            let commit = table.commit(puts, deletes, Some(number.to_string().into()));
            let trouble = attempt == 2 || round % 3 == 1;
            let done = match (trouble, round % 3) {
                (false, _) => commit.await,
                (true, 0) => {
                    let killing = async {
                        tokio::time::sleep(Duration::from_micros(round * 150)).await;
                        server.kill();
                    };
                    let (done, ()) = tokio::join!(commit, killing);
                    server.restart();
                    done
                }
                (true, 1) => {
                    server.proxy().cut_all();
                    server.proxy().cut_after(round * 31 + attempt * 7);
                    let done = commit.await;
                    server.proxy().cut_after(None);
                    done
                }
                (true, _) => {
                    let cutting = async {
                        tokio::time::sleep(Duration::from_micros(round * 100)).await;
                        server.proxy().cut_all();
                    };
                    tokio::join!(commit, cutting).0
                }
            };
            match done {
                Ok(()) => confirmed = number,
                Err(error) => assert!(matches!(error, CacheError::Io { .. }), "{error}"),
            }
            server.proxy().cut_after(None);
        }
    }
}
