//! Appends steps with the checks on them: what the shapes share.

use dk_control::{Gate, Point};
use knobrig_proto::{Actor, Episode, Priority, Repeat, Step};
use rand::Rng;
use rand::seq::IndexedRandom;
use rand_chacha::ChaCha8Rng;

use super::{
    Check, ENODEV, ENOENT, EWOULDBLOCK, Expect, Place, Plan, Reaction, Rule, Shape, Then, When,
    marker,
};
use crate::target::{Ask, AskingOp, Chosen, Knob, Module};

/// Actors have so long to end; the driver's own deadline for an answer must fit well inside.
const ACTORS_DEADLINE_MS: u64 = 20_000;
/// The same where they load again and again.
const PATIENT_DEADLINE_MS: u64 = 3 * ACTORS_DEADLINE_MS;
/// A gate lets go by itself after so long: less than any sane driver waits for an answer.
pub(super) const GATE_DEADLINE_MS: u64 = 2_000;
/// A signal comes at once, or something is wrong; whoever waits then goes on without it.
pub(super) const SIGNAL_DEADLINE_MS: u64 = GATE_DEADLINE_MS * 2;
/// An object's release may be delayed by seconds (CONFIG_DEBUG_KOBJECT_RELEASE).
const RELEASE_DEADLINE_MS: u64 = 10_000;
/// Where nobody's count was left a moment ago, only the kernel itself can have taken one since.
const COUNTED_DEADLINE_MS: u64 = 1_000;
/// Pause of a loop that found no knob; a load takes a hundred times as long.
pub(super) const MISSED_PAUSE_US: u32 = 300;
/// The first descriptor of an episode; loops use the slots above [`LOOPS`].
pub(super) const SLOT: u32 = 0;
pub(super) const LOOPS: u32 = 16;
/// CPUs are taken modulo the guest's number.
const CPUS: u32 = 64;

/// The knobs and ops that make the driver ask the device.
pub(super) fn gateable(target: &Chosen) -> impl Iterator<Item = (&Knob, AskingOp)> {
    let knobs = target.knobs();
    knobs.flat_map(|knob| knob.asks.keys().map(move |op| (knob, *op)))
}

/// A gate of the device for one request of these.
pub(super) fn one_of(ask: &Ask, tag: &str, point: Point, deadline_ms: u64) -> Gate {
    Gate {
        tag: tag.into(),
        point,
        kinds: vec![ask.kind],
        sector: ask.sector,
        skip: 0,
        count: 1,
        deadline_ms,
    }
}

/// A plan in the making.
pub(super) struct Builder<'a> {
    pub(super) target: &'a Chosen,
    pub(super) plan: Plan,
    /// How long the driver waits for an answer in this episode.
    timeout_ms: Option<u64>,
    /// What each thread that goes its way once waits for before it does.
    start: Option<&'static str>,
}

impl<'a> Builder<'a> {
    pub(super) fn new(target: &'a Chosen, shape: Shape, number: u64) -> Self {
        let marker = Step::WriteFile {
            path: "/dev/kmsg".into(),
            data: format!("{}\n", marker(number)),
        };
        Self {
            target,
            plan: Plan {
                shape,
                episode: Episode {
                    id: number,
                    before: vec![marker],
                    actors: Vec::new(),
                    after: Vec::new(),
                    deadline_ms: ACTORS_DEADLINE_MS,
                    call_deadline_ms: None,
                    under_test: Vec::new(),
                    gates: Vec::new(),
                    survey: Vec::new(),
                    rests: Vec::new(),
                    threads: false,
                },
                delays: None,
                order: None,
                program: None,
                pct: None,
                gates: Vec::new(),
                reactions: Vec::new(),
                checks: Vec::new(),
                ups: Vec::new(),
            },
            timeout_ms: (target.target.patience.as_ref()).map(|patience| patience.usual_ms),
            start: None,
        }
    }

    /// Threads that go their way once begin when this signal is raised.
    pub(super) fn start_at(&mut self, signal: &'static str) {
        self.start = Some(signal);
    }

    /// Each call of a teardown has a deadline of its own, and the threads so long in all: as many loads on a
    /// slow guest as this episode has may take longer than one call that hangs.
    pub(super) fn be_patient(&mut self) {
        self.plan.episode.call_deadline_ms = Some(ACTORS_DEADLINE_MS);
        self.plan.episode.deadline_ms = PATIENT_DEADLINE_MS;
    }

    /// In this episode the driver gives up soon.
    pub(super) fn be_impatient(&mut self) {
        self.timeout_ms = (self.target.target.patience.as_ref()).map(|patience| patience.short_ms);
    }

    fn check(&mut self, rule: Rule, place: Place, expect: Expect) -> Place {
        self.plan.checks.push(Check {
            rule,
            place,
            expect,
        });
        place
    }

    pub(super) fn before(&mut self, step: Step, rule: Rule, expect: Expect) {
        let place = Place::Before(self.plan.episode.before.len());
        self.plan.episode.before.push(step);
        self.check(rule, place, expect);
    }

    pub(super) fn after(&mut self, step: Step, rule: Rule, expect: Expect) -> Place {
        let place = Place::After(self.plan.episode.after.len());
        self.plan.episode.after.push(step);
        self.check(rule, place, expect)
    }

    /// Adds a thread that goes its way once; gives its number.
    pub(super) fn actor(
        &mut self,
        name: &str,
        teardown: bool,
        rng: Option<&mut ChaCha8Rng>,
    ) -> usize {
        let actors = &mut self.plan.episode.actors;
        let cpu = rng.map_or(actors.len() as u32, |rng| rng.random_range(0..CPUS));
        actors.push(Actor {
            name: name.into(),
            cpu,
            priority: Priority::Usual,
            teardown,
            steps: Vec::new(),
            repeat: Repeat::Once,
            missed_pause_us: 0,
            lag_ms: 0,
        });
        let actor = actors.len() - 1;
        if let Some(signal) = self.start {
            self.await_signal(actor, signal);
        }
        actor
    }

    /// Appends to an actor's steps.
    pub(super) fn act(&mut self, actor: usize, step: Step) -> Place {
        let steps = &mut self.plan.episode.actors[actor].steps;
        steps.push(step);
        Place::Actor(actor, steps.len() - 1)
    }

    /// Appends to an actor's steps, with a check.
    pub(super) fn act_checked(
        &mut self,
        actor: usize,
        step: Step,
        rule: Rule,
        expect: Expect,
    ) -> Place {
        let place = self.act(actor, step);
        self.check(rule, place, expect)
    }

    /// What a step that stands already must come to.
    pub(super) fn expect(&mut self, place: Place, rule: Rule, expect: Expect) {
        self.check(rule, place, expect);
    }

    /// The actor waits until somebody raises the signal.
    pub(super) fn await_signal(&mut self, actor: usize, name: &str) {
        let step = Step::WaitSignal {
            name: name.into(),
            deadline_ms: SIGNAL_DEADLINE_MS,
        };
        self.act(actor, step);
    }

    /// The device holds one request at a point.
    pub(super) fn gate(&mut self, tag: &str, ask: &Ask, point: Point, deadline_ms: u64) {
        self.plan.gates.push(one_of(ask, tag, point, deadline_ms));
    }

    /// When something happens, something follows.
    pub(super) fn react(&mut self, when: When, then: impl IntoIterator<Item = Then>) {
        let then = then.into_iter().collect();
        self.plan.reactions.push(Reaction { when, then });
    }

    /// A step of a teardown has settled.
    pub(super) fn settled(&self, place: Place) -> When {
        let (name, step) = self.watched(place);
        When::Settled(name, step)
    }

    /// A step of a teardown sleeps.
    pub(super) fn asleep(&self, place: Place) -> When {
        let (name, step) = self.watched(place);
        When::Asleep(name, step)
    }

    fn watched(&self, place: Place) -> (String, usize) {
        match place {
            Place::Actor(actor, step) => (self.plan.episode.actors[actor].name.clone(), step),
            Place::Before(_) | Place::After(_) => unreachable!("only actors are watched"),
        }
    }

    // The target's steps.

    pub(super) fn load_steps(&self) -> Vec<Step> {
        let load = |module: &Module| Step::Load {
            module: module.name.clone(),
            params: self.target.params(module, self.timeout_ms),
        };
        self.target.modules().map(load).collect()
    }

    /// Loads every module; then each path that must go must be there now.
    pub(super) fn bring_up(&mut self) {
        for (step, expect) in self.coming_up() {
            self.before(step, Rule::ComesUp, expect);
        }
    }

    /// In `after`: the same where all of it is gone.
    pub(super) fn bring_up_again(&mut self) {
        for (step, expect) in self.coming_up() {
            self.after(step, Rule::ComesUp, expect);
        }
    }

    fn coming_up(&self) -> Vec<(Step, Expect)> {
        let about = &self.target.target;
        let zero = || Expect::OneOf(vec![0]);
        let loads = self.load_steps().into_iter().map(|step| (step, zero()));
        let up = (about.up.iter().cloned()).map(|step| (step, Expect::OkOr(vec![])));
        let paths = about.rules.gone.iter().cloned();
        let there = paths.map(|path| (Step::Exists { path }, zero()));
        loads.chain(up).chain(there).collect()
    }

    /// In `after`: what was done beside the load is undone, as far as it still stands.
    pub(super) fn take_down(&mut self) {
        for step in self.target.target.down.clone() {
            self.after(step, Rule::GivenUp, Expect::OkOr(vec![ENOENT, ENODEV]));
        }
    }

    pub(super) fn unload(&self) -> Step {
        Step::unload(&self.target.target.teardown.module)
    }

    /// What ends driver and module: what gives up what holds the module, then the unload.
    pub(super) fn ending(&self) -> Vec<Step> {
        let give_up = self.target.lifetime.give_up.clone();
        let down = self.target.target.down.iter().cloned();
        give_up
            .into_iter()
            .chain(down)
            .chain([self.unload()])
            .collect()
    }

    /// In `after`: what the lifetime wants given up before its module can go.
    pub(super) fn give_up(&mut self) {
        if let Some(step) = self.target.lifetime.give_up.clone() {
            self.after(step, Rule::GivenUp, Expect::OkOr(vec![]));
            self.check_paths_gone();
        }
    }

    /// In `after`: the unload, which succeeds once nobody uses the module, and what must be gone with
    /// it. The kernel itself may use it for a moment longer than whoever closed last (a disk's
    /// partitions are looked for); what openers count is checked where they open and close.
    pub(super) fn unload_at_zero(&mut self) {
        self.take_down();
        self.unload_idle(RELEASE_DEADLINE_MS, &[]);
    }

    /// In `after`: the same where the count has just been checked.
    pub(super) fn unload_counted(&mut self) {
        self.take_down();
        self.unload_idle(COUNTED_DEADLINE_MS, &[]);
    }

    /// In `after`: the same of a module that may be gone already.
    pub(super) fn unload_what_is_left(&mut self) {
        self.give_up_again(None);
        self.unload_idle(RELEASE_DEADLINE_MS, &[ENOENT]);
    }

    fn unload_idle(&mut self, patience_ms: u64, or: &[i64]) {
        let module = self.target.target.teardown.module.clone();
        self.after_idle(module, patience_ms, or);
        self.check_gone();
    }

    /// In `after`: modules that others need go last, once nothing of theirs is in use.
    pub(super) fn unload_helpers(&mut self) {
        for module in self.helpers() {
            self.after_idle(module, RELEASE_DEADLINE_MS, &[]);
        }
    }

    /// In `after`: an unload that succeeds as soon as nobody uses the module. To wait for its count and
    /// unload then would be too early where the kernel looks at a disk that has just come: it opens it
    /// in between.
    fn after_idle(&mut self, module: String, patience_ms: u64, or: &[i64]) {
        let results = [0].into_iter().chain(or.iter().copied());
        let unload = Step::Unload {
            module,
            patience_ms,
        };
        self.after(
            unload,
            Rule::UnloadsAtZero,
            Expect::OneOf(results.collect()),
        );
    }

    /// Modules beside the teardown's, in the reverse order of their load.
    pub(super) fn helpers(&self) -> Vec<String> {
        let teardown = &self.target.target.teardown.module;
        let mut helpers: Vec<_> = (self.target.modules())
            .filter(|module| module.name != *teardown)
            .map(|module| module.name.clone())
            .collect();
        helpers.reverse();
        helpers
    }

    /// In `after`: the device's paths are gone.
    pub(super) fn check_paths_gone(&mut self) {
        for path in self.target.target.rules.gone.clone() {
            let step = Step::Exists { path };
            self.after(step, Rule::PathsGone, Expect::OneOf(vec![ENOENT]));
        }
    }

    /// In `after`: the device's paths and the module are gone.
    pub(super) fn check_gone(&mut self) {
        self.check_paths_gone();
        let path = self.module_path();
        let step = Step::Exists { path };
        self.after(step, Rule::PathsGone, Expect::OneOf(vec![ENOENT]));
        for lacks in self.target.target.rules.lacks.clone() {
            let step = Step::ReadFile { path: lacks.path };
            self.after(step, Rule::NothingLeft, Expect::Lacks(lacks.text));
        }
    }

    pub(super) fn module_path(&self) -> String {
        format!("/sys/module/{}", self.target.target.teardown.module)
    }

    /// In `after`: the module's count.
    pub(super) fn check_count(&mut self, count: u32) {
        if let Some(path) = self.target.target.rules.refcnt.clone() {
            let expect = Expect::Text(count.to_string());
            self.after(Step::ReadFile { path }, Rule::Counts, expect);
        }
    }

    pub(super) fn open(knob: &Knob, slot: u32, exclusive: bool) -> Step {
        Step::Open {
            path: knob.path.clone(),
            read: knob.read.is_some(),
            write: knob.write.is_some(),
            exclusive,
            slot,
        }
    }

    pub(super) fn op(knob: &Knob, op: AskingOp, slot: u32) -> Option<Step> {
        match op {
            AskingOp::Read => Some(Step::Read {
                slot,
                len: knob.read?,
            }),
            AskingOp::Write => Some(Step::Write {
                slot,
                data: knob.write.as_ref()?.first(),
            }),
        }
    }

    /// The ops that a knob knows.
    pub(super) fn ops(knob: &Knob, slot: u32) -> Vec<Step> {
        [AskingOp::Read, AskingOp::Write]
            .into_iter()
            .filter_map(|op| Self::op(knob, op, slot))
            .collect()
    }

    /// In `after`: each op of a knob succeeds.
    pub(super) fn ops_succeed(&mut self, knob: &Knob, slot: u32) {
        let fine = knob.fine_results();
        for step in Self::ops(knob, slot) {
            self.after(step, Rule::OpSucceeds, Expect::OkOr(fine.clone()));
        }
    }

    /// In `after`: each op on a descriptor whose driver is gone says so.
    pub(super) fn ops_find_it_gone(&mut self, knob: &Knob, slot: u32) {
        for step in Self::ops(knob, slot) {
            self.after(step, Rule::OldDescriptor, Expect::OneOf(vec![ENODEV]));
        }
    }

    /// In `after`: a close, which succeeds.
    pub(super) fn close(&mut self, slot: u32) {
        let step = Step::Close { slot };
        self.after(step, Rule::OpSucceeds, Expect::OneOf(vec![0]));
    }

    /// What an unload may give where others open and close knobs.
    pub(super) fn refusable(&self) -> Vec<i64> {
        let pinned = self.target.lifetime.refuses
            || !self.target.target.up.is_empty()
            || self.target.knobs().any(|knob| self.target.pins(knob));
        let refused = pinned.then_some(EWOULDBLOCK);
        [0].into_iter().chain(refused).collect()
    }

    /// `count` threads that each open, read or write, and close a knob until the others end.
    pub(super) fn loopers(&mut self, knobs: &[&Knob], count: usize, rng: &mut ChaCha8Rng) {
        for index in 0..count {
            let Some(knob) = knobs.choose(rng) else {
                return;
            };
            let slot = LOOPS + index as u32;
            let mut steps = vec![Self::open(knob, slot, false)];
            let ops = Self::ops(knob, slot);
            for _ in 0..rng.random_range(0..=2) {
                steps.extend(ops.choose(rng).cloned());
            }
            steps.push(Step::Close { slot });
            let actor = self.actor(&format!("{}-{index}", knob.name), false, Some(rng));
            let actor = &mut self.plan.episode.actors[actor];
            actor.steps = steps;
            actor.repeat = Repeat::UntilOthersEnd;
            actor.missed_pause_us = MISSED_PAUSE_US;
        }
    }
}
