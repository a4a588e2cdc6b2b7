//! Calls of `invalidate_*` that wait for the next turn.

use std::collections::VecDeque;

use crate::record::Id;
use crate::state::{Command, Origin};

/// Number of waiting calls beyond which all rows are invalidated instead.
const MOST_INVALID: usize = 10_000;

/// Queue of the calls of `invalidate_*` that the next turn publishes.
#[derive(Debug, Default)]
pub(crate) struct Invalidations {
    /// The rows, in the order of the calls; `None` for all rows.
    pub(crate) calls: VecDeque<Option<Id>>,
    /// True once a turn that takes them was requested from the committer.
    pub(crate) turn_requested: bool,
}

impl Invalidations {
    /// Adds calls before the others or after them. If too many wait, one call for all rows replaces them.
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

    /// Takes all calls as commands, in their order.
    pub(crate) fn take(&mut self) -> Vec<Command> {
        self.turn_requested = false;
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
