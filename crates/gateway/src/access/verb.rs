//! [`Verb`]: the actions that rules permit, and sets of them.

use std::fmt;

/// Action that a rule can permit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Verb {
    /// Lists, single rows, counts, groups, exports and plans.
    Read,
    /// New rows.
    Insert,
    /// Replacements and patches of rows.
    Update,
    /// Removal of rows.
    Delete,
    /// Events and live queries.
    Events,
    /// Refreshes from the source.
    Refresh,
    /// Writes of all callers, with their errors; retries.
    Operations,
    /// Received webhook deliveries.
    Webhooks,
    /// Erasure, backups, metrics and the audit log.
    Admin,
}

impl Verb {
    /// All verbs, in the order of their declaration.
    pub const ALL: [Verb; 9] = [
        Verb::Read,
        Verb::Insert,
        Verb::Update,
        Verb::Delete,
        Verb::Events,
        Verb::Refresh,
        Verb::Operations,
        Verb::Webhooks,
        Verb::Admin,
    ];

    /// Verbs whose rules may differ in rows and columns.
    pub(crate) const OF_ROWS: [Verb; 5] = [Verb::Read, Verb::Events, Verb::Insert, Verb::Update, Verb::Delete];

    /// Word of the verb in configurations and messages.
    pub const fn as_str(self) -> &'static str {
        match self {
            Verb::Read => "read",
            Verb::Insert => "insert",
            Verb::Update => "update",
            Verb::Delete => "delete",
            Verb::Events => "events",
            Verb::Refresh => "refresh",
            Verb::Operations => "operations",
            Verb::Webhooks => "webhooks",
            Verb::Admin => "admin",
        }
    }

    /// Parses the word of a verb.
    pub fn parse(word: &str) -> Option<Verb> {
        Verb::ALL.into_iter().find(|verb| verb.as_str() == word)
    }
}

impl fmt::Display for Verb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Set of verbs.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Verbs(u16);

impl Verbs {
    /// Every verb.
    pub const ALL: Verbs = Verbs((1 << Verb::ALL.len()) - 1);
    /// No verb.
    pub const NONE: Verbs = Verbs(0);

    /// Returns true if the set has `verb`.
    pub const fn has(self, verb: Verb) -> bool {
        self.0 & 1 << verb as u8 != 0
    }

    /// Returns true if the set is empty.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Returns the verbs that are in either set.
    #[must_use]
    pub const fn union(self, other: Verbs) -> Verbs {
        Verbs(self.0 | other.0)
    }

    /// Returns the verbs that are in both sets.
    #[must_use]
    pub const fn intersection(self, other: Verbs) -> Verbs {
        Verbs(self.0 & other.0)
    }

    /// Returns the verbs in the order of their declaration.
    pub fn iter(self) -> impl Iterator<Item = Verb> {
        Verb::ALL.into_iter().filter(move |verb| self.has(*verb))
    }
}

impl FromIterator<Verb> for Verbs {
    fn from_iter<I: IntoIterator<Item = Verb>>(verbs: I) -> Verbs {
        verbs.into_iter().fold(Verbs::NONE, |set, verb| Verbs(set.0 | 1 << verb as u8))
    }
}

impl fmt::Debug for Verbs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter().map(Verb::as_str)).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_has_the_verbs_it_is_made_of_and_words_are_read_back() {
        let set = Verbs::from_iter([Verb::Read, Verb::Admin]);
        assert!(set.has(Verb::Read) && set.has(Verb::Admin) && !set.has(Verb::Delete));
        assert_eq!(Verbs::from_iter(Verb::ALL), Verbs::ALL);
        assert!(Verb::ALL.into_iter().all(|verb| Verb::parse(verb.as_str()) == Some(verb)));
        assert_eq!(Verb::parse("Read"), None);
        assert_eq!(set.intersection(Verbs::from_iter([Verb::Admin])).iter().collect::<Vec<_>>(), [Verb::Admin]);
    }
}
