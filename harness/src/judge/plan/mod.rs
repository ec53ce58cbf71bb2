//! Target and seed in, episode out: what the actors do, what the device holds, what must come
//! of it. The same seed and number give the same plan on every machine.
//!
//! Here are the words of a plan and the choice of its shape; `build` appends steps with their
//! checks, and each shape is a file.

use dk_control::Gate;
use knobrig_proto::{Episode, Step};
use rand::SeedableRng;
use rand::seq::{IndexedRandom, SliceRandom};
use rand_chacha::ChaCha8Rng;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::schedule::pct::Promise;
use crate::schedule::{At, Schedule};
use crate::target::Chosen;
use build::Builder;
pub use delays::Delays;
#[cfg(test)]
pub(crate) use points::sample;
pub use points::{Points, Program, Spot};

mod apart;
mod build;
mod counts;
mod cpus;
mod delays;
mod elsewhere;
mod gated;
mod hasty;
pub mod instructions;
mod late;
pub mod leaks;
mod loops;
mod naive;
mod pct;
mod placed;
mod points;
mod premises;
mod probe_fails;
pub mod race;
pub mod reduce;
mod stress;
mod unbind;

/// What a path gives that is gone.
pub const ENOENT: i64 = -2;
/// What `rmmod` gets at any count above zero (`EWOULDBLOCK`).
pub const EWOULDBLOCK: i64 = -11;
/// What an open gives whose file somebody has for himself.
pub const EBUSY: i64 = -16;
/// What an op gives whose driver is gone.
pub const ENODEV: i64 = -19;
/// What an op gives whose device doesn't answer.
pub const ETIMEDOUT: i64 = -110;

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
    /// The driver goes as soon as it has come, while others open, use and close.
    Hasty,
    /// One thread: each open and close counted, the teardown refused while pinned.
    Counts,
    /// The device's binding ends under an open descriptor; no count refuses that.
    Unbind,
    /// The module goes while somebody else than driver and openers refers to its object.
    Elsewhere,
    /// An op's time is over, and its answer comes afterwards.
    Late,
    /// The device doesn't answer at probe.
    ProbeFails,
    /// What was allocated and is referred to by nothing, once the module is gone.
    Leaks,
    /// Somebody is held at a point in a function while the other side begins or goes through.
    Placed,
    /// Who passes which functions is noted, for [`Shape::Placed`] and [`Shape::Ordered`].
    Survey,
    /// The actors go in turns, each until it stands at a point: one schedule of many.
    Ordered,
    /// Tight loops of ops by weight, with or without a teardown that goes down and up.
    Loops,
    /// As loops, or stress where the target has none, with vCPUs delayed at instructions of the
    /// driver's.
    Delays,
    /// Two ops in an order of instructions that delays had found; no part of a run's mix.
    Instructions,
    /// What people do by hand: one thread loads and unloads in a loop, two open, read and close.
    /// The benchmark's baseline; no part of a run's mix.
    Naive,
}

impl Shape {
    /// Nothing in it orders the ops and the teardown: run again, it meets the same only by chance.
    pub fn by_chance(self) -> bool {
        use Shape::{Birth, Delays, Hasty, Loops, Naive, Stress};
        matches!(self, Stress | Birth | Hasty | Loops | Delays | Naive)
    }

    /// Where its `kind`-th kind, from 0, comes among all with which a run opens: the less of an episode's time is
    /// waiting, or finding out what there is to hold, the sooner. Plain loops are before all, since they meet
    /// what is not rare in their first tenths of a second.
    pub fn opens(self, kind: usize) -> usize {
        use Shape::{
            Birth, Counts, Delays, Elsewhere, Gated, Hasty, Late, Loops, Placed, ProbeFails,
            Stress, Unbind,
        };
        // Of a shape's places the n-th is its n-th kind's, and the last that of all others.
        let order = [
            Stress, Hasty, Counts, Elsewhere, Unbind, Hasty, Gated, Placed, Hasty, ProbeFails,
            Late, Placed, Birth, Loops, Delays,
        ];
        let mut places = (0..order.len()).filter(|at| order[*at] == self);
        let last = places.clone().next_back();
        places.nth(kind).or(last).unwrap_or(order.len())
    }
}

/// What happens in an episode that something follows from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum When {
    /// The gate of this tag holds a request, or a thread.
    Held(String),
    /// A teardown sleeps in the kernel in this step, or has ended it.
    Settled(String, usize),
    /// It sleeps in it.
    Asleep(String, usize),
    /// Delays or orders of vCPUs are armed, or can't be.
    Armed,
}

/// What follows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Then {
    /// Raise a signal in the guest.
    Raise(String),
    /// Let go what the gate of this tag holds.
    Release(String),
    /// Let go what the gate of this tag holds, or would hold.
    Free(String),
    /// QEMU takes the device of this id away.
    Unplug(String),
    /// QEMU plugs it in again.
    Plug(String),
    /// The program behind the rig's own device is killed.
    Kill,
    /// Another one takes its place.
    Revive,
    /// The orders of vCPUs are armed.
    Arm,
}

/// Something that follows from something: an edge between guest and device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reaction {
    /// From this …
    pub when: When,
    /// … this, in order.
    pub then: Vec<Then>,
}

/// A rule that a [`Check`] stands for.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
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
    /// The object's count changes by one with each open and close that pins it.
    ObjectCounts,
    /// An open that somebody's `O_EXCL` excludes fails and counts nothing.
    Excluded,
    /// The teardown is refused at any count above zero.
    RefusedWhilePinned,
    /// The module stays as long as its object exists, open or not.
    RefusedWhileBound,
    /// What the user gives up goes, at once.
    GivenUp,
    /// The teardown succeeds at count zero.
    UnloadsAtZero,
    /// A knob with a callback inside goes before the object that it belongs to.
    KnobsFirst,
    /// So does the last of several knobs, when the others have gone.
    EachKnobFirst,
    /// Unbinding succeeds, whoever has a knob open.
    Unbinds,
    /// Nothing of the driver is left in sysfs and /dev.
    PathsGone,
    /// Nothing of the driver is left in the kernel's lists.
    NothingLeft,
    /// An old descriptor gives `ENODEV`.
    OldDescriptor,
    /// The unload waits for a reference held elsewhere, exactly as long as it is held.
    WaitsForRelease,
    /// The module goes before a reference held elsewhere, and what releases the object stays.
    Outlived,
    /// An op whose device doesn't answer gives `ETIMEDOUT`.
    TimesOut,
    /// A probe whose device doesn't answer leaves nothing.
    ProbeUnwinds,
    /// The device was reset before the module went.
    DeviceStopped,
    /// A teardown beside the unload does what it says, in its time.
    TearsDown,
    /// The driver comes back from it.
    ComesBack,
}

impl Rule {
    /// The rule as a sentence.
    pub fn says(self) -> &'static str {
        match self {
            Self::ComesUp => "the module loads and its knobs are there",
            Self::OpSucceeds => "an op on a live knob succeeds",
            Self::OpReturns => "an op that meets the teardown succeeds or gives ENODEV",
            Self::Counts => "the module's count is what pins it: +1 for an open, -1 for a close",
            Self::ObjectCounts => "the object's count changes with it",
            Self::Excluded => "an open that O_EXCL excludes gives EBUSY and counts nothing",
            Self::RefusedWhilePinned => "rmmod gives EWOULDBLOCK at any count above zero",
            Self::RefusedWhileBound => "rmmod gives EWOULDBLOCK as long as the object exists",
            Self::GivenUp => "the user can give the object up, from inside its own attribute",
            Self::UnloadsAtZero => "rmmod succeeds at count zero",
            Self::KnobsFirst => "the knobs go before the object, and wait for who is inside",
            Self::EachKnobFirst => "so does the last of them, when the others have gone",
            Self::Unbinds => "unbind succeeds, whoever has a knob open",
            Self::PathsGone => "afterwards nothing of it is in sysfs and /dev",
            Self::NothingLeft => "nor in the kernel's lists of modules, interrupts, memory",
            Self::OldDescriptor => "an old descriptor gives ENODEV",
            Self::WaitsForRelease => "rmmod waits exactly as long as a reference is held elsewhere",
            Self::Outlived => "the module goes before that reference; what releases stays",
            Self::TimesOut => "an op whose device doesn't answer gives ETIMEDOUT",
            Self::ProbeUnwinds => "a probe whose device doesn't answer leaves nothing",
            Self::DeviceStopped => "the device was reset before the module went",
            Self::TearsDown => "unbind, remove, unplug and their like do what they say, in time",
            Self::ComesBack => "the driver comes back from them",
        }
    }
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
    /// A file's text that doesn't have this in it.
    Lacks(String),
    /// A file's number, so much more than an earlier reading.
    Changed {
        /// The earlier reading.
        from: Place,
        /// The difference.
        by: i64,
    },
    /// 0, unless the step there had ended before.
    OkWhile(Place),
    /// 0, unless the step there had ended before, was yet to begin, or failed: whoever got his answer
    /// was inside all the time, in whatever order they came.
    OkWhileServed(Place),
    /// 0, and not before the step there had begun.
    OkAfter(Place),
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

/// An episode, its gates and its checks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// What it is for.
    pub shape: Shape,
    /// What the guest does.
    pub episode: Episode,
    /// What the device holds; what is held in functions stands in the episode.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gates: Vec<Gate>,
    /// How guest and device go on together.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub reactions: Vec<Reaction>,
    /// What must come of it.
    pub checks: Vec<Check>,
    /// How vCPUs are delayed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delays: Option<Delays>,
    /// In which order actors pass instructions, each on a vCPU of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub order: Option<Schedule>,
    /// The program that is surveyed, or of which a point is held.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub program: Option<Program>,
    /// What its order promises, where probabilistic concurrency testing chose it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pct: Option<Promise>,
    /// Steps of teardowns that bring the driver back, and so are no teardowns themselves.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ups: Vec<Place>,
}

impl Plan {
    /// The modules in whose code vCPUs are delayed or ordered.
    pub fn watched(&self) -> Vec<String> {
        let mut modules = self
            .delays
            .as_ref()
            .map_or(Vec::new(), |it| it.modules.clone());
        let edges = self.order.iter().flat_map(|order| &order.edges);
        for point in edges.flat_map(|edge| [&edge.before, &edge.after]) {
            if let At::Instruction { module, .. } = &point.at
                && !modules.contains(module)
            {
                modules.push(module.clone());
            }
        }
        modules
    }

    /// The same episode under another number.
    pub fn numbered(&self, number: u64) -> Self {
        let mut plan = self.clone();
        let old = marker(plan.episode.id);
        for step in &mut plan.episode.before {
            if let Step::WriteFile { path, data } = step
                && path == "/dev/kmsg"
                && data.trim_end() == old
            {
                *data = format!("{}\n", marker(number));
            }
        }
        plan.episode.id = number;
        plan
    }

    /// Whether the harness unplugs a device when this actor comes to this step.
    pub fn unplugs_at(&self, actor: &str, step: usize) -> bool {
        let at = When::Settled(actor.to_owned(), step);
        let mut here = self.reactions.iter().filter(|it| it.when == at);
        here.any(|it| it.then.iter().any(|then| matches!(then, Then::Unplug(_))))
    }
}

/// The line that an episode's start leaves in the kernel log, so that a report's place in the
/// log tells its episode.
pub fn marker(episode: u64) -> String {
    format!("knobrig: episode {episode}")
}

/// Plans episode `number` (from 1) of a run. `shapes` restricts what it may be; empty means
/// the usual mix. `points` are what surveys have found so far: where one is wanted that isn't
/// known, the episode is the survey.
pub fn plan(target: &Chosen, points: &Points, seed: u64, number: u64, shapes: &[Shape]) -> Plan {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    rng.set_stream(number);
    let shape = pick_shape(target, points, &mut rng, shapes);
    let turn = Turn {
        seed,
        number: points.turn(shape).unwrap_or(number),
    };
    let mut builder = Builder::new(target, shape, number);
    match shape {
        Shape::Gated => builder.gated(turn, &mut rng),
        Shape::Stress => builder.stress(&mut rng, false),
        Shape::Birth => builder.stress(&mut rng, true),
        Shape::Hasty => builder.hasty(&mut rng),
        Shape::Counts => builder.counts(turn),
        Shape::Unbind => builder.unbind(turn, !points.candidates().is_empty(), &mut rng),
        Shape::Elsewhere => builder.elsewhere(),
        Shape::Late => builder.late(&mut rng),
        Shape::ProbeFails => builder.probe_fails(),
        Shape::Leaks => builder.leaks(),
        // An order is planned by who knows the points.
        Shape::Placed | Shape::Survey | Shape::Ordered => builder.placed(points, turn, &mut rng),
        Shape::Loops => builder.loops(&mut rng),
        // An order is made of a finding, never of a seed.
        Shape::Delays | Shape::Instructions => builder.delays(&mut rng),
        Shape::Naive => builder.naive(),
    }
    let off = &target.target.rules.off;
    builder
        .plan
        .checks
        .retain(|check| !off.contains(&check.rule));
    builder.plan
}

/// Which of a shape's kinds of episodes comes: they come in turns.
#[derive(Clone, Copy, Debug)]
struct Turn {
    seed: u64,
    number: u64,
}

impl Turn {
    /// In an order that the seed decides.
    fn shuffled<T>(self, mut kinds: Vec<T>) -> Option<T> {
        kinds.shuffle(&mut ChaCha8Rng::seed_from_u64(self.seed));
        self.in_order(kinds)
    }

    fn in_order<T>(self, kinds: Vec<T>) -> Option<T> {
        let before = self.number.saturating_sub(1);
        let at = before.checked_rem(kinds.len() as u64)?;
        kinds.into_iter().nth(at as usize)
    }
}

/// How many kinds of episodes a shape has with a target. The usual mix begins with each.
pub fn kinds(target: &Chosen, shape: Shape) -> usize {
    match shape {
        Shape::Gated => gated::kinds(target).len(),
        Shape::Placed => placed::kinds(target).len(),
        Shape::Unbind => unbind::kinds(target).len(),
        Shape::Counts => counts::TRIES.len(),
        // What is met by chance is missed by chance.
        Shape::Hasty => 3,
        _ => 1,
    }
}

/// Most episodes place their race; the rest looks where no gate does. What waits for a time to
/// pass is rare.
pub const MIX: &[(Shape, u32)] = &[
    (Shape::Gated, 28),
    (Shape::Placed, 20),
    (Shape::Stress, 10),
    (Shape::Birth, 6),
    (Shape::Hasty, 2),
    (Shape::Counts, 5),
    (Shape::Unbind, 10),
    (Shape::Elsewhere, 3),
    (Shape::Late, 3),
    (Shape::ProbeFails, 2),
    (Shape::Delays, 20),
];

/// Of the share of a target's loops, so much is delayed where that can be.
const DELAYED_LOOPS: f64 = 0.25;

/// Whether an episode of these shapes, or of the usual mix if there are none, may delay vCPUs. The
/// usual one doesn't where the device holds ops inside the driver: it places what delays search for.
pub fn may_delay(target: &Chosen, shapes: &[Shape]) -> bool {
    match shapes {
        [] => build::gateable(target).next().is_none(),
        shapes => shapes.contains(&Shape::Delays),
    }
}

/// The shapes that an episode of a target may have, with their weights: of these, or of all that
/// the usual mix has. `vcpus` tells whether they can be delayed.
pub fn mix(target: &Chosen, vcpus: bool, shapes: &[Shape]) -> Vec<(Shape, f64)> {
    if let [shape @ (Shape::Naive | Shape::Leaks)] = *shapes {
        return vec![(shape, 1.0)];
    }
    let loops = target.target.loops.as_ref().filter(|it| match shapes {
        [] => it.share > 0,
        shapes => shapes.contains(&Shape::Loops),
    });
    let delays = vcpus && may_delay(target, shapes);
    let can = |shape| match shape {
        Shape::Delays => delays,
        shape => lacks(target, shape).is_none(),
    };
    let usual = MIX
        .iter()
        .filter(|(shape, _)| (shapes.is_empty() || shapes.contains(shape)) && can(*shape));
    let mut mix: Vec<_> = usual
        .map(|(shape, weight)| (*shape, f64::from(*weight)))
        .collect();
    if mix.is_empty() {
        let only = loops.map_or(Shape::Stress, |_| Shape::Loops);
        return vec![(only, 1.0)];
    }
    if let Some(loops) = loops {
        // So much of the whole.
        let sum: f64 = mix.iter().map(|(_, weight)| weight).sum();
        let share = f64::from(loops.share.min(100)) / 100.0;
        let delayed = if delays { share * DELAYED_LOOPS } else { 0.0 };
        for (shape, weight) in &mut mix {
            *weight *= (1.0 - share) / sum;
            if *shape == Shape::Delays {
                *weight += delayed;
            }
        }
        mix.push((Shape::Loops, share - delayed));
    }
    mix
}

fn pick_shape(target: &Chosen, points: &Points, rng: &mut ChaCha8Rng, shapes: &[Shape]) -> Shape {
    mix(target, points.vcpus(), shapes)
        .choose_weighted(rng, |(_, weight)| *weight)
        .map_or(Shape::Stress, |(shape, _)| *shape)
}

/// What a target would have to say for a shape, and doesn't. Whether vCPUs can be delayed is no
/// target's to say.
pub fn lacks(target: &Chosen, shape: Shape) -> Option<&'static str> {
    let about = &target.target;
    let (has, needs) = match shape {
        Shape::Gated => (
            build::gateable(target).next().is_some(),
            "a [[knob]] with `asks`, whose answer the device can hold",
        ),
        Shape::Counts => (about.rules.refcnt.is_some(), "[rules] refcnt"),
        Shape::Unbind => (
            about.unbind.is_some() && !unbind::victims(target).is_empty(),
            "`unbind`, and a [[knob]] with `asks` or `poll`",
        ),
        Shape::Elsewhere => (
            about.elsewhere.is_some() && target.lifetime.elsewhere.is_some(),
            "[elsewhere], and `elsewhere` of its lifetime",
        ),
        Shape::Late => (
            about.patience.is_some() && !late::pairs(target).is_empty(),
            "[patience], and knobs with `asks`",
        ),
        Shape::ProbeFails => {
            let patience = about.patience.as_ref();
            (
                patience.is_some_and(|patience| patience.probe_asks.is_some()),
                "[patience] probe_asks",
            )
        }
        // Whether an open knob keeps the module must be known.
        Shape::Placed => (
            !target.lifetime.refuses && about.up.is_empty() && !Program::all(target).is_empty(),
            "a lifetime without `refuses`, no [[up]], and knobs to put in order with the unload",
        ),
        Shape::Loops => (about.loops.is_some(), "[loops]"),
        Shape::Stress
        | Shape::Birth
        | Shape::Hasty
        | Shape::Survey
        | Shape::Ordered
        | Shape::Leaks
        | Shape::Naive
        | Shape::Delays
        | Shape::Instructions => (true, ""),
    };
    (!has).then_some(needs)
}

#[cfg(test)]
mod tests {
    use super::*;
    use knobrig_proto::Who;
    use proptest::prelude::*;

    const LIFETIMES: [&str; 5] = [
        "pinned",
        "drained",
        "self-destruct",
        "outside-release",
        "exit-waits",
    ];

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

    #[test]
    fn plain_loops_are_what_the_target_says_or_its_file_in_order() {
        let threads = |target: &Chosen| -> Vec<String> {
            let plan = plan(target, &Points::default(), 1, 1, &[Shape::Naive]);
            let actors = plan.episode.actors.into_iter();
            actors.skip(1).map(|actor| actor.name).collect()
        };
        let mut target = Chosen::find("virtio_rng", None, None).expect("built in");
        let said = ["unbind", "rng_current-1", "rng_selected-2", "hwrng-3"];
        assert_eq!(threads(&target), said);
        let loops = target.target.loops.as_mut().expect("has loops");
        loops.plain.clear();
        let in_order = [
            "unbind",
            "rng_current-1",
            "rng_selected-2",
            "rng_available-3",
        ];
        assert_eq!(threads(&target), in_order);
    }

    proptest! {
        #[test]
        fn a_plan_is_a_function_of_seed_and_number(seed: u64, number in 1u64..1_000_000) {
            for lifetime in LIFETIMES {
                let target = chosen(lifetime);
                prop_assert_eq!(plan(&target, &Points::default(), seed, number, &[]), plan(&target, &Points::default(), seed, number, &[]));
            }
        }

        #[test]
        fn every_check_has_its_step(seed: u64, number in 1u64..1_000_000) {
            for lifetime in LIFETIMES {
                let plan = plan(&chosen(lifetime), &Points::default(), seed, number, &[]);
                for check in &plan.checks {
                    prop_assert!(exists(&plan, check.place), "{:?}", check);
                }
            }
        }

        #[test]
        fn names_of_actors_are_unique(seed: u64, number in 1u64..1_000_000) {
            let plan = plan(&chosen("drained"), &Points::default(), seed, number, &[]);
            let mut names: Vec<_> = plan.episode.actors.iter().map(|actor| &actor.name).collect();
            names.sort();
            names.dedup();
            prop_assert_eq!(names.len(), plan.episode.actors.len());
        }

        #[test]
        fn a_gated_teardown_waits_for_the_gate(seed: u64, number in 1u64..1_000_000) {
            let plan = plan(&chosen("drained"), &Points::default(), seed, number, &[Shape::Gated]);
            let tag = plan.gates.last().expect("there is one").tag.clone();
            let raised: Vec<_> = (plan.reactions.iter())
                .filter(|reaction| reaction.when == When::Held(tag.clone()))
                .flat_map(|reaction| &reaction.then)
                .collect();
            let name = match raised[..] {
                [Then::Raise(name)] => name,
                _ => panic!("{raised:?}"),
            };
            let teardown = plan.episode.actors.iter().find(|actor| actor.name == "rmmod");
            let steps = &teardown.expect("the teardown is an actor").steps;
            let waits = matches!(&steps[0], Step::WaitSignal { name: it, .. } if it == name);
            prop_assert!(waits);
            let unloads = matches!(&steps[1], Step::Unload { .. });
            prop_assert!(unloads);
        }

        /// Whatever is awaited is raised, and whatever is held is let go by something.
        #[test]
        fn every_signal_and_gate_has_its_reaction(seed: u64, number in 1u64..1_000_000) {
            for lifetime in LIFETIMES {
                let plan = plan(&chosen(lifetime), &Points::default(), seed, number, &[]);
                let then: Vec<_> = plan.reactions.iter().flat_map(|it| &it.then).collect();
                for step in plan.episode.actors.iter().flat_map(|actor| &actor.steps) {
                    if let Step::WaitSignal { name, .. } = step {
                        prop_assert!(then.contains(&&Then::Raise(name.clone())), "{:?}", plan);
                    }
                }
                for reaction in &plan.reactions {
                    if let When::Settled(name, step) = &reaction.when {
                        let actor = plan.episode.actors.iter().find(|it| it.name == *name);
                        let actor = actor.expect("one of the actors");
                        prop_assert!(actor.teardown && *step < actor.steps.len());
                    }
                }
                if plan.shape != Shape::ProbeFails {
                    for gate in &plan.gates {
                        let released = then.contains(&&Then::Release(gate.tag.clone()));
                        prop_assert!(released, "{:?}", plan);
                    }
                }
            }
        }
    }

    #[test]
    fn a_kind_without_a_place_of_its_own_has_its_shapes_last() {
        assert!(Shape::Hasty.opens(0) < Shape::Counts.opens(0));
        assert!(Shape::Hasty.opens(2) > Shape::Placed.opens(0));
        assert_eq!(Shape::Placed.opens(2), Shape::Placed.opens(1));
        assert_eq!(Shape::Gated.opens(4), Shape::Gated.opens(0));
        assert!(Shape::Naive.opens(0) > Shape::Delays.opens(0));
    }

    #[test]
    fn a_plan_under_another_number_is_the_same_episode() {
        let target = chosen("pinned");
        let first = plan(&target, &Points::default(), 1, 7, &[Shape::Counts]);
        let again = first.numbered(9);
        assert_eq!(
            again,
            plan(&target, &Points::default(), 1, 9, &[Shape::Counts])
        );
        assert_eq!(again.numbered(7), first);
    }

    #[test]
    fn the_mix_has_every_shape() {
        let target = chosen("drained");
        let mut seen: Vec<_> = (1..2000)
            .map(|number| plan(&target, &Points::default(), 1, number, &[]).shape)
            .collect();
        seen.sort();
        seen.dedup();
        assert_eq!(
            seen,
            [
                Shape::Gated,
                Shape::Stress,
                Shape::Birth,
                Shape::Hasty,
                Shape::Counts,
                Shape::Unbind,
                Shape::Elsewhere,
                Shape::Late,
                Shape::ProbeFails,
                Shape::Placed,
            ]
        );
    }

    #[test]
    fn each_kind_of_a_shape_has_its_turn() {
        let target = chosen("drained");
        let count = kinds(&target, Shape::Gated);
        assert_eq!(
            count, 5,
            "two knobs, alone and with the other, and /dev/dk0"
        );
        let mut points = Points::default();
        let mut seen = std::collections::BTreeSet::new();
        for number in 1..=count as u64 {
            points.chose(Shape::Gated);
            let actors = plan(&target, &points, 9, number, &[Shape::Gated])
                .episode
                .actors;
            let mut steps = actors.iter().flat_map(|it| &it.steps);
            let inside = steps.find_map(|step| match step {
                Step::Open { path, .. } => Some(path.clone()),
                _ => None,
            });
            seen.insert((inside, actors.iter().any(|it| it.name == "second")));
        }
        assert_eq!(seen.len(), count, "{seen:?}");
    }

    proptest! {
        /// A gate's tag is the only one that is awaited, its actor is there, and something lets
        /// go what it holds.
        #[test]
        fn a_placed_gate_is_awaited_and_let_go(seed: u64, number in 1u64..1_000_000) {
            for lifetime in LIFETIMES {
                let target = chosen(lifetime);
                let plan = plan(&target, &sample(&target), seed, number, &[Shape::Placed]);
                prop_assert_eq!(plan.shape, Shape::Placed);
                if plan.pct.is_some() {
                    continue;
                }
                let gate = &plan.episode.gates[0];
                let actors = &plan.episode.actors;
                if let Who::Actor(name) = &gate.who {
                    prop_assert!(actors.iter().any(|actor| actor.name == *name), "{:?}", plan);
                }
                let steps: Vec<_> = actors.iter().flat_map(|actor| &actor.steps).collect();
                let raised = plan.reactions.iter().any(|it| it.when == When::Held(gate.tag.clone()));
                let awaited = steps.iter().any(
                    |step| matches!(step, Step::AwaitGate { tag, .. } if *tag == gate.tag),
                );
                let giver = gate.who == Who::Actor("giver".into());
                prop_assert!(awaited || raised || giver, "{:?}", plan);
                let released = steps.iter().any(
                    |step| matches!(step, Step::ReleaseGate { tag } if *tag == gate.tag),
                );
                prop_assert!(released, "{:?}", plan);
                if plan.program == Some(Program::Elsewhere) {
                    let other = actors.iter().find(|it| gate.who != Who::Actor(it.name.clone()));
                    prop_assert_eq!(&gate.waiter, &other.map(|it| it.name.clone()), "{:?}", plan);
                }
                prop_assert_eq!(&plan.episode.under_test.last().map(String::as_str), &Some("mydrv"));
                for check in &plan.checks {
                    prop_assert!(exists(&plan, check.place), "{:?}", check);
                }
            }
        }

        /// Who waits is let go by something, and who stands at a gate too.
        #[test]
        fn an_order_by_chance_leaves_nobody_standing(seed: u64, number in 1u64..1_000_000) {
            let target = chosen("drained");
            let plan = plan(&target, &sample(&target), seed, number, &[Shape::Placed]);
            let Some(promise) = plan.pct else {
                return Ok(());
            };
            prop_assert_eq!((promise.n, promise.k, promise.d), (2, 4, 2));
            let then: Vec<_> = plan.reactions.iter().flat_map(|it| &it.then).collect();
            for step in plan.episode.actors.iter().flat_map(|actor| &actor.steps) {
                if let Step::WaitSignal { name, .. } = step {
                    prop_assert!(then.contains(&&Then::Raise(name.clone())), "{:?}", plan);
                }
            }
            for gate in &plan.episode.gates {
                prop_assert!(then.contains(&&Then::Free(gate.tag.clone())), "{:?}", plan);
            }
            for check in &plan.checks {
                prop_assert!(exists(&plan, check.place), "{:?}", check);
            }
        }

        #[test]
        fn the_mix_of_a_target_is_what_its_episodes_are(seed: u64, number in 1u64..1_000_000) {
            let target = chosen("drained");
            let shape = plan(&target, &Points::default(), seed, number, &[]).shape;
            prop_assert!(mix(&target, true, &[]).iter().any(|(it, _)| *it == shape));
        }

        #[test]
        fn a_program_is_surveyed_before_it_is_placed(seed: u64, number in 1u64..1_000_000) {
            let target = chosen("exit-waits");
            let plan = plan(&target, &Points::among([]), seed, number, &[Shape::Placed]);
            prop_assert_eq!(plan.shape, Shape::Survey);
            prop_assert!(!plan.episode.survey.is_empty() && plan.program.is_some());
            prop_assert!(plan.episode.gates.is_empty());
        }
    }

    #[test]
    fn without_function_gates_a_placed_episode_is_stress() {
        let target = chosen("drained");
        let plan = plan(&target, &Points::default(), 1, 1, &[Shape::Placed]);
        assert!(plan.episode.gates.is_empty() && plan.episode.survey.is_empty());
        assert!(plan.episode.actors.len() > 1);
    }

    #[test]
    fn a_pinned_holder_makes_the_teardown_refused() {
        let plan = plan(&chosen("pinned"), &Points::default(), 1, 1, &[Shape::Gated]);
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
