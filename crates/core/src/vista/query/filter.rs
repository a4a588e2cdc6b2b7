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

/// Columns, or paths, and the values that their cells equal.
pub type Equalities<'f> = Vec<(&'f str, &'f CborValue)>;

/// Joins the sets of two conditions that both hold. Either of them alone is correct too; the shorter one is taken if there would be
/// more than `most`.
fn both<'f>(a: Vec<Equalities<'f>>, b: Vec<Equalities<'f>>, most: usize) -> Vec<Equalities<'f>> {
    if a.len() * b.len() > most {
        return if b.len() < a.len() { b } else { a };
    }
    let join = |a: &Equalities<'f>, b: &Equalities<'f>| {
        let others = b.iter().filter(|(column, _)| a.iter().all(|(own, _)| own != column));
        a.iter().chain(others).copied().collect()
    };
    a.iter().flat_map(|a| b.iter().map(move |b| join(a, b))).collect()
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

    /// Filter of the rows that match `self` and `other`. A condition that both have is in it once, so that it can be answered by its index
    /// alone.
    #[must_use]
    pub fn narrowed_by(self, other: Filter) -> Filter {
        let mut parts: Vec<Filter> = Vec::new();
        for filter in [self, other] {
            let own = match filter {
                Filter::All(own) => own,
                filter => vec![filter],
            };
            for part in own {
                if !parts.contains(&part) {
                    parts.push(part);
                }
            }
        }
        Filter::All(parts)
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

    /// Sets of equalities, of which every matching row meets at least one set as a whole: its cells equal the values. `None` if rows can
    /// match without any equality, or if there are more than `most` sets. Empty if no row matches.
    pub fn equalities(&self, most: usize) -> Option<Vec<Equalities<'_>>> {
        let found = match self {
            Filter::All(parts) => {
                let found = parts.iter().filter_map(|part| part.equalities(most));
                found.reduce(|all, part| both(all, part, most))?
            }
            Filter::Any(parts) => {
                let mut all = Vec::new();
                for part in parts {
                    all.extend(part.equalities(most.checked_sub(all.len())?)?);
                }
                all
            }
            Filter::Test { column, test: Test::Eq(value) } => vec![vec![(&**column, value)]],
            Filter::Test { column, test: Test::In(values) } => {
                values.iter().take(most + 1).map(|value| vec![(&**column, value)]).collect()
            }
            Filter::Test { .. } | Filter::Not(_) => return None,
        };
        (found.len() <= most).then_some(found)
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
