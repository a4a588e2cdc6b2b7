//! Lives that end by SIGKILL, with surgery of the files between them: what was acknowledged is applied, open or parked, or it is in
//! no file any more and that was noticed.
//!
//! `DIORAMA_SURGERY_LIVES=100` runs more lives than the test command does, `DIORAMA_SURGERY_SEED=N` those of an earlier run.

use std::collections::{BTreeMap, HashMap};

use super::*;
use crate::harness::Random;

/// Rows that are written again and again, with a number that only rises.
const ROWS: usize = 12;

/// What is done to the files between two lives.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Surgery {
    None,
    OlderJournal,
    OlderJournalAndHead,
    OlderJournalAndCache,
    OlderAll,
    OlderCache,
    OlderHead,
    DeleteCache,
    DeleteHead,
    DeleteJournal,
    Backup,
}

impl Surgery {
    const ALL: [Surgery; 11] = [
        Surgery::None,
        Surgery::OlderJournal,
        Surgery::OlderJournalAndHead,
        Surgery::OlderJournalAndCache,
        Surgery::OlderAll,
        Surgery::OlderCache,
        Surgery::OlderHead,
        Surgery::DeleteCache,
        Surgery::DeleteHead,
        Surgery::DeleteJournal,
        Surgery::Backup,
    ];

    /// Files that are put back from copies of an earlier end.
    fn files(self) -> &'static [&'static str] {
        match self {
            Surgery::OlderJournal => &[JOURNAL],
            Surgery::OlderJournalAndHead => &[JOURNAL, HEAD],
            Surgery::OlderJournalAndCache => &[JOURNAL, CACHE],
            Surgery::OlderAll | Surgery::Backup => &[JOURNAL, HEAD, CACHE],
            Surgery::OlderCache => &[CACHE],
            Surgery::OlderHead => &[HEAD],
            _ => &[],
        }
    }

    fn deleted(self) -> Option<&'static str> {
        match self {
            Surgery::DeleteCache => Some(CACHE),
            Surgery::DeleteHead => Some(HEAD),
            Surgery::DeleteJournal => Some(JOURNAL),
            _ => None,
        }
    }

    fn takes_writes(self) -> bool {
        self.files().contains(&JOURNAL) || self == Surgery::DeleteJournal
    }
}

/// An acknowledged write that was not seen to be settled.
#[derive(Clone, Debug)]
struct Sent {
    dio: &'static str,
    row: String,
    n: i64,
}

struct Trial {
    shop: Shop,
    random: Random,
    n: i64,
    /// Acknowledged writes that are in the files.
    open: HashMap<String, Sent>,
    /// What was open when copies were made.
    copied: HashMap<String, Sent>,
    /// The highest number that the database was seen to have of each row.
    highest: BTreeMap<(&'static str, String), i64>,
    figures: BTreeMap<String, u64>,
}

impl Trial {
    fn count(&mut self, what: impl Into<String>, by: u64) {
        *self.figures.entry(what.into()).or_default() += by;
    }

    /// Writes for a while; the database may be held, so that writes are left.
    fn write(&mut self, server: &Server) {
        if self.random.below(2) == 0 {
            self.shop.hold();
        }
        for _ in 0..20 + self.random.below(40) {
            self.n += 1;
            let dio = if self.random.below(2) == 0 { "orders" } else { "products" };
            let (row, n) = (format!("r{}", self.random.below(ROWS)), self.n);
            let operation = put(server, &format!("/{dio}/{row}"), n);
            self.open.insert(operation, Sent { dio, row, n });
            self.count("acknowledged writes", 1);
        }
    }

    /// No row has gone back.
    fn look(&mut self) {
        let database = self.shop.database();
        for dio in ["orders", "products"] {
            let mut rows = database.prepare(&format!("SELECT id, n FROM {dio}")).unwrap();
            let rows: HashMap<String, i64> =
                rows.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap().map(Result::unwrap).collect();
            for (row, n) in rows {
                let highest = self.highest.entry((dio, row.clone())).or_default();
                assert!(n >= *highest, "{dio}/{row} went back from {highest} to {n}");
                *highest = n;
            }
        }
    }

    /// Everything that is in the files is known, and ends.
    fn check(&mut self, server: &Server) {
        self.shop.release();
        for (operation, sent) in std::mem::take(&mut self.open) {
            let answer = server.get(&format!("/operations/{operation}?wait=20"));
            assert_eq!(answer.status, 200, "{operation} of {sent:?} is silently gone");
            let state = answer.json()["state"].as_str().unwrap().to_string();
            assert!(matches!(&*state, "applied" | "parked"), "{operation} of {sent:?} is {state}");
            if state == "applied" {
                let highest = self.highest.entry((sent.dio, sent.row.clone())).or_default();
                *highest = sent.n.max(*highest);
            } else {
                // It stays parked until a person settles it.
                assert_eq!(server.request("DELETE", &format!("/operations/{operation}"), &[], "").status, 204);
            }
            self.count(state, 1);
        }
        self.look();
    }
}

#[test]
fn nothing_acknowledged_is_silently_lost_over_kills_and_surgery_of_files() {
    let variable = |name: &str| std::env::var(name).ok().map(|value| value.parse::<u64>().unwrap());
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos() as u64;
    let (lives, seed) =
        (variable("DIORAMA_SURGERY_LIVES").unwrap_or(11), variable("DIORAMA_SURGERY_SEED").unwrap_or(now));
    eprintln!("DIORAMA_SURGERY_SEED={seed}");
    let mut trial = Trial {
        shop: Shop::new(),
        random: Random(seed),
        n: 0,
        open: HashMap::new(),
        copied: HashMap::new(),
        highest: BTreeMap::new(),
        figures: BTreeMap::new(),
    };
    let mut server = trial.shop.start();
    for life in 0..lives {
        let surgery = Surgery::ALL[(life as usize + seed as usize) % Surgery::ALL.len()];
        eprintln!("life {life}: {surgery:?}");
        trial.write(&server);
        if surgery == Surgery::Backup {
            let _ = std::fs::remove_dir_all(trial.shop.path("old"));
            let url = format!("http://{}", server.address);
            let saved = crate::process::run(trial.shop.dir.path(), &["backup", "old", "--url", &url]);
            assert!(saved.status.success(), "{saved:?}");
        } else {
            server.kill();
            trial.shop.keep("old", &[CACHE, JOURNAL, HEAD]);
            server = trial.shop.start();
        }
        trial.copied = trial.open.clone();
        trial.shop.release();
        if trial.random.below(2) == 0 {
            // Some of what was copied is delivered before the end.
            eventually("all is delivered", || server.get("/operations?state=queued,running,unknown").body == "[]");
        }
        trial.write(&server);
        let before = ["orders", "products"].map(|dio| epoch(&server, dio));
        server.kill();
        trial.shop.release();
        trial.look();
        trial.shop.put_back("old", surgery.files());
        surgery.deleted().into_iter().for_each(|file| trial.shop.delete(file));
        if surgery.takes_writes() {
            let kept = if surgery == Surgery::DeleteJournal { HashMap::new() } else { trial.copied.clone() };
            let lost = trial.open.keys().filter(|operation| !kept.contains_key(*operation)).count() as u64;
            trial.count("in no file any more", lost);
            trial.open = kept;
        }
        let told = matches!(surgery, Surgery::OlderJournal | Surgery::OlderJournalAndCache | Surgery::Backup);
        if told && trial.random.below(2) == 0 {
            // The database remembers no operation: only its rows tell.
            let _ = trial.shop.database().execute_batch("DELETE FROM _diorama_ops");
            trial.count("operations forgotten by the database", 1);
        }
        trial.shop.said();
        server = trial.shop.start();
        let noticed = ["orders", "products"].map(|dio| epoch(&server, dio)) != before;
        let said = trial.shop.said();
        assert_eq!(said.contains("new epoch"), noticed, "{said}");
        trial.count(format!("{surgery:?}: {}", if noticed { "a new epoch" } else { "went on" }), 1);
        match surgery {
            // Nothing tells it from a kill, unless the cache has seen more than the journal that is put back.
            Surgery::OlderAll | Surgery::OlderJournalAndHead => {}
            Surgery::None | Surgery::OlderCache | Surgery::DeleteCache | Surgery::OlderHead => {
                assert!(!noticed, "{surgery:?}: {said}");
            }
            _ => assert!(noticed, "{surgery:?} was overlooked: {said}"),
        }
        trial.check(&server);
    }
    eprintln!("{lives} lives: {:#?}", trial.figures);
}
