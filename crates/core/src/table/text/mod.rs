//! Text index: a persistent index for searches, which finds rows that contain all words as substrings, ignoring case.
//!
//! The searchable texts of a row are split into tokens. Tokens that are frequent when the index is built form its dictionary,
//! with a list of rows per token. A word is looked up in the dictionary's tokens, and so finds their rows exactly. For all other
//! tokens rows are listed by trigram (three consecutive bytes), which gives candidates. Single bytes are listed for all tokens. Pairs of
//! bytes have no lists, which would be larger than all others: they are looked up as the tokens and trigrams that contain them. So most
//! words are answered without reading rows, and counted as fast as bitmaps are combined. A clone is O(1); a change copies only the
//! lists that it touches.

mod dictionary;
mod slots;
mod terms;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;

use self::dictionary::{Dictionary, TokenCounts};
pub use self::slots::SlotSet;
use self::slots::{List, intersection, union};
use self::terms::{Term, each_term, gram, short, tokens};
use super::Slot;
use super::insert_tight;
use super::trie::{Trie, Weighted};
use crate::vista::Schema;
use crate::vista::query::{Fields, SearchText};

/// Rows by the words in them. Cheap to clone: clones share their common parts.
#[derive(Clone)]
pub struct TextIndex {
    searchable: Arc<SearchText>,
    dictionary: Arc<Dictionary>,
    tokens: Trie<List>,
    grams: Trie<List>,
    shorts: Trie<List>,
    rows: usize,
    rows_when_built: usize,
    /// Heap bytes of all lists.
    list_bytes: usize,
}

impl std::fmt::Debug for TextIndex {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TextIndex").field("rows", &self.rows).field("bytes", &self.bytes()).finish_non_exhaustive()
    }
}

impl Weighted for List {
    fn weight(&self) -> u32 {
        u32::from(self.len() > 0)
    }
}

impl TextIndex {
    /// Builds the index of about `len` rows. `rows` is called twice and must yield rows in ascending order of slots.
    pub fn build<F, I>(schema: &Schema, len: usize, rows: impl Fn() -> I) -> TextIndex
    where
        F: Fields,
        I: Iterator<Item = (Slot, F)>,
    {
        let searchable = SearchText::new(schema);
        let mut counts = TokenCounts::new(len);
        for (_, row) in rows() {
            searchable.each(&row, &mut |text| tokens(text).for_each(|token| counts.count(token)));
        }
        let dictionary = counts.finish();
        let mut builder = TextIndexBuilder::default();
        for (slot, row) in rows() {
            builder.rows += 1;
            searchable.each(&row, &mut |text| each_term(text, &dictionary, &mut |term| builder.push(term, slot)));
        }
        builder.finish(searchable, dictionary)
    }

    /// Updates the index after the row in `slot` changed from `before` to `now`; `None` if there was or is no row.
    pub fn change<A: Fields, B: Fields>(&mut self, slot: Slot, before: Option<&A>, now: Option<&B>) {
        let (before, now) = (before.map(|row| self.terms(row)), now.map(|row| self.terms(row)));
        self.rows = (self.rows + usize::from(now.is_some())).saturating_sub(usize::from(before.is_some()));
        let (before, now) = (before.unwrap_or_default(), now.unwrap_or_default());
        for gone in before.iter().filter(|term| now.binary_search(term).is_err()) {
            self.edit(*gone, |list| list.remove(slot));
        }
        for new in now.iter().filter(|term| before.binary_search(term).is_err()) {
            self.edit(*new, |list| list.insert(slot));
        }
    }

    /// Looks up the words of a search. `None` if no word has a token character, so that the index cannot help.
    pub fn lookup(&self, search: &str) -> Option<Lookup<'_>> {
        let mut lookup = Lookup { words: Vec::new(), exact: true };
        for word in SearchText::words(search) {
            // Characters between the tokens of a word are not indexed.
            lookup.exact &= tokens(&word).next() == Some(&word);
            lookup.words.extend(tokens(&word).map(|token| self.word(token.as_bytes())));
        }
        lookup.words.sort_by_key(|word| word.estimate());
        (!lookup.words.is_empty()).then_some(lookup)
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        self.rows
    }

    /// True if there are no rows.
    pub fn is_empty(&self) -> bool {
        self.rows == 0
    }

    /// True if the table has grown so much that a rebuilt index would have a better dictionary.
    pub fn is_outgrown(&self) -> bool {
        self.rows > 1_000 && self.rows / 2 > self.rows_when_built
    }

    /// Approximate heap memory in bytes. Parts shared with clones are counted in full.
    pub fn bytes(&self) -> usize {
        self.dictionary.heap() + self.list_bytes
    }

    fn terms(&self, row: &impl Fields) -> Vec<Term> {
        let mut terms = Vec::new();
        self.searchable.each(row, &mut |text| each_term(text, &self.dictionary, &mut |term| terms.push(term)));
        terms.sort_unstable();
        terms.dedup();
        terms
    }

    fn edit(&mut self, term: Term, change: impl FnOnce(&mut List)) {
        let (trie, index) = match term {
            Term::Short(at) => (&mut self.shorts, at),
            Term::Gram(at) => (&mut self.grams, at),
            Term::Token(at) => (&mut self.tokens, at),
        };
        let (before, after) = trie.edit(index, |entry| {
            let before = entry.as_ref().map_or(0, |list| list.heap());
            let list = Arc::make_mut(entry.get_or_insert_default());
            change(list);
            (before, list.heap())
        });
        self.list_bytes = (self.list_bytes + after).saturating_sub(before);
    }

    fn word(&self, word: &[u8]) -> WordLists<'_> {
        match word {
            [_] => {
                return WordLists {
                    confirmed: self.shorts.get(short(word)).into_iter().collect(),
                    candidates: Vec::new(),
                };
            }
            [first, second] => return self.pair([*first, *second]),
            _ => {}
        }
        let numbers = self.dictionary.containing(word);
        let confirmed = numbers.into_iter().filter_map(|number| self.tokens.get(number));
        let mut word_lists = WordLists { confirmed: confirmed.collect(), candidates: Vec::new() };
        let grams: Option<Vec<&List>> = word.windows(3).map(|bytes| self.grams.get(gram(bytes))).collect();
        match grams {
            // A word of three bytes is itself a trigram.
            Some(lists) if word.len() == 3 => word_lists.confirmed.extend(lists),
            Some(lists) => word_lists.candidates = lists,
            None => {}
        }
        word_lists
    }
}

impl TextIndex {
    /// Rows with a token that contains a pair of bytes: with a token of the dictionary, a trigram of another one, or a token that is the
    /// pair itself.
    fn pair(&self, pair: [u8; 2]) -> WordLists<'_> {
        let tokens = self.dictionary.containing_pair(pair).into_iter().filter_map(|number| self.tokens.get(number));
        let grams = (0..=u8::MAX).flat_map(|byte| [[byte, pair[0], pair[1]], [pair[0], pair[1], byte]]);
        let grams = grams.filter_map(|bytes| self.grams.get(gram(&bytes)));
        let confirmed = tokens.chain(grams).chain(self.shorts.get(short(&pair))).collect();
        WordLists { confirmed, candidates: Vec::new() }
    }
}

/// Lists of rows for the words of one search.
#[derive(Debug)]
pub struct Lookup<'a> {
    /// Lists of each word, the rarest first.
    words: Vec<WordLists<'a>>,
    exact: bool,
}

impl Hits {
    /// The rows that contain every word, after checking the candidates with `holds`.
    pub fn settle(self, mut holds: impl FnMut(Slot) -> bool) -> SlotSet {
        if self.candidates.is_empty() {
            return self.confirmed;
        }
        let found: SlotSet = self.candidates.iter().filter(|slot| holds(*slot)).collect();
        self.confirmed.or(&found)
    }
}

/// Lists of rows for one word.
#[derive(Debug)]
struct WordLists<'a> {
    /// Rows in any of these lists contain the word.
    confirmed: Vec<&'a List>,
    /// Rows in all of these lists may contain it.
    candidates: Vec<&'a List>,
}

/// Result of a lookup.
#[derive(Clone, Debug, Default)]
pub struct Hits {
    /// Rows that contain every word.
    pub confirmed: SlotSet,
    /// Other rows that may contain every word and have to be checked. No row outside of these two sets contains every word.
    pub candidates: SlotSet,
}

impl WordLists<'_> {
    fn estimate(&self) -> usize {
        let confirmed: usize = self.confirmed.iter().map(|list| list.len()).sum();
        confirmed + self.candidates.iter().map(|list| list.len()).min().unwrap_or(0)
    }
}

/// Builder of an index from rows in slot order.
#[derive(Default)]
struct TextIndexBuilder {
    tokens: Vec<ListBuilder>,
    grams: HashMap<u32, ListBuilder, BuildHasherDefault<Identity>>,
    shorts: Vec<ListBuilder>,
    rows: usize,
}

/// Builder of the list of one term.
#[derive(Default)]
struct ListBuilder {
    /// Last slot, to skip repeated occurrences of a term in one row.
    last: Option<Slot>,
    list: List,
}

impl ListBuilder {
    fn push(&mut self, slot: Slot) {
        if self.last != Some(slot) {
            self.last = Some(slot);
            self.list.push(slot);
        }
    }
}

impl TextIndexBuilder {
    fn push(&mut self, term: Term, slot: Slot) {
        let (lists, at) = match term {
            Term::Gram(at) => return self.grams.entry(at).or_default().push(slot),
            Term::Short(at) => (&mut self.shorts, at as usize),
            Term::Token(at) => (&mut self.tokens, at as usize),
        };
        if at >= lists.len() {
            lists.resize_with(at + 1, ListBuilder::default);
        }
        lists[at].push(slot);
    }

    fn finish(self, searchable: SearchText, dictionary: Dictionary) -> TextIndex {
        let mut bytes = 0;
        let mut trie = |lists: &mut dyn Iterator<Item = (u32, ListBuilder)>| {
            let mut trie = Trie::new();
            for (at, ListBuilder { mut list, .. }) in lists.filter(|(_, draft)| draft.last.is_some()) {
                list.shrink();
                bytes += list.heap();
                trie.edit(at, |entry| *entry = Some(Arc::new(list)));
            }
            trie
        };
        let tokens = trie(&mut (0..).zip(self.tokens));
        let shorts = trie(&mut (0..).zip(self.shorts));
        let grams = trie(&mut self.grams.into_iter());
        TextIndex {
            searchable: Arc::new(searchable),
            dictionary: Arc::new(dictionary),
            tokens,
            grams,
            shorts,
            rows: self.rows,
            rows_when_built: self.rows,
            list_bytes: bytes,
        }
    }
}

/// Hasher for trigram numbers: multiplies them so that they also spread over the high bits.
#[derive(Default)]
struct Identity(u64);

impl Hasher for Identity {
    fn write(&mut self, _: &[u8]) {}

    fn write_u32(&mut self, number: u32) {
        self.0 = u64::from(number).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

impl Lookup<'_> {
    /// Upper bound of the number of rows that [`Lookup::find`] returns.
    pub fn estimate(&self) -> usize {
        self.words.first().map_or(0, WordLists::estimate)
    }

    /// Combines the lists of all words.
    pub fn find(&self) -> Hits {
        let mut all: Option<SlotSet> = None;
        // `None` while all of them are confirmed.
        let mut confirmed: Option<SlotSet> = None;
        for word in &self.words {
            let listed = union(&word.confirmed, all.as_ref());
            let candidates = intersection(&mut word.candidates.clone(), all.as_ref());
            if candidates.is_empty() {
                confirmed = confirmed.map(|confirmed| confirmed.and(&listed));
                all = Some(listed);
            } else {
                all = Some(listed.or(&candidates));
                confirmed = Some(confirmed.map_or_else(|| listed.clone(), |confirmed| confirmed.and(&listed)));
            }
        }
        let all = all.unwrap_or_default();
        if !self.exact {
            return Hits { confirmed: SlotSet::default(), candidates: all };
        }
        match confirmed {
            Some(confirmed) => Hits { candidates: all.without(&confirmed), confirmed },
            None => Hits { confirmed: all, candidates: SlotSet::default() },
        }
    }
}
