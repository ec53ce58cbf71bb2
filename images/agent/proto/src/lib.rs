//! The words between the harness and the agent, PID 1 of the guest.
//!
//! JSON lines over a virtio-serial port, [`ToGuest`] one way and [`FromGuest`] the other. The
//! agent speaks first ([`FromGuest::Hello`]). It decides nothing: an [`Episode`] says what each
//! thread does, its [`EpisodeReport`] says what came of it, and judging is the harness's.
//! Times are nanoseconds of the guest's `CLOCK_MONOTONIC`.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;

pub use knobrig_lines::{BadLine, to_line};
use serde::{Deserialize, Serialize};

/// Version of the protocol. Either end refuses any other.
pub const VERSION: u32 = 6;
/// Name of the virtio-serial port, `/sys/class/virtio-ports/*/name` in the guest.
pub const PORT: &str = "knobrig.agent";
/// Where the initramfs keeps modules, as `NAME.ko`.
pub const MODULE_DIR: &str = "/modules";
/// The file in [`MODULE_DIR`] that names, a line each, the modules without which the agent's port
/// is not there: a kernel may have virtio as modules.
pub const FIRST_MODULES: &str = "first";
/// Longest line that either end accepts, in bytes.
pub const MAX_LINE: usize = 4 << 20;
/// The agent sends [`FromGuest::Heartbeat`] this often, in milliseconds.
pub const HEARTBEAT_MS: u64 = 500;

/// A descriptor's number within an episode; all actors share one table.
pub type Slot = u32;

/// One thing that a guest thread does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(tag = "step", rename_all = "kebab-case")]
pub enum Step {
    /// `open(path)`; the descriptor goes into `slot`.
    Open {
        /// Absolute path.
        path: String,
        /// Open for reading.
        read: bool,
        /// Open for writing.
        write: bool,
        /// With `O_EXCL`.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        exclusive: bool,
        /// Where the descriptor goes; an older one there is closed first.
        slot: Slot,
    },
    /// `close` of a slot's descriptor.
    Close {
        /// Which.
        slot: Slot,
    },
    /// `pread` at offset 0 (sysfs renders anew), or `read` where the file can't seek.
    Read {
        /// Which descriptor.
        slot: Slot,
        /// Bytes asked for.
        len: u32,
    },
    /// `pwrite` at offset 0, or `write` where the file can't seek.
    Write {
        /// Which descriptor.
        slot: Slot,
        /// What is written.
        data: String,
    },
    /// `lseek(SEEK_SET)`.
    Seek {
        /// Which descriptor.
        slot: Slot,
        /// Where to.
        offset: i64,
    },
    /// `poll`; 1 if what was waited for came, 0 if the time was over.
    Poll {
        /// Which descriptor.
        slot: Slot,
        /// Longest wait.
        timeout_ms: u32,
        /// Not for input, but for the end of what the descriptor leads to (`POLLHUP`).
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        hangup: bool,
    },
    /// `finit_module` of [`MODULE_DIR`]`/name.ko`.
    Load {
        /// The module's name.
        module: String,
        /// Its parameters, as insmod takes them.
        params: String,
    },
    /// `delete_module` with `O_NONBLOCK`, as rmmod does it.
    Unload {
        /// The module's name.
        module: String,
        /// While somebody uses the module (`EWOULDBLOCK`), how long it is tried again; 0 for one try.
        #[serde(default, skip_serializing_if = "is_zero")]
        patience_ms: u64,
    },
    /// Open, write, close: unbind, driver_override, sysctl.
    WriteFile {
        /// Absolute path.
        path: String,
        /// What is written in one write.
        data: String,
    },
    /// Open, read up to 64 KiB, close. The outcome carries the text.
    ReadFile {
        /// Absolute path.
        path: String,
    },
    /// Create a directory (configfs).
    Mkdir {
        /// Absolute path.
        path: String,
    },
    /// Remove a directory (configfs).
    Rmdir {
        /// Absolute path.
        path: String,
    },
    /// 0 if the path is there (`lstat`), else the errno.
    Exists {
        /// Absolute path.
        path: String,
    },
    /// Wait until a path is there, or is gone; `-ETIMEDOUT` if that takes too long.
    WaitPath {
        /// Absolute path.
        path: String,
        /// Wait for it to be there, or gone.
        present: bool,
        /// Longest wait.
        deadline_ms: u64,
    },
    /// Wait until a file's text, white space at its ends aside, is this; `-ETIMEDOUT` if that
    /// takes too long.
    WaitText {
        /// Absolute path.
        path: String,
        /// The text.
        text: String,
        /// Longest wait.
        deadline_ms: u64,
    },
    /// Wait for [`ToGuest::Signal`] of that name; `-ETIMEDOUT` if it doesn't come. A signal
    /// that came before counts.
    WaitSignal {
        /// The signal.
        name: String,
        /// Longest wait.
        deadline_ms: u64,
    },
    /// Wait until a function gate holds somebody; `-ETIMEDOUT` if that doesn't come. Once it has
    /// held, it counts.
    AwaitGate {
        /// The gate's tag.
        tag: String,
        /// Longest wait.
        deadline_ms: u64,
    },
    /// Let go whoever a function gate holds, or would hold; `-ENOENT` where none is armed by
    /// that tag.
    ReleaseGate {
        /// The gate's tag.
        tag: String,
    },
    /// Let time pass, asleep.
    Sleep {
        /// Milliseconds.
        ms: u64,
    },
    /// Open, and keep open as long as the guest lives.
    Hold {
        /// Absolute path.
        path: String,
        /// Open for reading and writing, not for reading only.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        write: bool,
    },
    /// Make a device node.
    Mknod {
        /// Absolute path.
        path: String,
        /// A block device, not a character device.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        block: bool,
        /// Its major number.
        major: u32,
        /// Its minor number.
        minor: u32,
    },
    /// The paths that match a pattern (`*` and `?` within a name), a line each; the result is
    /// their number.
    Glob {
        /// The pattern, absolute.
        path: String,
    },
    /// All that is below a directory, a line each: kind, mode, path. The result is the length.
    List {
        /// Absolute path.
        path: String,
    },
    /// Busy-wait: a seeded offset between threads.
    Spin {
        /// Microseconds.
        us: u32,
    },
    /// Sleep by the clock, whatever happens meanwhile: whoever was to end is a moment late.
    Nap {
        /// Microseconds.
        us: u32,
    },
}

impl Step {
    /// One try to unload a module.
    pub fn unload(module: &str) -> Self {
        Self::Unload {
            module: module.to_owned(),
            patience_ms: 0,
        }
    }

    /// The descriptor that it opens, uses or closes.
    pub fn slot(&self) -> Option<Slot> {
        match self {
            Self::Open { slot, .. }
            | Self::Close { slot }
            | Self::Read { slot, .. }
            | Self::Write { slot, .. }
            | Self::Seek { slot, .. }
            | Self::Poll { slot, .. } => Some(*slot),
            _ => None,
        }
    }
}

/// What a step came to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// The call's result, or the negated errno.
    pub ret: i64,
    /// Before the call.
    pub start_ns: u64,
    /// After it.
    pub end_ns: u64,
    /// What [`Step::ReadFile`] read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
}

fn is_zero<T: Default + PartialEq>(number: &T) -> bool {
    *number == T::default()
}

/// How often an actor goes through its steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Repeat {
    /// Once; the report keeps each outcome.
    Once,
    /// Until every actor that runs [`Repeat::Once`] has ended; the report keeps tallies.
    UntilOthersEnd,
}

/// How a thread's claim to its CPU compares with that of others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Priority {
    /// As anybody's.
    #[default]
    Usual,
    /// By a nice value, -20 (before others) to 19.
    Nice(i8),
    /// Before all others as soon as it is awake (`SCHED_FIFO`). For threads that mostly sleep.
    First,
}

impl Priority {
    /// Whether it is [`Priority::Usual`].
    pub fn is_usual(&self) -> bool {
        *self == Self::Usual
    }
}

/// One guest thread.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Actor {
    /// Unique within the episode; also the thread's name (15 bytes are seen).
    pub name: String,
    /// The CPU it is pinned to, modulo the guest's CPUs.
    pub cpu: u32,
    /// Whom it has to let go first there.
    #[serde(default, skip_serializing_if = "Priority::is_usual")]
    pub priority: Priority,
    /// A teardown: the agent notes which ops are inside the driver as each of its steps begins,
    /// and tells ([`FromGuest::Settled`]) when it sleeps in the kernel or ends.
    pub teardown: bool,
    /// What it does.
    pub steps: Vec<Step>,
    /// How often.
    pub repeat: Repeat,
    /// Microseconds to pause after a round in which an open failed. A loop has nothing to collide
    /// with then, and what it waits for is brought up or taken down by threads that need the CPU.
    #[serde(default)]
    pub missed_pause_us: u32,
    /// Milliseconds after the others left the start line that it does.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub lag_ms: u32,
}

/// Load, actors, teardown, checks: the unit of stress, of replay and of counting.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Episode {
    /// Chosen by the harness.
    pub id: u64,
    /// Run in order before the actors. The first that fails ends the episode (no actors, but
    /// `after` is run).
    pub before: Vec<Step>,
    /// Start together at a barrier.
    pub actors: Vec<Actor>,
    /// Run in order after the actors ended, whatever came of them; not if one did not end. Slots are still
    /// open.
    pub after: Vec<Step>,
    /// The actors have so long to end. After it the report is sent with what is stuck.
    pub deadline_ms: u64,
    /// So has each call of a teardown, and of the steps before and after the actors, where that is known
    /// to be less.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub call_deadline_ms: Option<u64>,
    /// Modules under test, for gates and surveys that ask for them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub under_test: Vec<String>,
    /// Armed before the actors start, gone when they have ended.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gates: Vec<FunctionGate>,
    /// What to note of who passes where, while the actors run: functions by name. Empty for
    /// nothing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub survey: Vec<String>,
    /// Where teardowns come to rest, as far as that is known of the same episode before: asleep
    /// elsewhere, such a one is most likely on its way there.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rests: Vec<Rest>,
    /// Before its actors start, the agent tells their threads ([`FromGuest::Threads`]).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub threads: bool,
}

/// Where an actor sleeps in a step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rest {
    /// The actor.
    pub actor: String,
    /// Which of its steps.
    pub step: usize,
    /// The kernel function, as [`FromGuest::Settled`] has it; empty if it doesn't sleep, and ends.
    pub place: String,
}

/// Which end of a function's call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum End {
    /// Before its first instruction.
    Entry,
    /// After its last, before its caller goes on.
    Return,
}

/// Whose calls are meant.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Who {
    /// This actor's.
    Actor(String),
    /// Any worker's of a workqueue.
    Worker,
    /// Anybody's.
    Anybody,
}

/// Holds a thread at one call of a function of the guest's kernel, or of a module.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FunctionGate {
    /// Names it in this episode.
    pub tag: String,
    /// The function, as in `/proc/kallsyms`; `module:function` for one that isn't unique.
    pub function: String,
    /// Where in its call.
    pub end: End,
    /// Whose calls count.
    pub who: Who,
    /// Only calls with a module under test among the callers.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub own: bool,
    /// Which of those calls, from 1.
    pub occurrence: u32,
    /// It lets go by itself after so long.
    pub deadline_ms: u64,
    /// The thread sleeps, instead of standing as a preempted one does. Only for functions that
    /// may sleep anyway: who waits for RCU's tasks takes a sleeper for gone.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub sleeps: bool,
    /// It lets go, too, once this actor sleeps on in one place while it holds: he waits for who is
    /// held, and nothing more comes of holding on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waiter: Option<String>,
}

/// Counts of one kind of op on one path.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// Calls.
    pub count: u64,
    /// Of these, failed: errno to count.
    #[serde(default, deserialize_with = "errno_keys")]
    pub errnos: BTreeMap<i32, u64>,
    /// Sum of the calls' times.
    pub total_ns: u64,
    /// The longest.
    pub max_ns: u64,
}

/// JSON's keys are strings. serde_json reads them as numbers where it knows that numbers are
/// wanted, which it doesn't inside of a tagged enum ([`FromGuest`]).
fn errno_keys<'de, D>(from: D) -> Result<BTreeMap<i32, u64>, D::Error>
where
    D: serde::Deserializer<'de>,
{
    let read = BTreeMap::<String, u64>::deserialize(from)?;
    let parsed = read.into_iter().map(|(key, count)| {
        let errno = key.parse().map_err(|_| {
            serde::de::Error::invalid_value(serde::de::Unexpected::Str(&key), &"an errno")
        })?;
        Ok((errno, count))
    });
    parsed.collect()
}

/// The tally of an op on a path.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpTally {
    /// open, close, read, write, seek or poll.
    pub op: String,
    /// The path that the descriptor was opened by.
    pub path: String,
    /// The counts.
    pub tally: Tally,
}

/// An op that was in its system call as a teardown's step began.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inside {
    /// The teardown actor.
    pub teardown: String,
    /// Which of its steps.
    pub step: usize,
    /// The actor inside.
    pub actor: String,
    /// open, close, read, write, seek or poll.
    pub op: String,
    /// The path.
    pub path: String,
    /// What the op came to; absent if it had not returned by the report.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ret: Option<i64>,
}

/// A thread that did not end in time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stuck {
    /// The actor.
    pub actor: String,
    /// The step that it stands in.
    pub step: usize,
    /// `/proc/TID/stat`'s state letter.
    pub state: String,
    /// `/proc/TID/stack`, as far as it can be read.
    pub stack: String,
}

/// What came of one actor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ActorReport {
    /// The actor.
    pub name: String,
    /// One per step that ran, for [`Repeat::Once`].
    pub outcomes: Vec<Outcome>,
    /// Times through the steps.
    pub rounds: u64,
}

/// What came of an episode.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EpisodeReport {
    /// The episode's.
    pub id: u64,
    /// Outcomes of `before`, up to the first failure.
    pub before: Vec<Outcome>,
    /// In the episode's order; empty if `before` failed.
    pub actors: Vec<ActorReport>,
    /// Outcomes of `after`.
    pub after: Vec<Outcome>,
    /// All ops of all actors.
    pub tallies: Vec<OpTally>,
    /// Ops met by teardowns.
    pub inside: Vec<Inside>,
    /// Actors past the deadline.
    pub stuck: Vec<Stuck>,
    /// Why there were neither function gates nor a survey, where some were asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ungated: Option<String>,
    /// What came of the function gates, in the episode's order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gates: Vec<GateReport>,
    /// What the survey noted, in its order: of each function the first few calls of each caller.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub passes: Vec<Pass>,
}

/// What came of a function gate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GateReport {
    /// The gate's.
    pub tag: String,
    /// Why it couldn't be armed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unarmed: Option<String>,
    /// How many of the calls that it counts were made while it waited.
    #[serde(default)]
    pub calls: u32,
    /// How it held somebody; absent if its point never came.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold: Option<Hold>,
    /// Actors whose [`Step::AwaitGate`] for it was in vain.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub waited: Vec<String>,
}

/// How a gate held a thread.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hold {
    /// The actor, or somebody whom the gate's point didn't name.
    pub who: String,
    /// When it came.
    pub ns: u64,
    /// How it was held.
    pub how: How,
    /// When it went on.
    pub left_ns: u64,
    /// Why.
    pub why: Why,
}

/// How a thread is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum How {
    /// As if preempted: others run instead.
    Preempted,
    /// Asleep.
    Slept,
    /// Spinning, for a few milliseconds at most: it could neither sleep nor be preempted.
    Spun,
}

/// Why a held thread went on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Why {
    /// It was released.
    Released,
    /// Its time was over.
    Deadline,
    /// It was being killed.
    Killed,
}

/// A call that a survey noted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pass {
    /// The function, as the survey named it.
    pub function: String,
    /// Who called: an actor, a worker, or somebody else.
    pub who: Who,
    /// A module under test was among the callers.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub own: bool,
    /// Which it was of these calls, from 1: with a module under test among the callers of those
    /// that had one, else of all that the caller made.
    pub occurrence: u32,
    /// It can be held for long: whoever called can be preempted.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub holdable: bool,
    /// When.
    pub ns: u64,
}

/// From the harness.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "to", rename_all = "kebab-case")]
pub enum ToGuest {
    /// Run steps in order, all of them; answered by [`FromGuest::Done`].
    Do {
        /// Chosen by the harness.
        id: u64,
        /// The steps.
        steps: Vec<Step>,
    },
    /// Run an episode; answered by [`FromGuest::Episode`]. One at a time.
    Episode(Episode),
    /// Raise a signal for the running episode.
    Signal {
        /// The episode's id; one that isn't running makes the signal void.
        episode: u64,
        /// The signal.
        name: String,
    },
    /// Let go whoever a function gate of the running episode holds, or would hold.
    Release {
        /// The episode's id; one that isn't running makes it void.
        episode: u64,
        /// The gate's tag.
        tag: String,
    },
    /// Sync nothing, stop the machine.
    PowerOff,
}

/// From the agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "from", rename_all = "kebab-case")]
pub enum FromGuest {
    /// The first line, once everything is mounted.
    Hello {
        /// The agent's [`VERSION`].
        version: u32,
        /// `uname -r`.
        kernel: String,
        /// CPUs online.
        cpus: u32,
        /// Since boot.
        uptime_ms: u64,
    },
    /// The answer to [`ToGuest::Do`].
    Done {
        /// The request's.
        id: u64,
        /// One per step.
        outcomes: Vec<Outcome>,
    },
    /// A teardown actor sleeps in the kernel, or has ended. Sent once per step of it.
    Settled {
        /// The episode's id.
        episode: u64,
        /// The actor.
        actor: String,
        /// Which step.
        step: usize,
        /// The kernel function it sleeps in (`/proc/TID/wchan`), empty if the step ended.
        wchan: String,
        /// When.
        ns: u64,
    },
    /// The actors of the first episode start: what it loads and makes is there. Sent once.
    Acting {
        /// When.
        ns: u64,
    },
    /// The threads of an episode's actors, by what a vCPU shows of whom it runs.
    Threads {
        /// The episode's id.
        episode: u64,
        /// Each actor's `FS_BASE` (x86-64: where the data of a thread begins).
        bases: BTreeMap<String, u64>,
    },
    /// A function gate holds somebody.
    Held {
        /// The episode's id.
        episode: u64,
        /// The gate's tag.
        tag: String,
    },
    /// The answer to [`ToGuest::Episode`].
    Episode(EpisodeReport),
    /// Sent every [`HEARTBEAT_MS`], whatever else goes on.
    Heartbeat {
        /// Since boot.
        uptime_ms: u64,
        /// The running episode, 0 for none.
        episode: u64,
    },
    /// The agent could not do what it was told; it goes on.
    Fault {
        /// What, on what, why.
        why: String,
    },
}

/// Reads one line.
///
/// # Errors
/// [`BadLine`] where it isn't a message of type `T`.
pub fn from_line<'a, T: Deserialize<'a>>(line: &'a str) -> Result<T, BadLine> {
    knobrig_lines::from_line("between harness and agent", line)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_version_1_reads_as_written() {
        let line = r#"{"to":"do","id":1,"steps":[{"step":"wait-path","path":"/sys","present":true,"deadline_ms":5}]}"#;
        let message: ToGuest = from_line(line).expect("a line of version 1");
        assert_eq!(to_line(&message).trim_end(), line);
        let line = r#"{"from":"episode","id":2,"before":[],"actors":[],"after":[],"tallies":[{"op":"open","path":"/dev/dk0","tally":{"count":3,"errnos":{"2":1,"19":2},"total_ns":5,"max_ns":4}}],"inside":[],"stuck":[]}"#;
        let message: FromGuest = from_line(line).expect("a line of version 1");
        assert_eq!(to_line(&message).trim_end(), line);
        let line = r#"{"from":"settled","episode":2,"actor":"rmmod","step":0,"wchan":"kernfs_drain","ns":9}"#;
        let message: FromGuest = from_line(line).expect("a line of version 1");
        assert_eq!(to_line(&message).trim_end(), line);
    }

    #[test]
    fn a_line_of_version_4_reads_as_written() {
        let line = r#"{"to":"episode","id":2,"before":[],"actors":[],"after":[],"deadline_ms":5,"threads":true}"#;
        let message: ToGuest = from_line(line).expect("a line of version 4");
        assert_eq!(to_line(&message).trim_end(), line);
        let line = r#"{"from":"threads","episode":2,"bases":{"a":140000000000000}}"#;
        let message: FromGuest = from_line(line).expect("a line of version 4");
        assert_eq!(to_line(&message).trim_end(), line);
    }

    #[test]
    fn a_line_of_version_3_reads_as_written() {
        let line = r#"{"to":"episode","id":2,"before":[],"actors":[{"name":"a","cpu":1,"priority":{"nice":-5},"teardown":false,"steps":[{"step":"nap","us":9}],"repeat":"once","missed_pause_us":0},{"name":"b","cpu":1,"priority":"first","teardown":false,"steps":[],"repeat":"until-others-end","missed_pause_us":0}],"after":[],"deadline_ms":5}"#;
        let message: ToGuest = from_line(line).expect("a line of version 3");
        assert_eq!(to_line(&message).trim_end(), line);
    }

    #[test]
    fn a_line_of_version_2_reads_as_written() {
        let line = r#"{"to":"episode","id":2,"before":[],"actors":[],"after":[],"deadline_ms":5,"under_test":["m"],"gates":[{"tag":"g","function":"kernfs_drain","end":"return","who":{"actor":"rmmod"},"own":true,"occurrence":2,"deadline_ms":9}],"survey":["kfree"]}"#;
        let message: ToGuest = from_line(line).expect("a line of version 2");
        assert_eq!(to_line(&message).trim_end(), line);
        let line = r#"{"from":"episode","id":2,"before":[],"actors":[],"after":[],"tallies":[],"inside":[],"stuck":[],"gates":[{"tag":"g","calls":1,"hold":{"who":"rmmod","ns":1,"how":"preempted","left_ns":2,"why":"released"}}],"passes":[{"function":"kfree","who":"worker","occurrence":2,"holdable":true,"ns":7}]}"#;
        let message: FromGuest = from_line(line).expect("a line of version 2");
        assert_eq!(to_line(&message).trim_end(), line);
    }
}
