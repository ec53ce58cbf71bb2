//! Counts of one actor's ops, by op and path.

use std::collections::BTreeMap;

use knobrig_proto::{OpTally, Outcome, Tally};

use crate::paths::{PathId, Paths};

/// An op on a knob: what tallies and inside notes speak of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u32)]
#[allow(missing_docs)]
pub enum Op {
    Open,
    Close,
    Read,
    Write,
    Seek,
    Poll,
}

impl Op {
    /// All, in the order of their numbers.
    pub const ALL: [Self; 6] = [
        Self::Open,
        Self::Close,
        Self::Read,
        Self::Write,
        Self::Seek,
        Self::Poll,
    ];

    /// Its name on the wire.
    pub fn name(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Close => "close",
            Self::Read => "read",
            Self::Write => "write",
            Self::Seek => "seek",
            Self::Poll => "poll",
        }
    }
}

/// One actor's tallies: a cell for each pair, so that the hot path neither searches nor
/// allocates (but for an errno's first time).
#[derive(Debug, Default)]
pub struct Tallies {
    cells: Vec<Tally>,
}

impl Tallies {
    /// Counts a call.
    pub fn count(&mut self, paths: usize, op: Op, path: PathId, outcome: &Outcome) {
        if self.cells.is_empty() {
            self.cells.resize(Op::ALL.len() * paths, Tally::default());
        }
        let Some(cell) = self.cells.get_mut(op as usize * paths + path as usize) else {
            return;
        };
        let took = outcome.end_ns.saturating_sub(outcome.start_ns);
        cell.count += 1;
        cell.total_ns += took;
        cell.max_ns = cell.max_ns.max(took);
        if let Ok(errno @ 1..) = i32::try_from(-outcome.ret) {
            *cell.errnos.entry(errno).or_default() += 1;
        }
    }
}

/// The sum of all actors' tallies, pairs without a call left out.
pub fn sum(paths: &Paths, all: Vec<Tallies>) -> Vec<OpTally> {
    let mut sums: BTreeMap<(usize, usize), Tally> = BTreeMap::new();
    for (at, cell) in all
        .into_iter()
        .flat_map(|it| it.cells.into_iter().enumerate())
    {
        if cell.count == 0 {
            continue;
        }
        let sum = sums
            .entry((at % paths.len(), at / paths.len()))
            .or_default();
        sum.count += cell.count;
        sum.total_ns += cell.total_ns;
        sum.max_ns = sum.max_ns.max(cell.max_ns);
        for (errno, count) in cell.errnos {
            *sum.errnos.entry(errno).or_default() += count;
        }
    }
    sums.into_iter()
        .map(|((path, op), tally)| OpTally {
            op: Op::ALL[op].name().to_owned(),
            path: paths.name(path as PathId).to_owned(),
            tally,
        })
        .collect()
}
