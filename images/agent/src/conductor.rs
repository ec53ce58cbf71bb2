//! Runs episodes, one after another: hires their threads, watches them, reports.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use knobrig_proto::{Episode, EpisodeReport, FromGuest, GateReport, Pass, Stuck};

use crate::clock::now_ns;
use crate::gates::{Armed, Gates};
use crate::monitor::{LOOK_EVERY, Monitor};
use crate::outbox::Outbox;
use crate::pool::{Pool, Worker};
use crate::run::{PartJob, Run};
use crate::scene::For;

/// After the deadline healthy threads (loops above all, which only wait for the stuck ones) have
/// so long to notice it. They look between steps, so that microseconds do on an idle machine.
const GRACE: Duration = Duration::from_millis(200);

/// An episode that could not be run.
#[derive(Debug, thiserror::Error)]
#[error(
    "episode {episode}: failed to start a thread for {part}: {why}; use fewer actors or a \
         guest with more memory"
)]
pub struct ConductError {
    episode: u64,
    part: String,
    why: std::io::Error,
}

/// Runs episodes, one after another.
#[derive(Debug)]
pub struct Conductor<'a> {
    pool: &'a Arc<Pool>,
    outbox: &'a Arc<Outbox>,
    /// Opened when first asked for.
    gates: Option<Gates>,
    /// Actors have started before.
    acted: bool,
}

/// What came of an episode's function gates and its survey, or why there were none.
type Seen = Result<(Vec<GateReport>, Vec<Pass>), String>;

impl<'a> Conductor<'a> {
    /// One that has run nothing.
    pub fn new(pool: &'a Arc<Pool>, outbox: &'a Arc<Outbox>) -> Self {
        Self {
            pool,
            outbox,
            gates: None,
            acted: false,
        }
    }

    /// Runs an episode from its first step to its report.
    ///
    /// # Errors
    /// When a thread can't be started.
    pub fn conduct(&mut self, run: &Arc<Run>) -> Result<EpisodeReport, ConductError> {
        let pool = self.pool;
        let mut stuck = Vec::new();
        let mut seen = Ok(Default::default());
        let actors = run.episode.actors.len();
        let gated = !run.episode.gates.is_empty() || !run.episode.survey.is_empty();
        if let Some(Err(why)) = self.gates.as_ref().map(Gates::tidy) {
            self.outbox.fault(why);
        }
        let opened = match gated {
            true => self.open(&run.episode),
            false => Ok(()),
        };
        if !run.episode.before.is_empty() {
            stuck.extend(phase(run, hire(pool, run, run.before()..run.before() + 1)?));
        }
        let acted = stuck.is_empty() && !run.failed(run.before());
        if acted && actors > 0 {
            let hired = hire(pool, run, 0..actors)?;
            if !std::mem::replace(&mut self.acted, true) {
                self.outbox.send(&FromGuest::Acting { ns: now_ns() });
            }
            if run.episode.threads {
                self.tell_threads(run, &hired);
            }
            if gated && opened.is_ok() {
                seen = self.gated(run, hired, &mut stuck);
            } else {
                stuck.extend(phase(run, hired));
            }
        }
        // Where somebody is stuck this guest has no other episode, and what comes after may only be stuck
        // behind him.
        if stuck.is_empty() && (!run.episode.after.is_empty() || run.scene.slots.any_open()) {
            stuck.extend(phase(run, hire(pool, run, run.after()..run.after() + 1)?));
        }
        Ok(run.report(acted, stuck, opened.and(seen)))
    }

    fn tell_threads(&self, run: &Run, hired: &Hired) {
        let names = run.episode.actors.iter().map(|actor| actor.name.clone());
        let bases = hired.iter().map(|(_, worker)| worker.task.base());
        self.outbox.send(&FromGuest::Threads {
            episode: run.episode.id,
            bases: names.zip(bases).collect(),
        });
    }

    /// Runs the actors with gates armed, or a survey. Where that fails they run without, and the
    /// report says why.
    fn gated(&mut self, run: &Arc<Run>, hired: Hired, stuck: &mut Vec<Stuck>) -> Seen {
        let names = run.episode.actors.iter().map(|actor| actor.name.clone());
        let tids = hired.iter().map(|(_, worker)| worker.task.tid());
        let tids = names.zip(tids).collect();
        let armed = self.arm(run, &tids);
        stuck.extend(phase(run, hired));
        armed.and_then(|(armed, not)| match &mut self.gates {
            Some(gates) => gates.disarm(&run.episode, &armed, &not, &tids),
            None => Err("its device is closed".to_owned()),
        })
    }

    /// Before anything of the episode: the modules under test are about to be loaded.
    fn open(&mut self, episode: &Episode) -> Result<(), String> {
        let gates = match &mut self.gates {
            Some(gates) => gates,
            none => none.insert(Gates::open(self.outbox)?),
        };
        gates.name_modules(episode)
    }

    fn arm(
        &mut self,
        run: &Arc<Run>,
        tids: &BTreeMap<String, i32>,
    ) -> Result<(Armed, HashMap<String, String>), String> {
        let Some(gates) = &mut self.gates else {
            return Err("its device is closed".to_owned());
        };
        let (armed, not) = gates.arm(run, tids)?;
        let releaser = gates.releaser().map_err(|why| why.to_string())?;
        run.scene.gates_armed(armed.clone(), releaser);
        Ok((armed, not))
    }
}

/// Threads that wait for their parts.
type Hired = Vec<(usize, Worker)>;

/// Hires threads for some parts. All of them before the first starts: actors wait for each other.
fn hire(pool: &Arc<Pool>, run: &Run, parts: Range<usize>) -> Result<Hired, ConductError> {
    parts
        .map(|part| {
            let actor = run.episode.actors.get(part);
            let cpu = actor.map(|actor| actor.cpu);
            let priority = actor.map(|actor| actor.priority).unwrap_or_default();
            let hired = pool.hire(run.name(part), cpu, priority);
            let failed = |why| ConductError {
                episode: run.episode.id,
                part: run.name(part).to_owned(),
                why,
            };
            Ok((part, hired.map_err(failed)?))
        })
        .collect()
}

/// Runs some parts side by side, until all have ended or the deadline; then tells who is stuck.
fn phase(run: &Arc<Run>, hired: Hired) -> Vec<Stuck> {
    let parts: Vec<_> = hired
        .iter()
        .map(|(part, worker)| (*part, Arc::clone(&worker.task)))
        .collect();

    let begun = Instant::now();
    let deadline = Duration::from_millis(run.episode.deadline_ms);
    run.begin(parts.len());
    for (part, worker) in hired {
        worker.start(Box::new(PartJob {
            run: Arc::clone(run),
            part,
        }));
    }
    let mut monitor = Monitor::new(run, &parts);
    loop {
        let watching = monitor.look(run);
        let left = deadline.saturating_sub(begun.elapsed());
        let calls_left = run.calls_left(parts.iter().map(|(part, _)| *part));
        let left = left.min(calls_left.unwrap_or(left));
        if run.await_ends(if watching { left.min(LOOK_EVERY) } else { left }) {
            return Vec::new();
        }
        if left.is_zero() {
            break;
        }
    }

    let stuck_of = |loops: bool| {
        parts
            .iter()
            .filter(|(part, _)| (run.whom(*part) == For::Loop) == loops && !run.has_ended(*part))
            .map(|(part, task)| run.stuck(*part, task))
            .collect::<Vec<_>>()
    };
    // Before they are told to stop: what they stand in is the evidence.
    let mut stuck = stuck_of(false);
    if let Some((first, _)) = parts.first() {
        run.scene.abandon(run.whom(*first));
    }
    let told = Instant::now();
    while !run.await_ends(GRACE.saturating_sub(told.elapsed())) && told.elapsed() < GRACE {}
    stuck.extend(stuck_of(true));
    stuck
}

#[cfg(test)]
mod tests {
    use super::*;
    use knobrig_proto::{Actor, Priority, Repeat, Step};

    fn sleeper(name: &str, teardown: bool, us: u32) -> Actor {
        Actor {
            name: name.into(),
            cpu: 0,
            priority: Priority::Usual,
            teardown,
            steps: vec![Step::Nap { us }],
            repeat: Repeat::Once,
            missed_pause_us: 0,
            lag_ms: 0,
        }
    }

    /// The actors that are told as stuck, and how many of the steps after them were run.
    fn stuck(actors: Vec<Actor>, call_deadline_ms: Option<u64>) -> (Vec<String>, usize) {
        let episode = Episode {
            id: 1,
            before: Vec::new(),
            actors,
            after: vec![Step::Nap { us: 1 }],
            deadline_ms: 600_000,
            call_deadline_ms,
            under_test: Vec::new(),
            gates: Vec::new(),
            survey: Vec::new(),
            rests: Vec::new(),
            threads: false,
        };
        let outbox = Arc::new(Outbox::default());
        let pool = Pool::new().expect("the CPUs are known");
        let run = Arc::new(Run::new(episode, Arc::clone(&outbox)));
        let report = Conductor::new(&pool, &outbox).conduct(&run);
        let report = report.expect("threads start");
        let stuck = report.stuck.into_iter().map(|it| it.actor).collect();
        (stuck, report.after.len())
    }

    #[test]
    fn a_call_of_a_teardown_has_a_deadline_of_its_own() {
        let hour = 3_600_000_000;
        let moment = 20_000;
        let down = stuck(vec![sleeper("down", true, hour)], Some(10));
        assert_eq!(down, (vec!["down".to_owned()], 0));
        // An op may take its time.
        let op = stuck(vec![sleeper("op", false, moment)], Some(10));
        assert_eq!(op, (Vec::new(), 1));
    }
}
