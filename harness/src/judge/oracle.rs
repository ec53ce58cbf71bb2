//! The rules of a target against what an episode came to.

use std::collections::BTreeSet;

use knobrig_proto::{EpisodeReport, Inside, Outcome, Repeat, Step, Stuck};
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

/// Judges an episode by its plan's checks and by liveness.
pub fn judge(plan: &Plan, report: &EpisodeReport) -> Vec<Violation> {
    let mut violations: Vec<_> = report
        .stuck
        .iter()
        .map(|stuck| liveness(plan, stuck))
        .collect();
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
            Place::Before(_) => false,
            Place::Actor(actor, _) => {
                !came_up || stuck.contains(plan.episode.actors[actor].name.as_str())
            }
            Place::After(_) => !came_up || !stuck.is_empty(),
        };
        if moot {
            continue;
        }
        violations.extend(broken(plan, check, outcome(report, check.place)));
    }
    violations
}

fn outcome(report: &EpisodeReport, place: Place) -> Option<&Outcome> {
    match place {
        Place::Before(step) => report.before.get(step),
        Place::Actor(actor, step) => report.actors.get(actor)?.outcomes.get(step),
        Place::After(step) => report.after.get(step),
    }
}

fn broken(plan: &Plan, check: &Check, outcome: Option<&Outcome>) -> Option<Violation> {
    let step = step_at(plan, check.place)?;
    let expected = describe(&check.expect);
    let Some(outcome) = outcome else {
        // A step after the first failure of `before` never ran; the failure itself is told.
        let told = matches!(check.place, Place::Before(_));
        return (!told).then(|| Violation {
            rule: Some(check.rule),
            step: step_text(step),
            detail: format!("expected {expected}, but it never ran"),
        });
    };
    let text = outcome.text.as_deref().map(str::trim);
    let holds = match &check.expect {
        Expect::OkOr(errors) => outcome.ret >= 0 || errors.contains(&outcome.ret),
        Expect::OneOf(results) => results.contains(&outcome.ret),
        Expect::Text(wanted) => text == Some(wanted),
    };
    (!holds).then(|| Violation {
        rule: Some(check.rule),
        step: step_text(step),
        detail: match (&check.expect, text) {
            (Expect::Text(_), Some(text)) => format!("expected {expected}, read {text:?}"),
            _ => format!("expected {expected}, got {}", result_text(outcome.ret)),
        },
    })
}

fn liveness(plan: &Plan, stuck: &Stuck) -> Violation {
    let actor = plan
        .episode
        .actors
        .iter()
        .find(|actor| actor.name == stuck.actor);
    let step = actor.and_then(|actor| actor.steps.get(stuck.step));
    Violation {
        rule: None,
        step: step.map_or_else(|| stuck.actor.clone(), step_text),
        detail: format!(
            "{} did not return within {} ms (state {}):\n{}",
            stuck.actor,
            plan.episode.deadline_ms,
            stuck.state,
            stuck.stack.trim_end()
        ),
    }
}

fn step_at(plan: &Plan, place: Place) -> Option<&Step> {
    match place {
        Place::Before(step) => plan.episode.before.get(step),
        Place::Actor(actor, step) => plan.episode.actors.get(actor)?.steps.get(step),
        Place::After(step) => plan.episode.after.get(step),
    }
}

fn describe(expect: &Expect) -> String {
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
    match step {
        Step::Open { path, .. } => format!("open {path}"),
        Step::Close { slot } => format!("close descriptor {slot}"),
        Step::Read { slot, .. } => format!("read descriptor {slot}"),
        Step::Write { slot, .. } => format!("write descriptor {slot}"),
        Step::Seek { slot, offset } => format!("lseek descriptor {slot} to {offset}"),
        Step::Poll { slot, .. } => format!("poll descriptor {slot}"),
        Step::Load { module, params } => format!("load {module} {params}").trim_end().to_owned(),
        Step::Unload { module } => format!("unload {module}"),
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
        Step::WaitSignal { name, .. } => format!("wait for signal {name}"),
        Step::Spin { us } => format!("spin {us} us"),
    }
}

/// Whether an op's result shows that it reached a live driver. One that has not returned is
/// inside.
fn reached_driver(inside: &Inside) -> bool {
    inside
        .ret
        .is_none_or(|ret| ret >= 0 || ![ENOENT, ENODEV, -6, -9].contains(&ret))
}

/// Counts teardowns, overlaps and ops of an episode.
pub fn collisions(plan: &Plan, report: &EpisodeReport) -> Collisions {
    let mut sum = Collisions::default();
    for (actor, outcomes) in plan.episode.actors.iter().zip(&report.actors) {
        if !actor.teardown || actor.repeat != Repeat::Once {
            continue;
        }
        for (index, (step, outcome)) in actor.steps.iter().zip(&outcomes.outcomes).enumerate() {
            if !matches!(step, Step::Unload { .. }) {
                continue;
            }
            match outcome.ret {
                0 => sum.teardowns_ok += 1,
                EWOULDBLOCK => sum.teardowns_refused += 1,
                _ => continue,
            }
            let met = report.inside.iter().any(|inside| {
                inside.teardown == actor.name && inside.step == index && reached_driver(inside)
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
    use crate::judge::plan::{Shape, plan};
    use crate::target::Chosen;
    use knobrig_proto::ActorReport;

    /// What a correct driver would answer to a plan.
    fn correct(plan: &Plan) -> EpisodeReport {
        let wanted = |place: Place| {
            let check = plan.checks.iter().find(|check| check.place == place);
            let (ret, text) = match check.map(|check| &check.expect) {
                Some(Expect::OneOf(results)) => (results[0], None),
                Some(Expect::Text(text)) => (2, Some(format!("{text}\n"))),
                Some(Expect::OkOr(_)) | None => (0, None),
            };
            Outcome {
                ret,
                start_ns: 0,
                end_ns: 0,
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
            tallies: Vec::new(),
            inside: Vec::new(),
            stuck: Vec::new(),
        }
    }

    fn pinned(shape: Shape) -> Plan {
        plan(
            &Chosen::find("mydrv", None, None).expect("built in"),
            1,
            1,
            &[shape],
        )
    }

    #[test]
    fn a_correct_driver_breaks_no_rule() {
        for shape in [Shape::Gated, Shape::Stress, Shape::Birth, Shape::Counts] {
            let plan = pinned(shape);
            assert_eq!(judge(&plan, &correct(&plan)), []);
        }
    }

    /// Every check can fail: a result that it doesn't allow is told.
    #[test]
    fn every_check_can_fail() {
        for shape in [Shape::Gated, Shape::Stress, Shape::Birth, Shape::Counts] {
            let plan = pinned(shape);
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
                    text: Some("77".to_owned()),
                };
                let violations = judge(&plan, &report);
                assert_eq!(violations[0].rule, Some(check.rule), "{check:?}");
            }
        }
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
        let violations = judge(&plan, &report);
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
        assert_eq!(collisions(&plan, &report).overlapped, 0);
        report.inside = vec![inside(Some(ENODEV)), inside(Some(2))];
        assert_eq!(collisions(&plan, &report).overlapped, 1);
        report.inside = vec![inside(None)];
        assert_eq!(collisions(&plan, &report).overlapped, 1);
    }
}
