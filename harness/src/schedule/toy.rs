//! Worlds with known answers, in which strategies are tested without a guest.

use super::{Actor, At, Occurrence, Program, Scheduler};

/// A little concurrent program: what each actor's next point does is known.
pub(super) trait World {
    /// How many points each actor passes.
    fn points(&self) -> Vec<usize>;
    /// Whether an actor may pass its next point, each having passed so many.
    fn may(&self, _passed: &[usize], _actor: Actor) -> bool {
        true
    }
    /// Whether this execution fails.
    fn fails(&self, went: &[Actor]) -> bool;
}

/// Actors A, B, … with so many points each.
pub(super) fn program(points: &[usize]) -> Program {
    let occurrence = |actor: usize, nth: usize| Occurrence {
        actor: char::from(b'A' + actor as u8).to_string(),
        op: Some("op".into()),
        nth: nth as u32 + 1,
        at: At::Begin,
    };
    let actors = points.iter().enumerate();
    Program {
        actors: actors
            .map(|(actor, count)| (0..*count).map(|nth| occurrence(actor, nth)).collect())
            .collect(),
    }
}

/// One execution; nothing if the scheduler has none left. A deadlock ends it.
pub(super) fn run(scheduler: &mut dyn Scheduler, world: &dyn World) -> Option<Vec<Actor>> {
    if !scheduler.begin() {
        return None;
    }
    let points = world.points();
    let mut passed = vec![0; points.len()];
    let mut went = Vec::new();
    loop {
        let runnable: Vec<_> = (0..points.len())
            .filter(|actor| passed[*actor] < points[*actor] && world.may(&passed, *actor))
            .collect();
        if runnable.is_empty() {
            return Some(went);
        }
        let actor = scheduler.next(&runnable, went.last().copied());
        assert!(runnable.contains(&actor));
        passed[actor] += 1;
        went.push(actor);
    }
}

/// Failures in so many executions.
pub(super) fn hits(scheduler: &mut dyn Scheduler, world: &dyn World, times: u32) -> u32 {
    let failed = (0..times).filter(|_| match run(scheduler, world) {
        Some(went) => world.fails(&went),
        None => false,
    });
    failed.count() as u32
}

/// When actor `who` passes its `nth` point (from 0).
fn time_of(went: &[Actor], who: Actor, nth: usize) -> Option<usize> {
    let mut times = went.iter().enumerate().filter(|(_, actor)| **actor == who);
    times.nth(nth).map(|(at, _)| at)
}

/// A loads a pointer and uses it; B frees what it points to. Fails if the free falls between.
pub(super) struct PointerRace {
    before_load: usize,
    before_free: usize,
}

impl PointerRace {
    /// With so many points before the load and before the free.
    pub(super) fn new(before_load: usize, before_free: usize) -> Self {
        Self {
            before_load,
            before_free,
        }
    }
}

impl World for PointerRace {
    fn points(&self) -> Vec<usize> {
        vec![self.before_load + 2, self.before_free + 1]
    }

    fn fails(&self, went: &[Actor]) -> bool {
        let load = time_of(went, 0, self.before_load);
        let used = time_of(went, 0, self.before_load + 1);
        let free = time_of(went, 1, self.before_free);
        load < free && free < used
    }
}

/// B must fall between two points of A, and A's last between two of B: three orders.
pub(super) struct Handshake {
    padding: usize,
}

impl Handshake {
    /// With so many points before.
    pub(super) fn new(padding: usize) -> Self {
        Self { padding }
    }
}

impl World for Handshake {
    fn points(&self) -> Vec<usize> {
        vec![self.padding + 2, self.padding + 2]
    }

    fn fails(&self, went: &[Actor]) -> bool {
        let a = |nth| time_of(went, 0, self.padding + nth);
        let b = |nth| time_of(went, 1, self.padding + nth);
        a(0) < b(0) && b(0) < a(1) && a(1) < b(1)
    }
}

/// Fails if B comes before A has passed any of its many points but A is ready: B, then all of A.
pub(super) struct Starvation {
    points: usize,
}

impl Starvation {
    /// A passes so many points.
    pub(super) fn new(points: usize) -> Self {
        Self { points }
    }
}

impl World for Starvation {
    fn points(&self) -> Vec<usize> {
        vec![self.points, 1]
    }

    /// B comes last of all.
    fn fails(&self, went: &[Actor]) -> bool {
        went.last() == Some(&1)
    }
}

/// Two actors that take two locks in opposite order; fails if both hold one.
pub(super) struct TwoLocks;

impl World for TwoLocks {
    /// Each takes its first, takes its second, gives both back.
    fn points(&self) -> Vec<usize> {
        vec![3, 3]
    }

    fn may(&self, passed: &[usize], actor: Actor) -> bool {
        let other = passed[1 - actor];
        match passed[actor] {
            // The first lock is the other's second, and the second its first.
            0 => other != 2,
            1 => other == 0 || other == 3,
            _ => true,
        }
    }

    fn fails(&self, went: &[Actor]) -> bool {
        went.len() < 6
    }
}
