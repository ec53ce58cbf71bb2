//! The words between the harness and its plugin in QEMU.
//!
//! JSON lines over a socket that QEMU inherits. The plugin speaks first ([`Reply::Hello`]) and
//! waits for [`Command::Watch`] before the guest runs; from then on each [`Command`] has one
//! [`Reply`], in order.
#![forbid(unsafe_code)]

mod law;

pub use knobrig_lines::{BadLine, to_line};
use serde::{Deserialize, Serialize};

pub use law::{Dice, Law};

/// Version of the words. Either end refuses any other.
pub const VERSION: u32 = 1;
/// Longest line that either end accepts, in bytes.
pub const MAX_LINE: usize = 64 * 1024;
/// Longest delay that a law may have. A vCPU that stands still keeps interrupts, RCU and QEMU's
/// own pauses waiting, so every delay ends soon.
pub const MOST_US: u32 = 10_000;
/// Longest time that a vCPU may wait for another.
pub const MOST_WAIT_US: u32 = 500_000;
/// Edges that may be armed at once.
pub const MOST_EDGES: usize = 8;
/// Delays of a vCPU that are remembered.
pub const RECENT: usize = 64;
/// Ranges that a command may have.
pub const MOST_RANGES: usize = 32;
/// The environment variable that tells the plugin, before QEMU asks it, for which version of
/// QEMU's plugin interface it is to stand: each QEMU refuses what is older or newer than it knows.
pub const API_VARIABLE: &str = "KNOBRIG_PLUGIN_API";

/// Guest virtual addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Range {
    /// The first.
    pub start: u64,
    /// The first after it.
    pub end: u64,
}

impl Range {
    /// Whether the address is in it.
    pub fn has(&self, address: u64) -> bool {
        (self.start..self.end).contains(&address)
    }
}

/// From the harness.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "kebab-case")]
pub enum Command {
    /// The first: the plugin is to see each instruction in these ranges. Code elsewhere runs as it
    /// does without a plugin.
    Watch {
        /// The sender's [`VERSION`].
        version: u32,
        /// Where code may lie that a later command names.
        ranges: Vec<Range>,
    },
    /// From now on vCPUs are delayed at instructions in these ranges. Takes the place of what was
    /// armed; counts begin at zero.
    Arm {
        /// Where.
        ranges: Vec<Range>,
        /// When, and for how long.
        law: Law,
    },
    /// No more delays. Answered with [`Reply::Counts`].
    Disarm,
    /// From now on vCPUs pass points in these orders. Takes the place of the orders before.
    Order {
        /// At most [`MOST_EDGES`].
        edges: Vec<Edge>,
        /// Who waits goes on after so long, and everybody with him; at most [`MOST_WAIT_US`].
        deadline_us: u32,
    },
    /// No more orders: whoever waits goes on. Answered with [`Reply::Orders`].
    Unorder,
}

/// A vCPU comes to an instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Point {
    /// The vCPU.
    pub vcpu: u32,
    /// The instruction.
    pub address: u64,
    /// For the how-manieth time since the orders were armed, from 1.
    pub nth: u32,
    /// Only this thread of the guest's counts, by its `FS_BASE`. The plugin can't see that: each
    /// thread on the vCPU counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub thread: Option<u64>,
}

/// Who comes to `after` waits there until `before` was reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Edge {
    /// The earlier.
    pub before: Point,
    /// The later.
    pub after: Point,
}

/// What came of an edge.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ordered {
    /// Its earlier end was reached.
    pub before: bool,
    /// Its later end was reached.
    pub after: bool,
    /// How long somebody waited there, in microseconds.
    pub waited_us: u64,
    /// He went on without the earlier end: it did not come within the deadline.
    pub in_vain: bool,
}

/// A delay: where a vCPU stood, and where it was next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Stood {
    /// The vCPU.
    pub vcpu: u32,
    /// The instruction that it had not run yet.
    pub at: u64,
    /// The instruction of the armed ranges that it ran next after that one; 0 if none has yet.
    pub next: u64,
}

/// What came of an armed law.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Instructions that were passed in the armed ranges.
    pub instructions: u64,
    /// Delays.
    pub delays: u64,
    /// Their lengths together, in microseconds.
    pub delayed_us: u64,
    /// The last delays, vCPU by vCPU, the latest first; at most [`RECENT`] of each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub recent: Vec<Stood>,
}

/// From the plugin.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "say", rename_all = "kebab-case")]
pub enum Reply {
    /// Said once, when QEMU loads it.
    Hello {
        /// The plugin's [`VERSION`].
        version: u32,
        /// The newest plugin interface that this QEMU has.
        api: i32,
    },
    /// Done.
    Done,
    /// The answer to [`Command::Disarm`].
    Counts(Counts),
    /// The answer to [`Command::Unorder`], edge by edge.
    Orders {
        /// In the order of the command.
        orders: Vec<Ordered>,
    },
    /// The command can't be carried out.
    Refused {
        /// What was wrong and what to send instead.
        why: String,
    },
}

/// Reads one line.
///
/// # Errors
/// [`BadLine`] where it isn't a message of type `T`.
pub fn from_line<'a, T: Deserialize<'a>>(line: &'a str) -> Result<T, BadLine> {
    knobrig_lines::from_line("between harness and plugin", line)
}

/// What is wrong with ranges, if anything.
///
/// # Errors
/// What to send instead.
pub fn check(ranges: &[Range]) -> Result<(), String> {
    if ranges.is_empty() || ranges.len() > MOST_RANGES {
        return Err(format!("{} ranges; send 1 to {MOST_RANGES}", ranges.len()));
    }
    match ranges.iter().find(|range| range.start >= range.end) {
        None => Ok(()),
        Some(range) => Err(format!(
            "the range {:#x} to {:#x} is empty; its start must be less than its end",
            range.start, range.end
        )),
    }
}

/// What is wrong with orders, if anything.
///
/// # Errors
/// What to send instead.
pub fn check_orders(edges: &[Edge], deadline_us: u32) -> Result<(), String> {
    if edges.is_empty() || edges.len() > MOST_EDGES {
        return Err(format!("{} edges; send 1 to {MOST_EDGES}", edges.len()));
    }
    if deadline_us == 0 || deadline_us > MOST_WAIT_US {
        return Err(format!(
            "a deadline of {deadline_us} us; send 1 to {MOST_WAIT_US}"
        ));
    }
    match (edges.iter().flat_map(|edge| [edge.before, edge.after])).find(|point| point.nth == 0) {
        None => Ok(()),
        Some(point) => Err(format!("{point:?} comes for the 0th time; send 1 or more")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_version_1_reads_as_written() {
        let line =
            r#"{"do":"watch","version":1,"ranges":[{"start":1,"end":18446744072635809792}]}"#;
        let message: Command = from_line(line).expect("a line of version 1");
        assert_eq!(to_line(&message).trim_end(), line);
        let line = r#"{"do":"arm","ranges":[{"start":1,"end":2}],"law":{"seed":7,"one_in":20,"longest_us":1000}}"#;
        let message: Command = from_line(line).expect("a line of version 1");
        assert_eq!(to_line(&message).trim_end(), line);
        let line = r#"{"do":"order","edges":[{"before":{"vcpu":0,"address":5,"nth":1},"after":{"vcpu":1,"address":6,"nth":2}}],"deadline_us":9}"#;
        let message: Command = from_line(line).expect("a line of version 1");
        assert_eq!(to_line(&message).trim_end(), line);
        let line = r#"{"say":"orders","orders":[{"before":true,"after":true,"waited_us":7,"in_vain":false}]}"#;
        let message: Reply = from_line(line).expect("a line of version 1");
        assert_eq!(to_line(&message).trim_end(), line);
        let line = r#"{"say":"counts","instructions":9,"delays":2,"delayed_us":11}"#;
        let message: Reply = from_line(line).expect("a line of version 1");
        assert_eq!(to_line(&message).trim_end(), line);
    }

    #[test]
    fn orders_have_bounds() {
        let point = |nth| Point {
            vcpu: 0,
            address: 1,
            nth,
            thread: None,
        };
        let edge = |nth| Edge {
            before: point(1),
            after: point(nth),
        };
        assert!(check_orders(&[edge(1)], 1).is_ok());
        assert!(check_orders(&[edge(0)], 1).is_err());
        assert!(check_orders(&[], 1).is_err());
        assert!(check_orders(&[edge(1); MOST_EDGES + 1], 1).is_err());
        assert!(check_orders(&[edge(1)], MOST_WAIT_US + 1).is_err());
    }

    #[test]
    fn a_range_is_told_apart_from_none() {
        assert!(check(&[Range { start: 1, end: 2 }]).is_ok());
        assert!(check(&[]).is_err());
        let none = Range { start: 2, end: 2 };
        assert!(check(&[none]).is_err() && !none.has(2));
        assert!(check(&[Range { start: 1, end: 2 }; MOST_RANGES + 1]).is_err());
    }
}
