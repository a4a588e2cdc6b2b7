//! Calls of `invalidate_*` that wait for the next turn.

use std::collections::VecDeque;

use crate::record::Id;
use crate::state::{Command, Origin};

/// Beyond so many calls that wait, everything is invalidated.
const MOST_INVALID: usize = 10_000;

/// Calls of `invalidate_*` that subscribers are to be told of with the next turn.
#[derive(Debug, Default)]
pub(crate) struct Invalidations {
    /// The rows, in the order of the calls; `None` for all rows.
    pub(crate) calls: VecDeque<Option<Id>>,
    pub(crate) poked: bool,
}

impl Invalidations {
    /// Adds calls before the others or after them. Where too many wait, one for all rows takes the place of all.
    pub(crate) fn add(&mut self, calls: impl IntoIterator<Item = Option<Id>>, before: bool) {
        let mut calls: VecDeque<Option<Id>> = calls.into_iter().collect();
        if before {
            std::mem::swap(&mut self.calls, &mut calls);
        }
        self.calls.append(&mut calls);
        if self.calls.len() > MOST_INVALID {
            self.calls = VecDeque::from([None]);
        }
    }

    /// What tells subscribers of all calls so far, in their order.
    pub(crate) fn take(&mut self) -> Vec<Command> {
        self.poked = false;
        let mut commands = Vec::new();
        for call in self.calls.drain(..) {
            match (call, commands.last_mut()) {
                (None, _) => commands.push(Command::InvalidateAll { covered: false, origin: Origin::Program }),
                (Some(id), Some(Command::Invalidate(ids))) => ids.push(id),
                (Some(id), _) => commands.push(Command::Invalidate(vec![id])),
            }
        }
        commands
    }
}
