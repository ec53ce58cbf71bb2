//! The points of a race, by dry runs: which functions its actors pass, and in which order.

use knobrig_proto::{End, EpisodeReport, Outcome, Pass, Step, Who};

use super::super::points::Spot;
use super::super::{Plan, Shape};
use super::order::{device_stood, ordered};
use super::{Ordered, Race, asking, name};
use crate::judge::record::Seen;
use crate::schedule::{Actor, At, Occurrence, Program, Turn};
use crate::target::Chosen;

/// Calls of functions that are points, at most: each has a gate at either end while their order is
/// found out, of the 64 that the guest has.
const CALLS: usize = 31;
/// A gate that only tells when somebody comes by lets go after so long.
const TAP_MS: u64 = 1;
/// The device's gates then hold for so long: longer than its clock and the guest's may differ.
const DEVICE_TAP_MS: u64 = 20;
/// Functions of the kernel at which control comes to a driver's files and to its teardown, and
/// leaves them: where an actor stands between what is the kernel's and what is the driver's.
pub const DOORS: &[&str] = &[
    "chrdev_open",
    "device_del",
    "driver_detach",
    "free_module",
    "kernfs_drain",
    "kernfs_fop_open",
    "kernfs_fop_read_iter",
    "kernfs_fop_release",
    "kernfs_fop_write_iter",
    "kernfs_get_active",
    "kernfs_put_active",
    "pci_device_remove",
    "sysfs_kf_seq_show",
    "sysfs_kf_write",
    "try_stop_module",
    "unbind_store",
    "vfs_read",
    "vfs_write",
];

/// Of these, entered before anything that another actor of a race can change is looked at: the
/// way from the system call to them is nobody else's affair.
const THRESHOLDS: &[&str] = &[
    "kernfs_fop_read_iter",
    "kernfs_fop_release",
    "kernfs_fop_write_iter",
    "try_stop_module",
    "vfs_read",
    "vfs_write",
];

/// More calls than there are gates for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0} calls would be points, and there are gates for {CALLS}; choose fewer by --points")]
pub struct TooManyCalls(usize);

/// What kinds of points a race is cut at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cut {
    /// Where the device can hold a request.
    Device,
    /// [`DOORS`].
    Doors,
    /// What the driver calls, each function's first call.
    Own,
    /// A function of this name.
    Function(String),
}

impl std::str::FromStr for Cut {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let fits = |c: char| c.is_ascii_alphanumeric() || "_.$:".contains(c);
        match text {
            "device" => Ok(Self::Device),
            "doors" => Ok(Self::Doors),
            "own" => Ok(Self::Own),
            name if !name.is_empty() && name.chars().all(fits) => Ok(Self::Function(name.into())),
            _ => Err("device, doors, own, or a function of the kernel is expected".into()),
        }
    }
}

/// A dry run: the actors go one after the other, and the guest notes who passes which of these
/// functions.
pub fn survey(target: &Chosen, race: &Race, candidates: &[String], number: u64) -> Plan {
    let mut plan = dry(target, race, number).plan;
    plan.episode.survey = candidates.to_vec();
    plan
}

/// A dry run in which each of these points is tapped: when does who pass it?
pub fn taps(target: &Chosen, race: &Race, points: &[(Actor, Occurrence)], number: u64) -> Plan {
    let mut dry = dry(target, race, number);
    for (actor, point) in points {
        let ms = match point.at {
            At::Device(_) => DEVICE_TAP_MS,
            _ => TAP_MS,
        };
        dry.gate(target, race, *actor, point, ms);
    }
    dry.plan
}

/// In a dry run one actor may take so long.
const PATIENCE_MS: u64 = 2_000;

/// The actors go one after the other.
fn dry(target: &Chosen, race: &Race, number: u64) -> Ordered {
    let calls = race.calls();
    let turns = one_by_one(&calls);
    let mut ordered = ordered(target, race, &calls, &turns, number, PATIENCE_MS);
    ordered.plan.shape = Shape::Survey;
    ordered
}

fn one_by_one(way: &Program) -> Vec<Turn> {
    let actors = way.actors.iter().enumerate();
    let turn = |(actor, way): (Actor, &Vec<Occurrence>)| Turn {
        actor,
        from: 0,
        to: way.len(),
    };
    actors.map(turn).collect()
}

/// The points of a race by a survey: calls of functions, and requests of the device.
///
/// # Errors
/// There are more calls than gates.
pub fn points(
    target: &Chosen,
    race: &Race,
    cuts: &[Cut],
    passes: &[Pass],
) -> Result<Vec<(Actor, Occurrence)>, TooManyCalls> {
    let mut passes: Vec<_> = passes.iter().filter(|pass| pass.holdable).collect();
    passes.sort_by_key(|pass| pass.ns);
    let mut calls: Vec<(Actor, &Pass)> = Vec::new();
    for pass in passes {
        let actor = (0..race.actors.len()).find(|it| pass.who == Who::Actor(name(*it)));
        let Some(actor) = actor else {
            continue;
        };
        let wanted = cuts.iter().any(|cut| match cut {
            Cut::Device => false,
            Cut::Doors => DOORS.contains(&pass.function.as_str()),
            Cut::Own => pass.own && pass.occurrence == 1,
            Cut::Function(name) => *name == pass.function,
        });
        if wanted {
            calls.push((actor, pass));
        }
    }
    if calls.len() > CALLS {
        return Err(TooManyCalls(calls.len()));
    }
    let mut points = Vec::new();
    for (actor, pass) in calls {
        for end in [End::Entry, End::Return] {
            let at = At::Call {
                function: pass.function.clone(),
                end,
                own: pass.own,
            };
            points.push((
                actor,
                Occurrence {
                    actor: name(actor),
                    op: None,
                    nth: pass.occurrence,
                    at,
                },
            ));
        }
    }
    if cuts.contains(&Cut::Device) {
        for (actor, ops) in race.calls().actors.into_iter().enumerate() {
            for begin in ops {
                let op = race.op(actor, &begin);
                if op.is_none_or(|op| asking(target, &race.actors[actor][op]).is_none()) {
                    continue;
                }
                for point in ["seen", "before-completion"] {
                    let at = At::Device(point.into());
                    points.push((
                        actor,
                        Occurrence {
                            at,
                            ..begin.clone()
                        },
                    ));
                }
            }
        }
    }
    Ok(points)
}

/// Where each actor of a race begins, and the calls that actors of these names made in a survey.
pub(in crate::judge::plan) fn entries(
    race: &Race,
    names: &[String],
    spots: &[Spot],
) -> Vec<Vec<Occurrence>> {
    let begins = race
        .calls()
        .actors
        .into_iter()
        .map(|ops| ops.into_iter().take(1));
    let ways = begins.zip(names).enumerate().map(|(actor, (begin, who))| {
        let spots = spots.iter().filter(|it| it.who == Who::Actor(who.clone()));
        let calls = spots.map(|spot| Occurrence {
            actor: name(actor),
            op: None,
            nth: spot.occurrence,
            at: At::Call {
                function: spot.function.clone(),
                end: End::Entry,
                own: spot.own,
            },
        });
        begin.chain(calls).collect()
    });
    ways.collect()
}

/// The ways of a race's actors: its points in the order in which they were passed, as far as
/// somebody could be held there.
pub fn ways(
    race: &Race,
    plan: &Plan,
    points: &[(Actor, Occurrence)],
    report: &EpisodeReport,
    seen: &[Seen],
) -> Program {
    let mut times: Vec<Vec<(u64, Occurrence)>> = vec![Vec::new(); race.actors.len()];
    for (actor, begins) in race.calls().actors.into_iter().enumerate() {
        let steps = plan.episode.actors[actor].steps.iter();
        let outcomes = report.actors.get(actor).map(|it| &it.outcomes[..]);
        let ops = steps.zip(outcomes.unwrap_or_default());
        let mut ops = ops.filter(|(step, _)| !matches!(step, Step::WaitSignal { .. }));
        for begin in begins {
            // A teardown may be more than one step; it comes last or alone.
            let Some((_, Outcome { start_ns, .. })) = ops.next() else {
                break;
            };
            times[actor].push((*start_ns, begin));
        }
    }
    for (actor, point) in points {
        let tag = point.to_string();
        let time = match &point.at {
            // Where it was asleep: what it did before and after is apart from that by more than
            // the clocks.
            At::Device(_) => device_stood(&tag, seen).map(|it| it.from_ns / 2 + it.to_ns / 2),
            _ => report
                .gates
                .iter()
                .find(|gate| gate.tag == tag)
                .and_then(|gate| gate.hold.as_ref())
                .filter(|hold| hold.how != knobrig_proto::How::Spun)
                .map(|hold| hold.ns),
        };
        // What is after the last op is the agent's own affair.
        let outcomes = report.actors.get(*actor).map(|it| &it.outcomes[..]);
        let mut ops = outcomes.unwrap_or_default().iter();
        if let Some(time) = time
            && ops.any(|op| op.start_ns <= time && time <= op.end_ns)
        {
            times[*actor].push((time, point.clone()));
        }
    }
    let actors = times.into_iter().map(|mut times| {
        times.sort_by_key(|(time, _)| *time);
        times.into_iter().map(|(_, point)| point).collect()
    });
    Program {
        actors: actors.collect(),
    }
}

/// What two dry runs agree on: the points that came in both, in an order that both have.
pub fn agreed(one: &Program, other: &Program) -> Program {
    let actors = one.actors.iter().zip(&other.actors).map(|(one, other)| {
        let mut kept: Vec<Occurrence> = Vec::new();
        let mut last = None;
        for point in one {
            let there = other.iter().position(|it| it == point);
            if there.is_some() && there > last {
                last = there;
                kept.push(point.clone());
            }
        }
        kept
    });
    Program {
        actors: actors.collect(),
    }
}

/// Whether the order of two points matters: not where one of them stands before a system call that
/// comes to a function of its own before it looks at anything of the other's.
pub fn dependent(way: &Program, a: (Actor, usize), b: (Actor, usize)) -> bool {
    let alone = |(actor, at): (Actor, usize)| {
        let points = &way.actors[actor];
        let entered = points.get(at + 1).is_some_and(|next| match &next.at {
            At::Call {
                function,
                end: End::Entry,
                ..
            } => THRESHOLDS.contains(&function.as_str()),
            _ => false,
        });
        points[at].at == At::Begin && entered
    };
    !alone(a) && !alone(b)
}
