//! The shape of a line inside a report: what keeps the report going, what ends it, what is foreign.

use std::sync::LazyLock;

use memchr::memmem::Finder;

use crate::frame::{self, FrameLine};
use crate::line::Line;
use crate::stacks;

/// What a line looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    /// Nothing on it.
    Blank,
    /// A frame of a stack.
    Frame,
    /// Registers, headings, lists: what reports consist of beside stacks.
    Known,
    /// A line of `=`.
    Fence,
    /// `------------[ cut here ]------------`.
    CutHere,
    /// `---[ end trace … ]---`, `---[ end Kernel panic … ]---`.
    End,
    /// Anything else.
    Other,
}

/// Starts of the lines that reports consist of.
const KNOWN: &[&str] = &[
    "CPU: ",
    "Hardware name:",
    "Workqueue:",
    "Modules linked in:",
    "RIP:",
    "RSP:",
    "RAX:",
    "RDX:",
    "RBP:",
    "R10:",
    "R13:",
    "RBX:",
    "RCX:",
    "RSI:",
    "RDI:",
    "R08:",
    "R09:",
    "R11:",
    "R12:",
    "R14:",
    "R15:",
    "EIP:",
    "EAX:",
    "ESI:",
    "DS:",
    "CS:",
    "FS:",
    "CR2:",
    "CR0:",
    "CR3:",
    "DR0:",
    "DR3:",
    "DR6:",
    "PKRU:",
    "EFLAGS:",
    "ORIG_RAX:",
    "Code:",
    "Call Trace",
    "Call trace",
    "Backtrace:",
    "Stack:",
    "Stack Trace",
    "<IRQ>",
    "</IRQ>",
    "<TASK>",
    "</TASK>",
    "<NMI>",
    "</NMI>",
    "<EOI>",
    "<<EOE>>",
    "<#DF>",
    "</#DF>",
    "<ENTRY_TRAMPOLINE>",
    "</ENTRY_TRAMPOLINE>",
    "<#",
    "</#",
    "<EOE>",
    "<UNK>",
    "PGD ",
    "P4D ",
    "PUD ",
    "PMD ",
    "pgd ",
    "[0000",
    "*pgd",
    "#PF:",
    "Mem abort info",
    "ESR = ",
    "EC = ",
    "SET = ",
    "EA = ",
    "FSC = ",
    "Data abort info",
    "ISV = ",
    "CM = ",
    "user pgtable",
    "swapper pgtable",
    "GCS = ",
    "pc :",
    "lr :",
    "sp :",
    "x0",
    "x1",
    "x2",
    "x3",
    "x5",
    "x6",
    "x8",
    "r0 ",
    "r4 ",
    "r8 ",
    "r10:",
    "r3 ",
    "r7 ",
    "r9:",
    "r8:",
    "r6:",
    "r5:",
    "r4:",
    "PC is at",
    "LR is at",
    "psr:",
    "pstate:",
    "Flags:",
    "Control:",
    "Process ",
    "Register ",
    "Exception stack",
    "Insn dump",
    "task:",
    "task.stack",
    "ti:",
    "stack:",
    "INFO: lockdep is turned off",
    "Kernel Offset:",
    "Rebooting in",
    "Dumping ftrace buffer",
    "(ftrace buffer empty)",
    "note: ",
    "Oops:",
    "Internal error:",
    "Kernel panic",
    "SMP: stopping",
    "irq event stamp",
    "hardirqs last",
    "softirqs last",
    "kasan: ",
    "KASAN: ",
    "Sending NMI",
    "NMI backtrace",
    "NMI watchdog",
    "rcu:",
    "Tasks blocked",
    "(detected by",
    "(t=",
    "Not tainted",
    "Tainted:",
    "\"echo 0 >",
    "Showing all locks",
    "#0:",
    "#1:",
    "#2:",
    "#3:",
    "#4:",
    "#5:",
    "#6:",
    "#7:",
    "lock(",
    "*** DEADLOCK",
    "Possible unsafe",
    "other info",
    "1 lock held",
    "2 locks held",
    "3 locks held",
    "4 locks held",
    "5 locks held",
    "6 locks held",
    "no locks held",
    "stack backtrace",
    "and this task",
    "and interrupts could",
    "which lock already",
    "the existing dependency",
    "but task is",
    "but this task",
    "-> #",
    "trace_kernel_",
    "CR2",
    "memory state around",
    "Memory state around",
    "Shutting down cpus",
    "Dumping stack",
    "last sysfs",
    "Preemption disabled",
    "hrtimer",
    "page:",
    "flags:",
    "raw:",
    "page dumped",
    "page_owner",
    "head:",
    "page last",
    "page_type",
    "pfn:",
    "backtrace",
    "unreferenced object",
    "comm \"",
    "hex dump",
    "fault was",
    "0x",
    "rsp",
    "Disabling lock debugging",
    "Fixing recursive fault",
    "list_add",
    "list_del",
    "slab ",
    "The buggy",
    "which belongs",
    "Allocated by",
    "Freed by",
    "allocated by",
    "freed by",
    "Last potentially",
    "Second to last",
    "bad_page",
    "Future hung task",
    "Blocked by",
    "blocked by",
    "Showing",
    "Rust",
    "Unable to handle",
    "Hint:",
    "CONFIG_",
    "entry_",
    "Local variable",
    "Uninit was",
    "Bytes ",
    "Memory access of size",
    "Data copied",
    "Reported by",
    "read to",
    "write to",
    "value changed",
    "Spectre",
];

/// A line with what it looks like: told once, used by whoever reads the report.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) line: Line,
    pub(crate) shape: Shape,
    /// What a [`Shape::Frame`] says.
    pub(crate) frame: Option<FrameLine>,
    /// The sieve let it through.
    pub(crate) opens: bool,
}

impl Seen {
    /// `opens`: [`SIEVE`](crate::class::SIEVE) let it through.
    pub(crate) fn new(line: Line, opens: bool) -> Self {
        let text = line.text.trim_ascii();
        let shape = without_frames(text, opens);
        let frame = match shape {
            None => frame::parse(text),
            Some(_) => None,
        };
        Seen {
            shape: shape.unwrap_or_else(|| match frame {
                Some(_) => Shape::Frame,
                None => after_frames(text),
            }),
            frame,
            line,
            opens,
        }
    }

    pub(crate) fn text(&self) -> &str {
        &self.line.text
    }
}

/// What is told before a line is tried as a frame; `None` if that is to be tried next.
fn without_frames(text: &str, opens: bool) -> Option<Shape> {
    if text.is_empty() {
        return Some(Shape::Blank);
    }
    // Neither gets past the sieve unseen.
    if opens && is_fence(text) {
        return Some(Shape::Fence);
    }
    if opens
        && CUT_HERE
            .iter()
            .any(|cut| cut.find(text.as_bytes()).is_some())
    {
        return Some(Shape::CutHere);
    }
    if text.starts_with("---[ end ") {
        return Some(Shape::End);
    }
    stacks::opens_stack(text).then_some(Shape::Known)
}

/// What a line is that is no frame.
fn after_frames(text: &str) -> Shape {
    match is_known(text) || is_dump(text) {
        true => Shape::Known,
        false => Shape::Other,
    }
}

static CUT_HERE: LazyLock<[Finder<'_>; 2]> = LazyLock::new(|| {
    [
        Finder::new("--[ cut here ]--"),
        Finder::new("<--- cut here ---"),
    ]
});

/// [`KNOWN`] by the first byte: this is asked of every line of a report.
static BY_FIRST: LazyLock<[Vec<&str>; 128]> = LazyLock::new(|| {
    let mut table = std::array::from_fn(|_| Vec::new());
    for known in KNOWN {
        if let Some(bucket) = known
            .bytes()
            .next()
            .and_then(|b| table.get_mut(usize::from(b)))
        {
            bucket.push(*known);
        }
    }
    table
});

fn is_known(text: &str) -> bool {
    text.bytes()
        .next()
        .and_then(|b| BY_FIRST.get(usize::from(b)))
        .is_some_and(|bucket| bucket.iter().any(|k| text.starts_with(k)))
}

/// A line of `=`.
pub(crate) fn is_fence(text: &str) -> bool {
    text.len() >= 20 && text.starts_with("==") && text.bytes().all(|b| b == b'=')
}

/// Words of a memory or stack dump, `>ffff8880: fa fb…`, or a lone rule.
fn is_dump(text: &str) -> bool {
    let text = text.trim_start_matches('>');
    let mut words = text.split_ascii_whitespace();
    let Some(first) = words.next() else {
        return false;
    };
    let first = first.trim_end_matches(':');
    let hex = |w: &str| w.bytes().all(|b| b.is_ascii_hexdigit());
    // arm names the words of a stack dump by the low half of their address.
    let labelled = || first.len() >= 4 && words.clone().count() >= 4 && text.contains(": ");
    (hex(first) && (first.len() >= 8 || labelled()) && words.all(|w| hex(w) || w.starts_with('.')))
        || text
            .bytes()
            .all(|b| matches!(b, b'-' | b'^' | b' ' | b'=' | b'#'))
}
