//! What a life shows, held against what was said in those before.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use super::ledger::{Outcome, Row, Sent};
use super::load::{DIOS, send_again};
use super::subscriber::{Event, Heard, Subscriber};
use super::trial::Trial;
use super::wire::{Wire, position};
use super::{ALL, listed, stored};
use crate::process::{PATIENCE, Server};

impl Trial {
    /// What a new life shows is explained by what was said before.
    pub(super) fn check_start(&mut self, server: &Server, sent: &[Sent], heard: &HashMap<&'static str, Heard>) {
        let mut wire = Wire::connect(&server.address).unwrap();
        for dio in DIOS {
            let mine: Vec<&Sent> = sent.iter().filter(|one| one.dio == dio).collect();
            let (rows, epoch, seq) = listed(&mut wire, dio);
            let ledger = self.ledgers.get_mut(dio).unwrap();
            ledger.settle(&mine, &rows).unwrap_or_else(|why| panic!("{dio}: {why}"));
            for one in mine.iter().rev().take(20) {
                assert_eq!(wire.row(dio, &one.id).unwrap(), rows.get(&one.id).cloned(), "{}", one.id);
            }
            let acknowledged = mine.iter().filter_map(|one| match one.outcome {
                Outcome::Acknowledged { seq, .. } => Some(seq),
                Outcome::Doubt => None,
            });
            let place = self.places.get_mut(dio).unwrap();
            place.highest = acknowledged.fold(place.highest, u64::max);
            assert_eq!(epoch, place.epoch, "{dio} has another epoch");
            assert!(seq >= place.highest, "{dio} went back from {} to {seq}", place.highest);
        }
        for dio in ALL {
            self.check_events(server, &mut wire, dio, &heard[dio], sent);
        }
        let (acknowledged, doubts) =
            (sent.iter().filter(|one| !one.is_doubt()).count(), sent.iter().filter(|one| one.is_doubt()).count());
        self.count("acknowledged writes", acknowledged as u64);
        self.count("writes in doubt", doubts as u64);
        for operation in sent.iter().filter_map(Sent::operation) {
            self.pending.insert(operation.to_string());
        }
        self.check_operations(&mut wire, false);
        self.repeat(&mut wire, sent);
        let (deliveries, doubts) = self.stock.check(&server.address);
        self.figures.insert("acknowledged deliveries", deliveries);
        self.count("deliveries in doubt", doubts);
    }

    /// The log has what was told, and nothing between.
    fn check_events(&mut self, server: &Server, wire: &mut Wire, dio: &'static str, heard: &Heard, sent: &[Sent]) {
        let place = self.places.get_mut(dio).unwrap();
        let (_, head) = position(&wire.get(&format!("/{dio}?limit=1")).unwrap());
        let witness = Subscriber::connect(&server.address, dio, &place.epoch, place.heard).unwrap().until(head);
        assert_eq!(witness.resets, [""; 0], "{dio}: a restart must not cost a subscriber its place");
        assert_eq!(heard.resets, [""; 0], "{dio}: nobody was too slow");
        let log: Vec<&Event> = witness.events.iter().filter(|event| event.seq <= heard.last).collect();
        for (told, logged) in heard.events.iter().zip(&log) {
            assert_eq!(told, *logged, "{dio}: what was told is not what the log has");
        }
        assert_eq!(heard.events.len(), log.len(), "{dio}: up to {}", heard.last);
        let logged: HashSet<(&str, &str)> =
            witness.events.iter().filter_map(|event| Some((event.op.as_deref()?, event.id.as_deref()?))).collect();
        let changes = witness.events.iter().filter(|event| event.kind.starts_with("Record"));
        let operations: HashSet<&str> = changes.filter_map(|event| event.op.as_deref()).collect();
        for one in sent.iter().filter(|one| one.dio == dio) {
            let Some(operation) = one.operation() else { continue };
            assert!(operations.contains(operation), "{dio}: no event tells of {one:?}");
            // Operations of a write by filter come in no order.
            let exact = one.id.starts_with("dan") || logged.contains(&(operation, one.id.as_str()));
            assert!(exact, "{dio}: {operation} is not about {}", one.id);
        }
        place.highest = place.highest.max(head);
        place.heard = heard.last.max(place.heard);
        let told = heard.events.len() as u64;
        self.count("events heard", told);
    }

    /// Operations are known; with `all`, every one has been applied.
    fn check_operations(&mut self, wire: &mut Wire, all: bool) {
        let failed = wire.get("/operations?state=failed").unwrap();
        assert_eq!(failed.body, "[]", "an acknowledged write failed");
        let pending = std::mem::take(&mut self.pending);
        for operation in pending {
            let answer = wire.get(&format!("/operations/{operation}")).unwrap();
            assert_eq!(answer.status, 200, "{operation} is not known: {answer:?}");
            let state = answer.json()["state"].as_str().unwrap().to_string();
            match state.as_str() {
                "applied" => {}
                "queued" | "running" | "unknown" if !all => drop(self.pending.insert(operation)),
                _ => panic!("{operation} is {state}"),
            }
        }
    }

    /// Writes with a key are sent again: those that were accepted are not accepted twice.
    fn repeat(&mut self, wire: &mut Wire, sent: &[Sent]) {
        for (one, operation) in std::mem::take(&mut self.keyed) {
            let before = wire.row(one.dio, &one.id).unwrap();
            assert_eq!(send_again(wire, &one), (operation, true), "{one:?}");
            assert_eq!(wire.row(one.dio, &one.id).unwrap(), before, "{one:?} was applied twice");
            self.count("repetitions", 1);
        }
        let keyed: Vec<Sent> = sent.iter().filter(|one| one.key.is_some()).cloned().collect();
        for one in &keyed {
            let before = wire.row(one.dio, &one.id).unwrap();
            let possible = one.effect.on(&before);
            if one.is_doubt() && possible.is_err() && !self.shows(one, &before) {
                panic!("{one:?} can neither have been accepted nor be now: {before:?}");
            }
            let (operation, replayed) = send_again(wire, one);
            let after = wire.row(one.dio, &one.id).unwrap();
            match (one.operation(), replayed) {
                (Some(known), replayed) => {
                    assert_eq!((known, replayed), (operation.as_str(), true), "{one:?}");
                    assert_eq!(after, before, "{one:?} was applied twice");
                }
                (None, true) => assert_eq!(after, before, "{one:?} was applied twice"),
                (None, false) => {
                    assert_eq!(Ok(&after), possible.as_ref(), "{one:?}");
                    self.count("accepted at the second try", 1);
                }
            }
            match after {
                Some(row) => drop(self.ledgers.get_mut(one.dio).unwrap().rows.insert(one.id.clone(), row)),
                None => drop(self.ledgers.get_mut(one.dio).unwrap().rows.remove(&one.id)),
            }
            let (_, seq) = position(&wire.get(&format!("/{}?limit=1", one.dio)).unwrap());
            let place = self.places.get_mut(one.dio).unwrap();
            place.highest = place.highest.max(seq);
            self.pending.insert(operation);
        }
        self.count("repetitions", keyed.len() as u64);
        let certain = keyed.into_iter().filter_map(|one| Some((one.clone(), one.operation()?.to_string())));
        self.keyed = certain.take(8).collect();
    }

    /// Whether the row is what `one` makes of a row.
    fn shows(&self, one: &Sent, row: &Row) -> bool {
        use super::ledger::Effect;
        match (&one.effect, row) {
            (Effect::Insert(item, n), Some(row)) => row == &(item.clone(), *n),
            (Effect::Delete, None) => true,
            _ => false,
        }
    }

    /// Waits until every write is delivered; then the sources have what was acknowledged, and a refresh changes nothing.
    pub(super) fn settle(&mut self, server: &Server) {
        let mut wire = Wire::connect(&server.address).unwrap();
        let deadline = Instant::now() + PATIENCE;
        loop {
            let ready = wire.get("/readyz").unwrap().json();
            if DIOS.iter().all(|dio| ready["dios"][dio]["queued"] == 0) {
                break;
            }
            assert!(Instant::now() < deadline, "writes do not get through: {ready}");
            std::thread::sleep(Duration::from_millis(5));
        }
        self.check_operations(&mut wire, true);
        for dio in DIOS {
            assert_eq!(stored(self.dir.path(), dio), self.ledgers[dio].rows, "{dio}: SQLite has something else");
            let answer = wire.ask("POST", &format!("/{dio}/_refresh"), &[], "").unwrap();
            assert_eq!(answer.status, 200, "{answer:?}");
            assert_eq!(listed(&mut wire, dio).0, self.ledgers[dio].rows, "{dio}: after a refresh");
        }
        self.count("times settled", 1);
    }
}
