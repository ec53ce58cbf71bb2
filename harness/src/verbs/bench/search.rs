//! One search for a finding: how long, how many episodes. What `bench find` and `bench detect`
//! share.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::super::campaign::{Campaign, Settings};
use super::super::mix::Mix;
use super::super::prepare::Prepared;
use super::super::scratch::Scratch;
use crate::error::Error;
use crate::judge::plan::Shape;
use crate::report::progress::Goal;
use crate::target::Chosen;

/// One search.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Search {
    /// Which.
    pub(super) seed: u64,
    /// Of the guest's time, from its first episode on; the whole budget where nothing was found.
    pub(super) ms: u64,
    /// Of that, what went by before the first episode's actors started.
    pub(super) set_up_ms: u64,
    /// Episodes until then.
    pub(super) episodes: u64,
    /// What was found.
    pub(super) title: Option<String>,
}

impl Search {
    /// Its time without the set-up.
    pub(super) fn racing_ms(&self) -> u64 {
        self.ms.saturating_sub(self.set_up_ms)
    }
}

/// Looks for a finding in a fresh guest, by episodes of these shapes, or of the usual mix.
pub(super) fn search(
    target: &Chosen,
    prepared: &Prepared,
    seed: u64,
    budget: Duration,
    shapes: Vec<Shape>,
) -> Result<Search, Error> {
    let scratch = Scratch::new()?;
    let dir = scratch.run_dir()?;
    let inner = Settings::inner(seed, Goal::Duration(budget), &[]);
    let settings = Settings {
        cpus: target.target.cpus.unwrap_or(inner.cpus),
        ..inner
    };
    let started = std::time::Instant::now();
    let summary = Campaign::new(started, target, prepared, settings, dir)?
        .verdict(&mut Mix::new(target, prepared, seed, shapes))?;
    let found = summary.findings.first();
    let budget_ms = budget.as_millis() as u64;
    Ok(Search {
        seed,
        set_up_ms: summary.first_acting_ms.unwrap_or(0),
        // One that began in time may end after it.
        ms: found.map_or(budget_ms, |it| it.guest_ms.min(budget_ms)),
        episodes: found
            .and_then(|it| it.episode)
            .unwrap_or_else(|| summary.episodes()),
        title: found.map(|it| it.title.clone()),
    })
}
