//! What replays a finding: its episode as data, and what that ran on.

use serde::{Deserialize, Serialize};

use super::finding::{Finding, Setting};
use super::plan::Plan;

/// Version of reproducer.json.
pub const VERSION: u32 = 1;
/// Its name, beside finding.json.
pub const FILE: &str = "reproducer.json";

/// An episode that shows a failure, and all that `knobrig repro` needs to run it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Reproducer {
    /// [`VERSION`].
    pub version: u32,
    /// The failure's title.
    pub title: String,
    /// The failure's key: by it the failure is known when it shows again.
    pub key: String,
    /// Target, lifetime, mutant, kernel, guest.
    pub setting: Setting,
    /// Actors, ops, gates, checks.
    pub episode: Plan,
}

impl Reproducer {
    /// That of a finding; none where it was met before an episode ran.
    pub fn of(finding: &Finding) -> Option<Self> {
        let mut episode = finding.episode.clone()?;
        if let Some(record) = &finding.record {
            episode.episode.rests.clone_from(&record.asleep);
        }
        Some(Self {
            version: VERSION,
            title: finding.title.clone(),
            key: finding.key.clone(),
            setting: finding.setting.clone(),
            episode,
        })
    }
}
