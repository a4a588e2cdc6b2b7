//! The filter tree: which rows match.

use super::Pattern;
use crate::record::CborValue;
use crate::vista::Result;

/// Which rows match. Three-valued as SQL: a test that meets null is unknown, and unknown does not match, negated or not.
#[derive(Clone, Debug, PartialEq)]
pub enum Filter {
    /// All of these; empty lets every row through.
    All(Vec<Filter>),
    /// Any of these; empty lets none through.
    Any(Vec<Filter>),
    /// Not this.
    Not(Box<Filter>),
    /// A test on one column.
    Test {
        /// The column, or a path into it (`meta->size`, `meta->>size`, `tags->0`). A column of that very name wins.
        column: String,
        /// The test.
        test: Test,
    },
}

/// A test on one cell. A null or missing cell matches only `Is` and `IsDistinct`.
///
/// Values of different kinds (booleans, numbers, texts, the rest) are unequal, and neither is greater.
#[derive(Clone, Debug, PartialEq)]
pub enum Test {
    /// Equal; integers and floats compare as numbers, decimals by value.
    Eq(CborValue),
    /// Not equal, and not null.
    Neq(CborValue),
    /// Greater, of the same kind.
    Gt(CborValue),
    /// Greater or equal, of the same kind.
    Gte(CborValue),
    /// Less, of the same kind.
    Lt(CborValue),
    /// Less or equal, of the same kind.
    Lte(CborValue),
    /// The whole text is like [`Pattern::like`].
    Like(Pattern),
    /// The whole text is like [`Pattern::ilike`], whatever the case.
    Ilike(Pattern),
    /// A [`Pattern::regex`] is found in the text.
    Match(Pattern),
    /// A [`Pattern::iregex`] is found in the text, whatever the case.
    Imatch(Pattern),
    /// Equal to one of these.
    In(Vec<CborValue>),
    /// Null, or a boolean; never unknown itself.
    Is(IsTest),
    /// Not the same, null being the same as null; never unknown itself.
    IsDistinct(CborValue),
}

/// What `is` asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IsTest {
    /// Null or missing.
    Null,
    /// The boolean true.
    True,
    /// The boolean false.
    False,
    /// Neither true nor false because null or missing.
    Unknown,
}

impl IsTest {
    /// Its word in queries.
    pub fn as_str(self) -> &'static str {
        match self {
            IsTest::Null => "null",
            IsTest::True => "true",
            IsTest::False => "false",
            IsTest::Unknown => "unknown",
        }
    }

    /// Reads its word, whatever the case.
    pub fn parse(word: &str) -> Option<IsTest> {
        [IsTest::Null, IsTest::True, IsTest::False, IsTest::Unknown]
            .into_iter()
            .find(|truth| truth.as_str().eq_ignore_ascii_case(word))
    }
}

impl Default for Filter {
    fn default() -> Self {
        Filter::All(Vec::new())
    }
}

impl Filter {
    /// `test` on `column`.
    pub fn test(column: impl Into<String>, test: Test) -> Filter {
        Filter::Test { column: column.into(), test }
    }

    /// `column` equals `value`.
    pub fn eq(column: impl Into<String>, value: CborValue) -> Filter {
        Filter::test(column, Test::Eq(value))
    }

    /// The opposite.
    #[must_use]
    #[expect(clippy::should_implement_trait, reason = "a builder beside `eq`, not an operator")]
    pub fn not(self) -> Filter {
        Filter::Not(Box::new(self))
    }

    /// Narrows by `other`.
    pub fn and(&mut self, other: Filter) {
        match self {
            Filter::All(all) => all.push(other),
            _ => {
                let own = std::mem::take(self);
                *self = Filter::All(vec![own, other]);
            }
        }
    }

    /// Whether every row matches by construction.
    pub fn is_everything(&self) -> bool {
        matches!(self, Filter::All(all) if all.iter().all(Filter::is_everything))
    }

    /// Every column or path named, as often as it is.
    pub fn columns(&self) -> Vec<&str> {
        match self {
            Filter::All(parts) | Filter::Any(parts) => parts.iter().flat_map(Filter::columns).collect(),
            Filter::Not(inner) => inner.columns(),
            Filter::Test { column, .. } => vec![column],
        }
    }

    /// Whether a test compares with a pattern, which costs more than all else: it is compiled first.
    pub fn has_patterns(&self) -> bool {
        match self {
            Filter::All(parts) | Filter::Any(parts) => parts.iter().any(Filter::has_patterns),
            Filter::Not(inner) => inner.has_patterns(),
            Filter::Test { test, .. } => {
                matches!(test, Test::Like(_) | Test::Ilike(_) | Test::Match(_) | Test::Imatch(_))
            }
        }
    }

    /// Rows that can match at most, where `column` has no value twice and the filter enumerates its values.
    pub fn most_by(&self, column: &str) -> Option<u64> {
        match self {
            Filter::All(parts) => parts.iter().filter_map(|part| part.most_by(column)).min(),
            Filter::Any(parts) => parts.iter().map(|part| part.most_by(column)).sum(),
            Filter::Test { column: own, test } if own == column => match test {
                Test::Eq(_) => Some(1),
                Test::In(values) => Some(values.len() as u64),
                _ => None,
            },
            Filter::Test { .. } | Filter::Not(_) => None,
        }
    }

    /// How many tests it has.
    pub fn tests(&self) -> usize {
        match self {
            Filter::All(parts) | Filter::Any(parts) => parts.iter().map(Filter::tests).sum(),
            Filter::Not(inner) => inner.tests(),
            Filter::Test { .. } => 1,
        }
    }
}

impl Test {
    /// The whole text is like `pattern`: `*` or `%` any run, `_` one character.
    ///
    /// # Errors
    /// [`Error::Invalid`](crate::Error::Invalid) if it is too big.
    pub fn like(pattern: &str) -> Result<Test> {
        Pattern::like(pattern).map(Test::Like)
    }

    /// [`Test::like`] whatever the case.
    ///
    /// # Errors
    /// As [`Test::like`].
    pub fn ilike(pattern: &str) -> Result<Test> {
        Pattern::ilike(pattern).map(Test::Ilike)
    }

    /// The regular expression is found in the text.
    ///
    /// # Errors
    /// [`Error::Invalid`](crate::Error::Invalid) if it cannot be read or is too big.
    pub fn matches(regex: &str) -> Result<Test> {
        Pattern::regex(regex).map(Test::Match)
    }

    /// [`Test::matches`] whatever the case.
    ///
    /// # Errors
    /// As [`Test::matches`].
    pub fn imatches(regex: &str) -> Result<Test> {
        Pattern::iregex(regex).map(Test::Imatch)
    }
}
