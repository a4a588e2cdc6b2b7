//! What every journal has to do, run over each implementation.

use std::sync::Arc;

use super::double::FaultyJournal;
use super::{AppendError, Claim, Fence, Journal, JournalError, LogBatch, LogEntry, MemoryJournal, RedbJournal, Seq};

const NEVER: u64 = u64::MAX;

fn batch<const N: usize>(log: &str, expect: Seq, texts: [&'static str; N]) -> LogBatch {
    let entries = texts.iter().zip(expect + 1..).map(|(text, seq)| LogEntry { seq, bytes: (*text).into() }).collect();
    LogBatch { log: log.into(), expect, fence: Fence::LOCAL, entries, claims: Vec::new() }
}

fn claiming(mut batch: LogBatch, key: &str, value: &'static str, expires: u64) -> LogBatch {
    batch.claims.push(Claim { key: key.into(), value: value.into(), expires });
    batch
}

async fn append(journal: &dyn Journal, batch: LogBatch) -> Result<(), AppendError> {
    let mut answers = journal.append(vec![batch]).await;
    assert_eq!(answers.len(), 1);
    answers.remove(0)
}

async fn seqs(journal: &dyn Journal, log: &str) -> Vec<Seq> {
    journal.read(log, 0, usize::MAX).await.unwrap().iter().map(|entry| entry.seq).collect()
}

async fn entries_come_back_in_order_and_by_budget(journal: &dyn Journal) {
    let state = journal.open("order", "s").await.unwrap();
    assert_eq!((state.head, state.oldest, state.durable), (0, 1, journal.durable()));
    assert_eq!(state.epoch.len(), 10);
    append(journal, batch("order", 0, ["a", "b"])).await.unwrap();
    append(journal, batch("order", 2, ["c"])).await.unwrap();
    let texts: Vec<_> = journal.read("order", 1, usize::MAX).await.unwrap();
    assert_eq!(texts, batch("order", 1, ["b", "c"]).entries);
    assert_eq!(journal.read("order", 0, 0).await.unwrap().len(), 1);
    assert_eq!(journal.read("order", 0, 2).await.unwrap().len(), 2);
    assert!(journal.read("order", 3, usize::MAX).await.unwrap().is_empty());
    assert!(journal.read("order", Seq::MAX, usize::MAX).await.unwrap().is_empty());
    assert!(journal.read("never opened", 0, usize::MAX).await.unwrap().is_empty());
}

async fn an_append_is_conditional_on_the_head(journal: &dyn Journal) {
    journal.open("cond", "s").await.unwrap();
    append(journal, batch("cond", 0, ["a", "b"])).await.unwrap();
    let answer = append(journal, batch("cond", 1, ["x"])).await;
    let Err(AppendError::Moved { missed }) = answer else { panic!("{answer:?}") };
    assert_eq!(missed, batch("cond", 1, ["b"]).entries);
    let answer = append(journal, batch("cond", 9, ["x"])).await;
    assert!(matches!(answer, Err(AppendError::Moved { ref missed }) if missed.is_empty()), "{answer:?}");
    assert_eq!(seqs(journal, "cond").await, [1, 2]);
    let gap = LogBatch { entries: batch("cond", 5, ["x"]).entries, ..batch("cond", 2, []) };
    assert!(append(journal, gap).await.is_err());
    let fenced = LogBatch { fence: Fence(7), ..batch("cond", 2, ["x"]) };
    assert!(matches!(append(journal, fenced).await, Err(AppendError::Fenced)));
    assert_eq!(seqs(journal, "cond").await, [1, 2]);
}

async fn a_refused_batch_stores_nothing_and_does_not_hinder_others(journal: &dyn Journal) {
    journal.open("some", "s").await.unwrap();
    journal.open("other", "s").await.unwrap();
    append(journal, claiming(batch("some", 0, ["a"]), "all:1", "first", NEVER)).await.unwrap();
    let refused = claiming(batch("some", 1, ["x", "y"]), "all:2", "x", NEVER);
    let answers = journal
        .append(vec![
            claiming(refused, "all:1", "x", NEVER),
            batch("other", 0, ["b"]),
            batch("some", 7, ["z"]),
            batch("other", 1, ["c"]),
            batch("unopened", 0, ["d"]),
        ])
        .await;
    assert!(matches!(&answers[0], Err(AppendError::Claimed { key, by }) if key == "all:1" && by == "first"));
    assert!(answers[1].is_ok() && answers[3].is_ok());
    assert!(matches!(answers[2], Err(AppendError::Moved { .. })));
    assert!(answers[4].is_err());
    assert_eq!(journal.claim("all:2").await.unwrap(), None);
    assert_eq!(seqs(journal, "some").await, [1]);
    assert_eq!(seqs(journal, "other").await, [1, 2]);
}

async fn a_claim_is_taken_once_until_it_expires(journal: &dyn Journal) {
    journal.open("claims", "s").await.unwrap();
    let answers = journal
        .append(vec![
            claiming(batch("claims", 0, ["a"]), "once", "one", NEVER),
            claiming(batch("claims", 1, ["b"]), "once", "two", NEVER),
        ])
        .await;
    assert!(answers[0].is_ok());
    assert!(matches!(&answers[1], Err(AppendError::Claimed { by, .. }) if by == "one"));
    assert_eq!(journal.claim("once").await.unwrap(), Some("one".into()));
    assert_eq!(journal.claim("nobody's").await.unwrap(), None);
    append(journal, claiming(batch("claims", 1, []), "expired", "one", 1)).await.unwrap();
    assert_eq!(journal.claim("expired").await.unwrap(), None);
    append(journal, claiming(batch("claims", 1, []), "expired", "two", NEVER)).await.unwrap();
    assert_eq!(journal.claim("expired").await.unwrap(), Some("two".into()));
    journal.trim("claims", 0, &[], NEVER - 1).await.unwrap();
    assert_eq!(journal.claim("once").await.unwrap(), Some("one".into()));
}

async fn trimming_keeps_what_it_is_told_to(journal: &dyn Journal) {
    journal.open("trim", "s").await.unwrap();
    append(journal, batch("trim", 0, ["a", "b", "c", "d", "e"])).await.unwrap();
    journal.trim("trim", 4, &[2, 5], 0).await.unwrap();
    assert_eq!(seqs(journal, "trim").await, [2, 4, 5]);
    let state = journal.open("trim", "s").await.unwrap();
    assert_eq!((state.oldest, state.head), (4, 5));
    journal.trim("trim", 3, &[], 0).await.unwrap();
    assert_eq!(seqs(journal, "trim").await, [4, 5]);
    assert_eq!(journal.open("trim", "s").await.unwrap().oldest, 4);
    journal.trim("trim", 100, &[5], 0).await.unwrap();
    assert_eq!(seqs(journal, "trim").await, [5]);
    let state = journal.open("trim", "s").await.unwrap();
    assert_eq!((state.oldest, state.head), (6, 5));
    journal.trim("trim", 100, &[], 0).await.unwrap();
    journal.reopen().await.unwrap();
    assert_eq!(journal.open("trim", "s").await.unwrap().head, 5);
    append(journal, batch("trim", 5, ["f"])).await.unwrap();
    assert_eq!(seqs(journal, "trim").await, [6]);
}

async fn another_shape_or_a_new_epoch_goes_on_from_the_head(journal: &dyn Journal) {
    let first = journal.open("epoch", "id:text").await.unwrap();
    append(journal, batch("epoch", 0, ["a", "b"])).await.unwrap();
    assert_eq!(journal.open("epoch", "id:text").await.unwrap().epoch, first.epoch);
    let second = journal.open("epoch", "id:integer").await.unwrap();
    assert_ne!(second.epoch, first.epoch);
    assert_eq!((second.head, second.oldest), (2, 3));
    assert!(seqs(journal, "epoch").await.is_empty());
    append(journal, batch("epoch", 2, ["c"])).await.unwrap();
    let third = journal.new_epoch("epoch", 40, "the cache is ahead").await.unwrap();
    assert_ne!(third.epoch, second.epoch);
    assert_eq!((third.head, third.oldest), (40, 41));
    assert_eq!(journal.open("epoch", "id:integer").await.unwrap(), third);
    assert_eq!(journal.new_epoch("epoch", 0, "again").await.unwrap().head, 40);
    append(journal, batch("epoch", 40, ["d"])).await.unwrap();
    assert_eq!(seqs(journal, "epoch").await, [41]);
    assert!(journal.new_epoch("never opened", 0, "").await.is_err());
}

async fn heads_follow_what_is_stored(journal: &dyn Journal) {
    let head = journal.heads("heads");
    assert_eq!(*head.borrow(), 0);
    journal.open("heads", "s").await.unwrap();
    append(journal, batch("heads", 0, ["a", "b"])).await.unwrap();
    assert_eq!(*head.borrow(), 2);
    let _ = append(journal, batch("heads", 0, ["x"])).await;
    assert_eq!(*head.borrow(), 2);
    journal.new_epoch("heads", 9, "").await.unwrap();
    assert_eq!(*head.borrow(), 9);
    assert_eq!(*journal.heads("heads").borrow(), 9);
}

async fn reopening_keeps_everything(journal: &dyn Journal) {
    let state = journal.open("reopen", "s").await.unwrap();
    append(journal, claiming(batch("reopen", 0, ["a"]), "reopen", "v", NEVER)).await.unwrap();
    journal.reopen().await.unwrap();
    assert_eq!(seqs(journal, "reopen").await, [1]);
    assert_eq!(journal.claim("reopen").await.unwrap(), Some("v".into()));
    assert_eq!(journal.open("reopen", "s").await.unwrap().epoch, state.epoch);
    append(journal, batch("reopen", 1, ["b"])).await.unwrap();
}

async fn a_closed_journal_says_so(journal: &dyn Journal) {
    assert!(journal.logs().await.unwrap().contains(&"reopen".into()));
    journal.close().await;
    assert!(matches!(journal.read("order", 0, 1).await, Err(JournalError::Closed)));
    assert!(matches!(journal.claim("order").await, Err(JournalError::Closed)));
    assert!(matches!(journal.logs().await, Err(JournalError::Closed)));
    assert!(matches!(journal.trim("order", 0, &[], 0).await, Err(JournalError::Closed)));
    assert!(append(journal, batch("order", 3, ["x"])).await.is_err());
    journal.close().await;
}

pub(super) async fn keeps_the_contract(journal: &dyn Journal) {
    entries_come_back_in_order_and_by_budget(journal).await;
    an_append_is_conditional_on_the_head(journal).await;
    a_refused_batch_stores_nothing_and_does_not_hinder_others(journal).await;
    a_claim_is_taken_once_until_it_expires(journal).await;
    trimming_keeps_what_it_is_told_to(journal).await;
    another_shape_or_a_new_epoch_goes_on_from_the_head(journal).await;
    heads_follow_what_is_stored(journal).await;
    reopening_keeps_everything(journal).await;
    a_closed_journal_says_so(journal).await;
}

#[tokio::test]
async fn the_memory_journal_keeps_the_contract() {
    keeps_the_contract(&MemoryJournal::new()).await;
}

#[tokio::test]
async fn the_redb_journal_keeps_the_contract() {
    let folder = tempfile::tempdir().unwrap();
    keeps_the_contract(&RedbJournal::open(folder.path().join("journal.redb")).unwrap()).await;
}

#[tokio::test]
async fn the_double_without_faults_keeps_the_contract() {
    keeps_the_contract(&FaultyJournal::new(Arc::new(MemoryJournal::new()), 1)).await;
}

#[tokio::test]
async fn a_memory_journal_opened_again_still_has_its_entries() {
    let journal = Arc::new(MemoryJournal::new());
    let state = journal.open("again", "s").await.unwrap();
    append(&*journal, batch("again", 0, ["a"])).await.unwrap();
    journal.close().await;
    let again = Arc::clone(&journal).open("again", "s").await.unwrap();
    assert_eq!((again.head, again.epoch), (1, state.epoch));
    assert_eq!(seqs(&*journal, "again").await, [1]);
}
