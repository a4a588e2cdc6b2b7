//! The one kind of index: a counted B+tree of (8-byte key, slot), persistent.
//!
//! A key is an order-preserving prefix of what is sorted by; where prefixes are equal the caller compares the rows behind the
//! slots. Every position is a rank, so a filter's count is a difference of two and any offset is a seek.

use std::cmp::Ordering;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use super::{Slot, insert_tight};

/// Entries per leaf, at most.
const LEAF: usize = 256;
/// Children per inner node, at most.
const INNER: usize = 64;

/// Slots in the order of their keys.
#[derive(Clone)]
pub struct Order {
    root: Arc<Node>,
    len: usize,
}

#[derive(Clone)]
enum Node {
    Leaf(Leaf),
    Inner(Vec<Child>),
}

#[derive(Clone, Default)]
struct Leaf {
    keys: Vec<u64>,
    slots: Vec<Slot>,
}

/// A subtree, its first entry and its size. Never empty.
#[derive(Clone)]
struct Child {
    key: u64,
    slot: Slot,
    count: u32,
    node: Arc<Node>,
}

impl Child {
    fn new(node: Node) -> Child {
        let ((key, slot), count) = (node.first(), node.count());
        Child { key, slot, count, node: Arc::new(node) }
    }

    /// Lets `change` work on the subtree and notes its new first entry and size.
    fn edit<R>(&mut self, change: impl FnOnce(&mut Node) -> R) -> R {
        let node = Arc::make_mut(&mut self.node);
        let result = change(node);
        self.count = node.count();
        if self.count > 0 {
            (self.key, self.slot) = node.first();
        }
        result
    }
}

impl Leaf {
    fn first(&self) -> (u64, Slot) {
        (self.keys[0], self.slots[0])
    }
}

impl Node {
    fn first(&self) -> (u64, Slot) {
        match self {
            Node::Leaf(leaf) => leaf.first(),
            Node::Inner(children) => (children[0].key, children[0].slot),
        }
    }

    fn count(&self) -> u32 {
        match self {
            Node::Leaf(leaf) => leaf.keys.len() as u32,
            Node::Inner(children) => children.iter().map(|child| child.count).sum(),
        }
    }

    fn width(&self) -> usize {
        match self {
            Node::Leaf(leaf) => leaf.keys.len(),
            Node::Inner(children) => children.len(),
        }
    }

    fn capacity(&self) -> usize {
        match self {
            Node::Leaf(_) => LEAF,
            Node::Inner(_) => INNER,
        }
    }

    /// Inserts at `rank`; returns the right half if the node had to be split.
    fn insert(&mut self, rank: usize, key: u64, slot: Slot) -> Option<Node> {
        let at = match self {
            Node::Leaf(leaf) => {
                insert_tight(&mut leaf.keys, rank, key);
                insert_tight(&mut leaf.slots, rank, slot);
                rank
            }
            Node::Inner(children) => {
                let (at, inside) = child_before(children, rank);
                let right = children[at].edit(|node| node.insert(inside, key, slot))?;
                insert_tight(children, at + 1, Child::new(right));
                at + 1
            }
        };
        let width = self.width();
        // Entries that come in order leave full nodes behind.
        (width > self.capacity()).then(|| self.split_off(if at + 1 == width { at } else { width / 2 }))
    }

    fn split_off(&mut self, at: usize) -> Node {
        match self {
            Node::Leaf(leaf) => Node::Leaf(Leaf { keys: leaf.keys.split_off(at), slots: leaf.slots.split_off(at) }),
            Node::Inner(children) => Node::Inner(children.split_off(at)),
        }
    }

    /// Takes the entry at `rank`, which there is.
    fn remove(&mut self, rank: usize) -> (u64, Slot) {
        match self {
            Node::Leaf(leaf) => (leaf.keys.remove(rank), leaf.slots.remove(rank)),
            Node::Inner(children) => {
                let (at, inside) = child_of(children, rank);
                let taken = children[at].edit(|node| node.remove(inside));
                if children[at].count == 0 {
                    children.remove(at);
                } else if children[at].node.width() < children[at].node.capacity() / 4 {
                    merge_into_neighbour(children, at);
                }
                taken
            }
        }
    }

    /// Appends the entries of a node of the same height.
    fn append(&mut self, right: &Node) {
        match (self, right) {
            (Node::Leaf(left), Node::Leaf(right)) => {
                left.keys.extend_from_slice(&right.keys);
                left.slots.extend_from_slice(&right.slots);
            }
            (Node::Inner(left), Node::Inner(right)) => left.extend_from_slice(right),
            _ => unreachable!("all leaves are at one depth"),
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

/// As [`child_of`], but a rank between two children belongs to the left one, where it is an append.
fn child_before(children: &[Child], rank: usize) -> (usize, usize) {
    let (at, inside) = child_of(children, rank.saturating_sub(1));
    (at, if rank == 0 { 0 } else { inside + 1 })
}

/// Joins child `at` with the one before or after it, if both fit in one node.
fn merge_into_neighbour(children: &mut Vec<Child>, at: usize) {
    let fits = |left: usize| {
        let (left, right) = (&children[left].node, &children[left + 1].node);
        left.width() + right.width() <= left.capacity() * 3 / 4
    };
    let left = if at > 0 && fits(at - 1) {
        at - 1
    } else if at + 1 < children.len() && fits(at) {
        at
    } else {
        return;
    };
    let right = children.remove(left + 1);
    children[left].edit(|node| node.append(&right.node));
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
        Order { root: Arc::new(Node::Leaf(Leaf::default())), len: 0 }
    }

    /// Builds an order from entries that are in order.
    pub fn from_sorted(entries: &[(u64, Slot)]) -> Order {
        if entries.is_empty() {
            return Order::new();
        }
        let leaf = |entries: &[(u64, Slot)]| {
            let (keys, slots) = entries.iter().copied().unzip();
            Child::new(Node::Leaf(Leaf { keys, slots }))
        };
        let mut level: Vec<Child> = entries.chunks(LEAF).map(leaf).collect();
        while level.len() > 1 {
            level = level.chunks(INNER).map(|children| Child::new(Node::Inner(children.to_vec()))).collect();
        }
        Order { root: Arc::clone(&level[0].node), len: entries.len() }
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// How many entries come first for which `before` holds; it must hold for a prefix of the order.
    pub fn partition_point(&self, before: impl Fn(u64, Slot) -> bool) -> usize {
        let (mut node, mut rank) = (&*self.root, 0);
        loop {
            match node {
                Node::Leaf(leaf) => {
                    return rank + partition(leaf.keys.len(), |at| before(leaf.keys[at], leaf.slots[at]));
                }
                Node::Inner(children) => {
                    let at = children.partition_point(|child| before(child.key, child.slot)).saturating_sub(1);
                    rank += children[..at].iter().map(|child| child.count as usize).sum::<usize>();
                    node = &children[at].node;
                }
            }
        }
    }

    /// How many entries have a key below `key`.
    pub fn seek(&self, key: u64) -> usize {
        self.partition_point(|other, _| other < key)
    }

    /// How many entries come before `(key, slot)`. `tie` orders slots whose keys are equal.
    pub fn rank(&self, key: u64, slot: Slot, tie: impl Fn(Slot, Slot) -> Ordering) -> usize {
        self.partition_point(|other_key, other| other_key < key || other_key == key && tie(other, slot).is_lt())
    }

    /// Adds an entry and returns its rank.
    pub fn insert(&mut self, key: u64, slot: Slot, tie: impl Fn(Slot, Slot) -> Ordering) -> usize {
        let rank = self.rank(key, slot, tie);
        let root = Arc::make_mut(&mut self.root);
        if let Some(right) = root.insert(rank, key, slot) {
            let left = std::mem::replace(root, Node::Inner(Vec::new()));
            *root = Node::Inner(vec![Child::new(left), Child::new(right)]);
        }
        self.len += 1;
        rank
    }

    /// Takes an entry out; `tie` must order its slot as when it was added. Returns its rank, `None` if it is not there.
    pub fn remove(&mut self, key: u64, slot: Slot, tie: impl Fn(Slot, Slot) -> Ordering) -> Option<usize> {
        let rank = self.rank(key, slot, tie);
        if self.nth(rank) != Some((key, slot)) {
            return None;
        }
        let root = Arc::make_mut(&mut self.root);
        root.remove(rank);
        self.len -= 1;
        while let Node::Inner(children) = root {
            match children.len() {
                0 => *root = Node::Leaf(Leaf::default()),
                1 => *root = (*children[0].node).clone(),
                _ => break,
            }
        }
        Some(rank)
    }

    /// The entry at `rank`.
    pub fn nth(&self, rank: usize) -> Option<(u64, Slot)> {
        let window = self.window(rank)?;
        window.get(rank)
    }

    /// Entries from one rank to another, either way; ranks past the end are left out.
    pub fn range(&self, ranks: Range<usize>) -> Entries<'_> {
        let end = ranks.end.min(self.len);
        Entries { order: self, ranks: ranks.start.min(end)..end, front: None, back: None }
    }

    /// Heap bytes, about.
    pub fn bytes(&self) -> usize {
        // Entries, slack of leaves filled in random order, inner nodes.
        self.len * (size_of::<u64>() + size_of::<Slot>()) * 5 / 4
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

/// The first of `0..len` for which `before` does not hold.
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

impl Window<'_> {
    fn get(&self, rank: usize) -> Option<(u64, Slot)> {
        let at = rank.checked_sub(self.first)?;
        Some((*self.leaf.keys.get(at)?, self.leaf.slots[at]))
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
    fn entry(order: &'a Order, window: &mut Option<Window<'a>>, rank: usize) -> Option<(u64, Slot)> {
        if let Some(entry) = window.and_then(|window| window.get(rank)) {
            return Some(entry);
        }
        *window = order.window(rank);
        window.and_then(|window| window.get(rank))
    }
}

impl Iterator for Entries<'_> {
    type Item = (u64, Slot);

    fn next(&mut self) -> Option<(u64, Slot)> {
        let rank = self.ranks.next()?;
        Self::entry(self.order, &mut self.front, rank)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.ranks.size_hint()
    }
}

impl DoubleEndedIterator for Entries<'_> {
    fn next_back(&mut self) -> Option<(u64, Slot)> {
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
