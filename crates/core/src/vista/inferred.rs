//! What a driver found out by looking at its source.

/// A guess of a driver, for people: what it took for what, why, and which key of the configuration decides otherwise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inferred {
    /// Subject of the guess: `separator`, or `type of "price"`.
    pub what: String,
    /// The guess.
    pub value: String,
    /// The reason, in a few words.
    pub because: String,
    /// The key that settles it.
    pub key: String,
    /// Set if the guess may well be wrong.
    pub is_doubtful: bool,
}

impl Inferred {
    /// A guess that is hardly wrong.
    pub fn new(
        what: impl Into<String>,
        value: impl Into<String>,
        because: impl Into<String>,
        key: impl Into<String>,
    ) -> Inferred {
        let (what, value, because, key) = (what.into(), value.into(), because.into(), key.into());
        Inferred { what, value, because, key, is_doubtful: false }
    }

    /// The same, if it may well be wrong.
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
