//! Ordered: a race that blind delays met, as the order of instructions that makes it certain.
//!
//! A finding of delays tells nearly all of it: who touched what was gone, in which function another
//! took it away and behind which call of that function it was gone, and where the one stood still
//! shortly before. What it doesn't tell is which op took it away, and which had put it there. So
//! each pair of ops is tried, the likely before the others:
//!
//! ```text
//! victim#1@m+0x1c -> killer#1@m+0x90      the victim has come to its window; the killer begins
//! killer#1@m+0xc4 -> victim#1@m+0x1c      it is gone; the victim goes on
//! ```
//!
//! Both ends of the window are one instruction: whatever the victim has to do before the killer
//! begins it has done when it comes there, and what comes after waits. With two the victim would
//! still be on its way between them while the killer goes, and how far it gets would be chance.

use std::collections::BTreeSet;

use knobrig_klog::{Frame, Report, Role};
use knobrig_proto::{Actor, Priority, Repeat, Step};

use super::{Place, Plan, Reaction, Shape, Then, When};
use crate::judge::record::Record;
use crate::schedule::{At, Edge, Occurrence, Schedule};

/// Raised when the orders are armed.
const ARMED: &str = "armed";
/// Does what must have been done before.
const FIRST: &str = "first";
/// Who touches what is gone.
const VICTIM: &str = "victim";
/// Who takes it away.
const KILLER: &str = "killer";
/// A descriptor that nobody else has.
const SLOT: u32 = 96;
/// Candidates, at most.
const MOST: usize = 400;
/// A thread's name in the kernel has so many bytes.
const COMM: usize = 15;

/// An instruction of a module's `.text`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Site {
    /// The module.
    pub module: String,
    /// Bytes from the section's start.
    pub offset: u64,
}

/// What a finding of delays tells of its race.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Race {
    /// The actor that touched what was gone.
    pub victim: String,
    /// Instructions of the function in which it touched that, at which it may have stood meanwhile:
    /// where its vCPU did stand, and was next, the latest first, then where others did.
    pub windows: Vec<Site>,
    /// Where the function begins in which it was taken away.
    pub begins: Site,
    /// Behind the call that took it away.
    pub gone: Site,
}

impl Race {
    /// The race of a report. `starts` gives the place of a frame's function in its module.
    ///
    /// # Errors
    /// What the finding doesn't tell.
    pub fn of(
        plan: &Plan,
        report: &Report,
        record: &Record,
        cpus: u32,
        starts: impl Fn(&str, &Frame) -> Option<u64>,
    ) -> Result<Self, &'static str> {
        let task = (report.task.as_ref()).ok_or("the report names no task")?;
        let mut actors = plan.episode.actors.iter();
        let victim = actors
            .find(|actor| comm(&actor.name) == task.name)
            .ok_or("the report's task is no thread of the episode")?;
        let freed = report
            .stack(Role::Free)
            .ok_or("the report doesn't tell who freed it")?;
        let ours: Vec<_> = (freed.frames.iter())
            .filter(|frame| frame.reliable && !frame.inlined && frame.module.is_some())
            .collect();
        let (Some(inner), Some(outer)) = (ours.first(), ours.last()) else {
            return Err("it was not freed in the driver");
        };
        let site = |frame: &Frame, offset: u64| {
            let module = frame.module.clone()?;
            let offset = starts(&module, frame)? + offset;
            Some(Site { module, offset })
        };
        let begins = site(outer, 0);
        let gone = inner.offset.and_then(|offset| site(inner, offset));
        let (Some(begins), Some(gone)) = (begins, gone) else {
            return Err("the function that freed it is not in the module's file");
        };
        let touched = report.stack(Role::Fault).and_then(|stack| {
            let mut frames = stack.frames.iter();
            frames.find(|frame| frame.reliable && !frame.inlined && frame.module.is_some())
        });
        let touched = touched.ok_or("it was not touched in the driver")?;
        let start =
            site(touched, 0).ok_or("the function that touched it is not in the module's file")?;
        let within = start.offset..start.offset + touched.size.unwrap_or(0);
        // What stood elsewhere in the same function tells of instructions of it, too: the host's own
        // preemption may have been the delay that mattered.
        let own = victim.cpu % cpus.max(1);
        let mut recent: Vec<_> = (record.delays.iter())
            .flat_map(|delays| &delays.recent)
            .filter(|stood| stood.module == start.module && within.contains(&stood.at))
            .collect();
        recent.sort_by_key(|stood| stood.vcpu != own);
        let mut seen = BTreeSet::new();
        let windows = (recent.into_iter())
            .flat_map(|stood| [Some(stood.at), stood.next].into_iter().flatten())
            .filter(|offset| within.contains(offset) && seen.insert(*offset))
            .map(|offset| Site {
                module: start.module.clone(),
                offset,
            })
            .collect();
        Ok(Self {
            victim: victim.name.clone(),
            windows,
            begins,
            gone,
        })
    }
}

fn comm(name: &str) -> &str {
    name.get(..COMM).unwrap_or(name)
}

/// One op, with the descriptor that it needs.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Op {
    steps: Vec<Step>,
    /// What tells it apart from others: its file, and what it does there.
    path: String,
    does: Step,
}

impl Plan {
    /// Episodes of two ops, each under an order that may be that of the race.
    pub fn ordered(&self, race: &Race) -> Vec<Self> {
        let ops = self.ops();
        let own = |(name, op): &(String, Op)| (*name == race.victim).then(|| op.clone());
        let mut victims: Vec<_> = ops.iter().filter_map(own).collect();
        dedup(&mut victims);
        let mut all: Vec<_> = ops.into_iter().map(|(_, op)| op).collect();
        dedup(&mut all);
        let mut plans = Vec::new();
        for window in &race.windows {
            for victim in &victims {
                for killer in all.iter().filter(|it| *it != victim) {
                    let firsts = all.iter().filter(|it| *it != victim && *it != killer);
                    for first in firsts.map(Some).chain([None]) {
                        plans.push(self.of_two(race, window, victim, killer, first));
                    }
                }
            }
        }
        plans.truncate(MOST);
        plans
    }

    /// The ops of its actors, with their actors.
    fn ops(&self) -> Vec<(String, Op)> {
        let opened = |step: &Step| match step {
            Step::Open { path, slot, .. } => Some((*slot, path.clone(), step.clone())),
            _ => None,
        };
        let held: Vec<_> = self.episode.before.iter().filter_map(opened).collect();
        let mut ops = Vec::new();
        for actor in &self.episode.actors {
            let own: Vec<_> = actor.steps.iter().filter_map(opened).collect();
            for step in &actor.steps {
                let (Step::Read { slot, .. } | Step::Write { slot, .. }) = step else {
                    continue;
                };
                let of = |(it, ..): &&(u32, String, Step)| it == slot;
                let (path, steps) = match (own.iter().find(of), held.iter().find(of)) {
                    (Some((_, path, open)), _) => {
                        let close = Step::Close { slot: *slot };
                        (path.clone(), vec![open.clone(), step.clone(), close])
                    }
                    (None, Some((_, path, _))) => (path.clone(), vec![step.clone()]),
                    (None, None) => continue,
                };
                let does = with_slot(step, 0);
                ops.push((actor.name.clone(), Op { steps, path, does }));
            }
        }
        ops
    }

    fn of_two(
        &self,
        race: &Race,
        window: &Site,
        victim: &Op,
        killer: &Op,
        first: Option<&Op>,
    ) -> Self {
        let mut plan = self.clone();
        plan.shape = Shape::Instructions;
        plan.delays = None;
        let wait = Step::WaitSignal {
            name: ARMED.into(),
            deadline_ms: super::build::SIGNAL_DEADLINE_MS,
        };
        let actor = |name: &str, cpu: u32, slot: u32, op: &Op| Actor {
            name: name.into(),
            cpu,
            teardown: false,
            steps: op
                .steps
                .iter()
                .map(|step| own_slot(step, slot, op))
                .collect(),
            repeat: Repeat::Once,
            missed_pause_us: 0,
            lag_ms: 0,
            priority: Priority::Usual,
        };
        let waiting = |name: &str, cpu: u32, slot: u32, op: &Op| {
            let mut actor = actor(name, cpu, slot, op);
            actor.steps.insert(0, wait.clone());
            actor
        };
        // What it does is over, in the same code as the ordered ops, before an order is armed.
        let mut before = match first {
            Some(op) => actor(FIRST, 0, SLOT, op),
            None => Actor {
                steps: Vec::new(),
                ..actor(FIRST, 0, SLOT, victim)
            },
        };
        before.teardown = true;
        before.steps.push(Step::Spin { us: 0 });
        let done = When::Settled(FIRST.into(), before.steps.len() - 1);
        plan.episode.actors = vec![
            before,
            waiting(VICTIM, 0, SLOT + 1, victim),
            waiting(KILLER, 1, SLOT + 2, killer),
        ];
        plan.reactions = vec![
            Reaction {
                when: done,
                then: vec![Then::Arm],
            },
            Reaction {
                when: When::Armed,
                then: vec![Then::Raise(ARMED.into())],
            },
        ];
        plan.checks
            .retain(|check| !matches!(check.place, Place::Actor(..)));
        plan.ups.clear();
        let point = |actor: &str, site: &Site| Occurrence {
            actor: actor.into(),
            op: None,
            nth: 1,
            at: At::Instruction {
                module: site.module.clone(),
                offset: site.offset,
            },
        };
        plan.order = Some(Schedule {
            edges: vec![
                Edge {
                    before: point(VICTIM, window),
                    after: point(KILLER, &race.begins),
                },
                Edge {
                    before: point(KILLER, &race.gone),
                    after: point(VICTIM, window),
                },
            ],
        });
        plan
    }
}

fn dedup(ops: &mut Vec<Op>) {
    let mut kept: Vec<Op> = Vec::new();
    for op in ops.drain(..) {
        let same = |it: &Op| it.path == op.path && it.does == op.does;
        if !kept.iter().any(same) {
            kept.push(op);
        }
    }
    *ops = kept;
}

/// A step of an op on a descriptor of its own, if it opens one.
fn own_slot(step: &Step, slot: u32, op: &Op) -> Step {
    match op.steps.len() {
        1 => step.clone(),
        _ => with_slot(step, slot),
    }
}

fn with_slot(step: &Step, to: u32) -> Step {
    let mut step = step.clone();
    if let Step::Open { slot, .. }
    | Step::Close { slot }
    | Step::Read { slot, .. }
    | Step::Write { slot, .. } = &mut step
    {
        *slot = to;
    }
    step
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::judge::plan::reduce::Part;
    use crate::judge::plan::{Points, plan};
    use crate::target::Chosen;

    fn site(offset: u64) -> Site {
        Site {
            module: "null_blk".into(),
            offset,
        }
    }

    #[test]
    fn each_candidate_is_two_ops_under_an_order() {
        let target = Chosen::find("null_blk", None, None).expect("built in");
        let points = Points::default().with_vcpus(true);
        let whole = (1..50)
            .map(|number| plan(&target, &points, 1, number, &[Shape::Delays]))
            .find(|plan| plan.ops().len() > 2)
            .expect("loops of ops");
        let victim = whole.ops()[0].0.clone();
        let race = Race {
            victim,
            windows: vec![site(1), site(3)],
            begins: site(5),
            gone: site(6),
        };
        let plans = whole.ordered(&race);
        assert!(!plans.is_empty() && plans.len() <= MOST);
        for plan in &plans {
            let names: Vec<_> = plan
                .episode
                .actors
                .iter()
                .map(|it| it.name.as_str())
                .collect();
            assert_eq!(names, [FIRST, VICTIM, KILLER]);
            assert_ne!(plan.episode.actors[1].steps, plan.episode.actors[2].steps);
            assert!(plan.delays.is_none());
            for actor in 1..=2 {
                let less = plan.without(&BTreeSet::from([Part::Actor(actor)]));
                let order = less.order.expect("it had one");
                assert!(
                    order.edges.is_empty(),
                    "nobody is there to be ordered: {order}"
                );
            }
        }
        let text = plans[0].order.as_ref().expect("an order").to_string();
        assert_eq!(
            text,
            "schedule 1\nvictim#1@null_blk+0x1 -> killer#1@null_blk+0x5\n\
             killer#1@null_blk+0x6 -> victim#1@null_blk+0x1\n"
        );
    }
}
