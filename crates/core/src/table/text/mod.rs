//! A persistent index for searches: which rows hold all words, each as a part of some text, whatever the case.
//!
//! The texts of a row, as the one search matcher sees them, are cut into tokens. Tokens that are frequent when the index is
//! built make its dictionary and have their rows listed; a word finds the tokens that hold it, and so its rows, exactly. Of
//! all other tokens each three bytes in a row are listed, which gives candidates. One and two bytes are listed for all tokens.
//! So most words are answered without a look at a row, and counted as fast as bitmaps are combined. A clone is O(1), a change
//! copies only what it touches.

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

/// Rows by the words in them. Cheap to clone: clones share all they have in common.
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
    /// The index of `rows`, which are gone through twice in ascending order of slots and number about `len`.
    pub fn build<F, I>(schema: &Schema, len: usize, rows: impl Fn() -> I) -> TextIndex
    where
        F: Fields,
        I: Iterator<Item = (Slot, F)>,
    {
        let searchable = SearchText::new(schema);
        let mut census = TokenCounts::new(len);
        for (_, row) in rows() {
            searchable.each(&row, &mut |text| tokens(text).for_each(|token| census.count(token)));
        }
        let dictionary = census.finish();
        let mut drafts = TextIndexBuilder::default();
        for (slot, row) in rows() {
            drafts.rows += 1;
            searchable.each(&row, &mut |text| each_term(text, &dictionary, &mut |term| drafts.push(term, slot)));
        }
        drafts.finish(searchable, dictionary)
    }

    /// Takes in that the row of `slot` was `before` and is `now`; `None` where there is none.
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

    /// Where the words of a search are listed. `None` if the index is no help: there is no word with a letter or a digit.
    pub fn lookup(&self, search: &str) -> Option<Lookup<'_>> {
        let mut lookup = Lookup { words: Vec::new(), exact: true };
        for word in SearchText::words(search) {
            // What is between the tokens of a word is not indexed.
            lookup.exact &= tokens(&word).next() == Some(&word);
            lookup.words.extend(tokens(&word).map(|token| self.word(token.as_bytes())));
        }
        lookup.words.sort_by_key(|word| word.estimate());
        (!lookup.words.is_empty()).then_some(lookup)
    }

    /// How many rows there are.
    pub fn len(&self) -> usize {
        self.rows
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.rows == 0
    }

    /// Whether the table is now so much larger that an index made anew would know more of its tokens.
    pub fn is_outgrown(&self) -> bool {
        self.rows > 1_000 && self.rows / 2 > self.rows_when_built
    }

    /// Heap bytes, about. Clones count what they share, each.
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
        let (before, after) = trie.edit(index, |place| {
            let before = place.as_ref().map_or(0, |list| list.heap());
            let list = Arc::make_mut(place.get_or_insert_default());
            change(list);
            (before, list.heap())
        });
        self.list_bytes = (self.list_bytes + after).saturating_sub(before);
    }

    fn word(&self, word: &[u8]) -> WordLists<'_> {
        if word.len() < 3 {
            return WordLists { sure: self.shorts.get(short(word)).into_iter().collect(), maybe: Vec::new() };
        }
        let numbers = self.dictionary.holding(word);
        let sure = numbers.into_iter().filter_map(|number| self.tokens.get(number));
        let mut word_lists = WordLists { sure: sure.collect(), maybe: Vec::new() };
        let grams: Option<Vec<&List>> = word.windows(3).map(|bytes| self.grams.get(gram(bytes))).collect();
        match grams {
            // Three bytes are listed as they are.
            Some(lists) if word.len() == 3 => word_lists.sure.extend(lists),
            Some(lists) => word_lists.maybe = lists,
            None => {}
        }
        word_lists
    }
}

/// Where the words of one search are listed.
#[derive(Debug)]
pub struct Lookup<'a> {
    /// The rarest first.
    words: Vec<WordLists<'a>>,
    exact: bool,
}

impl Hits {
    /// The rows that hold every word, once the unsure ones were looked at.
    pub fn settle(self, mut holds: impl FnMut(Slot) -> bool) -> SlotSet {
        if self.unsure.is_empty() {
            return self.sure;
        }
        let found: SlotSet = self.unsure.iter().filter(|slot| holds(*slot)).collect();
        self.sure.or(&found)
    }
}

#[derive(Debug)]
struct WordLists<'a> {
    /// Rows in any of these have the word.
    sure: Vec<&'a List>,
    /// Rows in all of these may have it.
    maybe: Vec<&'a List>,
}

/// What a search found.
#[derive(Clone, Debug, Default)]
pub struct Hits {
    /// Rows that hold every word.
    pub sure: SlotSet,
    /// Other rows that may: they have to be looked at. No row beyond these two sets holds every word.
    pub unsure: SlotSet,
}

impl WordLists<'_> {
    fn estimate(&self) -> usize {
        let sure: usize = self.sure.iter().map(|list| list.len()).sum();
        sure + self.maybe.iter().map(|list| list.len()).min().unwrap_or(0)
    }
}

/// Lists while an index is built: rows come in the order of their slots.
#[derive(Default)]
struct TextIndexBuilder {
    tokens: Vec<ListBuilder>,
    grams: HashMap<u32, ListBuilder, BuildHasherDefault<Identity>>,
    shorts: Vec<ListBuilder>,
    rows: usize,
}

#[derive(Default)]
struct ListBuilder {
    /// Terms come once for every place in a row.
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
                trie.edit(at, |place| *place = Some(Arc::new(list)));
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

/// Numbers of three bytes as their own hashes, spread over the high bits too.
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
    /// How many rows it will find at most.
    pub fn estimate(&self) -> usize {
        self.words.first().map_or(0, WordLists::estimate)
    }

    /// The rows.
    pub fn find(&self) -> Hits {
        let mut all: Option<SlotSet> = None;
        // None as long as it is all of them.
        let mut sure: Option<SlotSet> = None;
        for word in &self.words {
            let listed = union(&word.sure, all.as_ref());
            let guessed = intersection(&mut word.maybe.clone(), all.as_ref());
            if guessed.is_empty() {
                sure = sure.map(|sure| sure.and(&listed));
                all = Some(listed);
            } else {
                all = Some(listed.or(&guessed));
                sure = Some(sure.map_or_else(|| listed.clone(), |sure| sure.and(&listed)));
            }
        }
        let all = all.unwrap_or_default();
        if !self.exact {
            return Hits { sure: SlotSet::default(), unsure: all };
        }
        match sure {
            Some(sure) => Hits { unsure: all.without(&sure), sure },
            None => Hits { sure: all, unsure: SlotSet::default() },
        }
    }
}
