//! What a run came to: the totals, and the verdict that follows from them.

use std::collections::BTreeMap;

use knobrig_proto::GateReport;
use serde::{Deserialize, Serialize};

use super::finding::Name;
use super::oracle::Collisions;
use super::plan::Rule;
use crate::exit::Exit;
use crate::schedule::exhaust::Counts;
use crate::schedule::pct::Promise;

/// Version of summary.json.
pub const VERSION: u32 = 1;

/// Totals of the episodes of one kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    /// Episodes.
    pub episodes: u64,
    /// Episodes in which the device held an op inside the driver.
    pub held: u64,
    /// Sums over them.
    #[serde(flatten)]
    pub collisions: Collisions,
}

impl Totals {
    fn add(&mut self, held: bool, one: Collisions) {
        self.episodes += 1;
        self.held += u64::from(held);
        self.collisions.teardowns_ok += one.teardowns_ok;
        self.collisions.teardowns_refused += one.teardowns_refused;
        self.collisions.overlapped += one.overlapped;
        self.collisions.ops += one.ops;
        self.collisions.ops_failed += one.ops_failed;
    }

    /// Teardowns that began while at least one op was inside the driver, over all teardowns.
    pub fn overlap_ratio(&self) -> Option<f64> {
        let teardowns = self.collisions.teardowns_ok + self.collisions.teardowns_refused;
        (teardowns > 0).then(|| self.collisions.overlapped as f64 / teardowns as f64)
    }
}

/// Gates in functions of the guest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Points {
    /// Armed.
    pub armed: u64,
    /// Of these, held somebody. The others' orders couldn't be: their point never came.
    pub reached: u64,
}

/// Episodes with orders that probabilistic concurrency testing chose, of one promise.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Pct {
    /// n, k and d.
    #[serde(flatten)]
    pub promise: Promise,
    /// The probability with which each hits a bug of depth d, at least.
    pub bound: f64,
    /// How many there were.
    pub episodes: u64,
}

/// An exploration: every order of a program's points within a bound.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explored {
    /// What its actors do.
    pub program: String,
    /// The most switches from an actor that could go on.
    pub bound: u32,
    /// Points of each actor.
    pub points: Vec<usize>,
    /// How far it is.
    #[serde(flatten)]
    pub counts: Counts,
    /// What could not be, in words, and in how many orders.
    pub infeasible: BTreeMap<String, u64>,
}

impl Explored {
    /// Whether it is known of every schedule what comes of it.
    pub fn is_whole(&self) -> bool {
        self.counts.schedules > 0
            && self.counts.done == self.counts.schedules
            && self.counts.undecided == 0
    }
}

/// A finding's line in the summary.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FindingLine {
    /// Its number, its directory's name.
    pub number: usize,
    /// Its title.
    pub title: String,
    /// What equal failures share.
    pub key: String,
    /// Times met.
    pub count: u64,
    /// Milliseconds of the guest's time from its first episode to the finding.
    pub guest_ms: u64,
    /// The episode that it was first met in.
    pub episode: Option<u64>,
    /// The oracles that spoke.
    pub oracles: Vec<String>,
}

impl FindingLine {
    /// What it is known by.
    pub fn name(&self) -> Name {
        Name {
            title: self.title.clone(),
            key: self.key.clone(),
        }
    }
}

/// What a run came to.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// [`VERSION`].
    pub version: u32,
    /// Target, lifetime and mutant in one phrase.
    pub title: String,
    /// The seed.
    pub seed: u64,
    /// Wall time from the command's start to its end, in milliseconds.
    pub wall_ms: u64,
    /// Of that, what came before the first guest: packages, kernel, modules.
    #[serde(default)]
    pub set_up_ms: u64,
    /// Wall time in which guests ran episodes, in milliseconds.
    pub episodes_ms: u64,
    /// Wall time from the start of the first guest to the end of its first episode, in milliseconds.
    pub first_episode_ms: Option<u64>,
    /// The guest's time from its first episode's beginning to the start of that one's actors: what
    /// they need is loaded and made. Of the first guest, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_acting_ms: Option<u64>,
    /// Guests booted.
    pub guests: u64,
    /// Guests given up since their boot was not clean; none of it counts.
    pub unfit_boots: u64,
    /// Guests lost without a report.
    pub lost: u64,
    /// Why the last of them was lost.
    pub lost_why: Option<String>,
    /// Guests given up since the device program died under them; what their last ops came to
    /// says nothing of the driver.
    pub device_deaths: u64,
    /// Guests given up since the emulator ran code that memory doesn't hold; no driver's doing.
    #[serde(default)]
    pub emulator_faults: u64,
    /// Episodes with a gate.
    pub gated: Totals,
    /// Episodes without one.
    pub ungated: Totals,
    /// Gates in functions.
    #[serde(default)]
    pub points: Points,
    /// Orders that probabilistic concurrency testing chose.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pct: Vec<Pct>,
    /// How far an exploration is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub explored: Option<Explored>,
    /// How often each rule was seen to hold.
    pub rules: BTreeMap<Rule, u64>,
    /// Deduplicated findings.
    pub findings: Vec<FindingLine>,
    /// The run was stopped by a signal.
    pub interrupted: bool,
}

impl Summary {
    /// Counts an episode in. `gated` says whether it has a gate, `held` whether the device held
    /// an op in it.
    pub fn add(&mut self, gated: bool, held: bool, collisions: Collisions) {
        match gated {
            true => self.gated.add(held, collisions),
            false => self.ungated.add(held, collisions),
        }
    }

    /// Counts an episode in whose order was chosen with this promise.
    pub fn add_pct(&mut self, promise: Promise) {
        match self.pct.iter_mut().find(|it| it.promise == promise) {
            Some(it) => it.episodes += 1,
            None => self.pct.push(Pct {
                promise,
                bound: promise.bound(),
                episodes: 1,
            }),
        }
    }

    /// Counts an episode's function gates in.
    pub fn add_gates(&mut self, gates: &[GateReport]) {
        self.points.armed += gates.len() as u64;
        let reached = gates.iter().filter(|gate| gate.hold.is_some());
        self.points.reached += reached.count() as u64;
    }

    /// Counts rules that were seen to hold.
    pub fn add_rules(&mut self, held: &BTreeMap<Rule, u64>) {
        for (rule, count) in held {
            *self.rules.entry(*rule).or_default() += count;
        }
    }

    /// Episodes of both kinds.
    pub fn episodes(&self) -> u64 {
        self.gated.episodes + self.ungated.episodes
    }

    /// Episodes a second while guests ran them.
    pub fn rate(&self) -> f64 {
        self.episodes() as f64 * 1000.0 / self.episodes_ms.max(1) as f64
    }

    /// The verdict. Findings outweigh a lost guest, and nothing is clean that did not run.
    pub fn exit(&self) -> Exit {
        if !self.findings.is_empty() {
            Exit::Findings
        } else if self.interrupted {
            Exit::Interrupted
        } else if self.lost > 0
            || self.episodes() == 0
            || self.explored.as_ref().is_some_and(|it| !it.is_whole())
        {
            Exit::Rig
        } else {
            Exit::Clean
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ran(episodes: u64) -> Summary {
        let mut summary = Summary::default();
        for _ in 0..episodes {
            summary.add(
                true,
                true,
                Collisions {
                    teardowns_ok: 1,
                    ..Default::default()
                },
            );
        }
        summary
    }

    #[test]
    fn nothing_is_clean_that_did_not_run() {
        assert_eq!(ran(0).exit(), Exit::Rig);
        assert_eq!(ran(1).exit(), Exit::Clean);
    }

    #[test]
    fn a_lost_guest_is_not_clean_and_a_finding_outweighs_it() {
        let mut summary = ran(5);
        summary.lost = 1;
        assert_eq!(summary.exit(), Exit::Rig);
        summary.findings.push(FindingLine {
            number: 1,
            title: "t".into(),
            key: "k".into(),
            count: 1,
            guest_ms: 1,
            episode: Some(1),
            oracles: vec!["kernel".into()],
        });
        assert_eq!(summary.exit(), Exit::Findings);
    }

    #[test]
    fn nothing_is_clean_that_was_not_explored_to_its_end() {
        let mut summary = ran(5);
        let mut explored = Explored {
            counts: Counts {
                schedules: 9,
                done: 8,
                ..Counts::default()
            },
            ..Explored::default()
        };
        summary.explored = Some(explored.clone());
        assert_eq!(summary.exit(), Exit::Rig);
        explored.counts.done = 9;
        summary.explored = Some(explored.clone());
        assert_eq!(summary.exit(), Exit::Clean);
        explored.counts.undecided = 1;
        summary.explored = Some(explored);
        assert_eq!(summary.exit(), Exit::Rig);
    }

    #[test]
    fn a_run_without_a_teardown_has_no_ratio() {
        assert_eq!(ran(0).gated.overlap_ratio(), None);
        assert_eq!(ran(2).gated.overlap_ratio(), Some(0.0));
    }
}
