//! Fence around a table of a remote cache: who may change it, and whether the server still has what it has confirmed.
//!
//! A process claims a table when it loads it, and numbers its changes. The server stores both with the rows, in the same transaction.
//! So a process notices if another one has claimed the table, and if the server has lost confirmed changes, after which the rows of
//! later ones would not fit those that are there.

use uuid::Uuid;

/// Claim of a table and the number of its last change, as the server stores them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Stored {
    /// Number of the claim.
    pub(crate) claim: i64,
    /// Name of the process that has claimed the table.
    pub(crate) owner: String,
    /// Number of the last change.
    pub(crate) turn: i64,
}

/// Knowledge of a process about its table.
#[derive(Clone, Debug)]
pub(crate) struct Fence {
    /// The claim with the last number that was sent.
    own: Stored,
    /// Number of the last confirmed change.
    confirmed: i64,
}

/// Relation of the table to a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Relation {
    /// It has every confirmed change of this process.
    Own,
    /// The server has lost changes, or the claim.
    Lost,
    /// Another process has claimed it.
    Taken,
}

/// Message for a table that another process has claimed.
pub(crate) const TAKEN: &str =
    "another process has taken this cache over: give each its own database, or another cache_prefix";
/// Message for a table whose server has lost changes.
pub(crate) const LOST: &str = "the server has lost what it had stored";

impl Fence {
    /// Claims a table with this content; `None` for one that does not exist. [`Fence::stored`] is to be stored.
    pub(crate) fn claim(stored: Option<&Stored>) -> Fence {
        let (claim, turn) = stored.map_or((0, 0), |stored| (stored.claim, stored.turn));
        let own = Stored { claim: claim + 1, owner: Uuid::now_v7().to_string(), turn };
        Fence { confirmed: turn, own }
    }

    /// Numbers the next change. [`Fence::stored`] is to be stored with it.
    pub(crate) fn next(&mut self) {
        self.own.turn += 1;
    }

    /// Claim and number to store.
    pub(crate) fn stored(&self) -> &Stored {
        &self.own
    }

    /// Notes that the last change is stored.
    pub(crate) fn confirm(&mut self) {
        self.confirmed = self.own.turn;
    }

    /// Compares with what the server has. Changes without an answer may be stored or not.
    pub(crate) fn relation(&self, stored: Option<&Stored>) -> Relation {
        let Some(stored) = stored else { return Relation::Lost };
        match stored.claim.cmp(&self.own.claim) {
            std::cmp::Ordering::Greater => Relation::Taken,
            std::cmp::Ordering::Less => Relation::Lost,
            std::cmp::Ordering::Equal if stored.owner != self.own.owner => Relation::Taken,
            std::cmp::Ordering::Equal if stored.turn < self.confirmed => Relation::Lost,
            std::cmp::Ordering::Equal => Relation::Own,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lost_changes_and_other_processes_are_noticed() {
        let mut first = Fence::claim(None);
        assert_eq!(first.relation(None), Relation::Lost);
        let claimed = first.stored().clone();
        assert_eq!(first.relation(Some(&claimed)), Relation::Own);
        first.next();
        let unknown = first.stored().clone();
        // An answer was lost: the change may be there or not.
        assert_eq!([&claimed, &unknown].map(|stored| first.relation(Some(stored))), [Relation::Own; 2]);
        first.next();
        first.confirm();
        assert_eq!(first.relation(Some(&unknown)), Relation::Lost);
        assert_eq!(first.relation(Some(first.stored())), Relation::Own);
        let second = Fence::claim(Some(first.stored()));
        assert_eq!(first.relation(Some(second.stored())), Relation::Taken);
        assert_eq!(second.relation(Some(first.stored())), Relation::Lost, "the server has lost the claim");
        // Both have claimed the same table, whose first claim was lost.
        let third = Fence::claim(Some(&claimed));
        assert_eq!(second.relation(Some(third.stored())), Relation::Taken);
    }
}
