//! What replays a finding: its episode as data, and what that ran on.

use knobrig_proto::Rest;
use serde::{Deserialize, Serialize};

use super::finding::{Finding, Setting};
use super::plan::{Plan, When};

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
            episode.episode.rests = rests(&episode, &record.asleep);
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

/// Where teardowns came to rest: those that were seen asleep, and nowhere those that something
/// follows from and that were not. In a replay one of these may sleep a while on its way; what follows
/// is to wait for its end, as it did.
fn rests(plan: &Plan, asleep: &[Rest]) -> Vec<Rest> {
    let mut rests = asleep.to_vec();
    for reaction in &plan.reactions {
        let When::Settled(actor, step) = &reaction.when else {
            continue;
        };
        if !(rests.iter()).any(|rest| rest.actor == *actor && rest.step == *step) {
            rests.push(Rest {
                actor: actor.clone(),
                step: *step,
                place: String::new(),
            });
        }
    }
    rests
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::judge::plan::{Points, Shape, plan};
    use crate::target::Chosen;

    #[test]
    fn a_teardown_that_was_not_seen_asleep_rests_nowhere() {
        let target = Chosen::find("mydrv", Some("exit-waits"), None).expect("built in");
        let plan = plan(&target, &Points::default(), 1, 1, &[Shape::Elsewhere]);
        let nowhere = rests(&plan, &[]);
        let [rest] = nowhere.as_slice() else {
            panic!("one teardown is waited for: {nowhere:?}");
        };
        assert_eq!(rest.place, "");
        let drained = Rest {
            place: "kernfs_drain".into(),
            ..rest.clone()
        };
        let seen = [drained];
        assert_eq!(rests(&plan, &seen), seen);
    }
}
