//! An episode in words: steps by the paths of their descriptors, gates and orders as sentences.

use std::collections::BTreeMap;

use dk_control::Gate;
use knobrig_proto::{End, FunctionGate, Step, Who};

use crate::judge::finding::kebab;
use crate::judge::oracle::step_text_with;
use crate::judge::plan::reduce::Part;
use crate::judge::plan::{Plan, Reaction, Then, When};

/// The words for one plan.
#[derive(Debug)]
pub struct Words<'a> {
    plan: &'a Plan,
    /// What each descriptor was opened by.
    paths: BTreeMap<u32, &'a str>,
}

impl<'a> Words<'a> {
    /// Those of this plan.
    pub fn of(plan: &'a Plan) -> Self {
        let actors = plan.episode.actors.iter().flat_map(|actor| &actor.steps);
        let steps = plan.episode.before.iter().chain(actors);
        let paths = (steps.chain(&plan.episode.after))
            .filter_map(|step| match step {
                Step::Open { path, slot, .. } => Some((*slot, path.as_str())),
                _ => None,
            })
            .collect();
        Self { plan, paths }
    }

    /// A step.
    pub fn step(&self, step: &Step) -> String {
        step_text_with(step, |slot| match self.paths.get(&slot) {
            Some(path) => (*path).to_owned(),
            None => format!("descriptor {slot}"),
        })
    }

    /// What a gate holds, and where.
    pub fn gate(&self, gate: &Gate) -> String {
        let kinds: Vec<_> = gate.kinds.iter().map(kebab).collect();
        format!(
            "holds a {} at {} (gate {})",
            kinds.join(" or "),
            kebab(&gate.point),
            gate.tag
        )
    }

    /// What follows from what.
    pub fn reaction(&self, reaction: &Reaction) -> String {
        let then = reaction.then.iter().map(|then| match then {
            Then::Raise(name) => format!("signal {name}"),
            Then::Release(tag) | Then::Free(tag) => format!("let go what gate {tag} holds"),
            Then::Unplug(id) => format!("unplug {id}"),
            Then::Plug(id) => format!("plug {id} in again"),
            Then::Kill => "kill the device".into(),
            Then::Revive => "bring the device back".into(),
            Then::Arm => "arm the order".into(),
        });
        let then: Vec<_> = then.collect();
        format!("{}: {}", self.when(&reaction.when), then.join(", "))
    }

    fn when(&self, when: &When) -> String {
        match when {
            When::Held(tag) => format!("gate {tag} holds"),
            When::Settled(name, step) => {
                let step = self.step_of(name, *step);
                format!("{name} waits in, or has done, \"{step}\"")
            }
            When::Asleep(name, step) => {
                let step = self.step_of(name, *step);
                format!("{name} waits in \"{step}\"")
            }
            When::Armed => "it is armed".into(),
        }
    }

    /// How vCPUs are delayed, if they are.
    pub fn delays(&self) -> Option<String> {
        let delays = self.plan.delays.as_ref()?;
        Some(format!(
            "vCPUs are delayed at one instruction in {} of {}, by up to {} us each (seed {})",
            delays.law.one_in,
            delays.modules.join(", "),
            delays.law.longest_us,
            delays.law.seed
        ))
    }

    fn step_of(&self, name: &str, step: usize) -> String {
        let actors = &self.plan.episode.actors;
        (actors.iter().find(|actor| actor.name == name))
            .and_then(|actor| actor.steps.get(step))
            .map_or(String::new(), |step| self.step(step))
    }

    /// An order with its ends as the threads' own steps: what a signal begins, what a gate holds.
    fn order(&self, reaction: &Reaction) -> String {
        let from = match &reaction.when {
            When::Held(tag) if self.plan.function_gate(tag).is_none() => {
                format!("{} is held by the device", self.held(tag))
            }
            When::Held(tag) => format!("{} is held", self.held(tag)),
            when => self.when(when),
        };
        let to: Vec<_> = (reaction.then.iter())
            .map(|then| match then {
                Then::Raise(name) => self.begun_by(name),
                Then::Release(tag) | Then::Free(tag) => format!("{} goes on", self.held(tag)),
                Then::Unplug(id) => format!("{id} is unplugged"),
                Then::Plug(id) => format!("{id} is plugged in again"),
                Then::Kill => "the device dies".into(),
                Then::Revive => "the device comes back".into(),
                Then::Arm => "the order is armed".into(),
            })
            .collect();
        format!("{from} before {}", to.join(" and "))
    }

    /// What begins when a signal is raised.
    fn begun_by(&self, signal: &str) -> String {
        for (actor, at) in self.plan.waits_for(signal) {
            let actor = &self.plan.episode.actors[actor];
            if let Some(next) = actor.steps.get(at + 1) {
                return format!("{} begins \"{}\"", actor.name, self.step(next));
            }
        }
        format!("signal {signal}")
    }

    /// Whose op a gate holds. Where it can't be told, the request itself.
    fn held(&self, tag: &str) -> String {
        if let Some(gate) = self.plan.function_gate(tag) {
            let who = match &gate.who {
                Who::Actor(name) => name.as_str(),
                Who::Worker => "a worker",
                Who::Anybody => "somebody",
            };
            let end = match gate.end {
                End::Entry => "about to enter",
                End::Return => "back from",
            };
            return format!("{who}, {end} {} (call {})", gate.function, gate.occurrence);
        }
        let op = |step: &&Step| matches!(step, Step::Read { .. } | Step::Write { .. });
        match self.plan.asker(tag) {
            None => format!("the request at gate {tag}"),
            Some(actor) => match actor.steps.iter().rfind(op) {
                Some(step) => format!("{}'s \"{}\"", actor.name, self.step(step)),
                None => format!("{}'s request", actor.name),
            },
        }
    }
}

/// What a function gate holds.
pub fn function_gate(gate: &FunctionGate) -> String {
    let who = match &gate.who {
        Who::Actor(name) => name.clone(),
        Who::Worker => "a worker".into(),
        Who::Anybody => "whoever comes".into(),
    };
    let end = match gate.end {
        End::Entry => "entry",
        End::Return => "return",
    };
    let own = match gate.own {
        true => " below the driver",
        false => "",
    };
    format!(
        "holds {who} at the {end} of call {} of {}{own} (gate {})",
        gate.occurrence, gate.function, gate.tag
    )
}

/// An order as a sentence without an end; nothing where the part orders nothing.
pub fn edge(plan: &Plan, part: &Part) -> Option<String> {
    let words = Words::of(plan);
    match part {
        Part::Edge(number) => {
            let reaction = plan.reactions.get(*number)?;
            (!only_lets_go(reaction)).then(|| words.order(reaction))
        }
        Part::Step(actor, step) => {
            let actor = plan.episode.actors.get(*actor)?;
            let says = |step: &Step| format!("{} \"{}\"", actor.name, words.step(step));
            match actor.steps.get(*step)? {
                Step::AwaitGate { tag, .. } => {
                    let then = actor.steps.get(step + 1)?;
                    Some(format!("{} is held before {}", words.held(tag), says(then)))
                }
                Step::ReleaseGate { tag } => {
                    let done = step.checked_sub(1).and_then(|last| actor.steps.get(last))?;
                    Some(format!(
                        "{} is over before {} goes on",
                        says(done),
                        words.held(tag)
                    ))
                }
                _ => None,
            }
        }
        Part::Order(number) => {
            let edge = plan.order.as_ref()?.edges.get(*number)?;
            Some(format!("{} before {}", edge.before, edge.after))
        }
        Part::Actor(_) | Part::After(_) => None,
    }
}

/// When the threads of an episode begin, if not together.
pub fn apart(plan: &Plan) -> Option<String> {
    let mut actors: Vec<_> = plan.episode.actors.iter().collect();
    actors.sort_by_key(|actor| actor.lag_ms);
    actors.last().filter(|last| last.lag_ms > 0)?;
    let begins = actors.iter().map(|it| match it.lag_ms {
        0 => format!("{} begins", it.name),
        ms => format!("{} after {ms} ms", it.name),
    });
    Some(begins.collect::<Vec<_>>().join(", "))
}

/// What happens in an episode, and what comes of it.
pub fn sentence(plan: &Plan, title: &str) -> String {
    let words = Words::of(plan);
    let mut parts: Vec<_> = (plan.edges().iter())
        .filter_map(|part| edge(plan, part))
        .collect();
    if parts.is_empty() {
        let threads = plan.episode.actors.iter().map(|actor| {
            let steps: Vec<_> = actor.steps.iter().map(|step| words.step(step)).collect();
            format!("{} does {}", actor.name, steps.join(", then "))
        });
        parts = threads.collect();
        let after = plan.episode.after.iter().map(|step| words.step(step));
        parts.extend(after);
    }
    format!("{}: {title}", parts.join("; "))
}

/// A gate that lets go as soon as it holds orders nothing.
fn only_lets_go(reaction: &Reaction) -> bool {
    let When::Held(tag) = &reaction.when else {
        return false;
    };
    reaction.then == [Then::Release(tag.clone())] || reaction.then == [Then::Free(tag.clone())]
}

/// Steps of an episode that are ops or teardowns: no waits, no looks.
pub fn ops(plan: &Plan) -> usize {
    let actors = plan.episode.actors.iter().flat_map(|actor| &actor.steps);
    (actors.chain(&plan.episode.after))
        .filter(|step| {
            !matches!(
                step,
                Step::WaitSignal { .. }
                    | Step::WaitPath { .. }
                    | Step::WaitText { .. }
                    | Step::Exists { .. }
                    | Step::ReadFile { .. }
                    | Step::Spin { .. }
                    | Step::Nap { .. }
                    | Step::Sleep { .. }
                    | Step::AwaitGate { .. }
                    | Step::ReleaseGate { .. }
            )
        })
        .count()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::judge::plan::{Points, Shape, plan};
    use crate::target::Chosen;

    #[test]
    fn a_gated_race_is_a_sentence() {
        let target = Chosen::find("mydrv", Some("drained"), None).expect("built in");
        let plan = plan(&target, &Points::default(), 3, 1, &[Shape::Gated]);
        let text = sentence(&plan, "KASAN: use-after-free");
        assert!(text.starts_with("holder's \""), "{text}");
        assert!(
            text.contains(" is held by the device before rmmod begins \"unload mydrv\"; rmmod"),
            "{text}"
        );
        assert!(text.ends_with(" goes on: KASAN: use-after-free"), "{text}");
    }
}
