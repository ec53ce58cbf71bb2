//! The rules of a target against what an episode came to.

use std::collections::{BTreeMap, BTreeSet};

use knobrig_proto::{EpisodeReport, Inside, Outcome, Repeat, Slot, Step, Stuck};
use serde::{Deserialize, Serialize};

use super::plan::{Check, ENODEV, ENOENT, EWOULDBLOCK, Expect, Place, Plan, Rule};

/// A rule that an episode broke.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Violation {
    /// Which; absent for liveness.
    pub rule: Option<Rule>,
    /// The step, as a person would write it: `unload mydrv`.
    pub step: String,
    /// What was expected and what came.
    pub detail: String,
    /// What tells it from other failures of the same step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub how: Option<How>,
}

/// In which way a step failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum How {
    /// It counted more than it should.
    TooMany,
    /// It counted less.
    TooFew,
    /// It went on where it should have been refused.
    NotRefused,
}

/// What an episode's teardowns and ops came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Collisions {
    /// Teardowns that succeeded.
    pub teardowns_ok: u64,
    /// Teardowns refused while pinned.
    pub teardowns_refused: u64,
    /// Of both: begun while at least one op was inside the driver.
    pub overlapped: u64,
    /// Ops on knobs.
    pub ops: u64,
    /// Of these, ops that failed.
    pub ops_failed: u64,
}

/// What an episode showed of the rules.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Rules that were broken, and threads that did not return.
    pub violations: Vec<Violation>,
    /// How often each rule was seen to hold.
    pub held: BTreeMap<Rule, u64>,
}

/// Judges an episode by its plan's checks, by liveness, and by whether the device's ring still
/// runs after it.
pub fn judge(plan: &Plan, report: &EpisodeReport, ring_runs: bool) -> Verdict {
    let mut verdict = Verdict {
        violations: (report.stuck.iter())
            .map(|stuck| liveness(plan, stuck))
            .collect(),
        held: BTreeMap::new(),
    };
    let came_up = report.before.len() == plan.episode.before.len()
        && report.before.iter().all(|outcome| outcome.ret >= 0);
    let stuck: BTreeSet<_> = report
        .stuck
        .iter()
        .map(|stuck| stuck.actor.as_str())
        .collect();
    for check in &plan.checks {
        // What follows from a failed start or a stuck thread is no finding of its own.
        let moot = match check.place {
            Place::Before(_) => stuck.contains("before"),
            Place::Actor(actor, _) => {
                !came_up || stuck.contains(plan.episode.actors[actor].name.as_str())
            }
            Place::After(_) => !came_up || !stuck.is_empty(),
        };
        if moot {
            continue;
        }
        match broken(plan, check, report) {
            Some(violation) => verdict.violations.push(violation),
            None => *verdict.held.entry(check.rule).or_default() += 1,
        }
    }
    if came_up && stuck.is_empty() && is_unloaded(plan, report) {
        match ring_runs {
            true => verdict.violations.push(Violation {
                rule: Some(Rule::DeviceStopped),
                step: "the episode's end".into(),
                detail: "the module is gone, and the device was never reset".into(),
                how: None,
            }),
            false => *verdict.held.entry(Rule::DeviceStopped).or_default() += 1,
        }
    }
    verdict
}

/// Whether the last load or unload that succeeded is an unload. The benchmark's loop may end with its
/// module refused, and of a plan that was reduced the unload may be left out.
fn is_unloaded(plan: &Plan, report: &EpisodeReport) -> bool {
    let before = plan.episode.before.iter().zip(&report.before);
    let actors = plan.episode.actors.iter().zip(&report.actors);
    let actors = actors.flat_map(|(actor, went)| actor.steps.iter().zip(&went.outcomes));
    let all = before
        .chain(actors)
        .chain(plan.episode.after.iter().zip(&report.after));
    let done = all.filter(|(step, outcome)| {
        outcome.ret >= 0 && matches!(step, Step::Load { .. } | Step::Unload { .. })
    });
    let last = done.max_by_key(|(_, outcome)| outcome.end_ns);
    last.is_some_and(|(step, _)| matches!(step, Step::Unload { .. }))
}

fn outcome(report: &EpisodeReport, place: Place) -> Option<&Outcome> {
    match place {
        Place::Before(step) => report.before.get(step),
        Place::Actor(actor, step) => report.actors.get(actor)?.outcomes.get(step),
        Place::After(step) => report.after.get(step),
    }
}

fn broken(plan: &Plan, check: &Check, report: &EpisodeReport) -> Option<Violation> {
    let step = step_at(plan, check.place)?;
    let expected = describe(plan, &check.expect);
    let violation = |got: String, how| Violation {
        rule: Some(check.rule),
        step: step_text(step),
        detail: format!("expected {expected}, {got}"),
        how,
    };
    let Some(seen) = outcome(report, check.place) else {
        // A step after the first failure of `before` never ran; the failure itself is told.
        let told = matches!(check.place, Place::Before(_));
        return (!told).then(|| violation("but it never ran".into(), None));
    };
    let text = seen.text.as_deref().map(str::trim);
    let got = || match (&check.expect, text) {
        (Expect::Text(_) | Expect::Changed { .. }, Some(text)) => format!("read {text:?}"),
        (Expect::Lacks(_), Some(text)) => format!("read:\n{text}"),
        (Expect::OkAfter(_), _) if seen.ret == 0 => "it was done before".into(),
        _ => format!("got {}", result_text(seen.ret)),
    };
    let other = |place: &Place| outcome(report, *place);
    let number = |text: Option<&str>| text.and_then(|text| text.trim().parse::<i64>().ok());
    // The number that a file has, and the one that it should have.
    let numbers = || {
        let wanted = match &check.expect {
            Expect::Text(wanted) => number(Some(wanted))?,
            Expect::Changed { from, by } => number(other(from)?.text.as_deref())? + by,
            _ => return None,
        };
        Some((number(text)?, wanted))
    };
    let holds = match &check.expect {
        Expect::OkOr(errors) => seen.ret >= 0 || errors.contains(&seen.ret),
        Expect::OneOf(results) => results.contains(&seen.ret),
        Expect::Text(wanted) => text == Some(wanted),
        Expect::Lacks(unwanted) => text.is_some_and(|text| !text.contains(unwanted)),
        Expect::Changed { .. } => numbers().is_some_and(|(now, wanted)| now == wanted),
        Expect::OkWhile(place) => {
            seen.ret == 0 || other(place).is_some_and(|there| there.end_ns <= seen.end_ns)
        }
        Expect::OkWhileServed(place) => {
            let inside = |there: &Outcome| {
                there.ret >= 0 && there.start_ns <= seen.start_ns && there.end_ns > seen.end_ns
            };
            seen.ret == 0 || !other(place).is_some_and(inside)
        }
        Expect::OkAfter(place) => {
            seen.ret == 0 && other(place).is_some_and(|there| there.start_ns <= seen.end_ns)
        }
    };
    let how = || match (&check.expect, numbers()) {
        (_, Some((now, wanted))) if now > wanted => Some(How::TooMany),
        (_, Some((now, wanted))) if now < wanted => Some(How::TooFew),
        (expect, _) if seen.ret >= 0 && is_refusal(expect) => Some(How::NotRefused),
        _ => None,
    };
    (!holds).then(|| violation(got(), how()))
}

/// The step should have been refused.
fn is_refusal(expect: &Expect) -> bool {
    matches!(expect, Expect::OneOf(results) if results.iter().all(|ret| *ret < 0))
}

fn liveness(plan: &Plan, stuck: &Stuck) -> Violation {
    let mut actors = plan.episode.actors.iter();
    let place = match stuck.actor.as_str() {
        "before" => Some(Place::Before(stuck.step)),
        "after" => Some(Place::After(stuck.step)),
        name => actors
            .position(|actor| actor.name == name)
            .map(|actor| Place::Actor(actor, stuck.step)),
    };
    let whole_ms = plan.episode.deadline_ms;
    let deadline_ms = match place {
        Some(Place::Actor(actor, _)) if !plan.episode.actors[actor].teardown => whole_ms,
        _ => (plan.episode.call_deadline_ms).map_or(whole_ms, |call_ms| call_ms.min(whole_ms)),
    };
    let step = place.and_then(|place| step_at(plan, place));
    let refused =
        (plan.checks.iter()).any(|check| Some(check.place) == place && is_refusal(&check.expect));
    Violation {
        rule: None,
        step: step.map_or_else(|| stuck.actor.clone(), step_text),
        detail: format!(
            "{} did not return within {deadline_ms} ms (state {}):\n{}",
            stuck.actor,
            stuck.state,
            stuck.stack.trim_end()
        ),
        how: refused.then_some(How::NotRefused),
    }
}

fn step_at(plan: &Plan, place: Place) -> Option<&Step> {
    match place {
        Place::Before(step) => plan.episode.before.get(step),
        Place::Actor(actor, step) => plan.episode.actors.get(actor)?.steps.get(step),
        Place::After(step) => plan.episode.after.get(step),
    }
}

fn describe(plan: &Plan, expect: &Expect) -> String {
    let step = |place: &Place| step_at(plan, *place).map_or_else(String::new, step_text);
    let list = |results: &[i64]| {
        results
            .iter()
            .map(|ret| result_text(*ret))
            .collect::<Vec<_>>()
            .join(" or ")
    };
    match expect {
        Expect::OkOr(errors) if errors.is_empty() => "success".into(),
        Expect::OkOr(errors) => format!("success or {}", list(errors)),
        Expect::OneOf(results) => list(results),
        Expect::Text(text) => format!("the text {text:?}"),
        Expect::Lacks(text) => format!("nothing of {text:?}"),
        Expect::Changed { from, by } => format!("{by:+} against the first {}", step(from)),
        Expect::OkWhile(place) | Expect::OkWhileServed(place) => {
            format!("success while \"{}\" runs", step(place))
        }
        Expect::OkAfter(place) => format!("success not before \"{}\"", step(place)),
    }
}

/// `0`, `12`, `-ENODEV`.
pub fn result_text(ret: i64) -> String {
    match i32::try_from(-ret) {
        Ok(errno) if errno > 0 => {
            let name = match errno {
                1 => "EPERM",
                2 => "ENOENT",
                5 => "EIO",
                6 => "ENXIO",
                8 => "ENOEXEC",
                9 => "EBADF",
                11 => "EWOULDBLOCK",
                12 => "ENOMEM",
                14 => "EFAULT",
                16 => "EBUSY",
                17 => "EEXIST",
                19 => "ENODEV",
                22 => "EINVAL",
                95 => "EOPNOTSUPP",
                110 => "ETIMEDOUT",
                _ => return format!("-{errno}"),
            };
            format!("-{name}")
        }
        _ => ret.to_string(),
    }
}

/// A step as a person would write it.
pub fn step_text(step: &Step) -> String {
    step_text_with(step, |slot| format!("descriptor {slot}"))
}

/// As [`step_text`], with a name for each descriptor.
pub fn step_text_with(step: &Step, name: impl Fn(Slot) -> String) -> String {
    match step {
        Step::Open {
            path, exclusive, ..
        } => format!(
            "open {path}{}",
            if *exclusive { " exclusively" } else { "" }
        ),
        Step::Close { slot } => format!("close {}", name(*slot)),
        Step::Read { slot, .. } => format!("read {}", name(*slot)),
        Step::Write { slot, .. } => format!("write {}", name(*slot)),
        Step::Seek { slot, offset } => format!("lseek {} to {offset}", name(*slot)),
        Step::Poll { slot, hangup, .. } => {
            let what = if *hangup { "the end of " } else { "" };
            format!("poll {what}{}", name(*slot))
        }
        Step::Load { module, params } => format!("load {module} {params}").trim_end().to_owned(),
        Step::Unload { module, .. } => format!("unload {module}"),
        Step::WriteFile { path, data } => format!("write {:?} to {path}", data.trim_end()),
        Step::ReadFile { path } => format!("read {path}"),
        Step::Mkdir { path } => format!("mkdir {path}"),
        Step::Rmdir { path } => format!("rmdir {path}"),
        Step::Exists { path } => format!("look for {path}"),
        Step::WaitPath {
            path,
            present: true,
            ..
        } => format!("wait for {path}"),
        Step::WaitPath {
            path,
            present: false,
            ..
        } => format!("wait for {path} to go"),
        Step::WaitText { path, text, .. } => format!("wait for {text:?} in {path}"),
        Step::WaitSignal { name, .. } => format!("wait for signal {name}"),
        Step::AwaitGate { tag, .. } => format!("wait until gate {tag} holds"),
        Step::ReleaseGate { tag } => format!("let go what gate {tag} holds"),
        Step::Sleep { ms } => format!("sleep {ms} ms"),
        Step::Hold { path, .. } => format!("hold {path} open"),
        Step::Mknod { path, .. } => format!("mknod {path}"),
        Step::Glob { path } => format!("look for {path}"),
        Step::List { path } => format!("list {path}"),
        Step::Spin { us } => format!("spin {us} us"),
        Step::Nap { us } => format!("nap {us} us"),
    }
}

/// Whether a teardown's step ends the driver: an unload, a removal, or the write that unbinds or
/// gives up.
fn ends_driver(step: &Step) -> bool {
    matches!(
        step,
        Step::Unload { .. } | Step::WriteFile { .. } | Step::Rmdir { .. }
    )
}

/// Whether an op's result shows that it reached a live driver. One that has not returned is
/// inside.
fn reached_driver(inside: &Inside) -> bool {
    inside
        .ret
        .is_none_or(|ret| ret >= 0 || ![ENOENT, ENODEV, -6, -9].contains(&ret))
}

/// The longest that a teardown's step took in an episode.
pub fn slowest_teardown_ms(plan: &Plan, report: &EpisodeReport) -> u64 {
    let actors = plan.episode.actors.iter().zip(&report.actors);
    let outcomes = actors
        .filter(|(actor, _)| actor.teardown)
        .flat_map(|(actor, came)| actor.steps.iter().zip(&came.outcomes));
    outcomes
        .filter(|(step, _)| ends_driver(step))
        .map(|(_, outcome)| outcome.end_ns.saturating_sub(outcome.start_ns) / 1_000_000)
        .max()
        .unwrap_or(0)
}

/// Counts teardowns, overlaps and ops of an episode. Where the device `held` an op, whoever was
/// in a call as the teardown began was inside, also if the teardown ended that call.
pub fn collisions(plan: &Plan, report: &EpisodeReport, held: bool) -> Collisions {
    let mut sum = Collisions::default();
    let actors = plan.episode.actors.iter().zip(&report.actors);
    for (number, (actor, outcomes)) in actors.enumerate() {
        if !actor.teardown || actor.repeat != Repeat::Once {
            continue;
        }
        for (index, (step, outcome)) in actor.steps.iter().zip(&outcomes.outcomes).enumerate() {
            let ends = ends_driver(step) || plan.unplugs_at(&actor.name, index);
            if !ends || plan.ups.contains(&Place::Actor(number, index)) {
                continue;
            }
            match outcome.ret {
                0.. => sum.teardowns_ok += 1,
                EWOULDBLOCK => sum.teardowns_refused += 1,
                _ => continue,
            }
            let met = report.inside.iter().any(|inside| {
                let here = inside.teardown == actor.name && inside.step == index;
                here && (held || reached_driver(inside))
            });
            sum.overlapped += u64::from(met);
        }
    }
    for op in &report.tallies {
        sum.ops += op.tally.count;
        sum.ops_failed += op.tally.errnos.values().sum::<u64>();
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::judge::plan::{MIX, Shape, plan, sample};
    use crate::target::Chosen;
    use knobrig_proto::ActorReport;

    /// What a correct driver would answer to a plan.
    fn correct(plan: &Plan) -> EpisodeReport {
        let wanted = |place: Place| {
            let check = plan.checks.iter().find(|check| check.place == place);
            let (ret, text) = match check.map(|check| &check.expect) {
                Some(Expect::OneOf(results)) => (results[0], None),
                Some(Expect::Text(text)) => (2, Some(format!("{text}\n"))),
                Some(Expect::Lacks(_)) => (2, Some("ok\n".into())),
                Some(Expect::Changed { by, .. }) => (2, Some(format!("{}\n", 5 + by))),
                Some(Expect::OkOr(_)) if check.is_some_and(|c| c.rule == Rule::ObjectCounts) => {
                    (2, Some("5\n".into()))
                }
                Some(
                    Expect::OkOr(_)
                    | Expect::OkWhile(_)
                    | Expect::OkWhileServed(_)
                    | Expect::OkAfter(_),
                )
                | None => (0, None),
            };
            Outcome {
                ret,
                start_ns: 5,
                end_ns: 6,
                text,
            }
        };
        let episode = &plan.episode;
        EpisodeReport {
            id: episode.id,
            before: (0..episode.before.len())
                .map(|step| wanted(Place::Before(step)))
                .collect(),
            actors: (episode.actors.iter().enumerate())
                .map(|(index, actor)| ActorReport {
                    name: actor.name.clone(),
                    outcomes: match actor.repeat {
                        Repeat::Once => (0..actor.steps.len())
                            .map(|step| wanted(Place::Actor(index, step)))
                            .collect(),
                        Repeat::UntilOthersEnd => Vec::new(),
                    },
                    rounds: 1,
                })
                .collect(),
            after: (0..episode.after.len())
                .map(|step| wanted(Place::After(step)))
                .collect(),
            ..EpisodeReport::default()
        }
    }

    fn of(lifetime: &str, shape: Shape, number: u64) -> Plan {
        let target = Chosen::find("mydrv", Some(lifetime), None).expect("built in");
        plan(&target, &sample(&target), 1, number, &[shape])
    }

    fn pinned(shape: Shape) -> Plan {
        of("pinned", shape, 1)
    }

    /// Plans of every lifetime and shape.
    fn all() -> Vec<Plan> {
        let target = Chosen::find("mydrv", None, None).expect("built in").target;
        let mut plans = Vec::new();
        for lifetime in &target.lifetimes {
            for number in 1..9 {
                for (shape, _) in MIX {
                    plans.push(of(&lifetime.name, *shape, number));
                }
            }
        }
        plans
    }

    #[test]
    fn a_correct_driver_breaks_no_rule() {
        for plan in all() {
            let verdict = judge(&plan, &correct(&plan), false);
            assert_eq!(verdict.violations, []);
            assert_eq!(
                verdict.held.values().sum::<u64>(),
                plan.checks.len() as u64 + 1
            );
        }
    }

    #[test]
    fn a_device_that_was_not_reset_is_told() {
        let plan = pinned(Shape::Counts);
        let violations = judge(&plan, &correct(&plan), true).violations;
        assert_eq!(violations[0].rule, Some(Rule::DeviceStopped));
    }

    #[test]
    fn a_module_that_stayed_need_not_have_reset_its_device() {
        let plan = pinned(Shape::Counts);
        let mut report = correct(&plan);
        for (step, outcome) in plan.episode.after.iter().zip(&mut report.after) {
            if matches!(step, Step::Unload { .. }) {
                outcome.ret = EWOULDBLOCK;
            }
        }
        let violations = judge(&plan, &report, true).violations;
        assert!((violations.iter()).all(|it| it.rule != Some(Rule::DeviceStopped)));
    }

    #[test]
    fn whoever_was_served_was_inside_all_the_time() {
        let mut plan = of("drained", Shape::Gated, 1);
        let (look, op) = (Place::Actor(1, 0), Place::Actor(0, 0));
        plan.checks = vec![Check {
            rule: Rule::KnobsFirst,
            place: look,
            expect: Expect::OkWhileServed(op),
        }];
        let broken = |ret, start_ns, end_ns| {
            let mut report = correct(&plan);
            // The look, from 5 to 6, finds it gone.
            report.actors[1].outcomes[0].ret = ENOENT;
            let op = &mut report.actors[0].outcomes[0];
            (op.ret, op.start_ns, op.end_ns) = (ret, start_ns, end_ns);
            !judge(&plan, &report, false).violations.is_empty()
        };
        assert!(broken(3, 4, 7));
        for (ret, start, end) in [(ENODEV, 4, 7), (3, 6, 7), (3, 4, 6)] {
            assert!(!broken(ret, start, end), "{ret} {start} {end}");
        }
    }

    /// Every check can fail: a result that it doesn't allow is told.
    #[test]
    fn every_check_can_fail() {
        for plan in all() {
            for check in &plan.checks {
                let mut report = correct(&plan);
                let outcome = match check.place {
                    Place::Before(step) => &mut report.before[step],
                    Place::Actor(actor, step) => &mut report.actors[actor].outcomes[step],
                    Place::After(step) => &mut report.after[step],
                };
                *outcome = Outcome {
                    ret: -5,
                    start_ns: 0,
                    end_ns: 0,
                    text: matches!(check.expect, Expect::Text(_) | Expect::Changed { .. })
                        .then(|| "77".to_owned()),
                };
                let violations = judge(&plan, &report, false).violations;
                let first = violations.iter().find(|it| it.rule == Some(check.rule));
                assert!(first.is_some(), "{check:?}: {violations:?}");
            }
        }
    }

    #[test]
    fn an_unload_before_the_reference_is_given_back_is_told() {
        let plan = of("exit-waits", Shape::Elsewhere, 1);
        let mut report = correct(&plan);
        assert_eq!(judge(&plan, &report, false).violations, []);
        let unload = &mut report.actors[0].outcomes[0];
        (unload.start_ns, unload.end_ns) = (1, 2);
        let violations = judge(&plan, &report, false).violations;
        assert_eq!(violations[0].rule, Some(Rule::WaitsForRelease));
        assert!(violations[0].detail.contains("it was done before"));
    }

    #[test]
    fn a_stuck_teardown_is_told_with_its_stack() {
        let plan = pinned(Shape::Gated);
        let mut report = correct(&plan);
        report.stuck.push(Stuck {
            actor: "rmmod".into(),
            step: 1,
            state: "D".into(),
            stack: "kernfs_drain+0x1/0x2".into(),
        });
        let violations = judge(&plan, &report, false).violations;
        assert_eq!(violations.len(), 1);
        assert_eq!(violations[0].step, "unload mydrv");
        assert!(violations[0].detail.contains("kernfs_drain"));
    }

    #[test]
    fn an_op_that_found_nothing_is_no_overlap() {
        let plan = pinned(Shape::Gated);
        let mut report = correct(&plan);
        let inside = |ret| Inside {
            teardown: "rmmod".into(),
            step: 1,
            actor: "holder".into(),
            op: "read".into(),
            path: "/x".into(),
            ret,
        };
        report.inside = vec![inside(Some(ENODEV))];
        assert_eq!(collisions(&plan, &report, false).overlapped, 0);
        report.inside = vec![inside(Some(ENODEV)), inside(Some(2))];
        assert_eq!(collisions(&plan, &report, false).overlapped, 1);
        report.inside = vec![inside(Some(ENODEV))];
        assert_eq!(collisions(&plan, &report, true).overlapped, 1);
        report.inside = vec![inside(None)];
        assert_eq!(collisions(&plan, &report, false).overlapped, 1);
    }
}
