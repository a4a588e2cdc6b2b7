//! The filter tree: conditions on rows.

use super::Pattern;
use crate::record::CborValue;
use crate::vista::Result;

/// A condition on rows. Logic is three-valued as in SQL: a test of null is unknown, and unknown does not match, negated or not.
#[derive(Clone, Debug, PartialEq)]
pub enum Filter {
    /// All of these; empty matches every row.
    All(Vec<Filter>),
    /// Any of these; empty matches no row.
    Any(Vec<Filter>),
    /// Not this.
    Not(Box<Filter>),
    /// A test on one column.
    Test {
        /// The column, or a path into it (`meta->size`, `meta->>size`, `tags->0`). A column with exactly this name has precedence.
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
    /// Greater, and of the same kind.
    Gt(CborValue),
    /// Greater or equal, and of the same kind.
    Gte(CborValue),
    /// Less, and of the same kind.
    Lt(CborValue),
    /// Less or equal, and of the same kind.
    Lte(CborValue),
    /// The whole text matches a [`Pattern::like`].
    Like(Pattern),
    /// The whole text matches a [`Pattern::ilike`], ignoring case.
    Ilike(Pattern),
    /// The text contains a match of a [`Pattern::regex`].
    Match(Pattern),
    /// The text contains a match of a [`Pattern::iregex`], ignoring case.
    Imatch(Pattern),
    /// Equal to one of these.
    In(Vec<CborValue>),
    /// Null or a boolean; the result is never unknown.
    Is(IsTest),
    /// Not equal, with null equal to null; the result is never unknown.
    IsDistinct(CborValue),
}

/// Operand of an `is` test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IsTest {
    /// Null or missing.
    Null,
    /// The boolean true.
    True,
    /// The boolean false.
    False,
    /// Null or missing, so neither true nor false.
    Unknown,
}

impl IsTest {
    /// The operand's word in queries.
    pub fn as_str(self) -> &'static str {
        match self {
            IsTest::Null => "null",
            IsTest::True => "true",
            IsTest::False => "false",
            IsTest::Unknown => "unknown",
        }
    }

    /// Parses the operand's word, ignoring case.
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

    /// Negates the filter.
    #[must_use]
    #[expect(clippy::should_implement_trait, reason = "a builder beside `eq`, not an operator")]
    pub fn not(self) -> Filter {
        Filter::Not(Box::new(self))
    }

    /// Adds `other` as a further condition.
    pub fn and(&mut self, other: Filter) {
        match self {
            Filter::All(all) => all.push(other),
            _ => {
                let own = std::mem::take(self);
                *self = Filter::All(vec![own, other]);
            }
        }
    }

    /// True if every row matches because there are no tests.
    pub fn is_everything(&self) -> bool {
        matches!(self, Filter::All(all) if all.iter().all(Filter::is_everything))
    }

    /// Columns and paths of all tests, with repetitions.
    pub fn columns(&self) -> Vec<&str> {
        match self {
            Filter::All(parts) | Filter::Any(parts) => parts.iter().flat_map(Filter::columns).collect(),
            Filter::Not(inner) => inner.columns(),
            Filter::Test { column, .. } => vec![column],
        }
    }

    /// True if a test uses a pattern. Such filters are the most expensive, because patterns have to be compiled.
    pub fn has_patterns(&self) -> bool {
        match self {
            Filter::All(parts) | Filter::Any(parts) => parts.iter().any(Filter::has_patterns),
            Filter::Not(inner) => inner.has_patterns(),
            Filter::Test { test, .. } => {
                matches!(test, Test::Like(_) | Test::Ilike(_) | Test::Match(_) | Test::Imatch(_))
            }
        }
    }

    /// Upper bound of matching rows, if the filter enumerates values of `column`. Assumes that the values of `column` are unique.
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

    /// Number of tests.
    pub fn tests(&self) -> usize {
        match self {
            Filter::All(parts) | Filter::Any(parts) => parts.iter().map(Filter::tests).sum(),
            Filter::Not(inner) => inner.tests(),
            Filter::Test { .. } => 1,
        }
    }
}

impl Test {
    /// The whole text matches `pattern`: `*` or `%` match any run of characters, `_` matches one.
    ///
    /// # Errors
    /// [`Error::Invalid`](crate::Error::Invalid) if the pattern is too long.
    pub fn like(pattern: &str) -> Result<Test> {
        Pattern::like(pattern).map(Test::Like)
    }

    /// Case-insensitive [`Test::like`].
    ///
    /// # Errors
    /// As [`Test::like`].
    pub fn ilike(pattern: &str) -> Result<Test> {
        Pattern::ilike(pattern).map(Test::Ilike)
    }

    /// The text contains a match of the regular expression.
    ///
    /// # Errors
    /// [`Error::Invalid`](crate::Error::Invalid) if it cannot be parsed or is too big.
    pub fn matches(regex: &str) -> Result<Test> {
        Pattern::regex(regex).map(Test::Match)
    }

    /// Case-insensitive [`Test::matches`].
    ///
    /// # Errors
    /// As [`Test::matches`].
    pub fn imatches(regex: &str) -> Result<Test> {
        Pattern::iregex(regex).map(Test::Imatch)
    }
}
