//! A finding's course in time: who did what from when to when, what a gate held meanwhile, when it
//! went wrong.

use dk_control::{Event, Let};
use knobrig_klog::{Report, Role};
use knobrig_proto::{Outcome, Repeat, Step, Why};
use serde::{Deserialize, Serialize};

use super::finding::{Evidence, kebab};
use super::oracle::result_text;
use super::plan::Plan;
use super::record::Record;

/// Version of timeline.json.
pub const VERSION: u32 = 1;

/// What a lane stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LaneKind {
    /// A thread that does ops.
    Actor,
    /// A thread that ends the driver.
    Teardown,
    /// What holds: the device, or functions.
    Device,
    /// The memory that was touched.
    Object,
}

/// What a bar stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BarKind {
    /// A step of a thread.
    Step,
    /// A thread waits for its turn.
    Wait,
    /// A gate holds.
    Gate,
    /// The object is alive.
    Alive,
    /// The object is freed.
    Freed,
}

/// Something that lasts. Nanoseconds from the timeline's beginning.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bar {
    /// Its begin.
    pub from_ns: u64,
    /// Its end.
    pub to_ns: u64,
    /// What it is.
    pub kind: BarKind,
    /// In words.
    pub says: String,
    /// What came of it; absent while it lasts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<String>,
    /// It failed.
    #[serde(default)]
    pub failed: bool,
    /// It had not ended when the timeline does.
    #[serde(default)]
    pub open: bool,
}

/// A row of the picture.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lane {
    /// Whose.
    pub name: String,
    /// What it stands for.
    pub kind: LaneKind,
    /// In order.
    pub bars: Vec<Bar>,
}

/// A moment that matters.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Moment {
    /// Nanoseconds from the timeline's beginning.
    pub at_ns: u64,
    /// In words.
    pub says: String,
}

/// An episode's course.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timeline {
    /// [`VERSION`].
    pub version: u32,
    /// The guest's `CLOCK_MONOTONIC` at its beginning.
    pub begin_ns: u64,
    /// How long it is.
    pub length_ns: u64,
    /// Threads in the plan's order, then the device, then the object.
    pub lanes: Vec<Lane>,
    /// When it went wrong, where that is known.
    pub faults: Vec<Moment>,
}

/// A bar by the guest's clock.
struct Span {
    from: u64,
    to: Option<u64>,
    kind: BarKind,
    says: String,
    result: Option<String>,
    failed: bool,
}

impl Timeline {
    /// Of a failure in an episode; nothing if no time of it is known. `words` says a step.
    pub fn of(
        plan: &Plan,
        record: &Record,
        evidence: &Evidence,
        words: impl Fn(&Step) -> String,
    ) -> Option<Self> {
        let mut lanes = actors(plan, record, &words);
        let held = holds(record);
        if !held.is_empty() {
            lanes.push(("device".into(), LaneKind::Device, held));
        }
        let points = points(plan, record);
        if !points.is_empty() {
            lanes.push(("functions".into(), LaneKind::Device, points));
        }
        let mut faults = Vec::new();
        if let Evidence::Kernel { report } = evidence {
            if let Some(time) = report.time_us.and_then(|time| record.of_log(time)) {
                faults.push((time, report.title.clone()));
            }
            if let Some(life) = object(report, record) {
                lanes.push(life);
            }
        }
        for seen in &record.gates {
            if let Event::Witness { detail, .. } = &seen.event {
                faults.push((seen.guest_ns, format!("the device witnessed: {detail}")));
            }
        }
        Self::framed(lanes, faults)
    }

    /// Counts from the first moment of any thread; what lies before is cut there.
    fn framed(
        lanes: Vec<(String, LaneKind, Vec<Span>)>,
        faults: Vec<(u64, String)>,
    ) -> Option<Self> {
        let threads = || {
            let own = |kind: &LaneKind| matches!(kind, LaneKind::Actor | LaneKind::Teardown);
            lanes.iter().filter(move |(_, kind, _)| own(kind))
        };
        let spans = || threads().flat_map(|(_, _, spans)| spans);
        let times = faults.iter().map(|(at, _)| *at);
        let begin = (spans().map(|span| span.from).min()).or_else(|| times.clone().min())?;
        let last = (lanes.iter().flat_map(|(_, _, spans)| spans))
            .flat_map(|span| [Some(span.from), span.to])
            .flatten();
        // A little beyond, so that what has no end is seen to go on.
        let end = last.chain(times).max()?.max(begin + 1);
        let length = (end - begin) + (end - begin) / 20 + 1;
        let at = |ns: u64| ns.saturating_sub(begin).min(length);
        Some(Self {
            version: VERSION,
            begin_ns: begin,
            length_ns: length,
            lanes: (lanes.into_iter())
                .map(|(name, kind, spans)| Lane {
                    name,
                    kind,
                    bars: (spans.into_iter())
                        .map(|span| Bar {
                            from_ns: at(span.from),
                            to_ns: span.to.map_or(length, at),
                            kind: span.kind,
                            says: span.says,
                            result: span.result,
                            failed: span.failed,
                            open: span.to.is_none(),
                        })
                        .collect(),
                })
                .collect(),
            faults: (faults.into_iter())
                .map(|(ns, says)| Moment {
                    at_ns: at(ns),
                    says,
                })
                .collect(),
        })
    }
}

/// A lane for each thread that did a step.
fn actors(
    plan: &Plan,
    record: &Record,
    words: &impl Fn(&Step) -> String,
) -> Vec<(String, LaneKind, Vec<Span>)> {
    let Some(report) = &record.report else {
        return Vec::new();
    };
    let mut lanes = Vec::new();
    for (actor, told) in plan.episode.actors.iter().zip(&report.actors) {
        // A loop's rounds are counted, not kept.
        if actor.repeat == Repeat::UntilOthersEnd {
            continue;
        }
        let mut spans: Vec<_> = (actor.steps.iter().zip(&told.outcomes))
            .map(|(step, outcome)| span(words(step), step, outcome))
            .collect();
        let stuck = report.stuck.iter().find(|it| it.actor == actor.name);
        if let Some(stuck) = stuck
            && let Some(step) = actor.steps.get(stuck.step)
        {
            let from = spans.last().and_then(|span| span.to);
            spans.extend(from.map(|from| Span {
                from,
                to: None,
                kind: kind_of(step),
                says: words(step),
                result: None,
                failed: true,
            }));
        }
        let kind = match actor.teardown {
            true => LaneKind::Teardown,
            false => LaneKind::Actor,
        };
        lanes.push((actor.name.clone(), kind, spans));
    }
    lanes
}

fn span(says: String, step: &Step, outcome: &Outcome) -> Span {
    Span {
        from: outcome.start_ns,
        to: Some(outcome.end_ns),
        kind: kind_of(step),
        says,
        result: Some(result_text(outcome.ret)),
        failed: outcome.ret < 0,
    }
}

fn kind_of(step: &Step) -> BarKind {
    match step {
        Step::WaitSignal { .. }
        | Step::WaitPath { .. }
        | Step::WaitText { .. }
        | Step::AwaitGate { .. }
        | Step::Sleep { .. }
        | Step::Nap { .. }
        | Step::Spin { .. } => BarKind::Wait,
        _ => BarKind::Step,
    }
}

/// From each hold of a gate to its end.
fn holds(record: &Record) -> Vec<Span> {
    let mut spans: Vec<(&str, Span)> = Vec::new();
    for seen in &record.gates {
        match &seen.event {
            Event::Held {
                tag, point, kind, ..
            } => spans.push((
                tag,
                Span {
                    from: seen.guest_ns,
                    to: None,
                    kind: BarKind::Gate,
                    says: format!("holds a {} at {} ({tag})", kebab(kind), kebab(point)),
                    result: None,
                    failed: false,
                },
            )),
            Event::LetGo { tag, why, .. } => {
                let open = spans
                    .iter_mut()
                    .rfind(|(of, span)| of == tag && span.to.is_none());
                if let Some((_, span)) = open {
                    span.to = Some(seen.guest_ns.max(span.from));
                    span.result = Some(format!("let go: {}", kebab(why)));
                    span.failed = *why != Let::Command;
                }
            }
            Event::Witness { .. } => {}
        }
    }
    spans.into_iter().map(|(_, span)| span).collect()
}

/// Threads that were held in functions.
fn points(plan: &Plan, record: &Record) -> Vec<Span> {
    let Some(report) = &record.report else {
        return Vec::new();
    };
    let held = plan.episode.gates.iter().zip(&report.gates);
    held.filter_map(|(gate, told)| {
        let hold = told.hold.as_ref()?;
        let end = kebab(&gate.end);
        Some(Span {
            from: hold.ns,
            to: Some(hold.left_ns.max(hold.ns)),
            kind: BarKind::Gate,
            says: format!(
                "holds {} at the {end} of {} ({})",
                hold.who, gate.function, gate.tag
            ),
            result: Some(format!("let go: {}", kebab(&hold.why))),
            failed: hold.why != Why::Released,
        })
    })
    .collect()
}

/// The object's life, as far as the kernel says when it was made and freed: it doesn't keep both of
/// every object.
fn object(report: &Report, record: &Record) -> Option<(String, LaneKind, Vec<Span>)> {
    let object = report.object.as_ref()?;
    let time = |role| record.of_log(report.stack(role)?.time_us?);
    let by = |role: Role| {
        let stack = report.stack(role)?;
        let own = (stack.frames.iter())
            .filter(|frame| frame.reliable && !frame.inlined)
            .find(|frame| frame.module.is_some() && !frame.function.is_empty());
        Some(own?.function.clone())
    };
    let made = time(Role::Alloc);
    let freed = time(Role::Free);
    made.or(freed)?;
    let says = |what: &str, role| match by(role) {
        Some(function) => format!("{what} by {function}"),
        None => what.to_owned(),
    };
    let alive = made.map(|from| Span {
        from,
        to: freed,
        kind: BarKind::Alive,
        says: says("made", Role::Alloc),
        result: None,
        failed: false,
    });
    let gone = freed.map(|from| Span {
        from,
        to: None,
        kind: BarKind::Freed,
        says: says("freed", Role::Free),
        result: None,
        failed: true,
    });
    let spans = alive.into_iter().chain(gone).collect();
    let cache = object.cache.clone().unwrap_or_else(|| "memory".into());
    let name = match object.size {
        Some(size) => format!("{size} bytes of {cache}"),
        None => cache,
    };
    Some((name, LaneKind::Object, spans))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::judge::finding::GuestEnd;
    use crate::judge::plan::{Points, Shape, plan};
    use crate::judge::record::Seen;
    use crate::target::Chosen;
    use dk_control::{Kind, Point};
    use knobrig_proto::{ActorReport, EpisodeReport};

    fn outcome(start_ns: u64, end_ns: u64, ret: i64) -> Outcome {
        Outcome {
            ret,
            start_ns,
            end_ns,
            text: None,
        }
    }

    fn gated() -> (Plan, Record) {
        let target = Chosen::find("mydrv", Some("drained"), None).expect("built in");
        let plan = plan(&target, &Points::default(), 3, 1, &[Shape::Gated]);
        let steps = |name: &str| {
            let actor = plan.episode.actors.iter().find(|actor| actor.name == name);
            actor.map_or(0, |actor| actor.steps.len())
        };
        let actor = |name: &str, begin: u64| ActorReport {
            name: name.into(),
            outcomes: (0..steps(name) as u64)
                .map(|step| outcome(begin + step * 1000, begin + step * 1000 + 900, 0))
                .collect(),
            rounds: 1,
        };
        let actors = (plan.episode.actors.iter())
            .map(|it| actor(&it.name, if it.teardown { 6_000 } else { 5_000 }))
            .collect();
        let report = EpisodeReport {
            id: 1,
            actors,
            ..EpisodeReport::default()
        };
        let held = Event::Held {
            ns: 1,
            tag: "inside".into(),
            request: 1,
            point: Point::Seen,
            kind: Kind::KnobGet,
            sector: 0,
        };
        let let_go = Event::LetGo {
            ns: 2,
            tag: "inside".into(),
            request: 1,
            why: Let::Command,
        };
        let gates =
            [(6_100, held), (6_500, let_go)].map(|(guest_ns, event)| Seen { guest_ns, event });
        let record = Record {
            report: Some(report),
            gates: gates.into(),
            log_ahead_ns: Some(0),
            ..Record::default()
        };
        (plan, record)
    }

    fn silent() -> Evidence {
        Evidence::Guest {
            end: GuestEnd::Silent,
            why: "w".into(),
        }
    }

    #[test]
    fn threads_and_holds_are_lanes() {
        let (plan, record) = gated();
        let timeline = Timeline::of(&plan, &record, &silent(), |_| "step".into()).expect("times");
        assert_eq!(timeline.begin_ns, 5_000);
        let lane = |name: &str| timeline.lanes.iter().find(|lane| lane.name == name);
        assert_eq!(lane("holder").map(|it| it.kind), Some(LaneKind::Actor));
        assert_eq!(lane("rmmod").map(|it| it.kind), Some(LaneKind::Teardown));
        let bar = &lane("device").expect("it held").bars[0];
        assert_eq!((bar.from_ns, bar.to_ns, bar.open), (1_100, 1_500, false));
        assert_eq!(bar.result.as_deref(), Some("let go: command"));
    }

    #[test]
    fn what_has_no_end_goes_on_to_the_timeline_s() {
        let (plan, mut record) = gated();
        record.gates.pop();
        let timeline = Timeline::of(&plan, &record, &silent(), |_| "step".into()).expect("times");
        let device = timeline.lanes.last().expect("a lane");
        assert!(device.bars[0].open);
        assert_eq!(device.bars[0].to_ns, timeline.length_ns);
    }

    #[test]
    fn without_a_time_there_is_no_timeline() {
        let (plan, _) = gated();
        let none = Timeline::of(&plan, &Record::default(), &silent(), |_| String::new());
        assert_eq!(none, None);
    }
}
