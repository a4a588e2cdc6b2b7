//! The data structure of all indexes: a persistent, counted B+tree of (key, slot).
//!
//! Keys are bytes that sort as the indexed values do; for equal keys the caller decides the order of slots. Every position is a
//! rank, so the count of a range is a difference of two ranks and any offset is a seek. Leaves have exact size and are immutable:
//! a change makes a new leaf. The common prefix of a leaf's keys is stored once.

use std::cmp::Ordering;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use super::Slot;

/// Maximum number of entries per leaf. A change copies a leaf; a seek is a binary search in one.
const LEAF: usize = 128;
/// Maximum number of children per inner node.
const INNER: usize = 64;
/// Maximum number of bytes stored of a key. The caller compares the original values of longer keys.
pub const MAX_KEY: usize = 96;

/// A sorted set of slots by their keys.
#[derive(Clone)]
pub struct Order {
    root: Arc<Node>,
    len: usize,
    /// Heap bytes of the leaves.
    bytes: usize,
}

/// Node of the tree.
#[derive(Clone)]
enum Node {
    Leaf(Leaf),
    Inner(Vec<Child>),
}

/// Entries in order, with the common prefix of their keys stored once.
#[derive(Clone, Default)]
struct Leaf {
    /// Length of the keys' common prefix, which is at the start of `bytes`.
    shared: u16,
    /// End of the rest of each key in `bytes`; it begins at the end of the one before.
    ends: Box<[u16]>,
    slots: Box<[Slot]>,
    bytes: Box<[u8]>,
}

/// A subtree with its first entry and its number of entries. Never empty.
#[derive(Clone)]
struct Child {
    key: Arc<[u8]>,
    slot: Slot,
    count: u32,
    node: Arc<Node>,
}

/// An entry of an [`Order`]: its key in two parts, and its slot.
#[derive(Clone, Copy, Debug)]
pub struct Entry<'a> {
    start: &'a [u8],
    rest: &'a [u8],
    /// Slot of the entry.
    pub slot: Slot,
}

impl Entry<'_> {
    /// Writes the key into `out`.
    pub fn key_into(&self, out: &mut Vec<u8>) {
        out.clear();
        out.extend_from_slice(self.start);
        out.extend_from_slice(self.rest);
    }

    fn to_key(self) -> Vec<u8> {
        [self.start, self.rest].concat()
    }
}

impl Leaf {
    fn of<K: AsRef<[u8]>>(entries: &[(K, Slot)]) -> Leaf {
        let (Some(first), Some(last)) = (entries.first(), entries.last()) else { return Leaf::default() };
        let (first, last) = (first.0.as_ref(), last.0.as_ref());
        // The entries are sorted, so the common prefix of the first and the last is common to all.
        let shared = first.iter().zip(last).take_while(|(a, b)| a == b).count();
        let mut bytes = first[..shared].to_vec();
        let mut ends = Vec::with_capacity(entries.len());
        for (key, _) in entries {
            bytes.extend_from_slice(&key.as_ref()[shared..]);
            ends.push(bytes.len() as u16);
        }
        let slots = entries.iter().map(|(_, slot)| *slot).collect();
        Leaf { shared: shared as u16, ends: ends.into(), slots, bytes: bytes.into() }
    }

    fn len(&self) -> usize {
        self.slots.len()
    }

    fn start(&self, at: usize) -> usize {
        at.checked_sub(1).map_or(self.shared, |before| self.ends[before]) as usize
    }

    fn entry(&self, at: usize) -> Entry<'_> {
        let rest = &self.bytes[self.start(at)..self.ends[at] as usize];
        Entry { start: &self.bytes[..self.shared as usize], rest, slot: self.slots[at] }
    }

    fn entries(&self) -> Vec<(Vec<u8>, Slot)> {
        (0..self.len()).map(|at| (self.entry(at).to_key(), self.slots[at])).collect()
    }

    /// Number of entries before `key`.
    fn rank(&self, key: &[u8], tie: &impl Fn(Slot) -> Ordering) -> usize {
        let shared = &self.bytes[..self.shared as usize];
        let Some(rest) = key.strip_prefix(shared) else {
            return if shared < key { self.len() } else { 0 };
        };
        partition(self.len(), |at| {
            let own = &self.bytes[self.start(at)..self.ends[at] as usize];
            own.cmp(rest).then_with(|| tie(self.slots[at])).is_lt()
        })
    }

    /// Copy of this leaf with an entry inserted at `rank`.
    fn with(&self, rank: usize, key: &[u8], slot: Slot) -> Leaf {
        let Some(rest) = key.strip_prefix(&self.bytes[..self.shared as usize]).filter(|_| self.len() > 0) else {
            let mut entries = self.entries();
            entries.insert(rank, (key.to_vec(), slot));
            return Leaf::of(&entries);
        };
        let (at, more) = (self.start(rank), rest.len() as u16);
        let ends = self.ends[..rank].iter().copied().chain([at as u16 + more]);
        let bytes = [&self.bytes[..at], rest, &self.bytes[at..]].concat();
        Leaf {
            shared: self.shared,
            ends: ends.chain(self.ends[rank..].iter().map(|end| end + more)).collect(),
            slots: [&self.slots[..rank], &[slot], &self.slots[rank..]].concat().into(),
            bytes: bytes.into(),
        }
    }

    /// Copy of this leaf without the entry at `rank`.
    fn without(&self, rank: usize) -> Leaf {
        let (start, end) = (self.start(rank), self.ends[rank] as usize);
        let less = (end - start) as u16;
        let ends = self.ends[..rank].iter().copied().chain(self.ends[rank + 1..].iter().map(|end| end - less));
        Leaf {
            shared: self.shared,
            ends: ends.collect(),
            slots: [&self.slots[..rank], &self.slots[rank + 1..]].concat().into(),
            bytes: [&self.bytes[..start], &self.bytes[end..]].concat().into(),
        }
    }

    fn heap(&self) -> usize {
        // Includes the `Arc`, the allocator's overhead and a separator in the parent.
        self.bytes.len() + self.len() * (size_of::<u16>() + size_of::<Slot>()) + size_of::<Node>() + 112
    }
}

impl Node {
    fn first(&self) -> (Vec<u8>, Slot) {
        match self {
            Node::Leaf(leaf) => (leaf.entry(0).to_key(), leaf.slots[0]),
            Node::Inner(children) => (children[0].key.to_vec(), children[0].slot),
        }
    }

    fn count(&self) -> u32 {
        match self {
            Node::Leaf(leaf) => leaf.len() as u32,
            Node::Inner(children) => children.iter().map(|child| child.count).sum(),
        }
    }

    fn heap(&self) -> usize {
        match self {
            Node::Leaf(leaf) => leaf.heap(),
            Node::Inner(children) => children.iter().map(|child| child.node.heap()).sum(),
        }
    }

    /// Joins two nodes of the same height, if the result is not too full.
    fn joined(&self, right: &Node) -> Option<Node> {
        match (self, right) {
            (Node::Leaf(left), Node::Leaf(right)) if left.len() + right.len() <= LEAF * 3 / 4 => {
                let mut entries = left.entries();
                entries.extend(right.entries());
                Some(Node::Leaf(Leaf::of(&entries)))
            }
            (Node::Inner(left), Node::Inner(right)) if left.len() + right.len() <= INNER * 3 / 4 => {
                Some(Node::Inner([&left[..], &right[..]].concat()))
            }
            _ => None,
        }
    }

    fn is_sparse(&self) -> bool {
        match self {
            Node::Leaf(leaf) => leaf.len() < LEAF / 4,
            Node::Inner(children) => children.len() < INNER / 4,
        }
    }
}

impl Child {
    fn new(node: Arc<Node>) -> Child {
        let ((key, slot), count) = (node.first(), node.count());
        Child { key: key.into(), slot, count, node }
    }

    /// Updates the summary after a change below; `edge` is true if the first entry may have changed.
    fn settle(&mut self, edge: bool) {
        self.count = self.node.count();
        if edge && self.count > 0 {
            let (key, slot) = self.node.first();
            (self.key, self.slot) = (key.into(), slot);
        }
    }
}

/// Inserts at `rank`; returns the right half if the node was split. Updates `bytes` by the size of the leaves.
fn insert(node: &mut Arc<Node>, rank: usize, key: &[u8], slot: Slot, bytes: &mut usize) -> Option<Arc<Node>> {
    if let Node::Leaf(leaf) = &**node {
        let new = leaf.with(rank, key, slot);
        *bytes -= leaf.heap();
        if new.len() <= LEAF {
            *bytes += new.heap();
            *node = Arc::new(Node::Leaf(new));
            return None;
        }
        let entries = new.entries();
        // An append splits off only the new entry, so that ascending inserts fill leaves completely.
        let (left, right) = entries.split_at(if rank + 1 == entries.len() { rank } else { entries.len() / 2 });
        let (left, right) = (Leaf::of(left), Leaf::of(right));
        *bytes += left.heap() + right.heap();
        *node = Arc::new(Node::Leaf(left));
        return Some(Arc::new(Node::Leaf(right)));
    }
    let Node::Inner(children) = Arc::make_mut(node) else { return None };
    let (at, inside) = child_before(children, rank);
    let right = insert(&mut children[at].node, inside, key, slot, bytes);
    children[at].settle(inside == 0);
    children.insert(at + 1, Child::new(right?));
    let width = children.len();
    (width > INNER).then(|| {
        let at = if at + 2 == width { width - 1 } else { width / 2 };
        Arc::new(Node::Inner(children.split_off(at)))
    })
}

/// Removes the entry at `rank`, which must exist.
fn remove(node: &mut Arc<Node>, rank: usize, bytes: &mut usize) {
    if let Node::Leaf(leaf) = &**node {
        let new = leaf.without(rank);
        *bytes = *bytes + new.heap() - leaf.heap();
        *node = Arc::new(Node::Leaf(new));
        return;
    }
    let Node::Inner(children) = Arc::make_mut(node) else { return };
    let (at, inside) = child_of(children, rank);
    remove(&mut children[at].node, inside, bytes);
    children[at].settle(inside == 0);
    if children[at].count == 0 {
        *bytes -= children[at].node.heap();
        children.remove(at);
    } else if children[at].node.is_sparse() {
        join_with_neighbour(children, at, bytes);
    }
}

/// Joins child `at` with the one before or after it, if both fit in one node.
fn join_with_neighbour(children: &mut Vec<Child>, at: usize, bytes: &mut usize) {
    for left in [at.checked_sub(1), Some(at)].into_iter().flatten().filter(|left| left + 1 < children.len()) {
        let (one, other) = (&children[left].node, &children[left + 1].node);
        if let Some(joined) = one.joined(other) {
            if let Node::Leaf(leaf) = &joined {
                *bytes = *bytes + leaf.heap() - one.heap() - other.heap();
            }
            children[left].node = Arc::new(joined);
            children[left].settle(false);
            children.remove(left + 1);
            return;
        }
    }
}

/// The child that holds `rank`, and the rank inside it.
fn child_of(children: &[Child], mut rank: usize) -> (usize, usize) {
    for (at, child) in children.iter().enumerate() {
        if rank < child.count as usize {
            return (at, rank);
        }
        rank -= child.count as usize;
    }
    unreachable!("ranks are checked against the length")
}

/// As [`child_of`], but a rank between two children belongs to the left one, as an append.
fn child_before(children: &[Child], rank: usize) -> (usize, usize) {
    let (at, inside) = child_of(children, rank.saturating_sub(1));
    (at, if rank == 0 { 0 } else { inside + 1 })
}

impl Default for Order {
    fn default() -> Self {
        Order::new()
    }
}

impl fmt::Debug for Order {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Order").field("len", &self.len).finish_non_exhaustive()
    }
}

impl Order {
    /// An empty order.
    pub fn new() -> Order {
        let empty = Leaf::default();
        Order { len: 0, bytes: empty.heap(), root: Arc::new(Node::Leaf(empty)) }
    }

    /// Builds an order from sorted entries.
    pub fn from_sorted<'a>(entries: impl IntoIterator<Item = (&'a [u8], Slot)>) -> Order {
        let (mut level, mut leaf, mut len, mut bytes) = (Vec::new(), Vec::with_capacity(LEAF), 0, 0);
        let mut push_leaf = |entries: &mut Vec<(&[u8], Slot)>| {
            let leaf = Leaf::of(entries);
            bytes += leaf.heap();
            level.push(Child::new(Arc::new(Node::Leaf(leaf))));
            entries.clear();
        };
        for (key, slot) in entries {
            leaf.push((&key[..key.len().min(MAX_KEY)], slot));
            len += 1;
            if leaf.len() == LEAF {
                push_leaf(&mut leaf);
            }
        }
        if !leaf.is_empty() {
            push_leaf(&mut leaf);
        }
        while level.len() > 1 {
            let up = level.chunks(INNER).map(|children| Child::new(Arc::new(Node::Inner(children.to_vec()))));
            level = up.collect();
        }
        match level.pop() {
            Some(root) => Order { root: root.node, len, bytes },
            None => Order::new(),
        }
    }

    /// Number of entries.
    pub fn len(&self) -> usize {
        self.len
    }

    /// True if there are no entries.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Approximate heap memory in bytes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Number of entries before `key`. For entries whose stored key is equal, `tie` returns their order relative to it.
    pub fn rank(&self, key: &[u8], tie: impl Fn(Slot) -> Ordering) -> usize {
        let key = &key[..key.len().min(MAX_KEY)];
        let (mut node, mut rank) = (&*self.root, 0);
        loop {
            match node {
                Node::Leaf(leaf) => return rank + leaf.rank(key, &tie),
                Node::Inner(children) => {
                    let before = |child: &Child| (*child.key).cmp(key).then_with(|| tie(child.slot)).is_lt();
                    let at = children.partition_point(before).saturating_sub(1);
                    rank += children[..at].iter().map(|child| child.count as usize).sum::<usize>();
                    node = &children[at].node;
                }
            }
        }
    }

    /// Number of entries with a key below `key`, which must not be longer than [`MAX_KEY`].
    pub fn seek(&self, key: &[u8]) -> usize {
        self.rank(key, |_| Ordering::Equal)
    }

    /// Adds an entry and returns its rank. `tie` returns the order of slots with the same stored key relative to it.
    pub fn insert(&mut self, key: &[u8], slot: Slot, tie: impl Fn(Slot) -> Ordering) -> usize {
        let rank = self.rank(key, tie);
        let stored = &key[..key.len().min(MAX_KEY)];
        if let Some(right) = insert(&mut self.root, rank, stored, slot, &mut self.bytes) {
            let left = Arc::clone(&self.root);
            self.root = Arc::new(Node::Inner(vec![Child::new(left), Child::new(right)]));
        }
        self.len += 1;
        rank
    }

    /// Removes an entry and returns its rank, `None` if it does not exist. `tie` returns the order of slots with the same stored
    /// key relative to it, `Equal` for the entry itself.
    pub fn remove(&mut self, key: &[u8], slot: Slot, tie: impl Fn(Slot) -> Ordering) -> Option<usize> {
        let rank = self.rank(key, tie);
        let found = self.nth(rank)?;
        if found.slot != slot || found.to_key() != key[..key.len().min(MAX_KEY)] {
            return None;
        }
        remove(&mut self.root, rank, &mut self.bytes);
        self.len -= 1;
        loop {
            let only = match &*self.root {
                Node::Inner(children) if children.len() == 1 => Arc::clone(&children[0].node),
                Node::Inner(children) if children.is_empty() => {
                    *self = Order::new();
                    return Some(rank);
                }
                _ => return Some(rank),
            };
            self.root = only;
        }
    }

    /// The entry at `rank`.
    pub fn nth(&self, rank: usize) -> Option<Entry<'_>> {
        self.window(rank)?.get(rank)
    }

    /// Iterates over a range of ranks, in both directions; ranks past the end are ignored.
    pub fn range(&self, ranks: Range<usize>) -> Entries<'_> {
        let end = ranks.end.min(self.len);
        Entries { order: self, ranks: ranks.start.min(end)..end, front: None, back: None }
    }

    /// Appends the slots in a range of ranks, a leaf at a time.
    pub(crate) fn slots_into(&self, ranks: Range<usize>, out: &mut Vec<Slot>) {
        let (mut rank, end) = (ranks.start, ranks.end.min(self.len));
        while rank < end
            && let Some(window) = self.window(rank)
        {
            let inside = rank - window.first..(end - window.first).min(window.leaf.len());
            out.extend_from_slice(&window.leaf.slots[inside.clone()]);
            rank += inside.len();
        }
    }

    /// The leaf that holds `rank`.
    fn window(&self, rank: usize) -> Option<Window<'_>> {
        if rank >= self.len {
            return None;
        }
        let (mut node, mut inside) = (&*self.root, rank);
        loop {
            match node {
                Node::Leaf(leaf) => return Some(Window { leaf, first: rank - inside }),
                Node::Inner(children) => {
                    let at;
                    (at, inside) = child_of(children, inside);
                    node = &children[at].node;
                }
            }
        }
    }
}

/// Partition point: the first of `0..len` for which `before` is false.
fn partition(len: usize, before: impl Fn(usize) -> bool) -> usize {
    let (mut low, mut high) = (0, len);
    while low < high {
        let middle = low + (high - low) / 2;
        if before(middle) { low = middle + 1 } else { high = middle }
    }
    low
}

/// A leaf and the rank of its first entry.
#[derive(Clone, Copy)]
struct Window<'a> {
    leaf: &'a Leaf,
    first: usize,
}

impl<'a> Window<'a> {
    fn get(&self, rank: usize) -> Option<Entry<'a>> {
        let at = rank.checked_sub(self.first)?;
        (at < self.leaf.len()).then(|| self.leaf.entry(at))
    }
}

/// Iterator over entries of an [`Order`].
#[derive(Clone)]
pub struct Entries<'a> {
    order: &'a Order,
    ranks: Range<usize>,
    front: Option<Window<'a>>,
    back: Option<Window<'a>>,
}

impl<'a> Entries<'a> {
    fn entry(order: &'a Order, window: &mut Option<Window<'a>>, rank: usize) -> Option<Entry<'a>> {
        if let Some(entry) = window.and_then(|window| window.get(rank)) {
            return Some(entry);
        }
        *window = order.window(rank);
        window.and_then(|window| window.get(rank))
    }
}

impl<'a> Iterator for Entries<'a> {
    type Item = Entry<'a>;

    fn next(&mut self) -> Option<Entry<'a>> {
        let rank = self.ranks.next()?;
        Self::entry(self.order, &mut self.front, rank)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.ranks.size_hint()
    }
}

impl<'a> DoubleEndedIterator for Entries<'a> {
    fn next_back(&mut self) -> Option<Entry<'a>> {
        let rank = self.ranks.next_back()?;
        Self::entry(self.order, &mut self.back, rank)
    }
}

impl ExactSizeIterator for Entries<'_> {}

impl fmt::Debug for Entries<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Entries").field("ranks", &self.ranks).finish_non_exhaustive()
    }
}
