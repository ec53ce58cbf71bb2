//! The smallest set of parts that still shows a failure: ddmin (A. Zeller, R. Hildebrandt,
//! "Simplifying and isolating failure-inducing input", IEEE TSE 28(2), 2002), by complements.
//!
//! The caller tries [`Ddmin::candidate`] and tells what came of it, until there is none. The
//! result is 1-minimal: each part of it was left out once, alone, and the failure did not show.

use std::collections::VecDeque;

/// A minimization under way.
#[derive(Clone, Debug)]
pub struct Ddmin<P> {
    kept: Vec<P>,
    /// So many chunks.
    chunks: usize,
    /// The chunk that the next candidate leaves out.
    next: usize,
    /// Chunks in a row whose leaving out did not show the failure.
    needed: usize,
}

impl<P: Clone + PartialEq> Ddmin<P> {
    /// Begins with all parts, which together show the failure. The first candidate has none of them: of
    /// one level often nothing is needed, and that is one try.
    pub fn new(parts: Vec<P>) -> Self {
        Self {
            chunks: parts.len().min(1),
            kept: parts,
            next: 0,
            needed: 0,
        }
    }

    /// What is still there.
    pub fn kept(&self) -> &[P] {
        &self.kept
    }

    /// Parts to try next, or nothing when the rest is minimal.
    pub fn candidate(&self) -> Option<Vec<P>> {
        if self.needed == self.chunks && self.chunks == self.kept.len() {
            return None;
        }
        let (from, to) = self.bounds();
        let mut candidate = self.kept.clone();
        candidate.drain(from..to);
        Some(candidate)
    }

    /// Whether the candidate showed the failure.
    pub fn tell(&mut self, shown: bool) {
        let (from, to) = self.bounds();
        if shown {
            self.kept.drain(from..to);
            self.chunks = (self.chunks - 1).max(2).min(self.kept.len());
            self.needed = 0;
        } else {
            self.next += 1;
            self.needed += 1;
            if self.needed >= self.chunks && self.chunks < self.kept.len() {
                self.chunks = (self.chunks * 2).min(self.kept.len());
                self.needed = 0;
                self.next = 0;
            }
        }
        if self.next >= self.chunks {
            self.next = 0;
        }
    }

    /// Drops parts that went with others.
    pub fn retain(&mut self, keep: impl Fn(&P) -> bool) {
        let before = self.kept.len();
        self.kept.retain(keep);
        if self.kept.len() < before {
            self.chunks = self.chunks.min(self.kept.len());
            self.next = 0;
            self.needed = 0;
        }
    }

    fn bounds(&self) -> (usize, usize) {
        let len = self.kept.len();
        let edge = |chunk: usize| chunk * len / self.chunks.max(1);
        (edge(self.next), edge(self.next + 1))
    }
}

/// Parts of which some hold others: the coarse are minimized before the fine, so that what goes with
/// one of them is never tried alone (G. Misherghi, Z. Su, "HDD: hierarchical delta debugging",
/// ICSE 2006).
#[derive(Clone, Debug)]
pub struct Levels<P> {
    /// What was kept of the levels before.
    settled: Vec<P>,
    level: Ddmin<P>,
    finer: VecDeque<Vec<P>>,
}

impl<P: Clone + PartialEq> Levels<P> {
    /// Begins with all parts of all levels, the coarsest first.
    pub fn new(levels: impl IntoIterator<Item = Vec<P>>) -> Self {
        let mut levels = Self {
            settled: Vec::new(),
            level: Ddmin::new(Vec::new()),
            finer: levels.into_iter().collect(),
        };
        levels.settle();
        levels
    }

    /// What is still there.
    pub fn kept(&self) -> Vec<P> {
        self.with(self.level.kept())
    }

    /// Parts to try next, or nothing when each level is minimal.
    pub fn candidate(&self) -> Option<Vec<P>> {
        let candidate = self.level.candidate()?;
        Some(self.with(&candidate))
    }

    /// Whether the candidate showed the failure.
    pub fn tell(&mut self, shown: bool) {
        self.level.tell(shown);
        self.settle();
    }

    /// Drops parts that went with others.
    pub fn retain(&mut self, keep: impl Fn(&P) -> bool) {
        self.settled.retain(&keep);
        self.level.retain(&keep);
        for level in &mut self.finer {
            level.retain(&keep);
        }
        self.settle();
    }

    fn with(&self, level: &[P]) -> Vec<P> {
        let settled = self.settled.iter().chain(level);
        let parts = settled.chain(self.finer.iter().flatten());
        parts.cloned().collect()
    }

    /// Goes on to the next level where one is done.
    fn settle(&mut self) {
        while self.level.candidate().is_none()
            && let Some(next) = self.finer.pop_front()
        {
            let done = std::mem::replace(&mut self.level, Ddmin::new(next));
            self.settled.extend(done.kept);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn minimize(parts: Vec<u32>, fails: impl Fn(&[u32]) -> bool) -> (Vec<u32>, usize) {
        let mut ddmin = Ddmin::new(parts);
        let mut tries = 0;
        while let Some(candidate) = ddmin.candidate() {
            tries += 1;
            assert!(tries < 10_000, "it ends");
            ddmin.tell(fails(&candidate));
        }
        (ddmin.kept().to_vec(), tries)
    }

    #[test]
    fn one_cause_is_found_in_few_tries() {
        let (kept, tries) = minimize((0..64).collect(), |parts| parts.contains(&37));
        assert_eq!(kept, [37]);
        assert!(tries <= 30, "{tries}");
    }

    #[test]
    fn a_failure_that_needs_nothing_leaves_nothing() {
        assert_eq!(minimize((0..9).collect(), |_| true).0, [0u32; 0]);
        assert_eq!(minimize(vec![], |_| true), (vec![], 0));
    }

    proptest! {
        /// On whatever levels the parts that a failure needs are, those are left.
        #[test]
        fn the_smallest_of_each_level_is_left(
            needs in proptest::collection::btree_set(0u32..20, 0..5),
            coarse in 0u32..20,
        ) {
            let mut levels = Levels::new([(0..coarse).collect(), (coarse..20).collect()]);
            while let Some(candidate) = levels.candidate() {
                levels.tell(needs.iter().all(|need| candidate.contains(need)));
            }
            prop_assert_eq!(levels.kept(), needs.iter().copied().collect::<Vec<_>>());
        }

        /// For a failure that needs exactly some parts, exactly those are left.
        #[test]
        fn the_smallest_is_left(needs in proptest::collection::btree_set(0u32..20, 0..5)) {
            let fails = |parts: &[u32]| needs.iter().all(|need| parts.contains(need));
            let (kept, _) = minimize((0..20).collect(), fails);
            prop_assert_eq!(kept, needs.iter().copied().collect::<Vec<_>>());
        }

        /// Whatever the failure is: it shows with what is left, and without any one part of that
        /// it doesn't.
        #[test]
        fn what_is_left_is_1_minimal(clauses in proptest::collection::vec(
            proptest::collection::btree_set(0u32..12, 1..4), 1..4)) {
            // Any clause is a way to fail: not every failure has one cause.
            let fails = |parts: &[u32]| {
                clauses.iter().any(|clause| clause.iter().all(|it| parts.contains(it)))
            };
            let (kept, _) = minimize((0..12).collect(), fails);
            prop_assert!(fails(&kept));
            for index in 0..kept.len() {
                let mut less = kept.clone();
                less.remove(index);
                prop_assert!(!fails(&less));
            }
        }
    }
}
