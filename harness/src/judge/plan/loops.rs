//! Loops: threads that do nothing but ops on knobs, in tight loops and by weight, while a teardown
//! goes down and up or nothing else happens. Where no gate places a race, the number of tries
//! does: all is opened before, so that a round is as little as it can be.

use knobrig_proto::{Priority, Repeat, Step};
use rand::Rng;
use rand::seq::{IndexedRandom, SliceRandom};
use rand_chacha::ChaCha8Rng;

use super::build::{Builder, LOOPS};
use super::cpus::{Sharing, doze};
use super::{ENODEV, ENOENT, Expect, Place, Rule, Shape, Then};
use crate::target::teardown::Act;
use crate::target::{AskingOp, Data, Detour, Knob, Loops, TeardownKind, Way};

/// Ops in a round of a loop. Odd, so that of two values that are written in turns the same comes
/// twice from round to round: loops that wait for each other don't stay in step.
const OPS: usize = 7;
/// The longest seeded delay before a teardown, where there is one: what the last way back has set
/// going may not have begun when the next way down comes.
const SPIN_US: u32 = 3_000;
/// The longest rest between down and up. A grace period of RCU takes some ten milliseconds.
const REST_MS: u64 = 40;
/// A round of a spinner: it looks for the end once a round.
const SPINNER_US: u32 = 1_000;
/// Beyond the loops' own time: what they stand in when it is over.
const GRACE_MS: u64 = 10_000;
/// A step that waits for its own deadline tells so itself.
const STEP_GRACE_MS: u64 = 1_000;
/// Actor of the time that loops without a teardown have.
const TIMER: &str = "timer";

/// What a loop does with a knob, between its open and its close.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Use {
    Read,
    Write,
    Nothing,
}

impl Use {
    /// The open for it.
    pub(super) fn open(self, knob: &Knob, slot: u32) -> Step {
        Step::Open {
            path: knob.path.clone(),
            read: self != Self::Write && knob.read.is_some(),
            write: self == Self::Write || knob.read.is_none(),
            exclusive: false,
            slot,
        }
    }
}

/// What a loop does.
#[derive(Clone, Copy)]
enum Does<'a> {
    Use(Use, &'a Knob),
    Detour(&'a Detour),
}

/// Deals threads by weight: what an op's share comes to whole is its own, the rest is drawn. So two
/// writers of one attribute meet where they weigh enough, and none is left out that does.
fn deal<T: Copy>(choices: &[(T, u32)], threads: usize, rng: &mut ChaCha8Rng) -> Vec<T> {
    let sum: u64 = choices.iter().map(|(_, weight)| u64::from(*weight)).sum();
    let mut dealt = Vec::new();
    for (does, weight) in choices {
        let share = threads as u64 * u64::from(*weight) / sum.max(1);
        dealt.extend((0..share).map(|_| *does));
    }
    while dealt.len() < threads {
        let Ok((does, _)) = choices.choose_weighted(rng, |(_, weight)| *weight) else {
            break;
        };
        dealt.push(*does);
    }
    // Who sits on whose CPU is chance.
    dealt.shuffle(rng);
    dealt
}

/// What there is to do with these knobs, with its weight.
fn on_knobs(knobs: &[Knob]) -> Vec<((Use, &Knob), u32)> {
    let mut choices = Vec::new();
    for knob in knobs {
        let weights = knob.weights;
        let write = knob.write.as_ref().map_or(0, |_| weights.write);
        let read = knob.read.map_or(0, |_| weights.read);
        choices.extend([
            ((Use::Read, knob), read),
            ((Use::Write, knob), write),
            ((Use::Nothing, knob), weights.open),
        ]);
    }
    choices.retain(|(_, weight)| *weight > 0);
    choices
}

impl Builder<'_> {
    pub(super) fn loops(&mut self, rng: &mut ChaCha8Rng) {
        let Some(loops) = self.target.target.loops.clone() else {
            return;
        };
        self.bring_up();
        let ways = &self.target.target.teardown.others;
        let sharing = Sharing::draw(&loops, rng);
        let with_teardown = rng.random_range(0..100) < loops.teardowns;
        let way = match with_teardown {
            true => ways.choose_weighted(rng, |way| way.weight).ok().cloned(),
            false => None,
        };
        match &way {
            Some(way) => {
                let rounds = way.rounds.unwrap_or(loops.rounds);
                let actor = self.down_and_up(way, rounds, loops.rests, rng);
                self.plan.episode.actors[actor].priority = sharing.priority(rng);
            }
            None => {
                let timer = self.actor(TIMER, false, None);
                self.act(timer, Step::Sleep { ms: loops.ms });
                self.plan.episode.deadline_ms = loops.ms + GRACE_MS;
            }
        }
        let held = self.loop_by_weight(&loops, sharing, way.is_some(), rng);
        self.interrupters(sharing, rng);
        if way.is_some_and(|way| way.kind == TeardownKind::Unplug) {
            // Whether the last plug was seen is the teardown's to tell.
            self.plan.episode.deadline_ms += GRACE_MS;
        }
        // What is still open may keep the module.
        for slot in held {
            self.close(slot);
        }
        self.unload_at_zero();
        self.unload_helpers();
    }

    /// A thread that ends the driver and brings it back, again and again; gives its number.
    fn down_and_up(&mut self, way: &Way, rounds: usize, rests: u32, rng: &mut ChaCha8Rng) -> usize {
        let fine = way.fine();
        let actor = self.actor(&way.name, true, Some(rng));
        for _ in 0..rounds {
            if rng.random() {
                let us = rng.random_range(0..SPIN_US);
                self.act(actor, Step::Spin { us });
            }
            for act in way.downs().unwrap_or_default() {
                self.act_way(actor, act, Rule::TearsDown, &fine);
            }
            if rng.random_range(0..100) < rests {
                let ms = rng.random_range(1..=REST_MS);
                self.act(actor, Step::Sleep { ms });
            }
            for act in way.ups() {
                let place = self.act_way(actor, act, Rule::ComesBack, &fine);
                self.plan.ups.push(place);
            }
        }
        let rounds = rounds as u64;
        self.plan.episode.deadline_ms = rounds * (2 * way.deadline_ms + REST_MS) + GRACE_MS;
        self.plan.episode.call_deadline_ms = Some(way.deadline_ms + STEP_GRACE_MS);
        actor
    }

    pub(super) fn act_way(&mut self, actor: usize, act: Act, rule: Rule, fine: &[i64]) -> Place {
        match act {
            Act::Step(step) => self.act_checked(actor, step, rule, Expect::OkOr(fine.to_vec())),
            Act::Unplug(id) => self.act_host(actor, Then::Unplug(id)),
            Act::Plug(id) => self.act_host(actor, Then::Plug(id)),
            Act::Kill => self.act_host(actor, Then::Kill),
            Act::Revive => self.act_host(actor, Then::Revive),
        }
    }

    /// The harness does something when the actor comes here; the actor goes on once it is done.
    fn act_host(&mut self, actor: usize, then: Then) -> Place {
        let place = self.act(actor, Step::Spin { us: 0 });
        let Place::Actor(_, step) = place else {
            return place;
        };
        let done = format!("done-{actor}-{step}");
        self.react(self.settled(place), [then, Then::Raise(done.clone())]);
        self.await_signal(actor, &done);
        place
    }

    /// Gives the descriptors that are held open.
    fn loop_by_weight(
        &mut self,
        loops: &Loops,
        sharing: Sharing,
        torn_down: bool,
        rng: &mut ChaCha8Rng,
    ) -> Vec<u32> {
        let mut held = Vec::new();
        let knobs: Vec<_> = self.target.knobs().cloned().collect();
        let on_knobs = on_knobs(&knobs).into_iter();
        let mut choices: Vec<_> = on_knobs
            .map(|((use_of, knob), weight)| (Does::Use(use_of, knob), weight))
            .collect();
        let detours = self.target.target.detours.clone();
        let detours = detours.iter().filter(|detour| detour.weight > 0);
        choices.extend(detours.map(|it| (Does::Detour(it), it.weight)));
        // On a CPU that is delayed, whoever goes before all others would leave them nothing.
        let ahead = match self.plan.shape {
            Shape::Delays => None,
            _ => sharing.ahead(loops.threads, rng),
        };
        for (index, does) in deal(&choices, loops.threads, rng).into_iter().enumerate() {
            let (actor, slot) = self.looper(index, does, torn_down, rng);
            held.extend(slot);
            let actor = &mut self.plan.episode.actors[actor];
            match ahead == Some(index) {
                true => {
                    actor.priority = Priority::First;
                    actor.steps.insert(0, doze(rng));
                }
                false => actor.priority = sharing.priority(rng),
            }
            if sharing.together {
                actor.cpu = 0;
            }
        }
        for index in 0..loops.spinners {
            let actor = self.actor(&format!("spinner-{index}"), false, None);
            let actor = &mut self.plan.episode.actors[actor];
            actor.steps = vec![Step::Spin { us: SPINNER_US }];
            actor.repeat = Repeat::UntilOthersEnd;
            // Each CPU its own, whoever else sits there.
            actor.cpu = index as u32;
        }
        held
    }

    /// One thread that loops over one op of one knob; gives its number, and the descriptor that it
    /// holds open.
    fn looper(
        &mut self,
        index: usize,
        does: Does<'_>,
        torn_down: bool,
        rng: &mut ChaCha8Rng,
    ) -> (usize, Option<u32>) {
        let (use_of, knob) = match does {
            Does::Use(use_of, knob) => (use_of, knob),
            Does::Detour(detour) => {
                let number = self.actor(&format!("{}-{index}", detour.name), false, None);
                let actor = &mut self.plan.episode.actors[number];
                actor.steps = detour.steps.clone();
                actor.repeat = Repeat::UntilOthersEnd;
                return (number, None);
            }
        };
        let slot = LOOPS + index as u32;
        let open = use_of.open(knob, slot);
        // What a teardown takes away must be opened again.
        let held = knob.hold && !torn_down && use_of != Use::Nothing;
        let mut steps = Vec::new();
        match held {
            true => self.before(open, Rule::ComesUp, Expect::OkOr(vec![ENOENT, ENODEV])),
            false => steps.push(open),
        }
        let count = if held { OPS } else { rng.random_range(1..=OPS) };
        // In turns: a value that stands already changes nothing.
        let data = knob.write.as_ref().map_or(&[][..], Data::all);
        let first = rng.random_range(0..data.len().max(1));
        for next in first..first + count {
            match use_of {
                Use::Read => steps.extend(Self::op(knob, AskingOp::Read, slot)),
                Use::Write => {
                    let data = data.get(next % data.len().max(1));
                    let random = rng.random();
                    steps.extend(data.map(|data| Step::Write {
                        slot,
                        data: data.text(random),
                    }));
                }
                Use::Nothing => {}
            }
        }
        if !held {
            steps.push(Step::Close { slot });
        }
        // Neighbours on different CPUs.
        let number = self.actor(&format!("{}-{index}", knob.name), false, None);
        let actor = &mut self.plan.episode.actors[number];
        actor.steps = steps;
        actor.repeat = Repeat::UntilOthersEnd;
        actor.missed_pause_us = super::build::MISSED_PAUSE_US;
        (number, held.then_some(slot))
    }
}
