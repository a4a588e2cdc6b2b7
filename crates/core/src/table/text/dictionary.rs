//! The frequent tokens of a table, frozen when its index is built: which number a token has, which tokens hold a word.

use std::collections::HashSet;
use std::ops::Range;

use memchr::memmem::Finder;
use xxhash_rust::xxh3::xxh3_64;

use super::terms::gram;

/// Longer tokens stay outside.
const LONGEST: usize = 48;
/// A token belongs to the dictionary if it occurs so often, a power of two: below, its trigrams cost less.
const FREQUENT: u16 = 8;
/// Counts of a census, at most.
const MOST_COUNTS: usize = 1 << 22;

/// Tokens by number.
#[derive(Debug, Default)]
pub(super) struct Dictionary {
    text: String,
    /// Where each token ends in `text`; it begins where the one before ends.
    ends: Vec<u32>,
    /// Open addressing: a token's number plus one, 0 where none is.
    places: Vec<u32>,
    /// Three bytes of a token, ascending.
    grams: Vec<u32>,
    /// Where the tokens of each gram end in `holders`.
    gram_ends: Vec<u32>,
    holders: Vec<u32>,
}

/// Which tokens are frequent, on the way to a [`Dictionary`].
///
/// Occurrences are counted by hash, in 8 MiB at most, and only tokens that are frequent are kept. Tokens that share a count may
/// come in although they are rare, which costs memory, or stay out, which costs their searches time.
#[derive(Debug)]
pub(super) struct TokenCounts {
    counts: Vec<u16>,
    frequent: HashSet<Box<str>>,
}

impl TokenCounts {
    /// For about `rows` rows.
    pub(super) fn new(rows: usize) -> TokenCounts {
        let size = (4 * rows).next_power_of_two().clamp(1 << 12, MOST_COUNTS);
        TokenCounts { counts: vec![0; size], frequent: HashSet::new() }
    }

    pub(super) fn count(&mut self, token: &str) {
        if token.len() > LONGEST {
            return;
        }
        let at = xxh3_64(token.as_bytes()) as usize & (self.counts.len() - 1);
        let count = self.counts[at].saturating_add(1);
        self.counts[at] = count;
        // More than once, for those that share the count.
        if count >= FREQUENT && count.is_power_of_two() && !self.frequent.contains(token) {
            self.frequent.insert(token.into());
        }
    }

    /// The tokens that are frequent.
    pub(super) fn finish(self) -> Dictionary {
        let mut tokens: Vec<_> = self.frequent.into_iter().collect();
        tokens.sort_unstable();
        Dictionary::new(&tokens)
    }
}

impl Dictionary {
    fn new(tokens: &[Box<str>]) -> Dictionary {
        let size = (tokens.len() * 2).next_power_of_two();
        let mut new = Dictionary { places: vec![0; size], ..Dictionary::default() };
        let mut holders: Vec<(u32, u32)> = Vec::new();
        for (number, token) in tokens.iter().enumerate() {
            new.text.push_str(token);
            new.ends.push(new.text.len() as u32);
            let mut at = xxh3_64(token.as_bytes()) as usize & (size - 1);
            while new.places[at] != 0 {
                at = (at + 1) & (size - 1);
            }
            new.places[at] = number as u32 + 1;
            holders.extend(token.as_bytes().windows(3).map(|bytes| (gram(bytes), number as u32)));
        }
        holders.sort_unstable();
        holders.dedup();
        for (gram, number) in holders {
            if new.grams.last() != Some(&gram) {
                new.grams.push(gram);
                new.gram_ends.push(new.holders.len() as u32);
            }
            new.holders.push(number);
            if let Some(end) = new.gram_ends.last_mut() {
                *end = new.holders.len() as u32;
            }
        }
        new
    }

    /// The number of `token`.
    pub(super) fn number(&self, token: &str) -> Option<u32> {
        if token.len() > LONGEST {
            return None;
        }
        let mask = self.places.len() - 1;
        let mut at = xxh3_64(token.as_bytes()) as usize & mask;
        loop {
            let number = self.places[at].checked_sub(1)?;
            if self.token(number) == token.as_bytes() {
                return Some(number);
            }
            at = (at + 1) & mask;
        }
    }

    /// The numbers of the tokens that hold `word`, which has at least three bytes.
    pub(super) fn holding(&self, word: &[u8]) -> Vec<u32> {
        let rarest = word.windows(3).map(|bytes| self.holders_of(gram(bytes))).min_by_key(ExactSizeIterator::len);
        let numbers = self.holders[rarest.unwrap_or_default()].iter().copied();
        let finder = Finder::new(word);
        numbers.filter(|number| finder.find(self.token(*number)).is_some()).collect()
    }

    pub(super) fn heap(&self) -> usize {
        let numbers =
            [&self.ends, &self.places, &self.grams, &self.gram_ends, &self.holders].map(|numbers| numbers.capacity());
        self.text.capacity() + numbers.iter().sum::<usize>() * size_of::<u32>()
    }

    fn token(&self, number: u32) -> &[u8] {
        let start = number.checked_sub(1).map_or(0, |before| self.ends[before as usize]);
        &self.text.as_bytes()[start as usize..self.ends[number as usize] as usize]
    }

    fn holders_of(&self, gram: u32) -> Range<usize> {
        let Ok(at) = self.grams.binary_search(&gram) else { return 0..0 };
        let start = at.checked_sub(1).map_or(0, |before| self.gram_ends[before]);
        start as usize..self.gram_ends[at] as usize
    }
}
