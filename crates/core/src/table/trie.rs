//! A persistent radix tree from small integers to shared values, with a weight per subtree.
//!
//! Rows store their chunks in one, ids their leaves. A clone shares everything; a change copies one node per level.

use std::sync::Arc;

/// Bits per level. A larger fan-out makes changes copy more pointers per level, and lookups walk fewer levels.
const BITS: u32 = 5;
pub(in crate::table) const FAN: usize = 1 << BITS;

/// Weight of a value in its subtrees. A value of weight 0 is dropped.
pub(in crate::table) trait Weighted {
    fn weight(&self) -> u32;
}

/// A persistent radix tree from integers to shared values. Each of its last inner nodes carries notes about its values, which a
/// change of a value empties.
pub(in crate::table) struct Trie<T, N = ()> {
    root: Option<Arc<Node<T, N>>>,
    /// Number of levels; grows with the highest index and never shrinks.
    height: u32,
}

/// Node of the tree.
enum Node<T, N> {
    Inner(Branch<Node<T, N>>),
    Last(Branch<T>, N),
}

/// Children of a node with their weights.
struct Branch<C> {
    weights: [u32; FAN],
    children: [Option<Arc<C>>; FAN],
}

impl<T, N> Clone for Trie<T, N> {
    fn clone(&self) -> Self {
        Trie { root: self.root.clone(), height: self.height }
    }
}

impl<T, N: Default> Clone for Node<T, N> {
    fn clone(&self) -> Self {
        match self {
            Node::Inner(fan) => Node::Inner(fan.clone()),
            // A clone is made to be changed.
            Node::Last(fan, _) => Node::Last(fan.clone(), N::default()),
        }
    }
}

impl<C> Clone for Branch<C> {
    fn clone(&self) -> Self {
        Branch { weights: self.weights, children: self.children.clone() }
    }
}

impl<C> Default for Branch<C> {
    fn default() -> Self {
        Branch { weights: [0; FAN], children: [const { None }; FAN] }
    }
}

impl<C: Weighted> Branch<C> {
    /// Updates the weight of child `at` after a change below it.
    fn settle(&mut self, at: usize) {
        let weight = self.children[at].as_ref().map_or(0, |child| child.weight());
        self.weights[at] = weight;
        if weight == 0 {
            self.children[at] = None;
        }
    }
}

impl<C> Branch<C> {
    fn weight(&self) -> u32 {
        self.weights.iter().sum()
    }

    /// The child that holds unit `nth` of the weight, and the offset inside it.
    fn nth(&self, mut nth: u32) -> Option<(usize, u32)> {
        for (at, &weight) in self.weights.iter().enumerate() {
            if nth < weight {
                return Some((at, nth));
            }
            nth -= weight;
        }
        None
    }

    fn weight_before(&self, at: usize) -> u32 {
        self.weights[..at].iter().sum()
    }
}

impl<T, N> Weighted for Node<T, N> {
    fn weight(&self) -> u32 {
        match self {
            Node::Inner(fan) => fan.weight(),
            Node::Last(fan, _) => fan.weight(),
        }
    }
}

/// Position of the child that leads to `index` in a node of `height`.
fn digit(index: u32, height: u32) -> usize {
    (index >> (BITS * (height - 1))) as usize % FAN
}

/// Number of indices that a node of `height` covers.
fn span(height: u32) -> u64 {
    1 << (BITS * height)
}

impl<T: Weighted, N: Default> Trie<T, N> {
    pub(in crate::table) fn new() -> Self {
        Trie { root: None, height: 1 }
    }

    pub(in crate::table) fn weight(&self) -> u32 {
        self.root.as_ref().map_or(0, |root| root.weight())
    }

    pub(in crate::table) fn get(&self, index: u32) -> Option<&T> {
        if u64::from(index) >= span(self.height) {
            return None;
        }
        let mut node = self.root.as_deref()?;
        let mut height = self.height;
        loop {
            let at = digit(index, height);
            match node {
                Node::Inner(fan) => node = fan.children[at].as_deref()?,
                Node::Last(fan, _) => return fan.children[at].as_deref(),
            }
            height -= 1;
        }
    }

    /// Calls `change` to insert, replace or remove the value at `index`.
    pub(in crate::table) fn edit<R>(&mut self, index: u32, change: impl FnOnce(&mut Option<Arc<T>>) -> R) -> R {
        while u64::from(index) >= span(self.height) {
            if let Some(root) = self.root.take() {
                let mut fan = Branch::default();
                fan.children[0] = Some(root);
                fan.settle(0);
                self.root = Some(Arc::new(Node::Inner(fan)));
            }
            self.height += 1;
        }
        let result = edit(&mut self.root, self.height, index, change);
        if self.weight() == 0 {
            self.root = None;
        }
        result
    }

    /// The value that holds unit `nth` of the total weight: its index, the value, and the offset inside it.
    pub(in crate::table) fn nth(&self, nth: usize) -> Option<(u32, &T, usize)> {
        let mut node = self.root.as_deref()?;
        let mut rest = u32::try_from(nth).ok()?;
        let mut index = 0;
        loop {
            match node {
                Node::Inner(fan) => {
                    let (at, inside) = fan.nth(rest)?;
                    (index, rest) = ((index << BITS) | at as u32, inside);
                    node = fan.children[at].as_deref()?;
                }
                Node::Last(fan, _) => {
                    let (at, inside) = fan.nth(rest)?;
                    return Some(((index << BITS) | at as u32, fan.children[at].as_deref()?, inside as usize));
                }
            }
        }
    }

    /// Total weight of all values before `index`.
    pub(in crate::table) fn rank(&self, index: u32) -> usize {
        if u64::from(index) >= span(self.height) {
            return self.weight() as usize;
        }
        let (mut node, mut height, mut rank) = (self.root.as_deref(), self.height, 0);
        while let Some(inside) = node {
            let at = digit(index, height);
            (rank, node) = match inside {
                Node::Inner(fan) => (rank + fan.weight_before(at), fan.children[at].as_deref()),
                Node::Last(fan, _) => (rank + fan.weight_before(at), None),
            };
            height -= 1;
        }
        rank as usize
    }

    /// The first value at or after `index`, with its index.
    pub(in crate::table) fn next(&self, index: u32) -> Option<(u32, &T)> {
        let (found, value, _) = self.nth(self.rank(index))?;
        Some((found, value))
    }

    /// The last value before `index`, with its index.
    pub(in crate::table) fn prev(&self, index: u32) -> Option<(u32, &T)> {
        let (found, value, _) = self.nth(self.rank(index).checked_sub(1)?)?;
        Some((found, value))
    }

    /// The last value, with its index.
    pub(in crate::table) fn last(&self) -> Option<(u32, &T)> {
        let (found, value, _) = self.nth((self.weight() as usize).checked_sub(1)?)?;
        Some((found, value))
    }
}

impl<T, N> Trie<T, N> {
    /// Visits every index at which two tries hold different values, in time proportional to the parts that they do not share.
    pub(super) fn differences<'a>(
        &'a self,
        other: &'a Trie<T, N>,
        visit: &mut impl FnMut(u32, Option<&'a T>, Option<&'a T>),
    ) {
        differences((self.root.as_ref(), self.height), (other.root.as_ref(), other.height), 0, visit);
    }
}

/// The values of one of the last inner nodes.
pub(in crate::table) struct Leaf<'a, T, N> {
    /// Index of the first value.
    pub(in crate::table) first: u32,
    pub(in crate::table) values: &'a [Option<Arc<T>>; FAN],
    pub(in crate::table) notes: &'a N,
}

impl<T, N> Trie<T, N> {
    /// The last inner nodes, by ascending index.
    pub(in crate::table) fn leaves(&self) -> impl Iterator<Item = Leaf<'_, T, N>> {
        let mut nodes: Vec<(u32, u32, &Node<T, N>)> = self.root.iter().map(|root| (0, self.height, &**root)).collect();
        std::iter::from_fn(move || {
            loop {
                let (first, height, node) = nodes.pop()?;
                match node {
                    Node::Inner(fan) => {
                        let children = fan.children.iter().enumerate().rev();
                        nodes.extend(children.filter_map(|(at, child)| {
                            Some((first | (at as u32) << (BITS * (height - 1)), height - 1, &**child.as_ref()?))
                        }));
                    }
                    Node::Last(fan, notes) => return Some(Leaf { first, values: &fan.children, notes }),
                }
            }
        })
    }
}

/// A subtree and its height.
type Sub<'a, T, N> = (Option<&'a Arc<Node<T, N>>>, u32);

fn differences<'a, T, N>(
    a: Sub<'a, T, N>,
    b: Sub<'a, T, N>,
    first: u32,
    visit: &mut impl FnMut(u32, Option<&'a T>, Option<&'a T>),
) {
    let same = match (a.0, b.0) {
        (None, None) => true,
        (Some(x), Some(y)) => Arc::ptr_eq(x, y),
        _ => false,
    };
    if same {
        return;
    }
    let height = a.1.max(b.1);
    for at in 0..FAN {
        let index = first | (at as u32) << (BITS * (height - 1));
        if height == 1 {
            let (x, y) = (last(a.0, at), last(b.0, at));
            let same = match (x, y) {
                (None, None) => true,
                (Some(x), Some(y)) => Arc::ptr_eq(x, y),
                _ => false,
            };
            if !same {
                visit(index, x.map(|value| &**value), y.map(|value| &**value));
            }
        } else {
            differences(child(a, height, at), child(b, height, at), index, visit);
        }
    }
}

/// Child `at` of a subtree, viewed from a node of `height`: a lower subtree is that node's first child.
fn child<'a, T, N>(sub: Sub<'a, T, N>, height: u32, at: usize) -> Sub<'a, T, N> {
    let node = match sub.0.map(|node| &**node) {
        _ if sub.1 < height => return (sub.0.filter(|_| at == 0), sub.1.min(height - 1)),
        Some(Node::Inner(fan)) => fan.children[at].as_ref(),
        Some(Node::Last(..)) | None => None,
    };
    (node, height - 1)
}

fn last<T, N>(node: Option<&Arc<Node<T, N>>>, at: usize) -> Option<&Arc<T>> {
    match &**node? {
        Node::Last(fan, _) => fan.children[at].as_ref(),
        Node::Inner(_) => None,
    }
}

fn edit<T: Weighted, N: Default, R>(
    node: &mut Option<Arc<Node<T, N>>>,
    height: u32,
    index: u32,
    change: impl FnOnce(&mut Option<Arc<T>>) -> R,
) -> R {
    let at = digit(index, height);
    let node = node.get_or_insert_with(|| {
        Arc::new(if height == 1 { Node::Last(Branch::default(), N::default()) } else { Node::Inner(Branch::default()) })
    });
    match Arc::make_mut(node) {
        Node::Inner(fan) => {
            let result = edit(&mut fan.children[at], height - 1, index, change);
            fan.settle(at);
            result
        }
        Node::Last(fan, notes) => {
            *notes = N::default();
            let result = change(&mut fan.children[at]);
            fan.settle(at);
            result
        }
    }
}
