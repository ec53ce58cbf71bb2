//! A race: a small program of a few actors that is run in one order after another.
//!
//! An actor goes in *turns*. In a turn it goes on from the point where it stands, and it stands
//! again at the point where the turn is to end; meanwhile the others stand. Here is a race's text;
//! `order` makes the episode that takes it through turns, `dry` finds its points.

use std::collections::BTreeMap;

use super::points::Program as Actors;
use crate::schedule::{Actor, At, Occurrence, Program};
use crate::target::{AskingOp, Chosen, Knob};

mod dry;
mod order;

pub(super) use dry::entries;
pub use dry::{Cut, DOORS, TooManyCalls, agreed, dependent, points, survey, taps, ways};
pub use order::{Ordered, Stood, ordered};

/// Actors of a race, at most.
pub const ACTORS: usize = 3;

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

#[cfg(test)]
mod tests;
