//! A schedule as text: its version, then a line per edge.
//!
//! ```text
//! schedule 1
//! A.read#2@device.before-completion -> B.rmmod#1@begin
//! B.rmmod#1@fn:kernfs_drain.entry -> A.read#2@end
//! A.read#1@own:schedule_timeout.return -> B.rmmod#1@end
//! A@mydrv+0x1a4 -> B.rmmod#1@end
//! ```

use std::fmt;
use std::str::FromStr;

use knobrig_proto::End;

use super::{At, Edge, Occurrence, Schedule, VERSION};

/// A line that is no part of a schedule.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line} of the schedule: {text:?} {why}")]
pub struct BadSchedule {
    /// Counted from 1.
    pub line: usize,
    /// The line.
    pub text: String,
    /// What is wrong.
    pub why: &'static str,
}

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Begin => f.write_str("begin"),
            Self::End => f.write_str("end"),
            Self::Device(point) => write!(f, "device.{point}"),
            Self::Call { function, end, own } => {
                let kind = if *own { "own" } else { "fn" };
                let end = match end {
                    End::Entry => "entry",
                    End::Return => "return",
                };
                write!(f, "{kind}:{function}.{end}")
            }
            Self::Instruction { module, offset } => write!(f, "{module}+{offset:#x}"),
        }
    }
}

impl fmt::Display for Occurrence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.actor)?;
        if let Some(op) = &self.op {
            write!(f, ".{op}")?;
        }
        write!(f, "#{}@{}", self.nth, self.at)
    }
}

impl fmt::Display for Edge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} -> {}", self.before, self.after)
    }
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "schedule {VERSION}")?;
        self.edges.iter().try_for_each(|edge| writeln!(f, "{edge}"))
    }
}

/// A name within an occurrence: what its punctuation can't be mistaken for.
fn name(text: &str) -> Option<String> {
    let fits = |c: char| c.is_ascii_alphanumeric() || "_-/:".contains(c);
    (!text.is_empty() && text.chars().all(fits)).then(|| text.to_owned())
}

impl FromStr for At {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let called = (text.strip_prefix("fn:").map(|it| (it, false)))
            .or_else(|| text.strip_prefix("own:").map(|it| (it, true)));
        if let Some((function, own)) = called {
            // Symbols of the compiler's own making have dots (`show.constprop.0`).
            let symbol = |name: &str| {
                let fits = |c: char| c.is_ascii_alphanumeric() || "_.$:".contains(c);
                (!name.is_empty() && name.chars().all(fits)).then(|| name.to_owned())
            };
            let wrong = "names a function without .entry or .return";
            let (name, end) = function.rsplit_once('.').ok_or(wrong)?;
            let end = match end {
                "entry" => End::Entry,
                "return" => End::Return,
                _ => return Err(wrong),
            };
            let function = symbol(name).ok_or("has a function name that is none")?;
            return Ok(Self::Call { function, end, own });
        }
        if let Some(point) = text.strip_prefix("device.") {
            let point = name(point).ok_or("has a device point that is none")?;
            return Ok(Self::Device(point));
        }
        if let Some((module, offset)) = text.split_once("+0x") {
            let module = name(module).ok_or("has a module name that is none")?;
            let offset =
                u64::from_str_radix(offset, 16).map_err(|_| "has an offset that is none")?;
            return Ok(Self::Instruction { module, offset });
        }
        match text {
            "begin" => Ok(Self::Begin),
            "end" => Ok(Self::End),
            _ => Err(
                "has a point that is none; they are begin, end, device.POINT, \
                      fn:FUNCTION.entry, fn:FUNCTION.return, own:FUNCTION.entry, \
                      own:FUNCTION.return, MODULE+0xOFFSET",
            ),
        }
    }
}

impl FromStr for Occurrence {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (who, at) = text
            .split_once('@')
            .ok_or("has no @ between actor and point")?;
        let (who, nth) = match who.split_once('#') {
            None => (who, 1),
            Some((who, nth)) => match nth.parse() {
                Ok(nth @ 1..) => (who, nth),
                _ => return Err("has an occurrence that is no number from 1"),
            },
        };
        let wrong = "has a name that is none: letters, digits, _ - / : are";
        let (actor, op) = match who.split_once('.') {
            None => (who, None),
            Some((actor, op)) => (actor, Some(name(op).ok_or(wrong)?)),
        };
        Ok(Self {
            actor: name(actor).ok_or(wrong)?,
            op,
            nth,
            at: at.parse()?,
        })
    }
}

impl FromStr for Edge {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (before, after) = text.split_once("->").ok_or("has no ->")?;
        Ok(Self {
            before: before.trim().parse()?,
            after: after.trim().parse()?,
        })
    }
}

impl FromStr for Schedule {
    type Err = BadSchedule;

    /// Empty lines, and what follows a `;`, are for people.
    fn from_str(text: &str) -> Result<Self, BadSchedule> {
        let mut lines = (text.lines().enumerate())
            .map(|(at, line)| (at + 1, line.split(';').next().unwrap_or_default().trim()))
            .filter(|(_, line)| !line.is_empty());
        let bad = |line, text: &str, why| BadSchedule {
            line,
            text: text.into(),
            why,
        };
        match lines.next() {
            None => return Err(bad(1, "", "should be `schedule 1`")),
            Some((_, first)) if first == format!("schedule {VERSION}") => {}
            Some((line, first)) => {
                return Err(bad(
                    line,
                    first,
                    "should be `schedule 1`, the version known here",
                ));
            }
        }
        let edges = lines
            .map(|(line, text)| text.parse().map_err(|why| bad(line, text, why)))
            .collect::<Result<_, _>>()?;
        Ok(Self { edges })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_module_s_example_reads_and_prints() {
        let text = "schedule 1\n\
            A.read#2@device.before-completion -> B.rmmod#1@begin\n\
            B.rmmod#1@fn:kernfs_drain.entry -> A.read#2@end\n\
            A.read#1@own:schedule_timeout.return -> B.rmmod#1@end\n\
            A#1@mydrv+0x1a4 -> B.rmmod#1@end\n";
        let schedule: Schedule = text.parse().expect("a schedule");
        assert_eq!(schedule.to_string(), text);
        let loose = "\n; why\nschedule 1\n  A@begin->B@end ; so\n";
        let schedule: Schedule = loose.parse().expect("a schedule");
        assert_eq!(schedule.edges[0].to_string(), "A#1@begin -> B#1@end");
    }

    #[test]
    fn an_error_names_the_line() {
        let wrong = |text: &str| text.parse::<Schedule>().expect_err("wrong").to_string();
        assert!(wrong("").starts_with("line 1 "));
        assert!(wrong("schedule 2\n").contains("the version known here"));
        let text = wrong("schedule 1\nA@begin -> B@begin\nA@begin -> B@middle\n");
        assert!(
            text.starts_with("line 3 ") && text.contains("they are begin"),
            "{text}"
        );
        assert!(wrong("schedule 1\nA#0@begin -> B@end\n").contains("number from 1"));
    }

    fn at() -> impl Strategy<Value = At> {
        let word = "[a-z_][a-z0-9_]{0,9}";
        prop_oneof![
            Just(At::Begin),
            Just(At::End),
            "[a-z-]{1,9}".prop_map(At::Device),
            ("[A-Za-z_$.0-9]{1,9}", any::<bool>(), any::<bool>()).prop_map(
                |(function, entry, own)| At::Call {
                    function,
                    end: if entry { End::Entry } else { End::Return },
                    own,
                }
            ),
            (word, any::<u64>()).prop_map(|(module, offset)| At::Instruction { module, offset }),
        ]
    }

    fn occurrence() -> impl Strategy<Value = Occurrence> {
        let op = proptest::option::of("[a-z]{1,6}");
        ("[A-Za-z][a-z0-9/-]{0,6}", op, 1u32.., at()).prop_map(|(actor, op, nth, at)| Occurrence {
            actor,
            op,
            nth,
            at,
        })
    }

    proptest! {
        #[test]
        fn a_schedule_reads_as_printed(
            edges in proptest::collection::vec((occurrence(), occurrence()), 0..6)
        ) {
            let edges = edges.into_iter().map(|(before, after)| Edge { before, after });
            let schedule = Schedule { edges: edges.collect() };
            prop_assert_eq!(schedule.to_string().parse::<Schedule>(), Ok(schedule));
        }

        #[test]
        fn no_text_panics(text in "\\PC{0,80}") {
            let _ = text.parse::<Schedule>();
            let _ = format!("schedule 1\n{text}").parse::<Schedule>();
        }
    }
}
