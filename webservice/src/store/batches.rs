//! How many orders were written together.

use std::sync::atomic::{AtomicU64, Ordering};

/// Upper bounds of the histogram's buckets; the last is the largest batch that there can be.
pub const BOUNDS: [u64; 8] = [1, 2, 4, 8, 16, 32, 64, 128];

/// A histogram, not cumulative.
#[derive(Debug, Default)]
pub(super) struct Batches {
    buckets: [AtomicU64; BOUNDS.len()],
    orders: AtomicU64,
}

/// What was counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Batches by [`BOUNDS`], not cumulative.
    pub buckets: [u64; BOUNDS.len()],
    /// Orders in all of them.
    pub orders: u64,
    /// Orders that wait for the next.
    pub waiting: u64,
}

impl Batches {
    /// Counts a batch of 1 order or more.
    pub(super) fn count(&self, orders: usize) {
        let orders = orders as u64;
        let bucket = BOUNDS.iter().position(|bound| orders <= *bound).unwrap_or(BOUNDS.len() - 1);
        self.buckets[bucket].fetch_add(1, Ordering::Relaxed);
        self.orders.fetch_add(orders, Ordering::Relaxed);
    }

    /// What was counted so far, with the number of those that wait.
    pub(super) fn counts(&self, waiting: u64) -> Counts {
        let buckets = std::array::from_fn(|index| self.buckets[index].load(Ordering::Relaxed));
        Counts { buckets, orders: self.orders.load(Ordering::Relaxed), waiting }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_are_counted_by_size() {
        let batches = Batches::default();
        for size in [1, 1, 2, 3, 64, 65, 128] {
            batches.count(size);
        }
        let counts = batches.counts(5);
        assert_eq!(counts, Counts { buckets: [2, 1, 1, 0, 0, 0, 1, 2], orders: 264, waiting: 5 });
        assert_eq!(BOUNDS[BOUNDS.len() - 1], super::super::group::MOST_TOGETHER as u64);
    }
}
