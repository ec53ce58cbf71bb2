//! What a report is: plain data, the same in memory and as JSON.

use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::history::Place;
use crate::line::Caller;

/// What kind of complaint the kernel made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Class {
    /// KASAN (mm/kasan).
    Kasan,
    /// KMSAN (mm/kmsan).
    Kmsan,
    /// KCSAN (kernel/kcsan).
    Kcsan,
    /// KFENCE (mm/kfence).
    Kfence,
    /// UBSAN (lib/ubsan.c).
    Ubsan,
    /// A page fault that no handler took.
    PageFault,
    /// A page fault near address 0.
    NullDeref,
    /// A general protection fault, most often of a non-canonical address.
    GeneralProtection,
    /// Any other trap: divide error, invalid opcode, int3, stack segment, Unhandled fault.
    Trap,
    /// A kernel stack ran into its guard page or lost its canary.
    StackOverflow,
    /// BUG(): `kernel BUG at`.
    Bug,
    /// WARN() and its kin.
    Warning,
    /// lockdep and the lock debugging beside it.
    Lockdep,
    /// Sleeping, or scheduling, where that is forbidden.
    AtomicSleep,
    /// A task in D state for too long.
    HungTask,
    /// A CPU that doesn't schedule.
    SoftLockup,
    /// A CPU that takes no interrupt.
    HardLockup,
    /// RCU's grace period doesn't end; also a work queue that doesn't move.
    RcuStall,
    /// `refcount_t:` saturation, underflow, use after zero.
    Refcount,
    /// `ODEBUG:` (lib/debugobjects.c).
    DebugObjects,
    /// A list whose pointers don't agree (lib/list_debug.c).
    ListCorruption,
    /// kobject, kernfs, sysfs and procfs registration.
    Kobject,
    /// SLUB's own checks; objects left in a cache that goes away.
    Slab,
    /// kmemleak.
    MemoryLeak,
    /// `DMA-API:` (kernel/dma/debug.c).
    DmaApi,
    /// A Rust panic in the kernel.
    RustPanic,
    /// `page allocation failure`.
    AllocationFailure,
    /// The OOM killer.
    OutOfMemory,
    /// `Kernel panic` with no report before it.
    Panic,
    /// The guest booted a second time.
    Reboot,
    /// A `BUG:` or `INFO:` that fits none of the above.
    Other,
}

/// What an access did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AccessKind {
    /// A load.
    Read,
    /// A store.
    Write,
    /// An instruction fetch.
    Execute,
    /// A free.
    Free,
}

/// The access that went wrong.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Access {
    /// What it did, where the kernel says.
    pub kind: Option<AccessKind>,
    /// Bytes.
    pub size: Option<u64>,
    /// The address that the code meant. For a fault on KASAN's shadow: of the memory behind it.
    pub address: Option<u64>,
    /// The address that in fact faulted, if it is another: the shadow's.
    pub shadow_address: Option<u64>,
}

/// The memory that was touched.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Object {
    /// Its slab cache.
    pub cache: Option<String>,
    /// Bytes of the object.
    pub size: Option<u64>,
    /// Bytes of the access from the object's start; negative: before it.
    pub offset: Option<i64>,
    /// Where the object starts.
    pub address: Option<u64>,
    /// The state that KASAN reads from the shadow: `freed`, `allocated`.
    pub state: Option<String>,
    /// The global or stack variable, where it is one.
    pub variable: Option<String>,
}

/// A task by its name and thread id.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Task {
    /// `comm`.
    pub name: String,
    /// Thread id.
    pub pid: Option<u32>,
}

/// Why a stack stands in a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Role {
    /// Where it happened.
    Fault,
    /// Who allocated the object.
    Alloc,
    /// Who freed it.
    Free,
    /// Who queued the work, timer or RCU callback that the object was last part of.
    AuxWork,
    /// Who stored the uninitialised value on its way (KMSAN).
    Store,
    /// Where the uninitialised value comes from (KMSAN).
    Origin,
    /// The other access of a data race (KCSAN).
    Racing,
    /// How a lock was taken that closes a cycle (lockdep).
    LockChain,
    /// A backtrace of another CPU or task, printed for context.
    Context,
    /// The stack of `panic()` itself.
    Panic,
}

/// One stack, innermost frame first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stack {
    /// Why it stands there.
    pub role: Role,
    /// Whose it is, where the kernel says.
    pub task: Option<Task>,
    /// Guest time, microseconds, where the kernel keeps it (`CONFIG_KASAN_EXTRA_INFO`).
    #[serde(default)]
    pub time_us: Option<u64>,
    /// Innermost first.
    pub frames: Vec<Frame>,
}

/// One frame of a stack.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Frame {
    /// The function by its readable name: Rust demangled, compiler's suffixes dropped. Empty where
    /// the kernel printed a bare address and nobody else knows what lay there.
    pub function: String,
    /// As printed; a bare address in hexadecimal where the kernel has no symbol.
    pub symbol: String,
    /// Bytes into the function.
    pub offset: Option<u64>,
    /// Bytes of the function.
    pub size: Option<u64>,
    /// The module that it belongs to.
    pub module: Option<String>,
    /// `file:line` of a symbolized log.
    pub file_line: Option<String>,
    /// False for `?` frames, which may be left over from earlier calls.
    pub reliable: bool,
    /// An inlined call, expanded by a symbolizer.
    pub inlined: bool,
    /// The frame is the instruction pointer of an exception (`RIP:`, `pc :`).
    pub interrupted: bool,
    /// What lay at a bare address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub place: Option<Box<Place>>,
}

/// What a thread was at, as its stack tells.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// In words: `rmmod`, `write of a sysfs attribute`, `a timer`.
    pub doing: String,
    /// The function that says so.
    pub entry: String,
    /// It was ending a device or a driver.
    pub teardown: bool,
    /// It was called later, by nobody who asked for it then: a timer, a work item, an interrupt.
    pub deferred: bool,
    /// The module's function that it was in; without one the first that means something.
    pub function: Option<String>,
    /// Its task, where the kernel says.
    pub task: Option<Task>,
}

/// What `Tainted:` says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Taint {
    /// The letters, in the kernel's order: `G`, `B`, `O`, `E`…
    pub flags: String,
}

/// One report of the kernel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// One line that names the bug: `KASAN: slab-use-after-free Read in show`.
    pub title: String,
    /// Other titles that mean the same bug.
    pub alt_titles: Vec<String>,
    /// The crash type in syzkaller's words (`KASAN-READ`, `HANG`…); empty where it has none.
    pub kind: String,
    /// The checker or mechanism that spoke.
    pub class: Class,
    /// Why the report can't be trusted: it is cut off, or others are mixed into it.
    pub corrupted: Option<String>,
    /// The kernel panicked as a consequence, in the report or, where a whole log was read, after it.
    pub panicked: bool,
    /// Consequence of a lack of resources, not of a bug: OOM kills, failed allocations.
    pub suppressed: bool,
    /// The CPU trapped on an int3 that memory doesn't hold there. No driver's doing: an emulator ran
    /// what the kernel had patched over.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub stale_code: bool,
    /// Bytes in the stream, from the first line's start to after the last line's newline.
    pub range: Range<usize>,
    /// Guest time of the headline, microseconds.
    pub time_us: Option<u64>,
    /// Who printed it, with `CONFIG_PRINTK_CALLER`.
    pub caller: Option<Caller>,
    /// Equal for reports of the same bug, whatever the seed, build, addresses or CPUs.
    pub key: String,
    /// The task it happened in.
    pub task: Option<Task>,
    /// The CPU it happened on.
    pub cpu: Option<u32>,
    /// What the access was, for memory errors and faults.
    pub access: Option<Access>,
    /// What it touched.
    pub object: Option<Object>,
    /// Where the code or the data that was reached for lies, or lay, in which load of a module;
    /// where the loads are known ([`History`](crate::History)).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub place: Option<Place>,
    /// Who touched what it should not have, or what could not go on.
    #[serde(default)]
    pub victim: Option<Part>,
    /// Who had taken it away: freed it, unloaded it; of a deadlock the other side.
    #[serde(default)]
    pub killer: Option<Part>,
    /// Every stack in the report.
    pub stacks: Vec<Stack>,
    /// `Modules linked in`, without flags.
    pub modules: Vec<String>,
    /// `[last unloaded: …]`.
    pub last_unloaded: Option<String>,
    /// The code or data that was reached for belongs to a module that is no longer there.
    pub in_unloaded_module: bool,
    /// What the parser worked out, for a human: the memory behind a shadow address, the module gone.
    pub notes: Vec<String>,
    /// The kernel's taint.
    pub taint: Option<Taint>,
    /// The kernel's release.
    pub kernel: Option<String>,
    /// The report's own lines, prefixes off, one per line.
    pub text: String,
}

impl Report {
    /// The stack of that role that comes first.
    pub fn stack(&self, role: Role) -> Option<&Stack> {
        self.stacks.iter().find(|s| s.role == role)
    }
}
