//! One running episode: its threads' ways through their steps, and what is kept of them.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use knobrig_proto::{
    Actor, ActorReport, Episode, EpisodeReport, FromGuest, GateReport, Inside, Outcome, Pass,
    Priority, Repeat, Step, Stuck,
};

use crate::clock::now_ns;
use crate::gates::in_vain;
use crate::lock;
use crate::outbox::Outbox;
use crate::pool::Job;
use crate::scene::{For, Scene};
use crate::stage::Stage;
use crate::step::Doer;
use crate::tally::{self, Tallies};
use crate::task::Task;

/// Looks at the start line before a waiting actor lets others have its CPU: they are on their way
/// when it waits, and a yield costs more than they need.
const START_SPINS: u32 = 200;
/// How long one sleeps between looks who goes before all others.
const START_NAP: Duration = Duration::from_micros(20);

/// A running episode.
#[derive(Debug)]
pub struct Run {
    /// What to do.
    pub episode: Episode,
    /// What its threads share.
    pub scene: Scene,
    /// Where the actors are.
    pub stage: Stage,
    /// The actors in the episode's order, then `before`, then `after`.
    parts: Vec<Part>,
    /// Actors at the start line.
    arrived: AtomicUsize,
    ends: Mutex<Ends>,
    bell: Condvar,
    outbox: Arc<Outbox>,
}

/// What the conductor waits for.
#[derive(Debug, Default)]
struct Ends {
    /// Parts of the running phase that have not ended.
    left: usize,
    /// A teardown's step ended that had been told as asleep: there is a new one to watch.
    moved: bool,
}

/// One thread's share of an episode.
#[derive(Debug, Default)]
struct Part {
    outcomes: Mutex<Vec<Outcome>>,
    tallies: Mutex<Tallies>,
    rounds: AtomicU64,
    /// The step it is at.
    step: AtomicUsize,
    /// When its latest call began, by the agent's clock; 0 before the first.
    call_began: AtomicU64,
    /// In the first round: twice the step's number before it, one more inside of it.
    watch: AtomicUsize,
    /// Steps told as settled.
    settled: AtomicUsize,
    ended: AtomicBool,
}

/// Where a teardown stands, for whoever watches it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Nothing more to see.
    Settled,
    /// Between steps: the next one is about to begin.
    Between,
    /// Inside this step, and not told as settled.
    Inside(usize),
}

impl Run {
    /// A run of the episode, not begun.
    pub fn new(episode: Episode, outbox: Arc<Outbox>) -> Self {
        let once = episode
            .actors
            .iter()
            .filter(|actor| actor.repeat == Repeat::Once)
            .count();
        let steps = episode.actors.iter().flat_map(|actor| &actor.steps);
        let steps = episode.before.iter().chain(steps).chain(&episode.after);
        Self {
            scene: Scene::new(steps, once),
            stage: Stage::new(episode.actors.len()),
            parts: (0..episode.actors.len() + 2)
                .map(|_| Part::default())
                .collect(),
            arrived: AtomicUsize::new(0),
            ends: Mutex::default(),
            bell: Condvar::new(),
            outbox,
            episode,
        }
    }

    /// The part of the steps before the actors.
    pub fn before(&self) -> usize {
        self.episode.actors.len()
    }

    /// The part of the steps after the actors.
    pub fn after(&self) -> usize {
        self.episode.actors.len() + 1
    }

    /// A part's name in reports.
    pub fn name(&self, part: usize) -> &str {
        match self.episode.actors.get(part) {
            Some(actor) => &actor.name,
            None if part == self.before() => "before",
            None => "after",
        }
    }

    /// How long a part goes on.
    pub fn whom(&self, part: usize) -> For {
        match self.episode.actors.get(part).map(|actor| actor.repeat) {
            Some(Repeat::UntilOthersEnd) => For::Loop,
            None if part == self.after() => For::Last,
            Some(Repeat::Once) | None => For::Once,
        }
    }

    /// A phase of so many parts begins.
    pub fn begin(&self, parts: usize) {
        *lock(&self.ends) = Ends {
            left: parts,
            moved: false,
        };
    }

    /// The step that a part is at.
    pub fn step(&self, part: usize) -> usize {
        self.parts[part].step.load(Ordering::Relaxed)
    }

    /// How long the calls of these parts may still take, if that is bounded.
    pub fn calls_left(&self, parts: impl Iterator<Item = usize>) -> Option<Duration> {
        let longest = Duration::from_millis(self.episode.call_deadline_ms?);
        let now = now_ns();
        let bounded = parts.filter(|part| {
            let actor = self.episode.actors.get(*part);
            actor.is_none_or(|actor| actor.teardown) && !self.has_ended(*part)
        });
        let spent = bounded.filter_map(|part| {
            let began = self.parts[part].call_began.load(Ordering::Relaxed);
            (began > 0).then(|| Duration::from_nanos(now.saturating_sub(began)))
        });
        Some(longest.saturating_sub(spent.max().unwrap_or_default()))
    }

    /// Whether a part has ended.
    pub fn has_ended(&self, part: usize) -> bool {
        self.parts[part].ended.load(Ordering::Acquire)
    }

    /// Whether the last outcome of a part is a failure.
    pub fn failed(&self, part: usize) -> bool {
        lock(&self.parts[part].outcomes)
            .last()
            .is_some_and(|outcome| outcome.ret < 0)
    }

    /// Waits until all parts of the phase have ended (then true), a settled teardown has moved
    /// on, or so long.
    pub fn await_ends(&self, longest: Duration) -> bool {
        let ends = lock(&self.ends);
        let wait = self
            .bell
            .wait_timeout_while(ends, longest, |ends| ends.left > 0 && !ends.moved);
        let mut ends = match wait {
            Ok((ends, _)) => ends,
            Err(poisoned) => poisoned.into_inner().0,
        };
        ends.moved = false;
        ends.left == 0
    }

    /// Goes a part's way.
    fn play(&self, part: usize, buf: &mut Vec<u8>) {
        match self.episode.actors.get(part) {
            Some(actor) => {
                self.line_up(actor);
                self.act(part, actor, buf);
            }
            None if part == self.before() => {
                self.go_through(part, &self.episode.before, true, buf);
            }
            None => {
                self.go_through(part, &self.episode.after, false, buf);
                // Here, where it is watched: a last close can hang like any call.
                self.scene.slots.close_all();
            }
        }
    }

    /// The start line: actors leave it together, without a sleep and its wake-up between them, but for
    /// those that lag.
    fn line_up(&self, actor: &Actor) {
        self.arrived.fetch_add(1, Ordering::AcqRel);
        let mut looks = 0;
        while self.arrived.load(Ordering::Acquire) < self.episode.actors.len()
            && !self.scene.over(For::Once)
        {
            looks += 1;
            if looks < START_SPINS {
                std::hint::spin_loop();
            } else if actor.priority == Priority::First {
                // Its yield lets nobody on that goes after it, until the kernel takes the CPU away from
                // all of its kind, a second later.
                std::thread::sleep(START_NAP);
            } else {
                std::thread::yield_now();
            }
        }
        if actor.lag_ms > 0 {
            std::thread::sleep(Duration::from_millis(actor.lag_ms.into()));
        }
    }

    fn act(&self, part: usize, actor: &Actor, buf: &mut Vec<u8>) {
        let whom = self.whom(part);
        let mine = &self.parts[part];
        let mut doer = Doer {
            scene: &self.scene,
            gates: &self.episode.gates,
            stage: Some((&self.stage, part)),
            whom,
            call_began: &mine.call_began,
            buf,
        };
        let mut first = true;
        // A loop ends between rounds, so that what it opens it closes; inside of one only its
        // own waits are cut short.
        while first && whom == For::Once || whom == For::Loop && !self.scene.over(whom) {
            let mut missed = false;
            for (at, step) in actor.steps.iter().enumerate() {
                if self.scene.over(For::Once) {
                    return;
                }
                mine.step.store(at, Ordering::Relaxed);
                if actor.teardown {
                    self.stage.note_all(part, at);
                    if first {
                        mine.watch.store(at * 2 + 1, Ordering::SeqCst);
                    }
                }
                let done = doer.perform(step);
                missed |= matches!(step, Step::Open { .. }) && done.outcome.ret < 0;
                if actor.teardown && first {
                    self.step_ended(part, at, done.outcome.end_ns);
                }
                if let Some((op, path)) = done.op {
                    let paths = self.scene.paths.len();
                    lock(&mine.tallies).count(paths, op, path, &done.outcome);
                }
                if whom == For::Once {
                    lock(&mine.outcomes).push(done.outcome);
                }
            }
            mine.rounds.fetch_add(1, Ordering::Relaxed);
            first = false;
            if missed && actor.missed_pause_us > 0 {
                std::thread::sleep(Duration::from_micros(actor.missed_pause_us.into()));
            }
        }
    }

    /// `before` and `after`.
    fn go_through(&self, part: usize, steps: &[Step], stop_at_failure: bool, buf: &mut Vec<u8>) {
        let whom = self.whom(part);
        let mine = &self.parts[part];
        let mut doer = Doer {
            scene: &self.scene,
            gates: &self.episode.gates,
            stage: None,
            whom,
            call_began: &mine.call_began,
            buf,
        };
        for (at, step) in steps.iter().enumerate() {
            if self.scene.over(whom) {
                return;
            }
            mine.step.store(at, Ordering::Relaxed);
            let outcome = doer.perform(step).outcome;
            let failed = outcome.ret < 0;
            lock(&mine.outcomes).push(outcome);
            if failed && stop_at_failure {
                return;
            }
        }
    }

    /// Where a teardown stands. Other parts are always settled.
    pub fn standing(&self, part: usize) -> Standing {
        let Some(actor) = self.episode.actors.get(part) else {
            return Standing::Settled;
        };
        let mine = &self.parts[part];
        let watch = mine.watch.load(Ordering::SeqCst);
        let at = watch / 2;
        if !actor.teardown || at >= actor.steps.len() || self.has_ended(part) {
            Standing::Settled
        } else if watch.is_multiple_of(2) {
            Standing::Between
        } else if mine.settled.load(Ordering::SeqCst) > at {
            Standing::Settled
        } else {
            Standing::Inside(at)
        }
    }

    /// Where a part is known to come to rest in a step.
    pub fn rest(&self, part: usize, step: usize) -> Option<&str> {
        let mut rests = self.episode.rests.iter();
        let rest = rests.find(|rest| rest.step == step && rest.actor == self.name(part));
        rest.map(|rest| rest.place.as_str())
    }

    /// Tells that a teardown's step is settled, unless that was told: whoever counts it first
    /// tells.
    pub fn settle(&self, part: usize, step: usize, wchan: String, ns: u64) -> bool {
        let settled = &self.parts[part].settled;
        if settled
            .compare_exchange(step, step + 1, Ordering::SeqCst, Ordering::SeqCst)
            .is_err()
        {
            return false;
        }
        self.outbox.send(&FromGuest::Settled {
            episode: self.episode.id,
            actor: self.name(part).to_owned(),
            step,
            wchan,
            ns,
        });
        true
    }

    fn step_ended(&self, part: usize, step: usize, ns: u64) {
        // First: whoever finds this step told while `watch` still stands in it knows that it was
        // told as asleep, and will be woken below.
        self.parts[part].watch.store(step * 2 + 2, Ordering::SeqCst);
        let told_before = !self.settle(part, step, String::new(), ns);
        if told_before {
            // Nobody looks at a teardown that was told as asleep; now there is more to see.
            lock(&self.ends).moved = true;
            self.bell.notify_all();
        }
    }

    /// Where a part stands that did not end.
    pub fn stuck(&self, part: usize, task: &Task) -> Stuck {
        Stuck {
            actor: self.name(part).to_owned(),
            step: self.step(part),
            state: task.state(),
            stack: task.stack(),
        }
    }

    /// What came of it.
    pub fn report(
        &self,
        acted: bool,
        stuck: Vec<Stuck>,
        seen: Result<(Vec<GateReport>, Vec<Pass>), String>,
    ) -> EpisodeReport {
        let ungated = seen.as_ref().err().cloned();
        let (mut gates, passes) = seen.unwrap_or_default();
        for gate in &mut gates {
            gate.waited = in_vain(&self.episode, &gate.tag, |part, step| {
                let outcomes = lock(&self.parts[part].outcomes);
                outcomes.get(step).is_some_and(|outcome| outcome.ret < 0)
            });
        }
        let outcomes = |part: usize| std::mem::take(&mut *lock(&self.parts[part].outcomes));
        let actors = self.episode.actors.iter().enumerate().filter(|_| acted);
        let tallies = self
            .parts
            .iter()
            .map(|part| std::mem::take(&mut *lock(&part.tallies)));
        EpisodeReport {
            id: self.episode.id,
            before: outcomes(self.before()),
            actors: actors
                .map(|(part, actor)| ActorReport {
                    name: actor.name.clone(),
                    outcomes: outcomes(part),
                    rounds: self.parts[part].rounds.load(Ordering::Relaxed),
                })
                .collect(),
            after: outcomes(self.after()),
            tallies: tally::sum(&self.scene.paths, tallies.collect()),
            inside: self.inside(),
            stuck,
            ungated,
            gates,
            passes,
        }
    }

    fn inside(&self) -> Vec<Inside> {
        let notes = self.stage.notes().into_iter();
        notes
            .map(|note| Inside {
                teardown: self.name(note.teardown).to_owned(),
                step: note.step,
                actor: self.name(note.actor).to_owned(),
                op: note.op.name().to_owned(),
                path: self.scene.paths.name(note.path).to_owned(),
                ret: note.ret,
            })
            .collect()
    }
}

/// A part as a worker's job.
#[derive(Debug)]
pub struct PartJob {
    /// The episode.
    pub run: Arc<Run>,
    /// Which part of it.
    pub part: usize,
}

impl Job for PartJob {
    fn run(&mut self, buf: &mut Vec<u8>) {
        let run = &self.run;
        run.play(self.part, buf);
        // The last one to end lets the loops go, at once.
        if let Some(actor) = run.episode.actors.get(self.part) {
            if run.whom(self.part) == For::Once {
                run.scene.once_ended();
            }
            if !run.episode.gates.is_empty() {
                run.scene.actor_ended(&actor.name);
            }
        }
    }

    fn ended(&mut self) {
        let run = &self.run;
        run.parts[self.part].ended.store(true, Ordering::Release);
        let mut ends = lock(&run.ends);
        // A part that was given up ends in a phase that doesn't count it.
        ends.left = ends.left.saturating_sub(1);
        if ends.left == 0 {
            run.bell.notify_all();
        }
    }
}
