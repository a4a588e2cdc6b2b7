//! Power cuts, disk errors and damaged files under the redb journal.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::time::Instant;

use crate::journal::{AppendError, Claim, Fence, Journal, JournalError, LogBatch, LogEntry, RedbJournal, Seq};
use crate::redb_file::disk::{Disk, Failing, Random, damage, fate, images};

const LOGS: [&str; 2] = ["products", "orders"];
/// Number of damaged files that are opened.
const DAMAGED: u32 = 200;

fn text(log: &str, seq: Seq) -> Vec<u8> {
    format!("{log} {seq} ").repeat(1 + (seq as usize * 37) % 60).into_bytes()
}

/// Batch of `count` entries for a log, with a claim named after the last.
fn batch(log: &str, expect: Seq, count: u64) -> LogBatch {
    let entries = (expect + 1..=expect + count).map(|seq| LogEntry { seq, bytes: text(log, seq).into() }).collect();
    let claims =
        vec![Claim { key: format!("{log}/{}", expect + count), value: log.to_string().into(), expires: u64::MAX }];
    LogBatch {
        log: log.into(),
        expect,
        fence: Fence::LOCAL,
        entries,
        claims,
        deliveries: Vec::new(),
        marks: Vec::new(),
    }
}

/// Steps of a journal, each with the position in the disk's trace at which it was acknowledged.
#[derive(Default)]
struct History {
    steps: Vec<(usize, Step)>,
}

#[derive(Clone, Debug)]
enum Step {
    Opened,
    /// Heads of both logs.
    Appended([Seq; 2]),
    /// Position from which the first log has entries, and the positions kept below it.
    Trimmed(Seq, Vec<Seq>),
}

async fn write_history(disk: &Disk) -> History {
    let mut history = History::default();
    let journal = RedbJournal::with_backend(disk.factory()).unwrap();
    for log in LOGS {
        journal.open(log, "s").await.unwrap();
    }
    history.steps.push((disk.recorded(), Step::Opened));
    let mut heads = [0, 0];
    for step in 0..60u64 {
        let mut batches = vec![batch(LOGS[0], heads[0], 1 + step % 5)];
        heads[0] += 1 + step % 5;
        if step % 3 == 0 {
            batches.push(batch(LOGS[1], heads[1], 2));
            heads[1] += 2;
        }
        assert!(journal.append(batches).await.iter().all(Result::is_ok));
        history.steps.push((disk.recorded(), Step::Appended(heads)));
        if step % 20 == 19 {
            let (before, keep) = (heads[0] - 6, vec![3, heads[0] - 8]);
            journal.trim(LOGS[0], before, &keep, 0).await.unwrap();
            history.steps.push((disk.recorded(), Step::Trimmed(before, keep)));
        }
    }
    history
}

impl History {
    /// Checks a journal opened after a cut: all acknowledged steps are present, and others only completely.
    async fn check(&self, cut: usize, journal: &RedbJournal) {
        let acked = self.steps.iter().take_while(|(at, _)| *at <= cut).count();
        let (mut heads, mut oldest, mut keep) = ([0, 0], 1, vec![]);
        let mut allowed = BTreeSet::new();
        for (at, (_, step)) in self.steps.iter().take(acked + 1).enumerate() {
            match step {
                Step::Opened => {}
                Step::Appended(after) if at < acked => heads = *after,
                Step::Appended(after) => drop(allowed.insert(*after)),
                Step::Trimmed(before, kept) => (oldest, keep) = (*before, kept.clone()),
            }
        }
        allowed.insert(heads);
        let mut found = [0, 0];
        for (at, log) in LOGS.iter().enumerate() {
            let state = journal.open(log, "s").await.unwrap();
            let entries = journal.read(log, 0, usize::MAX).await.unwrap();
            found[at] = state.head;
            for entry in &entries {
                assert_eq!(entry.bytes, text(log, entry.seq), "{log} {}", entry.seq);
            }
            let seqs: BTreeSet<Seq> = entries.iter().map(|entry| entry.seq).collect();
            let first = if at == 0 { oldest } else { 1 };
            assert!((first..=state.head).all(|seq| seqs.contains(&seq)), "{log}: {seqs:?} to {}", state.head);
            assert!(at == 1 || keep.iter().all(|seq| seqs.contains(seq)), "kept {keep:?} of {seqs:?}");
            if heads[at] > 0 {
                let claim = journal.claim(&format!("{log}/{}", heads[at])).await.unwrap();
                assert_eq!(claim.as_deref(), Some(log.as_bytes()));
            }
        }
        assert!(allowed.contains(&found), "cut {cut}: {found:?}, not one of {allowed:?}");
    }
}

/// Opens the image of a cut. A cut before the first open has returned may leave no journal, because custom storage, unlike a
/// file, has no temporary name.
fn open_image(image: &Disk, may_be_unfinished: bool) -> Option<RedbJournal> {
    match RedbJournal::with_backend(image.factory()) {
        Err(JournalError::Corrupt { .. }) if may_be_unfinished => None,
        opened => Some(opened.unwrap()),
    }
}

#[tokio::test]
async fn crash_every_acknowledged_append_survives_power_cuts_also_during_recovery() {
    let disk = Disk::default();
    let history = write_history(&disk).await;
    let created = history.steps[0].0;
    let mut random = fate(1);
    // Each cut opens two images.
    for _ in 0..images() / 5 {
        let cut = random.below(disk.recorded() + 1) as usize;
        let image = disk.image(cut, &mut random);
        let Some(journal) = open_image(&image, cut < created) else { continue };
        let recovery = image.recorded();
        history.check(cut, &journal).await;
        drop(journal);
        let second = image.image(random.below(recovery + 1) as usize, &mut random);
        let Some(journal) = open_image(&second, cut < created) else { continue };
        history.check(cut, &journal).await;
        let heads = (journal.open(LOGS[0], "s").await.unwrap().head, journal.open(LOGS[1], "s").await.unwrap().head);
        let go_on = vec![batch(LOGS[0], heads.0, 1), batch(LOGS[1], heads.1, 1)];
        assert!(journal.append(go_on).await.iter().all(Result::is_ok));
    }
}

/// Appends as the committer does: after a failure it reopens, reads the stored entries, and continues for a few steps. Returns
/// the head.
async fn append_with_recovery(journal: &RedbJournal, disk: &Disk) -> Seq {
    let log = LOGS[0];
    let (mut head, mut failed, mut left) = (0, false, 60);
    while left > 0 {
        left -= 1;
        let next = batch(log, head, 2);
        match journal.append(vec![next.clone()]).await.remove(0) {
            Ok(()) => head += 2,
            Err(error) => {
                assert!(!failed, "the disk works again, but: {error}");
                (failed, left) = (true, left.min(3));
                disk.set_failing(Failing::Never);
                if !matches!(error, AppendError::Full(_)) {
                    let again = journal.append(vec![next.clone()]).await.remove(0);
                    assert!(matches!(again, Err(AppendError::Io(_))), "{again:?}");
                }
                journal.reopen().await.unwrap();
                let there = journal.read(log, head, usize::MAX).await.unwrap();
                match error {
                    AppendError::Unknown(_) => assert!(there.is_empty() || there == next.entries),
                    AppendError::Io(_) | AppendError::Full(_) => assert!(there.is_empty(), "{error}: stored"),
                    other => panic!("{other}"),
                }
                head += there.len() as Seq;
                assert_eq!(*journal.heads(log).borrow(), head);
            }
        }
    }
    head
}

#[tokio::test]
async fn crash_after_any_failed_disk_operation_acknowledgements_are_right_and_reopening_repairs() {
    let clean = Disk::default();
    let journal = RedbJournal::with_backend(clean.factory()).unwrap();
    journal.open(LOGS[0], "s").await.unwrap();
    let first = clean.operations();
    append_with_recovery(&journal, &clean).await;
    let operations = clean.operations();
    drop(journal);
    for at in first..operations {
        let disk = Disk::default();
        let journal = RedbJournal::with_backend(disk.factory()).unwrap();
        journal.open(LOGS[0], "s").await.unwrap();
        disk.set_failing(match at % 4 {
            0 => Failing::Once(at, ErrorKind::Other),
            1 => Failing::From(at, ErrorKind::Other),
            2 => Failing::Once(at, ErrorKind::StorageFull),
            _ => Failing::From(at, ErrorKind::StorageFull),
        });
        let head = append_with_recovery(&journal, &disk).await;
        let entries = journal.read(LOGS[0], 0, usize::MAX).await.unwrap();
        assert_eq!(entries, batch(LOGS[0], 0, head).entries, "operation {at}");
    }
}

#[tokio::test]
async fn a_damaged_journal_is_rejected_or_correct_and_never_deleted() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal.redb");
    let journal = RedbJournal::open(&path).unwrap();
    journal.open(LOGS[0], "s").await.unwrap();
    for step in 0..20 {
        journal.append(vec![batch(LOGS[0], step * 5, 5)]).await.remove(0).unwrap();
    }
    journal.close().await;
    let whole = std::fs::read(&path).unwrap();
    let (mut random, mut refused) = (Random(2), 0u32);
    for _ in 0..DAMAGED {
        let mut bytes = whole.clone();
        damage(&mut bytes, &mut random);
        std::fs::write(&path, &bytes).unwrap();
        match RedbJournal::open(&path) {
            Err(JournalError::Corrupt { .. } | JournalError::Io { .. }) => {
                refused += 1;
                assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2, "the journal and its head");
                assert!(path.exists());
            }
            Err(other) => panic!("{other}"),
            Ok(journal) => {
                if let Ok(entries) = journal.read(LOGS[0], 0, usize::MAX).await {
                    assert_eq!(
                        entries,
                        batch(LOGS[0], 0, 100).entries,
                        "the entries differ from the acknowledged ones"
                    );
                }
                journal.close().await;
            }
        }
    }
    assert!(refused > DAMAGED / 3, "only {refused} of {DAMAGED} were refused");
}

#[tokio::test]
async fn a_journal_of_a_newer_program_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal.redb");
    RedbJournal::open(&path).unwrap().close().await;
    let database = redb::Database::open(&path).unwrap();
    let transaction = database.begin_write().unwrap();
    let meta = redb::TableDefinition::<&str, &[u8]>::new("meta");
    transaction.open_table(meta).unwrap().insert("format", 9u32.to_le_bytes().as_slice()).unwrap();
    transaction.commit().unwrap();
    drop(database);
    let Err(JournalError::Newer { found: 9, known: 2, .. }) = RedbJournal::open(&path) else { panic!("not refused") };
}

#[tokio::test]
async fn a_second_journal_on_the_same_file_is_refused_until_the_first_is_closed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal.redb");
    let first = RedbJournal::open(&path).unwrap();
    assert!(matches!(RedbJournal::open(&path), Err(JournalError::Locked { .. })));
    first.close().await;
    RedbJournal::open(&path).unwrap();
}

#[test]
fn a_file_that_is_not_a_journal_is_not_changed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal.redb");
    for content in ["", "not a journal"] {
        std::fs::write(&path, content).unwrap();
        assert!(matches!(RedbJournal::open(&path), Err(JournalError::Corrupt { .. })));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), content);
    }
    assert!(matches!(RedbJournal::open(folder.path()), Err(JournalError::Io { .. })));
    assert!(matches!(RedbJournal::open(folder.path().join("no/such/folder")), Err(JournalError::Io { .. })));
}

#[cfg(unix)]
#[test]
fn an_incomplete_draft_is_replaced_and_only_the_owner_can_read() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal.redb");
    std::fs::write(folder.path().join("journal.redb.new"), "half a fi").unwrap();
    drop(RedbJournal::open(&path).unwrap());
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[tokio::test]
async fn batches_of_one_call_share_one_commit() {
    let disk = Disk::default();
    let journal = RedbJournal::with_backend(disk.factory()).unwrap();
    let logs: Vec<String> = (0..64).map(|log| format!("log {log}")).collect();
    for log in &logs {
        journal.open(log, "s").await.unwrap();
    }
    let all = |seq| logs.iter().map(|log| batch(log, seq, 1)).collect::<Vec<_>>();
    let before = disk.syncs();
    assert!(journal.append(all(0)).await.iter().all(Result::is_ok));
    let after = disk.syncs();
    assert!(after - before <= 3, "two phases, and a file that grows is synced once more");
    let refused = journal.append(vec![batch(&logs[0], 0, 1)]).await.remove(0);
    assert!(matches!(refused, Err(AppendError::Moved { .. })));
    assert_eq!(disk.syncs(), after, "a refusal costs no sync");
    journal.append(vec![batch(&logs[0], 1, 1)]).await.remove(0).unwrap();
    assert_eq!(disk.syncs(), after + 2, "a small append is two syncs");
}

/// Prints the duration of commits: `cargo test --lib commit_times -- --ignored --nocapture`.
#[tokio::test]
#[ignore = "a measurement"]
async fn commit_times() {
    let folder = tempfile::tempdir_in(".").unwrap();
    let journal = RedbJournal::open(folder.path().join("journal.redb")).unwrap();
    journal.open("d", "s").await.unwrap();
    let mut head = 0;
    for size in [1, 64] {
        let mut times: Vec<_> = Vec::new();
        for _ in 0..300 {
            let entries = (head + 1..=head + size).map(|seq| LogEntry { seq, bytes: vec![7; 300].into() }).collect();
            let batch = LogBatch { entries, claims: Vec::new(), ..batch("d", head, 0) };
            let begun = Instant::now();
            journal.append(vec![batch]).await.remove(0).unwrap();
            times.push(begun.elapsed());
            head += size;
        }
        times.sort();
        println!("batch {size}: p50 {:?}, p99 {:?}", times[150], times[297]);
    }
}

#[tokio::test]
async fn a_log_that_differs_from_its_head_file_is_in_doubt() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("j.redb");
    let append = |journal: RedbJournal, expect: Seq| async move {
        let entry = LogEntry { seq: expect + 1, bytes: "e".into() };
        let batch = LogBatch {
            log: "a".into(),
            expect,
            fence: Fence::LOCAL,
            entries: vec![entry],
            claims: Vec::new(),
            deliveries: Vec::new(),
            marks: Vec::new(),
        };
        assert!(journal.append(vec![batch]).await.remove(0).is_ok());
    };
    let journal = RedbJournal::open(&path).unwrap();
    let first = journal.open("a", "s").await.unwrap();
    assert_eq!(first.doubt, None);
    append(journal.clone(), 0).await;
    let copy = dir.path().join("copy.redb");
    journal.snapshot().unwrap().write(&copy).unwrap();
    append(journal.clone(), 1).await;
    journal.close().await;
    let whole = std::fs::read(&path).unwrap();
    let opened = async |path: &std::path::Path| {
        let journal = RedbJournal::open(path).unwrap();
        let opened = journal.open("a", "s").await.unwrap();
        (journal, opened)
    };
    let (journal, again) = opened(&path).await;
    assert_eq!((again.doubt, again.epoch, again.head), (None, first.epoch.clone(), 2));
    append(journal.clone(), 2).await;
    journal.close().await;
    // Replace the file with an older one. The doubt stays until a new epoch has begun.
    std::fs::write(&path, &whole).unwrap();
    for _ in 0..2 {
        let (journal, older) = opened(&path).await;
        assert!(older.doubt.is_some_and(|why| why.contains("ends at 2 but had reached 3")));
        journal.close().await;
    }
    let (journal, _) = opened(&path).await;
    let second = journal.new_epoch("a", 0, &[1], "restored").await.unwrap();
    journal.close().await;
    let (journal, next) = opened(&path).await;
    assert_eq!((next.doubt, next.epoch, next.begun), (None, second.epoch, 2));
    journal.close().await;
    // A file of another epoch, a file without its head, and a backup with its own head.
    std::fs::write(&path, &whole).unwrap();
    let (journal, older) = opened(&path).await;
    assert!(older.doubt.is_some_and(|why| why.contains("epoch differs")));
    journal.close().await;
    std::fs::remove_file(dir.path().join("j.redb.head")).unwrap();
    let (journal, bare) = opened(&path).await;
    assert!(bare.doubt.is_some_and(|why| why.contains("head file is missing")));
    journal.close().await;
    let (journal, backup) = opened(&copy).await;
    assert_eq!((backup.epoch, backup.head), (first.epoch, 1));
    assert!(backup.doubt.is_some_and(|why| why.contains("backup")));
    journal.close().await;
}
