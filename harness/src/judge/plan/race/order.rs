//! The episode that takes a race through turns.
//!
//! Where an actor stands depends on the point: before a system call it waits for a signal, in a
//! function a gate holds it, in the device its request is held. As it comes to stand, the next one
//! goes on. The harness decides nothing of that: it is all in the plan, so that a finding's episode
//! repeats it.

use std::collections::BTreeMap;

use dk_control::{Event, Point};
use knobrig_proto::{EpisodeReport, FunctionGate, Step, Who};

use super::super::build::{Builder, SLOT, one_of};
use super::super::points::Program as Actors;
use super::super::{Place, Plan, Reaction, Shape, Then, When};
use super::{Op, Race, asking, name};
use crate::judge::record::Seen;
use crate::schedule::{Actor, At, Occurrence, Program, Turn};
use crate::target::{AskingOp, Chosen};

/// The last step of each actor, so that its end is told.
const DONE: Step = Step::Spin { us: 0 };

/// An episode that takes a race through turns, and where its actors stand in it.
#[derive(Clone, Debug)]
pub struct Ordered {
    /// The episode.
    pub plan: Plan,
    /// Steps that wait for a signal before an op, by actor and point.
    waits: BTreeMap<(Actor, usize), usize>,
    /// Of each actor, its last step.
    done: Vec<usize>,
}

/// The race in these turns. Whoever stands goes on by himself after `hold_ms`.
pub fn ordered(
    target: &Chosen,
    race: &Race,
    way: &Program,
    turns: &[Turn],
    number: u64,
    hold_ms: u64,
) -> Ordered {
    let mut builder = Builder::new(target, Shape::Ordered, number);
    builder.bring_up();
    let mut slot = SLOT;
    let mut waits = BTreeMap::new();
    let mut done = Vec::new();
    for (actor, ops) in race.actors.iter().enumerate() {
        let part = builder.actor(&name(actor), true, None);
        for (at, op) in ops.iter().enumerate() {
            let point = (way.actors[actor].iter())
                .position(|it| it.at == At::Begin && race.op(actor, it) == Some(at));
            if let Some(point) = point
                && stands(turns, actor, point)
            {
                // The first to wait waits for the turns of all others.
                let turns = turns.len() as u64;
                let step = Step::WaitSignal {
                    name: way.actors[actor][point].to_string(),
                    deadline_ms: hold_ms * if point == 0 { turns.max(1) } else { 1 },
                };
                if let Place::Actor(_, step) = builder.act(part, step) {
                    waits.insert((actor, point), step);
                }
            }
            builder.race_op(part, op, &race.ending, &mut slot);
        }
        if let Place::Actor(_, step) = builder.act(part, DONE) {
            done.push(step);
        }
    }
    builder.leave(&race.ending);
    let off = &target.target.rules.off;
    builder.plan.checks.retain(|it| !off.contains(&it.rule));
    builder.plan.episode.under_test = target.modules().map(|it| it.name.clone()).collect();
    let mut ordered = Ordered {
        plan: builder.plan,
        waits,
        done,
    };
    for turn in turns {
        if let Some(point) = way.actors[turn.actor].get(turn.to) {
            ordered.gate(target, race, turn.actor, point, hold_ms);
        }
    }
    ordered.reactions(way, turns);
    ordered
}

/// Whether an actor stands at a point between its turns, or before the first of them.
fn stands(turns: &[Turn], actor: Actor, point: usize) -> bool {
    let mut own = turns.iter().enumerate().filter(|(_, it)| it.actor == actor);
    own.any(|(at, turn)| turn.from == point && at > 0)
}

impl Ordered {
    /// Holds an actor at a point in a function or in the device.
    pub(super) fn gate(
        &mut self,
        target: &Chosen,
        race: &Race,
        actor: Actor,
        at: &Occurrence,
        hold_ms: u64,
    ) {
        match &at.at {
            At::Call { function, end, own } => self.plan.episode.gates.push(FunctionGate {
                tag: at.to_string(),
                function: function.clone(),
                end: *end,
                who: Who::Actor(name(actor)),
                own: *own,
                occurrence: at.nth,
                deadline_ms: hold_ms,
                sleeps: false,
                waiter: None,
            }),
            At::Device(point) => {
                let asked = race.op(actor, at).and_then(|op| {
                    let (knob, op) = asking(target, &race.actors[actor][op])?;
                    Some((knob.asks.get(&op)?, device_point(point)?))
                });
                if let Some((ask, point)) = asked {
                    let gate = one_of(ask, &at.to_string(), point, hold_ms);
                    self.plan.gates.push(gate);
                }
            }
            At::Begin | At::End | At::Instruction { .. } => {}
        }
    }

    /// As one comes to stand, or ends, the next goes on.
    fn reactions(&mut self, way: &Program, turns: &[Turn]) {
        let on = |turn: &Turn| {
            let point = &way.actors[turn.actor][turn.from];
            match point.at {
                At::Begin => Then::Raise(point.to_string()),
                _ => Then::Free(point.to_string()),
            }
        };
        let mut ends: BTreeMap<Actor, Vec<Then>> = BTreeMap::new();
        for (turn, next) in turns.iter().zip(&turns[1.min(turns.len())..]) {
            ends.entry(turn.actor).or_default().push(on(next));
            let Some(point) = way.actors[turn.actor].get(turn.to) else {
                continue;
            };
            let when = match self.waits.get(&(turn.actor, turn.to)) {
                Some(step) => When::Settled(name(turn.actor), *step),
                None => When::Held(point.to_string()),
            };
            self.plan.reactions.push(Reaction {
                when,
                then: vec![on(next)],
            });
        }
        // One who ends before he comes to stand must not leave anybody waiting for that.
        for (actor, then) in ends {
            self.plan.reactions.push(Reaction {
                when: When::Settled(name(actor), self.done[actor]),
                then,
            });
        }
    }

    /// When an actor came to stand at a point, and when it went on; whether by itself, since its
    /// time was over.
    pub fn stood(
        &self,
        actor: Actor,
        point: usize,
        at: &Occurrence,
        report: &EpisodeReport,
        seen: &[Seen],
    ) -> Option<Stood> {
        if let Some(step) = self.waits.get(&(actor, point)) {
            let outcome = report.actors.get(actor)?.outcomes.get(*step)?;
            return Some(Stood {
                from_ns: outcome.start_ns,
                to_ns: outcome.end_ns,
                overdue: outcome.ret < 0,
            });
        }
        let tag = at.to_string();
        if let Some(gate) = report.gates.iter().find(|gate| gate.tag == tag) {
            let hold = gate.hold.as_ref()?;
            return Some(Stood {
                from_ns: hold.ns,
                to_ns: hold.left_ns,
                overdue: hold.why == knobrig_proto::Why::Deadline,
            });
        }
        device_stood(&tag, seen)
    }

    /// The step that an actor was in at a time, other than one that only waits for its turn.
    pub fn step_at(&self, actor: Actor, report: &EpisodeReport, ns: u64) -> Option<usize> {
        let outcomes = &report.actors.get(actor)?.outcomes;
        let step = (outcomes.iter()).rposition(|it| it.start_ns <= ns && ns <= it.end_ns)?;
        let mut waits = self.waits.iter();
        (!waits.any(|((who, _), at)| *who == actor && *at == step)).then_some(step)
    }

    /// When an actor had ended.
    pub fn ended(&self, actor: Actor, report: &EpisodeReport) -> Option<u64> {
        let outcomes = &report.actors.get(actor)?.outcomes;
        outcomes.get(self.done[actor]).map(|it| it.end_ns)
    }
}

/// How long somebody stood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stood {
    /// Since when.
    pub from_ns: u64,
    /// Until when.
    pub to_ns: u64,
    /// It went on by itself.
    pub overdue: bool,
}

pub(super) fn device_stood(tag: &str, seen: &[Seen]) -> Option<Stood> {
    let held = seen.iter().find_map(|it| match &it.event {
        Event::Held { tag: here, .. } if here == tag => Some(it.guest_ns),
        _ => None,
    })?;
    let left = seen.iter().find_map(|it| match &it.event {
        Event::LetGo { tag: here, why, .. } if here == tag => Some((it.guest_ns, *why)),
        _ => None,
    });
    // One that was not told to be let go was, by the end of the episode.
    let (to_ns, why) = left.unwrap_or((u64::MAX, dk_control::Let::Command));
    Some(Stood {
        from_ns: held,
        to_ns,
        overdue: why == dk_control::Let::Deadline,
    })
}

fn device_point(name: &str) -> Option<Point> {
    match name {
        "seen" => Some(Point::Seen),
        "before-completion" => Some(Point::BeforeCompletion),
        _ => None,
    }
}

impl Builder<'_> {
    /// An op. What it gives depends on the order; what the teardown gives is checked.
    fn race_op(&mut self, actor: usize, op: &Op, ending: &Actors, slot: &mut u32) {
        let knob = |name: &String| self.target.knobs().find(|it| it.name == *name).cloned();
        match op {
            Op::Open(name) => {
                if let Some(knob) = knob(name) {
                    self.act(actor, Self::open(&knob, *slot, false));
                }
            }
            Op::Read(name) | Op::Write(name) => {
                let asks = match op {
                    Op::Read(_) => AskingOp::Read,
                    _ => AskingOp::Write,
                };
                if let Some(step) = knob(name).and_then(|it| Self::op(&it, asks, *slot)) {
                    self.act(actor, step);
                }
            }
            Op::Close => {
                self.act(actor, Step::Close { slot: *slot });
                *slot += 1;
            }
            Op::Teardown => {
                self.end(ending, actor);
            }
        }
    }
}
