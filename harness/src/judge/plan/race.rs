//! A race: a small program of a few actors that is run in one order after another. Its text, its
//! points, and the episode that takes it through a given order.
//!
//! An actor goes in *turns*. In a turn it goes on from the point where it stands, and it stands
//! again at the point where the turn is to end; meanwhile the others stand. Where it stands depends
//! on the point: before a system call it waits for a signal, in a function a gate holds it, in the
//! device its request is held. As it comes to stand, the next one goes on. The harness decides
//! nothing of that: it is all in the plan, so that a finding's episode repeats it.

use std::collections::BTreeMap;

use dk_control::{Event, Gate, Point};
use knobrig_proto::{End, EpisodeReport, FunctionGate, Outcome, Pass, Step, Who};

use super::build::{Builder, SLOT};
use super::points::{Program as Actors, Spot};
use super::{Place, Plan, Shape, Then};
use crate::judge::record::Seen;
use crate::schedule::{Actor, At, Occurrence, Program, Turn};
use crate::target::{AskingOp, Chosen, Knob};

/// Actors of a race, at most.
pub const ACTORS: usize = 3;
/// Calls of functions that are points, at most: each has a gate at either end while their order is
/// found out, of the 64 that the guest has.
pub const CALLS: usize = 31;
/// A gate that only tells when somebody comes by lets go after so long.
const TAP_MS: u64 = 1;
/// The device's gates then hold for so long: longer than its clock and the guest's may differ.
const DEVICE_TAP_MS: u64 = 20;
/// The last step of each actor, so that its end is told.
const DONE: Step = Step::Spin { us: 0 };

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

/// One op of an actor.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Op {
    Open(String),
    Read(String),
    Write(String),
    Close,
    /// The end of the module, or of the binding.
    Teardown,
}

/// A small program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Race {
    text: String,
    actors: Vec<Vec<Op>>,
    /// What its teardown ends.
    ending: Actors,
}

/// A text that is no race of this target.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "--program {text:?}: {why}; as in 'read {knob} || {teardown}': actors apart by ||, ops apart \
         by commas, of open, read and write with a knob ({knobs}), and one of {teardown} and unbind"
)]
pub struct BadRace {
    text: String,
    why: String,
    knob: String,
    knobs: String,
    teardown: String,
}

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

impl std::fmt::Display for Cut {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Device => "device",
            Self::Doors => "doors",
            Self::Own => "own",
            Self::Function(name) => name,
        })
    }
}

/// One space between words.
fn spaced(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The name of an actor: A, B, …
pub fn name(actor: Actor) -> String {
    char::from(b'A' + actor as u8).to_string()
}

impl Race {
    /// Reads a program of this target.
    ///
    /// # Errors
    /// What is wrong with it, and what it should look like.
    pub fn parse(target: &Chosen, text: &str) -> Result<Self, BadRace> {
        let wrong = |why: String| {
            let knobs: Vec<_> = target.knobs().map(|knob| knob.name.clone()).collect();
            BadRace {
                text: text.into(),
                why,
                knob: knobs.first().cloned().unwrap_or_else(|| "KNOB".into()),
                knobs: knobs.join(", "),
                teardown: target.target.teardown.name.clone(),
            }
        };
        let mut ending = None;
        let mut visited = None;
        let mut actors = Vec::new();
        for actor in text.split("||") {
            let mut ops = Vec::new();
            for item in actor.split(',') {
                if ops.last() == Some(&Op::Teardown) {
                    return Err(wrong("an op follows a teardown of the same actor".into()));
                }
                let words: Vec<_> = item.split_whitespace().collect();
                match words[..] {
                    [verb @ ("open" | "read" | "write"), name] => {
                        let known = target.knobs().find(|knob| knob.name == name);
                        let knob =
                            known.ok_or_else(|| wrong(format!("no knob is named {name}")))?;
                        visited.get_or_insert_with(|| name.to_owned());
                        ops.push(Op::Open(name.into()));
                        match verb {
                            "read" if knob.read.is_none() => {
                                return Err(wrong(format!("{name} can't be read")));
                            }
                            "write" if knob.write.is_none() => {
                                return Err(wrong(format!("{name} can't be written")));
                            }
                            "read" => ops.push(Op::Read(name.into())),
                            "write" => ops.push(Op::Write(name.into())),
                            _ => {}
                        }
                        ops.push(Op::Close);
                    }
                    [word] if word == target.target.teardown.name || word == "unbind" => {
                        let unbinds = word == "unbind" && word != target.target.teardown.name;
                        if unbinds && target.target.unbind.is_none() {
                            return Err(wrong("the target says nothing of an unbind".into()));
                        }
                        if ending.replace(unbinds).is_some() {
                            return Err(wrong("it has more than one teardown".into()));
                        }
                        ops.push(Op::Teardown);
                    }
                    [] => return Err(wrong("an actor does nothing".into())),
                    _ => return Err(wrong(format!("{:?} is no op", item.trim()))),
                }
            }
            actors.push(ops);
        }
        if !(2..=ACTORS).contains(&actors.len()) {
            let count = actors.len();
            return Err(wrong(format!("{count} actors; two or three there must be")));
        }
        let knob = visited.unwrap_or_default();
        Ok(Self {
            text: text
                .split("||")
                .map(spaced)
                .collect::<Vec<_>>()
                .join(" || "),
            actors,
            ending: match ending {
                Some(true) => Actors::Unbind(knob),
                _ => Actors::Ops(knob),
            },
        })
    }

    /// The race of a program that a run surveys: a visit of a knob, and an end. None where a third
    /// holds something.
    pub fn of(target: &Chosen, program: &Actors) -> Option<Self> {
        let (Actors::Ops(name) | Actors::Unbind(name)) = program else {
            return None;
        };
        let knob = target.knobs().find(|knob| knob.name == *name)?;
        let read = knob.read.map(|_| Op::Read(name.clone()));
        let write = knob.write.as_ref().map(|_| Op::Write(name.clone()));
        let open = [Op::Open(name.clone())].into_iter();
        Some(Self {
            text: format!("visit {name} || {program:?}"),
            actors: vec![
                open.chain(read).chain(write).chain([Op::Close]).collect(),
                vec![Op::Teardown],
            ],
            ending: program.clone(),
        })
    }

    /// Its text.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The points between the system calls: each actor before each of its ops.
    pub fn calls(&self) -> Program {
        let actors = self.actors.iter().enumerate();
        let way = actors.map(|(actor, ops)| {
            let mut counts: BTreeMap<&str, u32> = BTreeMap::new();
            let begin = ops.iter().map(|op| {
                let nth = counts.entry(op.word()).or_default();
                *nth += 1;
                Occurrence {
                    actor: name(actor),
                    op: Some(op.word().into()),
                    nth: *nth,
                    at: At::Begin,
                }
            });
            begin.collect()
        });
        Program {
            actors: way.collect(),
        }
    }

    /// The op of an occurrence that names one.
    fn op(&self, actor: Actor, occurrence: &Occurrence) -> Option<usize> {
        let ops = self.actors.get(actor)?.iter().enumerate();
        let mut same = ops.filter(|(_, op)| Some(op.word()) == occurrence.op.as_deref());
        let nth = usize::try_from(occurrence.nth).ok()?.checked_sub(1)?;
        same.nth(nth).map(|(at, _)| at)
    }
}

impl Op {
    fn word(&self) -> &'static str {
        match self {
            Self::Open(_) => "open",
            Self::Read(_) => "read",
            Self::Write(_) => "write",
            Self::Close => "close",
            Self::Teardown => "teardown",
        }
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

/// An episode that takes a race through turns, and where its actors stand in it.
#[derive(Clone, Debug)]
pub struct Ordered {
    /// The episode.
    pub plan: Plan,
    /// Steps that wait for a signal before an op, by actor and point.
    waits: BTreeMap<(Actor, usize), usize>,
    /// Of each actor, its last step.
    done: Vec<usize>,
}

/// The race in these turns. Whoever stands goes on by himself after `hold_ms`.
pub fn ordered(
    target: &Chosen,
    race: &Race,
    way: &Program,
    turns: &[Turn],
    number: u64,
    hold_ms: u64,
) -> Ordered {
    let mut builder = Builder::new(target, Shape::Ordered, number);
    builder.bring_up();
    let mut slot = SLOT;
    let mut waits = BTreeMap::new();
    let mut done = Vec::new();
    for (actor, ops) in race.actors.iter().enumerate() {
        let part = builder.actor(&name(actor), true, None);
        for (at, op) in ops.iter().enumerate() {
            let point = (way.actors[actor].iter())
                .position(|it| it.at == At::Begin && race.op(actor, it) == Some(at));
            if let Some(point) = point
                && stands(turns, actor, point)
            {
                // The first to wait waits for the turns of all others.
                let turns = turns.len() as u64;
                let step = Step::WaitSignal {
                    name: way.actors[actor][point].to_string(),
                    deadline_ms: hold_ms * if point == 0 { turns.max(1) } else { 1 },
                };
                if let Place::Actor(_, step) = builder.act(part, step) {
                    waits.insert((actor, point), step);
                }
            }
            builder.race_op(part, op, &race.ending, &mut slot);
        }
        if let Place::Actor(_, step) = builder.act(part, DONE) {
            done.push(step);
        }
    }
    builder.leave(&race.ending);
    let off = &target.target.rules.off;
    builder.plan.checks.retain(|it| !off.contains(&it.rule));
    builder.plan.episode.under_test = target.modules().map(|it| it.name.clone()).collect();
    let mut ordered = Ordered {
        plan: builder.plan,
        waits,
        done,
    };
    for turn in turns {
        if let Some(point) = way.actors[turn.actor].get(turn.to) {
            ordered.gate(target, race, turn.actor, point, hold_ms);
        }
    }
    ordered.reactions(way, turns);
    ordered
}

/// Whether an actor stands at a point between its turns, or before the first of them.
fn stands(turns: &[Turn], actor: Actor, point: usize) -> bool {
    let mut own = turns.iter().enumerate().filter(|(_, it)| it.actor == actor);
    own.any(|(at, turn)| turn.from == point && at > 0)
}

impl Ordered {
    /// Holds an actor at a point in a function or in the device.
    fn gate(&mut self, target: &Chosen, race: &Race, actor: Actor, at: &Occurrence, hold_ms: u64) {
        match &at.at {
            At::Call { function, end, own } => self.plan.episode.gates.push(FunctionGate {
                tag: at.to_string(),
                function: function.clone(),
                end: *end,
                who: Who::Actor(name(actor)),
                own: *own,
                occurrence: at.nth,
                deadline_ms: hold_ms,
                sleeps: false,
            }),
            At::Device(point) => {
                let asked = race.op(actor, at).and_then(|op| {
                    let (knob, op) = asking(target, &race.actors[actor][op])?;
                    Some((knob.asks.get(&op)?, device_point(point)?))
                });
                if let Some((ask, point)) = asked {
                    self.plan.gates.push(Gate {
                        tag: at.to_string(),
                        point,
                        kinds: vec![ask.kind],
                        sector: ask.sector,
                        skip: 0,
                        count: 1,
                        deadline_ms: hold_ms,
                    });
                }
            }
            At::Begin | At::End | At::Instruction { .. } => {}
        }
    }

    /// As one comes to stand, or ends, the next goes on.
    fn reactions(&mut self, way: &Program, turns: &[Turn]) {
        let on = |turn: &Turn| {
            let point = &way.actors[turn.actor][turn.from];
            match point.at {
                At::Begin => Then::Raise(point.to_string()),
                _ => Then::Free(point.to_string()),
            }
        };
        let mut ends: BTreeMap<Actor, Vec<Then>> = BTreeMap::new();
        for (turn, next) in turns.iter().zip(&turns[1.min(turns.len())..]) {
            ends.entry(turn.actor).or_default().push(on(next));
            let Some(point) = way.actors[turn.actor].get(turn.to) else {
                continue;
            };
            let when = match self.waits.get(&(turn.actor, turn.to)) {
                Some(step) => super::When::Settled(name(turn.actor), *step),
                None => super::When::Held(point.to_string()),
            };
            self.plan.reactions.push(super::Reaction {
                when,
                then: vec![on(next)],
            });
        }
        // One who ends before he comes to stand must not leave anybody waiting for that.
        for (actor, then) in ends {
            self.plan.reactions.push(super::Reaction {
                when: super::When::Settled(name(actor), self.done[actor]),
                then,
            });
        }
    }

    /// When an actor came to stand at a point, and when it went on; whether by itself, since its
    /// time was over.
    pub fn stood(
        &self,
        actor: Actor,
        point: usize,
        at: &Occurrence,
        report: &EpisodeReport,
        seen: &[Seen],
    ) -> Option<Stood> {
        if let Some(step) = self.waits.get(&(actor, point)) {
            let outcome = report.actors.get(actor)?.outcomes.get(*step)?;
            return Some(Stood {
                from_ns: outcome.start_ns,
                to_ns: outcome.end_ns,
                overdue: outcome.ret < 0,
            });
        }
        let tag = at.to_string();
        if let Some(gate) = report.gates.iter().find(|gate| gate.tag == tag) {
            let hold = gate.hold.as_ref()?;
            return Some(Stood {
                from_ns: hold.ns,
                to_ns: hold.left_ns,
                overdue: hold.why == knobrig_proto::Why::Deadline,
            });
        }
        device_stood(&tag, seen)
    }

    /// The step that an actor was in at a time, other than one that only waits for its turn.
    pub fn step_at(&self, actor: Actor, report: &EpisodeReport, ns: u64) -> Option<usize> {
        let outcomes = &report.actors.get(actor)?.outcomes;
        let step = (outcomes.iter()).rposition(|it| it.start_ns <= ns && ns <= it.end_ns)?;
        let mut waits = self.waits.iter();
        (!waits.any(|((who, _), at)| *who == actor && *at == step)).then_some(step)
    }

    /// When an actor had ended.
    pub fn ended(&self, actor: Actor, report: &EpisodeReport) -> Option<u64> {
        let outcomes = &report.actors.get(actor)?.outcomes;
        outcomes.get(self.done[actor]).map(|it| it.end_ns)
    }
}

/// How long somebody stood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stood {
    /// Since when.
    pub from_ns: u64,
    /// Until when.
    pub to_ns: u64,
    /// It went on by itself.
    pub overdue: bool,
}

fn device_stood(tag: &str, seen: &[Seen]) -> Option<Stood> {
    let held = seen.iter().find_map(|it| match &it.event {
        Event::Held { tag: here, .. } if here == tag => Some(it.guest_ns),
        _ => None,
    })?;
    let left = seen.iter().find_map(|it| match &it.event {
        Event::LetGo { tag: here, why, .. } if here == tag => Some((it.guest_ns, *why)),
        _ => None,
    });
    // One that was not told to be let go was, by the end of the episode.
    let (to_ns, why) = left.unwrap_or((u64::MAX, dk_control::Let::Command));
    Some(Stood {
        from_ns: held,
        to_ns,
        overdue: why == dk_control::Let::Deadline,
    })
}

fn device_point(name: &str) -> Option<Point> {
    match name {
        "seen" => Some(Point::Seen),
        "before-completion" => Some(Point::BeforeCompletion),
        _ => None,
    }
}

/// The knob and the op by which an actor's op makes the driver ask the device.
fn asking<'a>(target: &'a Chosen, op: &Op) -> Option<(&'a Knob, AskingOp)> {
    let (knob, op) = match op {
        Op::Read(knob) => (knob, AskingOp::Read),
        Op::Write(knob) => (knob, AskingOp::Write),
        Op::Open(_) | Op::Close | Op::Teardown => return None,
    };
    let knob = target.knobs().find(|it| it.name == *knob)?;
    knob.asks.contains_key(&op).then_some((knob, op))
}

impl Builder<'_> {
    /// An op. What it gives depends on the order; what the teardown gives is checked.
    fn race_op(&mut self, actor: usize, op: &Op, ending: &Actors, slot: &mut u32) {
        let knob = |name: &String| self.target.knobs().find(|it| it.name == *name).cloned();
        match op {
            Op::Open(name) => {
                if let Some(knob) = knob(name) {
                    self.act(actor, Self::open(&knob, *slot, false));
                }
            }
            Op::Read(name) | Op::Write(name) => {
                let asks = match op {
                    Op::Read(_) => AskingOp::Read,
                    _ => AskingOp::Write,
                };
                if let Some(step) = knob(name).and_then(|it| Self::op(&it, asks, *slot)) {
                    self.act(actor, step);
                }
            }
            Op::Close => {
                self.act(actor, Step::Close { slot: *slot });
                *slot += 1;
            }
            Op::Teardown => {
                self.end(ending, actor);
            }
        }
    }
}

/// A dry run: the actors go one after the other, and the guest notes who passes which of these
/// functions.
pub fn survey(target: &Chosen, race: &Race, candidates: &[String], number: u64) -> Plan {
    let calls = race.calls();
    let mut ordered = ordered(
        target,
        race,
        &calls,
        &one_by_one(&calls),
        number,
        PATIENCE_MS,
    );
    ordered.plan.shape = Shape::Survey;
    ordered.plan.episode.survey = candidates.to_vec();
    ordered.plan
}

/// A dry run in which each of these points is tapped: when does who pass it?
pub fn taps(target: &Chosen, race: &Race, points: &[(Actor, Occurrence)], number: u64) -> Plan {
    let calls = race.calls();
    let mut ordered = ordered(
        target,
        race,
        &calls,
        &one_by_one(&calls),
        number,
        PATIENCE_MS,
    );
    ordered.plan.shape = Shape::Survey;
    for (actor, point) in points {
        let ms = match point.at {
            At::Device(_) => DEVICE_TAP_MS,
            _ => TAP_MS,
        };
        ordered.gate(target, race, *actor, point, ms);
    }
    ordered.plan
}

/// In a dry run one actor may take so long.
const PATIENCE_MS: u64 = 2_000;

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
pub(super) fn entries(race: &Race, names: &[String], spots: &[Spot]) -> Vec<Vec<Occurrence>> {
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

#[cfg(test)]
mod tests;
