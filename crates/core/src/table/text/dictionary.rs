//! Dictionary of a table's frequent tokens, fixed when its index is built: numbers of tokens, and tokens that contain a word.

use std::collections::HashSet;
use std::ops::Range;

use memchr::memmem::Finder;
use xxhash_rust::xxh3::xxh3_64;

use super::terms::gram;

/// Maximum length in bytes of a token in the dictionary.
const MAX_TOKEN: usize = 48;
/// Minimum number of occurrences of a token in the dictionary, a power of two. Rarer tokens cost less as trigrams.
const MIN_COUNT: u16 = 8;
/// Maximum number of counters.
const MAX_COUNTERS: usize = 1 << 22;

/// Tokens by number.
#[derive(Debug, Default)]
pub(super) struct Dictionary {
    text: String,
    /// End of each token in `text`; it begins at the end of the one before.
    ends: Vec<u32>,
    /// Hash table with open addressing: a token's number plus one, 0 if empty.
    buckets: Vec<u32>,
    /// Trigrams of the tokens, ascending.
    grams: Vec<u32>,
    /// End of the tokens of each trigram in `holders`.
    gram_ends: Vec<u32>,
    holders: Vec<u32>,
}

/// Counter of token occurrences, to build a [`Dictionary`] of the frequent ones.
///
/// Occurrences are counted by hash, in 8 MiB at most, and only frequent tokens are stored. With hash collisions a rare token may
/// be included, which costs memory, or a frequent one left out, which costs time in searches.
#[derive(Debug)]
pub(super) struct TokenCounts {
    counts: Vec<u16>,
    frequent: HashSet<Box<str>>,
}

impl TokenCounts {
    /// Creates a counter for about `rows` rows.
    pub(super) fn new(rows: usize) -> TokenCounts {
        let size = (4 * rows).next_power_of_two().clamp(1 << 12, MAX_COUNTERS);
        TokenCounts { counts: vec![0; size], frequent: HashSet::new() }
    }

    pub(super) fn count(&mut self, token: &str) {
        if token.len() > MAX_TOKEN {
            return;
        }
        let at = xxh3_64(token.as_bytes()) as usize & (self.counts.len() - 1);
        let count = self.counts[at].saturating_add(1);
        self.counts[at] = count;
        // Checked at several powers of two, because of tokens that share the counter.
        if count >= MIN_COUNT && count.is_power_of_two() && !self.frequent.contains(token) {
            self.frequent.insert(token.into());
        }
    }

    /// Builds the dictionary of the frequent tokens.
    pub(super) fn finish(self) -> Dictionary {
        let mut tokens: Vec<_> = self.frequent.into_iter().collect();
        tokens.sort_unstable();
        Dictionary::new(&tokens)
    }
}

impl Dictionary {
    fn new(tokens: &[Box<str>]) -> Dictionary {
        let size = (tokens.len() * 2).next_power_of_two();
        let mut new = Dictionary { buckets: vec![0; size], ..Dictionary::default() };
        let mut holders: Vec<(u32, u32)> = Vec::new();
        for (number, token) in tokens.iter().enumerate() {
            new.text.push_str(token);
            new.ends.push(new.text.len() as u32);
            let mut at = xxh3_64(token.as_bytes()) as usize & (size - 1);
            while new.buckets[at] != 0 {
                at = (at + 1) & (size - 1);
            }
            new.buckets[at] = number as u32 + 1;
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

    /// Number of `token`, `None` if it is not in the dictionary.
    pub(super) fn number(&self, token: &str) -> Option<u32> {
        if token.len() > MAX_TOKEN {
            return None;
        }
        let mask = self.buckets.len() - 1;
        let mut at = xxh3_64(token.as_bytes()) as usize & mask;
        loop {
            let number = self.buckets[at].checked_sub(1)?;
            if self.token(number) == token.as_bytes() {
                return Some(number);
            }
            at = (at + 1) & mask;
        }
    }

    /// Numbers of the tokens that contain `word`, which must have at least three bytes.
    pub(super) fn containing(&self, word: &[u8]) -> Vec<u32> {
        let rarest = word.windows(3).map(|bytes| self.holders_of(gram(bytes))).min_by_key(ExactSizeIterator::len);
        let numbers = self.holders[rarest.unwrap_or_default()].iter().copied();
        let finder = Finder::new(word);
        numbers.filter(|number| finder.find(self.token(*number)).is_some()).collect()
    }

    /// Numbers of the tokens that contain a pair of bytes.
    pub(super) fn containing_pair(&self, pair: [u8; 2]) -> Vec<u32> {
        let pair = gram(&pair);
        let holds = |gram: u32| gram >> 8 == pair || gram & 0xFFFF == pair;
        let grams = self.grams.iter().copied().filter(|gram| holds(*gram));
        let mut numbers: Vec<u32> = grams.flat_map(|gram| &self.holders[self.holders_of(gram)]).copied().collect();
        let bytes = [(pair >> 8) as u8, pair as u8];
        numbers.extend(std::str::from_utf8(&bytes).ok().and_then(|token| self.number(token)));
        numbers.sort_unstable();
        numbers.dedup();
        numbers
    }

    pub(super) fn heap(&self) -> usize {
        let numbers =
            [&self.ends, &self.buckets, &self.grams, &self.gram_ends, &self.holders].map(|numbers| numbers.capacity());
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
