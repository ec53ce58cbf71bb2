//! Target and seed in, episode out: what the actors do, what the device holds, what must come
//! of it. The same seed and number give the same plan on every machine.

use dk_control::{Gate, Point};
use knobrig_proto::{Actor, Episode, Repeat, Step};
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use crate::target::{AskingOp, Chosen, Knob};

/// What `rmmod` gets at any count above zero (`EWOULDBLOCK`).
pub const EWOULDBLOCK: i64 = -11;
/// What a path gives that is gone.
pub const ENOENT: i64 = -2;
/// What an op gives whose driver is gone.
pub const ENODEV: i64 = -19;

/// Actors have so long to end; the driver's own deadline for an answer must fit well inside.
const ACTORS_DEADLINE_MS: u64 = 20_000;
/// A gate lets go by itself after so long: less than any sane driver waits for an answer.
const GATE_DEADLINE_MS: u64 = 2_000;
/// Loads and unloads in one naive episode: the loop's own start and end don't weigh.
const NAIVE_ROUNDS: usize = 20;
/// Pause of a loop that found no knob; a load takes a hundred times as long.
const MISSED_PAUSE_US: u32 = 300;
/// The signal that a gate holds.
const HELD: &str = "held";
/// The holder's descriptor; loopers use the slots above it.
const HOLDER_SLOT: u32 = 0;

/// What an episode is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Shape {
    /// The device holds an op inside the driver while the teardown begins.
    Gated,
    /// Loops of ops against the teardown, ordered by nothing but a seeded delay.
    Stress,
    /// As stress, with the ops running while the driver comes up.
    Birth,
    /// One thread: each open and close counted, the teardown refused while pinned.
    Counts,
    /// What people do by hand: one thread loads and unloads in a loop, two open, read and close.
    /// The benchmark's baseline; no part of a run's mix.
    Naive,
}

/// Hold a request, start the teardown, let go when the teardown waits or has ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GatePlan {
    /// What the device holds.
    pub gate: Gate,
    /// Raised in the guest when it holds.
    pub signal: String,
    /// Let go when this actor …
    pub teardown: String,
    /// … has settled in this step.
    pub step: usize,
}

/// A rule that a [`Check`] stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Rule {
    /// The module loads and its knobs are there.
    ComesUp,
    /// An op on a live knob succeeds.
    OpSucceeds,
    /// An op that meets the teardown succeeds or gives `ENODEV`.
    OpReturns,
    /// The module's count is the number of open descriptors that pin it.
    Counts,
    /// The teardown is refused at any count above zero.
    RefusedWhilePinned,
    /// The teardown succeeds at count zero.
    UnloadsAtZero,
    /// Nothing of the driver is left in sysfs and /dev.
    PathsGone,
    /// An old descriptor gives `ENODEV`.
    OldDescriptor,
}

/// Where an outcome stands in the report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Place {
    /// In `before`.
    Before(usize),
    /// Actor and step.
    Actor(usize, usize),
    /// In `after`.
    After(usize),
}

/// What an outcome must be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Expect {
    /// A result of zero or more, or one of these errors.
    OkOr(Vec<i64>),
    /// Exactly one of these results.
    OneOf(Vec<i64>),
    /// A file's text, white space at its ends aside.
    Text(String),
}

/// One outcome that must come.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// Why.
    pub rule: Rule,
    /// Which.
    pub place: Place,
    /// What.
    pub expect: Expect,
}

/// An episode, its gate and its checks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// What it is for.
    pub shape: Shape,
    /// What the guest does.
    pub episode: Episode,
    /// What the device does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gate: Option<GatePlan>,
    /// What must come of it.
    pub checks: Vec<Check>,
}

/// The line that an episode's start leaves in the kernel log, so that a report's place in the
/// log tells its episode.
pub fn marker(episode: u64) -> String {
    format!("knobrig: episode {episode}")
}

/// Plans episode `number` (from 1) of a run. `shapes` restricts what it may be; empty means
/// the usual mix.
pub fn plan(target: &Chosen, seed: u64, number: u64, shapes: &[Shape]) -> Plan {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    rng.set_stream(number);
    let mut builder = Builder::new(target, number);
    match pick_shape(target, &mut rng, shapes) {
        Shape::Gated => builder.gated(&mut rng),
        Shape::Stress => builder.stress(&mut rng, false),
        Shape::Birth => builder.stress(&mut rng, true),
        Shape::Counts => builder.counts(),
        Shape::Naive => builder.naive(),
    }
    builder.plan
}

/// Three in five episodes place their race; the rest looks where no gate does.
const MIX: &[(Shape, u32)] = &[
    (Shape::Gated, 12),
    (Shape::Stress, 4),
    (Shape::Birth, 2),
    (Shape::Counts, 2),
];

fn pick_shape(target: &Chosen, rng: &mut ChaCha8Rng, shapes: &[Shape]) -> Shape {
    if shapes == [Shape::Naive] {
        return Shape::Naive;
    }
    let can = |shape: Shape| match shape {
        Shape::Gated => gateable(target).next().is_some(),
        Shape::Counts => target.target.rules.refcnt.is_some(),
        Shape::Stress | Shape::Birth => true,
        Shape::Naive => false,
    };
    let choices: Vec<_> = MIX
        .iter()
        .filter(|(shape, _)| (shapes.is_empty() || shapes.contains(shape)) && can(*shape))
        .collect();
    choices
        .choose_weighted(rng, |(_, weight)| *weight)
        .map_or(Shape::Stress, |(shape, _)| *shape)
}

fn gateable(target: &Chosen) -> impl Iterator<Item = (&Knob, AskingOp)> {
    target
        .target
        .knobs
        .iter()
        .flat_map(|knob| knob.asks.keys().map(move |op| (knob, *op)))
}

/// Appends steps with the checks on them.
struct Builder<'a> {
    target: &'a Chosen,
    plan: Plan,
}

impl<'a> Builder<'a> {
    fn new(target: &'a Chosen, number: u64) -> Self {
        let episode = Episode {
            id: number,
            before: Vec::new(),
            actors: Vec::new(),
            after: Vec::new(),
            deadline_ms: ACTORS_DEADLINE_MS,
        };
        let plan = Plan {
            shape: Shape::Stress,
            episode,
            gate: None,
            checks: Vec::new(),
        };
        let mut builder = Self { target, plan };
        builder.plan.episode.before.push(Step::WriteFile {
            path: "/dev/kmsg".into(),
            data: format!("{}\n", marker(number)),
        });
        builder
    }

    fn before(&mut self, step: Step, rule: Rule, expect: Expect) {
        let place = Place::Before(self.plan.episode.before.len());
        self.plan.episode.before.push(step);
        self.plan.checks.push(Check {
            rule,
            place,
            expect,
        });
    }

    fn after(&mut self, step: Step, rule: Rule, expect: Expect) {
        let place = Place::After(self.plan.episode.after.len());
        self.plan.episode.after.push(step);
        self.plan.checks.push(Check {
            rule,
            place,
            expect,
        });
    }

    fn load_steps(&self) -> Vec<Step> {
        let load = |module: &crate::target::Module| Step::Load {
            module: module.name.clone(),
            params: self.target.params(module),
        };
        self.target.target.modules.iter().map(load).collect()
    }

    /// Loads every module; then each path that must go later must be there now.
    fn bring_up(&mut self) {
        for step in self.load_steps() {
            self.before(step, Rule::ComesUp, Expect::OneOf(vec![0]));
        }
        for path in self.must_go() {
            self.before(Step::Exists { path }, Rule::ComesUp, Expect::OneOf(vec![0]));
        }
    }

    fn must_go(&self) -> Vec<String> {
        self.target.target.rules.gone.clone()
    }

    fn unload(&self) -> Step {
        Step::Unload {
            module: self.target.target.teardown.module.clone(),
        }
    }

    /// Helper modules go in the reverse order of their load, after the teardown's module.
    fn unload_helpers(&mut self) {
        let teardown = &self.target.target.teardown.module;
        let helpers: Vec<_> = self
            .target
            .target
            .modules
            .iter()
            .rev()
            .filter(|module| module.name != *teardown)
            .map(|module| Step::Unload {
                module: module.name.clone(),
            })
            .collect();
        for step in helpers {
            self.after(step, Rule::UnloadsAtZero, Expect::OneOf(vec![0]));
        }
    }

    fn check_gone(&mut self) {
        for path in self.must_go() {
            self.after(
                Step::Exists { path },
                Rule::PathsGone,
                Expect::OneOf(vec![ENOENT]),
            );
        }
    }

    fn check_count(&mut self, count: usize) {
        if let Some(path) = self.target.target.rules.refcnt.clone() {
            let expect = Expect::Text(count.to_string());
            self.after(Step::ReadFile { path }, Rule::Counts, expect);
        }
    }

    fn open(knob: &Knob, slot: u32) -> Step {
        Step::Open {
            path: knob.path.clone(),
            read: knob.read.is_some(),
            write: knob.write.is_some(),
            exclusive: false,
            slot,
        }
    }

    fn op(knob: &Knob, op: AskingOp, slot: u32) -> Option<Step> {
        match op {
            AskingOp::Read => Some(Step::Read {
                slot,
                len: knob.read?,
            }),
            AskingOp::Write => Some(Step::Write {
                slot,
                data: knob.write.as_ref()?.text(),
            }),
        }
    }

    /// The ops that a knob knows.
    fn ops(knob: &Knob, slot: u32) -> impl Iterator<Item = Step> {
        [AskingOp::Read, AskingOp::Write]
            .into_iter()
            .filter_map(move |op| Self::op(knob, op, slot))
    }

    /// `count` threads that each open, read or write, and close a knob until the others end.
    fn loopers(&mut self, knobs: &[&Knob], count: usize, rng: &mut ChaCha8Rng) {
        for index in 0..count {
            let Some(knob) = knobs.choose(rng) else {
                return;
            };
            let slot = HOLDER_SLOT + 1 + index as u32;
            let mut steps = vec![Self::open(knob, slot)];
            let ops: Vec<_> = Self::ops(knob, slot).collect();
            for _ in 0..rng.random_range(0..=2) {
                steps.extend(ops.choose(rng).cloned());
            }
            steps.push(Step::Close { slot });
            self.plan.episode.actors.push(Actor {
                name: format!("{}-{index}", knob.name),
                cpu: rng.random_range(0..64),
                teardown: false,
                steps,
                repeat: Repeat::UntilOthersEnd,
                missed_pause_us: MISSED_PAUSE_US,
            });
        }
    }

    fn gated(&mut self, rng: &mut ChaCha8Rng) {
        self.plan.shape = Shape::Gated;
        self.bring_up();
        let choices: Vec<_> = gateable(self.target).collect();
        let Some((knob, op)) = choices.choose(rng).copied() else {
            return;
        };
        let Some(step) = Self::op(knob, op, HOLDER_SLOT) else {
            return;
        };
        let ask = &knob.asks[&op];
        let pinned = self.target.pins(knob);
        let tag = "inside".to_owned();
        let teardown = self.target.target.teardown.name.clone();

        let actors = &mut self.plan.episode.actors;
        actors.push(Actor {
            name: "holder".into(),
            cpu: rng.random_range(0..64),
            teardown: false,
            steps: vec![Self::open(knob, HOLDER_SLOT), step],
            repeat: Repeat::Once,
            missed_pause_us: 0,
        });
        let wait = Step::WaitSignal {
            name: HELD.into(),
            deadline_ms: GATE_DEADLINE_MS * 2,
        };
        let unload = self.unload();
        self.plan.episode.actors.push(Actor {
            name: teardown.clone(),
            cpu: rng.random_range(0..64),
            teardown: true,
            steps: vec![wait, unload],
            repeat: Repeat::Once,
            missed_pause_us: 0,
        });
        self.plan.gate = Some(GatePlan {
            gate: Gate {
                tag,
                point: *[Point::Seen, Point::BeforeCompletion]
                    .choose(rng)
                    .unwrap_or(&Point::BeforeCompletion),
                kinds: vec![ask.kind],
                sector: ask.sector,
                skip: 0,
                count: 1,
                deadline_ms: GATE_DEADLINE_MS,
            },
            signal: HELD.into(),
            teardown,
            step: 1,
        });
        // Others on the knobs that pin nothing: they collide with the same teardown without
        // making its result depend on chance. They may not ask what the gate holds.
        let others: Vec<_> = self
            .target
            .target
            .knobs
            .iter()
            .filter(|other| !self.target.pins(other) && other.name != knob.name)
            .collect();
        let count = rng.random_range(0..=2);
        self.loopers(&others, count, rng);

        let check = |rule, actor, step, expect| Check {
            rule,
            place: Place::Actor(actor, step),
            expect,
        };
        let checks = &mut self.plan.checks;
        checks.push(check(Rule::OpSucceeds, 0, 0, Expect::OkOr(vec![])));
        checks.push(check(Rule::OpReturns, 0, 1, Expect::OkOr(vec![ENODEV])));
        let slot = HOLDER_SLOT;
        if pinned {
            let refused = Expect::OneOf(vec![EWOULDBLOCK]);
            checks.push(check(Rule::RefusedWhilePinned, 1, 1, refused));
            self.check_count(1);
            for step in Self::ops(knob, slot).collect::<Vec<_>>() {
                self.after(step, Rule::OpSucceeds, Expect::OkOr(vec![]));
            }
            self.after(
                Step::Close { slot },
                Rule::OpSucceeds,
                Expect::OneOf(vec![0]),
            );
            self.check_count(0);
            let unload = self.unload();
            self.after(unload, Rule::UnloadsAtZero, Expect::OneOf(vec![0]));
            self.check_gone();
        } else {
            checks.push(check(Rule::UnloadsAtZero, 1, 1, Expect::OneOf(vec![0])));
            self.check_gone();
            for step in Self::ops(knob, slot).collect::<Vec<_>>() {
                self.after(step, Rule::OldDescriptor, Expect::OneOf(vec![ENODEV]));
            }
            self.after(
                Step::Close { slot },
                Rule::OpSucceeds,
                Expect::OneOf(vec![0]),
            );
        }
        self.unload_helpers();
    }

    fn stress(&mut self, rng: &mut ChaCha8Rng, birth: bool) {
        self.plan.shape = if birth { Shape::Birth } else { Shape::Stress };
        let mut steps = Vec::new();
        if birth {
            steps.extend(self.load_steps());
            for step in 0..steps.len() {
                let place = Place::Actor(0, step);
                let expect = Expect::OneOf(vec![0]);
                self.plan.checks.push(Check {
                    rule: Rule::ComesUp,
                    place,
                    expect,
                });
            }
        } else {
            self.bring_up();
        }
        let any_pins = self
            .target
            .target
            .knobs
            .iter()
            .any(|knob| self.target.pins(knob));
        let mut allowed = vec![0];
        if any_pins {
            allowed.push(EWOULDBLOCK);
        }
        for _ in 0..rng.random_range(1..=4) {
            steps.push(Step::Spin {
                us: rng.random_range(0..3_000),
            });
            let place = Place::Actor(0, steps.len());
            steps.push(self.unload());
            let expect = Expect::OneOf(allowed.clone());
            self.plan.checks.push(Check {
                rule: Rule::UnloadsAtZero,
                place,
                expect,
            });
            // A later one finds the module gone where an earlier one succeeded.
            if allowed.last() != Some(&ENOENT) {
                allowed.push(ENOENT);
            }
        }
        self.plan.episode.actors.push(Actor {
            name: self.target.target.teardown.name.clone(),
            cpu: rng.random_range(0..64),
            teardown: true,
            steps,
            repeat: Repeat::Once,
            missed_pause_us: 0,
        });
        let knobs: Vec<_> = self.target.target.knobs.iter().collect();
        let count = rng.random_range(1..=4);
        self.loopers(&knobs, count, rng);
        // The loops have closed what they opened: count zero, or already gone.
        let unload = self.unload();
        self.after(unload, Rule::UnloadsAtZero, Expect::OneOf(vec![0, ENOENT]));
        self.check_gone();
        self.unload_helpers();
    }

    fn naive(&mut self) {
        self.plan.shape = Shape::Naive;
        let mut steps = Vec::new();
        for _ in 0..NAIVE_ROUNDS {
            steps.extend(self.load_steps());
            steps.push(self.unload());
        }
        self.plan.episode.actors.push(Actor {
            name: self.target.target.teardown.name.clone(),
            cpu: 0,
            teardown: true,
            steps,
            repeat: Repeat::Once,
            missed_pause_us: 0,
        });
        for (index, knob) in self.target.target.knobs.iter().take(2).enumerate() {
            let slot = HOLDER_SLOT + 1 + index as u32;
            let mut steps = vec![Self::open(knob, slot)];
            steps.extend(Self::op(knob, AskingOp::Read, slot));
            steps.push(Step::Close { slot });
            self.plan.episode.actors.push(Actor {
                name: format!("{}-{index}", knob.name),
                cpu: index as u32,
                teardown: false,
                steps,
                repeat: Repeat::UntilOthersEnd,
                missed_pause_us: 0,
            });
        }
    }

    /// All in `after`, so that one thread's order is the program's.
    fn counts(&mut self) {
        self.plan.shape = Shape::Counts;
        self.bring_up();
        let knobs: Vec<_> = self.target.target.knobs.clone();
        self.check_count(0);
        let mut open = 0;
        for (slot, knob) in knobs.iter().enumerate() {
            let step = Self::open(knob, slot as u32);
            self.after(step, Rule::OpSucceeds, Expect::OkOr(vec![]));
            open += usize::from(self.target.pins(knob));
            self.check_count(open);
        }
        if open > 0 {
            let unload = self.unload();
            self.after(
                unload,
                Rule::RefusedWhilePinned,
                Expect::OneOf(vec![EWOULDBLOCK]),
            );
            self.check_count(open);
        }
        for (slot, knob) in knobs.iter().enumerate() {
            // The refused teardown changed nothing.
            for step in Self::ops(knob, slot as u32).collect::<Vec<_>>() {
                self.after(step, Rule::OpSucceeds, Expect::OkOr(vec![]));
            }
        }
        for (slot, _) in knobs
            .iter()
            .enumerate()
            .filter(|(_, knob)| self.target.pins(knob))
        {
            let step = Step::Close { slot: slot as u32 };
            self.after(step, Rule::OpSucceeds, Expect::OneOf(vec![0]));
            open -= 1;
            self.check_count(open);
        }
        let unload = self.unload();
        self.after(unload, Rule::UnloadsAtZero, Expect::OneOf(vec![0]));
        self.check_gone();
        for (slot, knob) in knobs
            .iter()
            .enumerate()
            .filter(|(_, knob)| !self.target.pins(knob))
        {
            for step in Self::ops(knob, slot as u32).collect::<Vec<_>>() {
                self.after(step, Rule::OldDescriptor, Expect::OneOf(vec![ENODEV]));
            }
            let step = Step::Close { slot: slot as u32 };
            self.after(step, Rule::OpSucceeds, Expect::OneOf(vec![0]));
        }
        self.unload_helpers();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn chosen(lifetime: &str) -> Chosen {
        Chosen::find("mydrv", Some(lifetime), None).expect("built in")
    }

    /// Whether a place stands in the episode.
    fn exists(plan: &Plan, place: Place) -> bool {
        match place {
            Place::Before(step) => step < plan.episode.before.len(),
            Place::Actor(actor, step) => plan
                .episode
                .actors
                .get(actor)
                .is_some_and(|actor| step < actor.steps.len()),
            Place::After(step) => step < plan.episode.after.len(),
        }
    }

    proptest! {
        #[test]
        fn a_plan_is_a_function_of_seed_and_number(seed: u64, number in 1u64..1_000_000) {
            for lifetime in ["pinned", "drained"] {
                let target = chosen(lifetime);
                prop_assert_eq!(plan(&target, seed, number, &[]), plan(&target, seed, number, &[]));
            }
        }

        #[test]
        fn every_check_has_its_step(seed: u64, number in 1u64..1_000_000) {
            for lifetime in ["pinned", "drained"] {
                let plan = plan(&chosen(lifetime), seed, number, &[]);
                for check in &plan.checks {
                    prop_assert!(exists(&plan, check.place), "{:?}", check);
                }
            }
        }

        #[test]
        fn names_of_actors_are_unique(seed: u64, number in 1u64..1_000_000) {
            let plan = plan(&chosen("drained"), seed, number, &[]);
            let mut names: Vec<_> = plan.episode.actors.iter().map(|actor| &actor.name).collect();
            names.sort();
            names.dedup();
            prop_assert_eq!(names.len(), plan.episode.actors.len());
        }

        #[test]
        fn a_gated_teardown_waits_for_the_gate(seed: u64, number in 1u64..1_000_000) {
            let plan = plan(&chosen("drained"), seed, number, &[Shape::Gated]);
            let gate = plan.gate.expect("asked for");
            let actor = plan.episode.actors.iter().find(|actor| actor.name == gate.teardown);
            let steps = &actor.expect("the teardown is an actor").steps;
            let waits = matches!(&steps[0], Step::WaitSignal { name, .. } if *name == gate.signal);
            prop_assert!(waits);
            let unloads = matches!(&steps[gate.step], Step::Unload { .. });
            prop_assert!(unloads);
        }
    }

    #[test]
    fn the_mix_has_every_shape() {
        let target = chosen("drained");
        let mut seen: Vec<_> = (1..200)
            .map(|number| plan(&target, 1, number, &[]).shape)
            .collect();
        seen.sort();
        seen.dedup();
        assert_eq!(
            seen,
            [Shape::Gated, Shape::Stress, Shape::Birth, Shape::Counts]
        );
    }

    #[test]
    fn a_pinned_holder_makes_the_teardown_refused() {
        let plan = plan(&chosen("pinned"), 1, 1, &[Shape::Gated]);
        let check = plan
            .checks
            .iter()
            .find(|check| check.rule == Rule::RefusedWhilePinned);
        assert_eq!(
            check.expect("pinned").expect,
            Expect::OneOf(vec![EWOULDBLOCK])
        );
    }
}
