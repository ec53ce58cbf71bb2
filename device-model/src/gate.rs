//! The gates: which requests are held, and when each goes on.
//!
//! A state machine over plain data. It knows neither rings nor sockets, time comes in as
//! nanoseconds, and what it holds is whatever its user puts in. Every hold ends: by a release,
//! by its deadline, or because all are dropped.

use std::collections::VecDeque;
use std::sync::Arc;

use dk_control::{Gate, Kind, Point};

use crate::clock::MS;

/// Gates that can be armed at once.
pub const MAX_GATES: usize = 64;
/// Bytes of a tag.
pub const MAX_TAG: usize = 128;
/// Longest deadline of a hold, in milliseconds: an hour.
pub const MAX_DEADLINE_MS: u64 = 3_600_000;

/// A gate that can't be armed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It would hold nothing.
    #[error("the gate's count is 0; it must hold at least 1 request")]
    Count,
    /// Its tag is empty or too long.
    #[error("the gate's tag has {0} bytes; it must have 1 to {MAX_TAG}")]
    Tag(usize),
    /// Its holds would last too long.
    #[error("the gate's deadline_ms is {0}; it must be at most {MAX_DEADLINE_MS}")]
    Deadline(u64),
    /// There are too many.
    #[error("{MAX_GATES} gates are armed already; disarm one first")]
    Full,
}

/// What gates know of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Passing {
    /// Where it is.
    pub point: Point,
    /// Its kind.
    pub kind: Kind,
    /// Its sector or knob.
    pub sector: u64,
}

/// Leave to hold one request. It was counted when it was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ticket {
    /// The gate's tag.
    pub tag: Arc<str>,
    /// When the hold ends by itself, in ns.
    pub until: u64,
}

/// A request that is held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held<T> {
    /// Why and how long.
    pub ticket: Ticket,
    /// What.
    pub item: T,
}

/// The armed gates and what they hold.
#[derive(Clone, Debug)]
pub struct Gates<T> {
    armed: Vec<Armed>,
    /// In the order in which they were held.
    held: VecDeque<Held<T>>,
}

#[derive(Clone, Debug)]
struct Armed {
    tag: Arc<str>,
    point: Point,
    kinds: Vec<Kind>,
    sector: Option<u64>,
    skip: u32,
    count: u32,
    deadline: u64,
}

impl Armed {
    fn fits(&self, passing: &Passing) -> bool {
        self.point == passing.point
            && (self.kinds.is_empty() || self.kinds.contains(&passing.kind))
            && self.sector.is_none_or(|sector| sector == passing.sector)
    }
}

impl<T> Default for Gates<T> {
    fn default() -> Self {
        Self {
            armed: Vec::new(),
            held: VecDeque::new(),
        }
    }
}

impl<T> Gates<T> {
    /// Arms a gate. One with the same tag is replaced; what it holds stays held under the tag.
    ///
    /// # Errors
    /// [`Refusal`]; nothing has changed then.
    pub fn arm(&mut self, gate: Gate) -> Result<(), Refusal> {
        if gate.count == 0 {
            return Err(Refusal::Count);
        }
        if gate.tag.is_empty() || gate.tag.len() > MAX_TAG {
            return Err(Refusal::Tag(gate.tag.len()));
        }
        if gate.deadline_ms > MAX_DEADLINE_MS {
            return Err(Refusal::Deadline(gate.deadline_ms));
        }
        let others = self
            .armed
            .iter()
            .filter(|armed| *armed.tag != *gate.tag)
            .count();
        if others >= MAX_GATES {
            return Err(Refusal::Full);
        }
        let Gate {
            tag,
            point,
            mut kinds,
            sector,
            skip,
            count,
            deadline_ms,
        } = gate;
        // A line may repeat a kind as often as it is long.
        kinds.sort_unstable();
        kinds.dedup();
        self.disarm(&tag);
        let deadline = deadline_ms * MS;
        self.armed.push(Armed {
            tag: tag.into(),
            point,
            kinds,
            sector,
            skip,
            count,
            deadline,
        });
        Ok(())
    }

    /// Takes a gate away. What it holds stays held.
    pub fn disarm(&mut self, tag: &str) {
        self.armed.retain(|armed| *armed.tag != *tag);
    }

    /// Takes all gates away. What they hold stays held.
    pub fn disarm_all(&mut self) {
        self.armed.clear();
    }

    /// Asks whether a request is to be held here. Gates are asked in the order in which they
    /// were armed, and the first that fits and has skipped its share holds it.
    pub fn ask(&mut self, now: u64, passing: Passing) -> Option<Ticket> {
        let mut holder = None;
        for (index, armed) in self.armed.iter_mut().enumerate() {
            if !armed.fits(&passing) {
                continue;
            }
            if armed.skip > 0 {
                armed.skip -= 1;
                continue;
            }
            armed.count -= 1;
            holder = Some(index);
            break;
        }
        let armed = &self.armed[holder?];
        let ticket = Ticket {
            tag: armed.tag.clone(),
            until: now.saturating_add(armed.deadline),
        };
        self.armed.retain(|armed| armed.count > 0);
        Some(ticket)
    }

    /// Holds what [`ask`](Self::ask) gave a ticket for.
    pub fn hold(&mut self, ticket: Ticket, item: T) {
        self.held.push_back(Held { ticket, item });
    }

    /// Takes out what the gate holds, first held first.
    pub fn release(&mut self, tag: &str) -> Vec<Held<T>> {
        self.take(|held| *held.ticket.tag == *tag)
    }

    /// Takes out everything that is held, first held first.
    pub fn release_all(&mut self) -> Vec<Held<T>> {
        std::mem::take(&mut self.held).into()
    }

    /// Takes out what has reached its deadline, first held first.
    pub fn expire(&mut self, now: u64) -> Vec<Held<T>> {
        self.take(|held| held.ticket.until <= now)
    }

    fn take(&mut self, leaves: impl Fn(&Held<T>) -> bool) -> Vec<Held<T>> {
        let (leaving, staying) = std::mem::take(&mut self.held).into_iter().partition(leaves);
        self.held = staying;
        Vec::from_iter::<VecDeque<_>>(leaving)
    }

    /// When the next hold ends by itself.
    pub fn next_deadline(&self) -> Option<u64> {
        self.held.iter().map(|held| held.ticket.until).min()
    }

    /// What is held, first held first.
    pub fn held(&self) -> impl ExactSizeIterator<Item = &Held<T>> {
        self.held.iter()
    }
}
