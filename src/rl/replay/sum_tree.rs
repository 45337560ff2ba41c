//! Numbers that can be drawn in proportion to their size: a tree of sums.
//!
//! Invariant: every inner node is the sum of its two children, computed anew whenever one of them changes, so that
//! rounding does not pile up. Changing one number and finding one take as many steps as the tree is high. Left out: what the
//! numbers mean.

/// Some numbers, none below 0.
#[derive(Clone, Debug)]
pub struct SumTree {
    /// Node 1 is the root; the children of node `i` are `2 i` and `2 i + 1`; the second half are the leaves.
    nodes: Vec<f64>,
}

impl SumTree {
    /// `n` zeros.
    ///
    /// ```
    /// let mut tree = mobula::rl::SumTree::new(3);
    /// tree.set(0, 1.0);
    /// tree.set(2, 3.0);
    /// assert_eq!((tree.sum(), tree.find(0.5), tree.find(1.5)), (4.0, 0, 2));
    /// ```
    pub fn new(n: usize) -> SumTree {
        SumTree {
            nodes: vec![0.0; 2 * n.max(1).next_power_of_two()],
        }
    }

    fn leaves(&self) -> usize {
        self.nodes.len() / 2
    }

    /// The sum of all.
    pub fn sum(&self) -> f64 {
        self.nodes[1]
    }

    /// Number `i`.
    pub fn get(&self, i: usize) -> f64 {
        self.nodes[self.leaves() + i]
    }

    /// Changes number `i`.
    pub fn set(&mut self, i: usize, number: f64) {
        let mut node = self.leaves() + i;
        self.nodes[node] = number;
        while node > 1 {
            node /= 2;
            self.nodes[node] = self.nodes[2 * node] + self.nodes[2 * node + 1];
        }
    }

    /// The first `i` such that the numbers up to `i` add up to more than `mass`: one that is above 0, if any is.
    pub fn find(&self, mut mass: f64) -> usize {
        let mut node = 1;
        while node < self.leaves() {
            node *= 2;
            // Never to where nothing is, though rounding may leave a little mass at the end.
            if mass >= self.nodes[node] && self.nodes[node + 1] > 0.0 {
                mass -= self.nodes[node];
                node += 1;
            }
        }
        node - self.leaves()
    }
}
