//! Properties of a source that its driver inferred.

/// A driver's guess about its source, for people: its subject, value and reason, and the configuration key that overrides it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inferred {
    /// Subject of the guess: `separator`, or `type of "price"`.
    pub what: String,
    /// The guess.
    pub value: String,
    /// The reason, in a few words.
    pub because: String,
    /// The configuration key that overrides it.
    pub key: String,
    /// True if the guess may well be wrong.
    pub is_doubtful: bool,
}

impl Inferred {
    /// A guess that is almost certainly right.
    pub fn new(
        what: impl Into<String>,
        value: impl Into<String>,
        because: impl Into<String>,
        key: impl Into<String>,
    ) -> Inferred {
        let (what, value, because, key) = (what.into(), value.into(), because.into(), key.into());
        Inferred { what, value, because, key, is_doubtful: false }
    }

    /// Marks the guess as doubtful.
    #[must_use]
    pub fn doubtful(mut self) -> Inferred {
        self.is_doubtful = true;
        self
    }
}

impl std::fmt::Display for Inferred {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {} ({}; key: {})", self.what, self.value, self.because, self.key)
    }
}
