//! Invariants after every step and at rest, and the key that distinguishes states.

use super::*;

impl World {
    pub(super) fn check(&self) {
        for key in 0..self.setup.keys {
            let visible = self.state.get(&id(key)).map(|row| value_of(&row.body()));
            let routed = !matches!(self.setup.route, Route::Through { .. });
            assert!(
                !(routed && self.written[key] && !self.blank[key] && visible == Some(0)),
                "row {key} goes back to its first value"
            );
            let dirty = self.state.is_dirty(&id(key));
            if self.delivery.is_some() || !self.reads.is_empty() || self.stale || dirty {
                continue;
            }
            let reported = self.listed[key] + 1 >= self.history[key].len() || self.setup.hooks != Hooks::None;
            let waiting = self.state.has_queued(&id(key)) || self.events.iter().any(|event| event.0 == key);
            if !reported || waiting || !self.consumer.is_empty() {
                continue;
            }
            self.check_rest(key, visible);
        }
    }

    /// Checks a row after everything about it has arrived.
    pub(super) fn check_rest(&self, key: usize, visible: Option<u64>) {
        let base = self.state.base(&id(key)).map(|base| value_of(&base.body));
        let listed = self.listed[key] + 1 >= self.history[key].len();
        match self.setup.route {
            Route::Through { .. } => {
                // Without an event for its own write, the answer shows that the master has it.
                assert_eq!(base, self.master(key), "row {key} at rest");
                assert_eq!(visible, self.master(key), "row {key} at rest");
            }
            Route::Around => assert_eq!(base, self.master(key), "row {key} at rest"),
            Route::Consumer { feedback } if feedback && self.setup.hooks != Hooks::None || listed => {
                assert_eq!(base, self.master(key), "row {key} at rest");
                let spared = self.spared[key] && self.state.fold(&id(key)).is_some();
                if !spared && !self.awaits_second_list(key) && !self.was_set_back(key) {
                    assert_eq!(visible, self.master(key), "row {key} at rest");
                }
            }
            Route::Consumer { .. } => {}
        }
    }

    /// Returns a key that is equal for worlds with equal futures: times count only by their order.
    pub(super) fn key(&self) -> u128 {
        let state = &self.state;
        let mut times = vec![state.clock()];
        times.extend(state.guards.keys());
        times.extend(state.touched.values().flat_map(|touched| [touched.at, touched.row]));
        times.extend(state.dirty.values());
        times.extend(state.ops().filter(|op| op.is_open()).map(|op| op.delivered));
        times.extend(self.reads.iter().map(|read| read.mark));
        times.extend(self.delivery.iter().map(|delivery| delivery.mark));
        times.sort_unstable();
        times.dedup();
        let rank = |time: u64| times.partition_point(|other| *other < time) as u64 + 1;
        let value = |body: Option<&Body>| body.map_or(0, |body| value_of(body) * 1000 + body.size() as u64 + 1);
        let mut out: Vec<u64> = Vec::with_capacity(128);
        for key in 0..self.setup.keys {
            let id = id(key);
            out.push(value(state.base(&id).as_ref().map(|base| &base.body)));
            out.push(value(state.get(&id).map(|row| row.body()).as_ref()));
            out.extend(state.touched.get(&id).map_or([0, 0], |touched| [rank(touched.at), rank(touched.row)]));
            out.push(state.dirty.get(&id).map_or(0, |since| rank(*since)));
            out.push(match state.versions.get(&id).map(|known| &known.own) {
                None | Some(OwnVersion::InRow) => 0,
                Some(OwnVersion::Unknown) => 1,
                Some(OwnVersion::Stated(version)) => 2 + u64::try_from(version.as_integer().unwrap()).unwrap(),
            });
            out.push(state.versions.get(&id).map_or(0, |known| {
                let version =
                    known.others.by("sender").map_or(0, |version| i128::from(version.as_integer().unwrap()) + 1);
                version as u64 * 2 + u64::from(known.latest.is_some())
            }));
            if let Some(fold) = state.fold(&id) {
                out.extend(fold.ops.iter().map(|op| op.as_u128() as u64));
                out.push(1000 + fold.rebased.len() as u64);
                out.extend(fold.rebased.iter().map(|op| op.as_u128() as u64));
                out.push(u64::MAX - 6);
                out.extend(fold.seen.iter().map(|op| op.as_u128() as u64));
            }
            out.push(u64::MAX);
            out.extend(self.history[key].iter().map(|n| n.map_or(0, |n| n + 1)));
            out.extend([u64::MAX, self.shown[key] as u64, self.listed[key] as u64]);
            out.extend([u64::from(self.written[key]), u64::from(self.relisted[key])]);
        }
        for (mark, count) in &state.guards {
            out.extend([rank(*mark), (*count).into()]);
        }
        for op in state.ops().filter(|op| op.is_open()) {
            out.extend([u64::MAX, op.id.as_u128() as u64, (op.state == OpState::Routed).into(), rank(op.delivered)]);
            out.push(op.tried.into());
        }
        for read in &self.reads {
            out.extend([u64::MAX - 1, read.key.map_or(9, |key| key as u64), rank(read.mark)]);
            out.extend(read.begun.iter().chain(read.seen.iter().flatten()).map(|version| *version as u64));
        }
        if let Some(delivery) = &self.delivery {
            out.extend([u64::MAX - 2, delivery.op.as_u128() as u64, rank(delivery.mark)]);
            match &delivery.answer {
                None => out.push(0),
                Some(None) => out.push(1),
                Some(Some(made)) => out.extend(made.iter().map(|(_, version)| 2 + *version as u64)),
            }
        }
        out.push(u64::MAX - 3);
        out.extend(self.events.iter().map(|(key, version)| (key * 100 + version) as u64));
        out.push(u64::MAX - 4);
        out.extend(self.consumer.iter().map(|op| op.as_u128() as u64));
        out.push(u64::MAX - 7);
        out.extend(self.published.iter().map(|op| op.as_u128() as u64));
        let left = [self.externals, self.writes, self.refreshes, self.restarts, self.stale.into()];
        out.extend([
            u64::MAX - 5,
            self.next,
            u64::from_be_bytes([0, 0, 0, left[0], left[1], left[2], left[3], left[4]]),
        ]);
        let bytes: Vec<u8> = out.iter().flat_map(|number| number.to_le_bytes()).collect();
        xxhash_rust::xxh3::xxh3_128(&bytes)
    }

    /// Returns the first version, starting at `from`, that the confirmed row can have.
    pub(super) fn position(&self, key: usize, from: usize) -> Option<usize> {
        let base = self.state.base(&id(key)).map(|base| value_of(&base.body));
        (from..self.history[key].len()).find(|version| self.history[key][*version] == base)
    }

    pub(super) fn is_listed(&self) -> bool {
        (0..self.setup.keys).all(|key| self.listed[key] + 1 >= self.history[key].len() && !self.awaits_second_list(key))
    }

    /// Returns true if a row with routed writes changed beneath them. The master may not have them yet, or it was reset since
    /// to the result of an earlier one. Only a second read with the same row decides, and then the master wins.
    pub(super) fn awaits_second_list(&self, key: usize) -> bool {
        self.state.fold(&id(key)).is_some_and(|fold| !fold.rebased.is_empty()) && !self.relisted[key]
    }

    /// Returns true for a routed write of a row that the master did not have when the route accepted it. A later deletion after
    /// the consumer applied the write is not detected. No other value of the master occurs twice.
    pub(super) fn was_set_back(&self, key: usize) -> bool {
        let fold = self.state.fold(&id(key));
        let settled =
            fold.is_some_and(|fold| fold.base.is_none() && fold.ops.iter().any(|op| !fold.rebased.contains(op)));
        settled && self.master(key).is_none()
    }
}
