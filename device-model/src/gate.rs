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

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    const KINDS: [Kind; 3] = [Kind::Read, Kind::KnobGet, Kind::KnobSet];
    const POINTS: [Point; 2] = [Point::Seen, Point::BeforeCompletion];

    fn gate(tag: &str) -> Gate {
        Gate {
            tag: tag.into(),
            point: Point::Seen,
            kinds: Vec::new(),
            sector: None,
            skip: 0,
            count: 1,
            deadline_ms: 10,
        }
    }

    fn passing(kind: Kind) -> Passing {
        Passing {
            point: Point::Seen,
            kind,
            sector: 0,
        }
    }

    #[test]
    fn an_armed_gate_stands_behind_those_armed_before_it() {
        let mut gates: Gates<()> = Gates::default();
        gates.arm(gate("a")).expect("armed");
        gates.arm(gate("b")).expect("armed");
        let tags = [(); 3].map(|()| gates.ask(0, passing(Kind::Read)).map(|ticket| ticket.tag));
        assert_eq!(tags, [Some("a".into()), Some("b".into()), None]);
    }

    #[test]
    fn arming_a_tag_anew_replaces_the_gate_and_keeps_what_it_holds() {
        let mut gates = Gates::default();
        gates
            .arm(Gate {
                count: 5,
                ..gate("a")
            })
            .expect("armed");
        let ticket = gates.ask(0, passing(Kind::Read)).expect("held");
        gates.hold(ticket, 'x');
        gates
            .arm(Gate {
                kinds: vec![Kind::Write],
                ..gate("a")
            })
            .expect("armed");
        assert_eq!(gates.ask(0, passing(Kind::Read)), None);
        assert_eq!(gates.release("a").len(), 1);
    }

    #[test]
    fn a_full_house_can_still_replace() {
        let mut gates: Gates<()> = Gates::default();
        for number in 0..MAX_GATES {
            gates.arm(gate(&number.to_string())).expect("armed");
        }
        assert_eq!(gates.arm(gate("one more")), Err(Refusal::Full));
        gates.arm(gate("7")).expect("replaced");
    }

    /// What may happen to gates.
    #[derive(Clone, Debug)]
    enum Step {
        Arm(Gate),
        Disarm(u8),
        DisarmAll,
        Pass(Passing),
        Release(u8),
        ReleaseAll,
        Wait(u64),
    }

    fn tag(number: u8) -> String {
        format!("gate{number}")
    }

    fn steps() -> impl Strategy<Value = Step> {
        let point = || prop::sample::select(POINTS.to_vec());
        let kind = || prop::sample::select(KINDS.to_vec());
        let kinds = prop::collection::vec(kind(), 0..3);
        let sector = || 0..2u64;
        let armed = (
            0..4u8,
            point(),
            kinds,
            prop::option::of(sector()),
            0..3u32,
            0..4u32,
            0..9u64,
        );
        let armed = armed.prop_map(|(number, point, kinds, sector, skip, count, deadline_ms)| {
            Step::Arm(Gate {
                tag: tag(number),
                point,
                kinds,
                sector,
                skip,
                count,
                deadline_ms,
            })
        });
        let passing = (point(), kind(), sector()).prop_map(|(point, kind, sector)| {
            Step::Pass(Passing {
                point,
                kind,
                sector,
            })
        });
        prop_oneof![
            3 => armed,
            1 => (0..4u8).prop_map(Step::Disarm),
            1 => Just(Step::DisarmAll),
            12 => passing,
            3 => (0..4u8).prop_map(Step::Release),
            1 => Just(Step::ReleaseAll),
            3 => (0..6 * MS).prop_map(Step::Wait),
        ]
    }

    /// What is known of a held request apart from the gates.
    #[derive(Debug)]
    struct Known {
        tag: String,
        until: u64,
    }

    /// Checks that they left in the order in which they were held, and each for the first time.
    fn leave(
        left: &[Held<u32>],
        known: &mut BTreeMap<u32, Known>,
        leaves: impl Fn(&Known) -> bool,
    ) {
        let left: Vec<_> = left.iter().map(|held| held.item).collect();
        let due: Vec<_> = known
            .iter()
            .filter(|(_, known)| leaves(known))
            .map(|(&number, _)| number)
            .collect();
        assert_eq!(left, due);
        known.retain(|number, _| !left.contains(number));
    }

    proptest! {
        #[test]
        fn every_held_request_leaves_once_in_order_and_by_its_deadline(
            steps in prop::collection::vec(steps(), 0..120),
        ) {
            let mut gates = Gates::default();
            let mut known: BTreeMap<u32, Known> = BTreeMap::new();
            // What each gate may still hold and must still let pass.
            let mut armed: BTreeMap<String, Gate> = BTreeMap::new();
            let (mut now, mut next) = (0, 0);
            for step in steps {
                match step {
                    Step::Arm(gate) => {
                        let done = gates.arm(gate.clone());
                        prop_assert_eq!(done.is_ok(), gate.count > 0);
                        if done.is_ok() {
                            armed.insert(gate.tag.clone(), gate);
                        }
                    }
                    Step::Disarm(number) => {
                        gates.disarm(&tag(number));
                        armed.remove(&tag(number));
                    }
                    Step::DisarmAll => {
                        gates.disarm_all();
                        armed.clear();
                    }
                    Step::Pass(passing) => {
                        let fits = |gate: &Gate| {
                            gate.point == passing.point
                                && (gate.kinds.is_empty() || gate.kinds.contains(&passing.kind))
                                && gate.sector.is_none_or(|sector| sector == passing.sector)
                        };
                        let willing = armed.values().any(|gate| fits(gate) && gate.skip == 0);
                        let ticket = gates.ask(now, passing);
                        prop_assert_eq!(ticket.is_some(), willing);
                        let Some(ticket) = ticket else {
                            for gate in armed.values_mut().filter(|gate| fits(gate)) {
                                gate.skip -= 1;
                            }
                            continue;
                        };
                        let gate = armed.get_mut(&*ticket.tag);
                        let gate = gate.expect("only an armed gate holds");
                        prop_assert!(fits(gate) && gate.skip == 0);
                        prop_assert_eq!(ticket.until, now + gate.deadline_ms * MS);
                        gate.count -= 1;
                        let spent = gate.count == 0;
                        known.insert(next, Known { tag: ticket.tag.to_string(), until: ticket.until });
                        // Which others were asked before it is the gates' own affair.
                        if spent {
                            armed.remove(&*ticket.tag);
                        }
                        for gate in &mut gates.armed {
                            if let Some(known) = armed.get_mut(&*gate.tag) {
                                prop_assert!(gate.skip <= known.skip);
                                prop_assert_eq!(gate.count, known.count);
                                known.skip = gate.skip;
                            }
                        }
                        gates.hold(ticket, next);
                        next += 1;
                    }
                    Step::Release(number) => {
                        leave(&gates.release(&tag(number)), &mut known, |known| {
                            known.tag == tag(number)
                        });
                    }
                    Step::ReleaseAll => leave(&gates.release_all(), &mut known, |_| true),
                    Step::Wait(time) => {
                        now += time;
                        leave(&gates.expire(now), &mut known, |known| known.until <= now);
                    }
                }
                prop_assert_eq!(gates.armed.len(), armed.len());
                prop_assert_eq!(gates.held().len(), known.len());
                let first = known.values().map(|known| known.until).min();
                prop_assert_eq!(gates.next_deadline(), first);
            }
            // Whatever is left ends by time alone.
            while let Some(deadline) = gates.next_deadline() {
                leave(&gates.expire(deadline), &mut known, |known| known.until <= deadline);
            }
            prop_assert!(known.is_empty());
        }
    }
}
