//! Runs episodes, one after another: hires their threads, watches them, reports.

use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use knobrig_proto::{EpisodeReport, Stuck};

use crate::monitor::{LOOK_EVERY, Monitor};
use crate::pool::Pool;
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

/// Runs an episode from its first step to its report.
///
/// # Errors
/// When a thread can't be started.
pub fn conduct(pool: &Arc<Pool>, run: &Arc<Run>) -> Result<EpisodeReport, ConductError> {
    let mut stuck = Vec::new();
    let actors = run.episode.actors.len();
    if !run.episode.before.is_empty() {
        stuck.extend(phase(pool, run, run.before()..run.before() + 1)?);
    }
    let acted = stuck.is_empty() && !run.failed(run.before());
    if acted && actors > 0 {
        stuck.extend(phase(pool, run, 0..actors)?);
    }
    if !run.episode.after.is_empty() || run.scene.slots.any_open() {
        stuck.extend(phase(pool, run, run.after()..run.after() + 1)?);
    }
    Ok(run.report(acted, stuck))
}

/// Runs some parts side by side, until all have ended or the deadline; then tells who is stuck.
fn phase(
    pool: &Arc<Pool>,
    run: &Arc<Run>,
    parts: Range<usize>,
) -> Result<Vec<Stuck>, ConductError> {
    // All are hired before the first starts: actors wait for each other.
    let workers = parts.clone().map(|part| {
        let cpu = run.episode.actors.get(part).map(|actor| actor.cpu);
        pool.hire(run.name(part), cpu).map_err(|why| ConductError {
            episode: run.episode.id,
            part: run.name(part).to_owned(),
            why,
        })
    });
    let workers = workers.collect::<Result<Vec<_>, _>>()?;
    let tasks: Vec<_> = workers
        .iter()
        .map(|worker| Arc::clone(&worker.task))
        .collect();

    let begun = Instant::now();
    let deadline = Duration::from_millis(run.episode.deadline_ms);
    run.begin(parts.len());
    for (part, worker) in parts.clone().zip(workers) {
        worker.start(Box::new(PartJob {
            run: Arc::clone(run),
            part,
        }));
    }
    let mut monitor = Monitor::new(tasks.clone());
    loop {
        let watching = monitor.look(run);
        let left = deadline.saturating_sub(begun.elapsed());
        if run.await_ends(if watching { left.min(LOOK_EVERY) } else { left }) {
            return Ok(Vec::new());
        }
        if left.is_zero() {
            break;
        }
    }

    let stuck_of = |loops: bool| {
        parts
            .clone()
            .zip(&tasks)
            .filter(|&(part, _)| (run.whom(part) == For::Loop) == loops && !run.has_ended(part))
            .map(|(part, task)| run.stuck(part, task))
            .collect::<Vec<_>>()
    };
    // Before they are told to stop: what they stand in is the evidence.
    let mut stuck = stuck_of(false);
    run.scene.abandon(run.whom(parts.start));
    let told = Instant::now();
    while !run.await_ends(GRACE.saturating_sub(told.elapsed())) && told.elapsed() < GRACE {}
    stuck.extend(stuck_of(true));
    Ok(stuck)
}
