//! The knob device's control channel and trace, as both ends write them.
//!
//! Both are JSON lines. The control channel is a Unix stream socket at which the device
//! listens: the harness sends [`Command`]s, the device answers each with a [`Reply`] and sends
//! [`Event`]s in between. The trace is a file of [`Record`]s that starts with [`Record::Header`].
//! Times are nanoseconds of the host's `CLOCK_MONOTONIC`.
#![forbid(unsafe_code)]

pub use knobrig_lines::{BadLine, to_line};
use serde::{Deserialize, Serialize};

/// Version of both formats. A reader refuses any other.
pub const VERSION: u32 = 1;

/// Longest line that either end accepts, in bytes.
pub const MAX_LINE: usize = 64 * 1024;

/// Where in its way a request can be held.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Point {
    /// Popped from the available ring and parsed; nothing done yet.
    Seen,
    /// Done, its answer written to guest memory; not yet in the used ring.
    BeforeCompletion,
}

/// Kinds of request, as gates select them and the trace names them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
#[expect(
    missing_docs,
    reason = "each is the virtio-blk or knob request of that name"
)]
pub enum Kind {
    Read,
    Write,
    Flush,
    GetId,
    Discard,
    WriteZeroes,
    KnobGet,
    KnobSet,
    Unknown,
}

/// Holds the next requests that fit, each until it is released.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gate {
    /// Names the gate in commands, events and the trace. Arming a tag anew replaces the gate.
    pub tag: String,
    /// Where it holds.
    pub point: Point,
    /// Kinds that it holds; empty means every kind.
    #[serde(default)]
    pub kinds: Vec<Kind>,
    /// Only requests for this knob or first sector.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sector: Option<u64>,
    /// Fitting requests that pass before the first is held.
    #[serde(default)]
    pub skip: u32,
    /// Requests that it holds before it disarms itself; at least 1.
    pub count: u32,
    /// A held request goes on by itself after so many milliseconds. Every hold ends.
    pub deadline_ms: u64,
}

/// What the harness asks of the device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "kebab-case")]
pub enum Command {
    /// First command of a connection.
    Hello {
        /// The sender's [`VERSION`].
        version: u32,
    },
    /// Arm a gate.
    Arm(Gate),
    /// Take a gate away; what it holds stays held until released or its deadline.
    Disarm {
        /// The gate's tag.
        tag: String,
    },
    /// Let everything go that the gate holds. Answered after the requests went on.
    Release {
        /// The gate's tag.
        tag: String,
    },
    /// Disarm every gate and let everything go.
    Reset,
    /// Ask for [`Counters`].
    Status,
    /// End the device program in order.
    Quit,
}

/// A command with the number by which its reply names it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Numbered {
    /// Chosen by the sender.
    pub id: u64,
    /// The command.
    #[serde(flatten)]
    pub command: Command,
}

/// Why a held request went on, or didn't.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Let {
    /// A release or reset command.
    Command,
    /// The gate's deadline.
    Deadline,
    /// The ring stopped under it: dropped, never answered.
    RingStopped,
}

/// What the device has counted since its start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counters {
    /// Requests popped from the ring.
    pub seen: u64,
    /// Requests put into the used ring.
    pub completed: u64,
    /// Chains that are no request (short, looping, out of range): answered with an error status
    /// where a status byte could be found, else dropped.
    pub malformed: u64,
    /// Requests dropped since the ring stopped while they were held.
    pub dropped: u64,
    /// Requests held at this moment.
    pub held: u64,
    /// Times that QEMU connected.
    pub connections: u64,
    /// The ring runs: the driver has started it, and has not reset the device since.
    #[serde(default)]
    pub running: bool,
}

/// What the device says on the control channel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "say", rename_all = "kebab-case")]
pub enum Reply {
    /// The command was carried out.
    Done {
        /// The command's number.
        id: u64,
        /// Requests that a release or reset let go.
        #[serde(default)]
        released: u64,
    },
    /// The answer to [`Command::Status`].
    Status {
        /// The command's number.
        id: u64,
        /// The counts.
        counters: Counters,
    },
    /// The command can't be carried out.
    Refused {
        /// The command's number; 0 if the line could not be read.
        id: u64,
        /// What was wrong and what to send instead.
        why: String,
    },
    /// Something happened that the harness waits for.
    Event(Event),
}

/// What a driver does that has given up its ring, or the ring's memory, in the wrong order. The
/// device can't fault it as KASAN would, but it sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Suspicion {
    /// The used ring, which only the device writes, was changed while the ring ran.
    UsedRingOverwritten,
    /// The available index went back, or ahead by more than the ring holds.
    AvailableRingOverwritten,
    /// The descriptors of a request in flight were changed before its answer.
    RequestOverwritten,
    /// A kick for a ring that is stopped. QEMU lets next to none of them through.
    KickedWhileStopped,
}

/// What happens at gates, and what the device witnesses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum Event {
    /// A gate holds a request.
    Held {
        /// When.
        ns: u64,
        /// The gate's tag.
        tag: String,
        /// The request, as in the trace.
        request: u64,
        /// Where.
        point: Point,
        /// Its kind.
        kind: Kind,
        /// Its first sector or knob.
        sector: u64,
    },
    /// A held request went on, or was dropped.
    LetGo {
        /// When.
        ns: u64,
        /// The gate's tag.
        tag: String,
        /// The request.
        request: u64,
        /// Why.
        why: Let,
    },
    /// The driver did what no driver may. Told once for each run of the ring and each kind.
    Witness {
        /// When.
        ns: u64,
        /// What.
        what: Suspicion,
        /// Indices, addresses, what was expected and what was there.
        detail: String,
    },
}

/// A line of the trace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "at", rename_all = "kebab-case")]
pub enum Record {
    /// The first line.
    Header {
        /// [`VERSION`] of the writer.
        version: u32,
        /// When the device started.
        ns: u64,
    },
    /// QEMU connected, or went away.
    Link {
        /// When.
        ns: u64,
        /// Connected or gone.
        up: bool,
    },
    /// The ring started or stopped.
    Ring {
        /// When.
        ns: u64,
        /// Started or stopped.
        running: bool,
        /// Held requests that the stop dropped.
        dropped: u64,
    },
    /// A request was popped from the ring.
    Seen {
        /// When.
        ns: u64,
        /// Numbers requests from 1, over all connections.
        request: u64,
        /// Its kind.
        kind: Kind,
        /// Its first sector or knob.
        sector: u64,
        /// Bytes of its data buffers.
        len: u64,
    },
    /// A gate's event, or what the device witnesses.
    Gate(Event),
    /// A request went into the used ring.
    Done {
        /// When.
        ns: u64,
        /// The request.
        request: u64,
        /// Its status byte.
        status: u8,
    },
    /// A chain that is no request.
    Malformed {
        /// When.
        ns: u64,
        /// What was wrong with it.
        why: String,
    },
}

/// Reads one line.
///
/// # Errors
/// [`BadLine`] where it isn't a message of type `T`.
pub fn from_line<'a, T: Deserialize<'a>>(line: &'a str) -> Result<T, BadLine> {
    knobrig_lines::from_line("of the device's channel or trace", line)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_version_1_reads_as_written() {
        let line = r#"{"id":3,"do":"arm","tag":"g","point":"before-completion","kinds":["knob-get"],"sector":0,"skip":0,"count":1,"deadline_ms":2000}"#;
        let arm: Numbered = from_line(line).expect("a line of version 1");
        assert_eq!(to_line(&arm).trim_end(), line);
        let line =
            r#"{"at":"gate","event":"let-go","ns":5,"tag":"g","request":7,"why":"ring-stopped"}"#;
        let record: Record = from_line(line).expect("a line of version 1");
        assert_eq!(to_line(&record).trim_end(), line);
    }
}
