//! Points: the calls at which an actor can be held, as a dry run found them.
//!
//! Which functions an actor passes depends on driver and kernel, so nobody lists them: a *survey*
//! runs a [`Program`] once, its actors one after the other, and the guest notes who passes which
//! of the candidate functions. Placed episodes take the points in turns. Candidates are what the driver's modules call (their symbol tables
//! say so), the modules' own functions where they can be hooked, and [`GENERIC`].

use std::collections::BTreeMap;

use knobrig_proto::{End, Pass, Who};
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use super::Shape;
use crate::target::{Chosen, Elsewhere};

/// What actors do in an episode whose points are surveyed, and then gated.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Program {
    /// Ops of a knob, and the teardown.
    Ops(String),
    /// Ops of a knob, and the end of the binding.
    Unbind(String),
    /// The teardown waits for a reference that somebody else gives back.
    Elsewhere,
}

impl Program {
    /// All that a target has.
    pub fn all(target: &Chosen) -> Vec<Self> {
        let knobs = || target.knobs().map(|knob| knob.name.clone());
        let mut all: Vec<_> = knobs().map(Self::Ops).collect();
        if target.target.unbind.is_some() {
            all.extend(knobs().map(Self::Unbind));
        }
        let waits = matches!(target.lifetime.elsewhere, Some(Elsewhere::Waits));
        if waits && target.target.elsewhere.is_some() {
            all.push(Self::Elsewhere);
        }
        all
    }
}

/// Functions of the kernel on the ways of opens, reads, closes and teardowns of any driver: where
/// files are looked up, opened, read, drained and closed, objects counted and released, modules
/// counted and freed, threads woken, memory freed. A module's symbol table has those that it
/// calls; these are called for it.
const GENERIC: &[&str] = &[
    "__fput",
    "__kernfs_remove",
    "__wake_up",
    "bus_remove_driver",
    "cancel_work_sync",
    "cdev_default_release",
    "cdev_del",
    "cdev_put",
    "chrdev_open",
    "complete",
    "complete_all",
    "device_del",
    "device_release",
    "device_release_driver_internal",
    "devtmpfs_delete_node",
    "do_dentry_open",
    "driver_detach",
    "free_irq",
    "free_module",
    "ftrace_release_mod",
    "get_device",
    "kernfs_drain",
    "kernfs_drain_open_files",
    "kernfs_fop_open",
    "kernfs_fop_read_iter",
    "kernfs_fop_release",
    "kernfs_fop_write_iter",
    "kernfs_get_active",
    "kernfs_put_active",
    "kernfs_remove_by_name_ns",
    "kernfs_unlink_open_file",
    "kfree",
    "kvfree",
    "mod_sysfs_teardown",
    "module_put",
    "msleep",
    "mutex_lock",
    "mutex_unlock",
    "pci_device_remove",
    "put_device",
    "schedule_timeout",
    "simple_attr_write",
    "synchronize_rcu",
    "synchronize_rcu_tasks",
    "sysfs_kf_seq_show",
    "sysfs_kf_write",
    "try_module_get",
    "try_stop_module",
    "unbind_store",
    "usleep_range_state",
    "vfs_read",
    "vfs_write",
    "wait_for_completion",
    "wake_up_var",
];

/// Functions that the guest's gates themselves rest on.
const NEVER: &[&str] = &["ktime_get_mono_fast_ns", "preempt_schedule"];

/// A call that can be held.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spot {
    /// The function.
    pub function: String,
    /// Who calls.
    pub who: Who,
    /// With a module under test among the callers.
    pub own: bool,
    /// Which of those calls, from 1.
    pub occurrence: u32,
}

/// The points that are known.
#[derive(Clone, Debug, Default)]
pub struct Points {
    candidates: Vec<String>,
    programs: BTreeMap<Program, Known>,
    /// How many episodes of each shape were chosen.
    chosen: BTreeMap<Shape, u64>,
    vcpus: bool,
    /// The longest that a step of a teardown took in a survey, where nobody is held.
    slowest_ms: u64,
}

/// Whoever is held waits for the other side to come through: on a quiet machine that takes
/// milliseconds, and a teardown that waits for who is held waits as long as that.
const HOLD_MS: u64 = 400;
/// So many times what a teardown took undisturbed; the guest's load changes.
const SLOWER: u64 = 8;
/// Less than any sane driver waits for its device.
const LONGEST_HOLD_MS: u64 = 2_000;

/// What is known of a program.
#[derive(Clone, Debug, Default)]
struct Known {
    spots: Vec<Spot>,
    /// Turns taken.
    turns: usize,
}

/// One thing to place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Held<'a> {
    pub(super) spot: &'a Spot,
    pub(super) end: End,
    /// Which time it comes, from 0.
    pub(super) round: usize,
}

impl Points {
    /// None found yet, to be looked for among what the driver's modules call and the generic ones.
    pub fn among(called: impl IntoIterator<Item = String>) -> Self {
        let generic = GENERIC.iter().map(|name| (*name).to_owned());
        let mut candidates: Vec<_> = called
            .into_iter()
            .chain(generic)
            .filter(|name| !NEVER.contains(&name.as_str()))
            // Rust code of the kernel can't be hooked.
            .filter(|name| !name.starts_with("_R"))
            .collect();
        candidates.sort();
        candidates.dedup();
        Self {
            candidates,
            programs: BTreeMap::new(),
            chosen: BTreeMap::new(),
            vcpus: false,
            slowest_ms: 0,
        }
    }

    /// The same, where vCPUs can be delayed at instructions (or not).
    #[must_use]
    pub fn with_vcpus(self, vcpus: bool) -> Self {
        Self { vcpus, ..self }
    }

    /// The next episode is of this shape.
    pub fn chose(&mut self, shape: Shape) {
        *self.chosen.entry(shape).or_default() += 1;
    }

    /// How many of a shape there were, with the one that is planned; `None` where nobody counts.
    pub(super) fn turn(&self, shape: Shape) -> Option<u64> {
        self.chosen.get(&shape).copied()
    }

    /// A teardown's step took so long in a survey.
    pub fn teardown_took(&mut self, ms: u64) {
        self.slowest_ms = self.slowest_ms.max(ms);
    }

    /// How long somebody is held for the other side to come through.
    pub(super) fn hold_ms(&self) -> u64 {
        (self.slowest_ms * SLOWER).clamp(HOLD_MS, LONGEST_HOLD_MS)
    }

    /// Whether vCPUs can be delayed.
    pub fn vcpus(&self) -> bool {
        self.vcpus
    }

    /// Functions that can be points. None where the guest has no function gates.
    pub fn candidates(&self) -> &[String] {
        &self.candidates
    }

    /// The points of a program, as they were passed; `None` where it was not surveyed.
    pub fn of(&self, program: &Program) -> Option<&[Spot]> {
        self.programs.get(program).map(|known| &*known.spots)
    }

    /// A program that was surveyed, and none of its points has had its turn.
    pub fn fresh(&self) -> Option<&Program> {
        let mut known = self.programs.iter();
        known.find_map(|(program, it)| (it.turns == 0 && !it.spots.is_empty()).then_some(program))
    }

    /// A survey of a program begins. If nothing comes of it, since the driver broke in it, there
    /// is no other.
    pub fn begin(&mut self, program: &Program) {
        self.programs.entry(program.clone()).or_default();
    }

    /// Takes in what a survey of a program saw.
    pub fn surveyed(&mut self, program: &Program, passes: &[Pass]) {
        let mut passes: Vec<_> = passes.iter().collect();
        passes.sort_by_key(|pass| pass.ns);
        let spots = passes
            .into_iter()
            // Somebody else's calls, an interrupt's above all, come when they like.
            .filter(|pass| pass.holdable && pass.who != Who::Anybody)
            .filter(|pass| pass.own || pass.who != Who::Worker)
            .map(|pass| Spot {
                function: pass.function.clone(),
                who: pass.who.clone(),
                own: pass.own,
                occurrence: pass.occurrence,
            });
        let known = Known {
            spots: spots.collect(),
            turns: 0,
        };
        self.programs.insert(program.clone(), known);
    }

    /// The point of a program whose turn it is. The callers come in turns, those with the fewest
    /// points first; of each the calls below the driver come before the others, in an order that
    /// the seed decides, and the return before the entry. So what few pass is not lost among what
    /// many do.
    pub(super) fn next(&self, program: &Program, seed: u64) -> Option<Held<'_>> {
        let known = self.programs.get(program)?;
        let mut callers: BTreeMap<&Who, Vec<&Spot>> = BTreeMap::new();
        for spot in &known.spots {
            callers.entry(&spot.who).or_default().push(spot);
        }
        let mut callers: Vec<_> = callers.into_values().collect();
        callers.sort_by_key(Vec::len);
        let count = callers.len();
        let turn = known.turns.checked_div(count)?;
        let caller = callers.get_mut(known.turns % count)?;
        caller.shuffle(&mut ChaCha8Rng::seed_from_u64(seed));
        caller.sort_by_key(|spot| !spot.own);
        let spot = caller.get(turn / 2 % caller.len())?;
        Some(Held {
            spot,
            end: match turn % 2 {
                0 => End::Return,
                _ => End::Entry,
            },
            round: turn / 2 / caller.len(),
        })
    }

    /// A turn was taken.
    pub fn took(&mut self, program: &Program) {
        if let Some(known) = self.programs.get_mut(program) {
            known.turns += 1;
        }
    }
}

/// Every program of a target, with a point for each who can be held.
#[cfg(test)]
pub(crate) fn sample(target: &Chosen) -> Points {
    let mut points = Points::among([]);
    for program in Program::all(target) {
        let names = match program {
            Program::Ops(_) => ["user", "rmmod"],
            Program::Unbind(_) => ["user", "unbind"],
            Program::Elsewhere => ["giver", "rmmod"],
        };
        let whos = names.map(|name| Who::Actor(name.into()));
        let pass = |who| Pass {
            function: "mutex_lock".into(),
            who,
            own: true,
            occurrence: 1,
            holdable: true,
            ns: 1,
        };
        let mut passes: Vec<_> = whos.into_iter().map(pass).collect();
        if program != Program::Elsewhere {
            passes.push(pass(Who::Worker));
        }
        points.surveyed(&program, &passes);
    }
    points
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pass(function: &str, who: Who, own: bool, holdable: bool) -> Pass {
        Pass {
            function: function.into(),
            who,
            own,
            occurrence: 1,
            holdable,
            ns: 1,
        }
    }

    #[test]
    fn who_is_held_is_held_for_longer_where_teardowns_take_long() {
        let mut points = Points::default();
        assert_eq!(points.hold_ms(), HOLD_MS);
        points.teardown_took(120);
        points.teardown_took(10);
        assert_eq!(points.hold_ms(), 960);
        points.teardown_took(9_000);
        assert_eq!(points.hold_ms(), LONGEST_HOLD_MS);
    }

    #[test]
    fn candidates_are_what_can_be_hooked_each_once() {
        let called = ["kfree", "_RNvCsx_4core", "ktime_get_mono_fast_ns", "m:show"];
        let points = Points::among(called.map(str::to_owned));
        let count = |name: &str| points.candidates().iter().filter(|it| *it == name).count();
        assert_eq!(count("kfree"), 1);
        assert_eq!(count("m:show"), 1);
        assert_eq!(count("_RNvCsx_4core"), 0);
        assert_eq!(count("ktime_get_mono_fast_ns"), 0);
    }

    #[test]
    fn every_point_comes_before_one_comes_again_and_rare_callers_come_first() {
        let program = Program::Elsewhere;
        let mut points = Points::default();
        let actor = |name: &str| Who::Actor(name.into());
        points.surveyed(
            &program,
            &[
                pass("a", actor("rmmod"), false, true),
                pass("b", actor("rmmod"), true, true),
                pass("c", actor("giver"), true, true),
            ],
        );
        let mut seen = Vec::new();
        for _ in 0..8 {
            let turn = points.next(&program, 7).expect("there is one");
            seen.push((turn.spot.function.clone(), turn.end, turn.round));
            points.took(&program);
        }
        let is = |at: usize, function: &str, end: End, round: usize| {
            assert_eq!(seen[at], (function.to_owned(), end, round), "{seen:?}");
        };
        is(0, "c", End::Return, 0);
        is(1, "b", End::Return, 0);
        is(2, "c", End::Entry, 0);
        is(3, "b", End::Entry, 0);
        is(4, "c", End::Return, 1);
        is(5, "a", End::Return, 0);
        is(7, "a", End::Entry, 0);
    }

    #[test]
    fn a_point_is_an_actor_s_or_the_driver_s_worker_s() {
        let program = Program::Elsewhere;
        let mut points = Points::default();
        assert_eq!(points.of(&program), None);
        points.begin(&program);
        assert_eq!(points.of(&program), Some(&[][..]));
        let rmmod = || Who::Actor("rmmod".into());
        points.surveyed(
            &program,
            &[
                pass("kernfs_drain", rmmod(), false, true),
                pass("mutex_lock", rmmod(), false, false),
                pass("msleep", Who::Worker, true, true),
                pass("kfree", Who::Worker, false, true),
                pass("__wake_up", Who::Anybody, true, true),
            ],
        );
        let spots = points.of(&program).expect("surveyed");
        let names: Vec<_> = spots.iter().map(|spot| spot.function.as_str()).collect();
        assert_eq!(names, ["kernfs_drain", "msleep"]);
    }
}
