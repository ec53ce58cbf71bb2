//! The classes of reports: one file each, with the headlines that open a report of that class and
//! the function that judges it. A new class is a new file and a line in [`HEADLINES`].

use std::sync::LazyLock;

use aho_corasick::{AhoCorasick, MatchKind};
use rustc_hash::FxHashMap;

use crate::case::Case;
use crate::report::{Access, Class, Object};
use crate::shape::is_fence;

mod bug;
mod fault;
mod hang;
mod kasan;
mod kcsan;
mod kfence;
mod kmsan;
mod leak;
mod lockdep;
mod memory;
mod misc;
mod object;
mod panic;
mod sleep;
mod ubsan;
mod warning;

/// What a class makes of a report.
pub(crate) struct Verdict {
    pub(crate) title: String,
    pub(crate) alt_titles: Vec<String>,
    pub(crate) kind: String,
    pub(crate) class: Class,
    pub(crate) corrupted: Option<String>,
    /// The function to blame, as in the title.
    pub(crate) guilty: Option<String>,
    pub(crate) access: Option<Access>,
    pub(crate) object: Option<Object>,
    pub(crate) suppressed: bool,
    /// See [`crate::Report::stale_code`].
    pub(crate) stale_code: bool,
    /// For a human.
    pub(crate) notes: Vec<String>,
}

/// Where a headline's words may stand.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// At the start of the message, behind a subsystem's tag at most.
    Start,
    /// Anywhere: words that nobody else prints.
    Anywhere,
}

/// What a headline does to a report that is being read.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Opens {
    /// It starts another.
    Always,
    /// It is part of it; alone it starts one.
    UnlessFollowing,
}

/// How a report of that class ends and what belongs to it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Body {
    /// It ends with its stacks, or at `---[ end trace`.
    Plain,
    /// It ends at a line of `=`.
    Fenced,
    /// It is about the whole machine: other CPUs' backtraces belong to it, and a complaint that
    /// gets in before the first stack does too.
    Wide,
    /// It ends in a BUG of its own (a Rust panic): the next headline of the same caller belongs to
    /// it, and so does the stack below that.
    Preamble,
    /// It is its headline.
    Line,
}

/// Words that open a report.
pub(crate) struct Headline {
    pub(crate) needle: &'static str,
    /// Also to be found in the line, after the needle.
    pub(crate) with: &'static str,
    pub(crate) place: Place,
    pub(crate) opens: Opens,
    pub(crate) body: Body,
    /// A trap in the kernel's own code: where the task was printing, that report goes no further.
    pub(crate) is_trap: bool,
    pub(crate) judge: fn(&Case<'_>) -> Verdict,
}

impl Headline {
    const fn new(needle: &'static str, body: Body, judge: fn(&Case<'_>) -> Verdict) -> Self {
        let (place, opens) = (Place::Start, Opens::Always);
        Headline {
            needle,
            with: "",
            place,
            opens,
            body,
            is_trap: false,
            judge,
        }
    }

    const fn with(mut self, with: &'static str) -> Self {
        self.with = with;
        self
    }

    const fn anywhere(mut self) -> Self {
        self.place = Place::Anywhere;
        self
    }

    const fn trap(mut self) -> Self {
        self.is_trap = true;
        self
    }

    fn is_in(&self, start: &str) -> bool {
        let at = match self.place {
            Place::Start => start.starts_with(self.needle).then_some(0),
            Place::Anywhere => (start.find(self.needle)).filter(|&at| stands_alone(start, at)),
        };
        at.is_some_and(|at| {
            self.with.is_empty() || start[at + self.needle.len()..].contains(self.with)
        })
    }

    const fn follows(mut self) -> Self {
        self.opens = Opens::UnlessFollowing;
        self
    }
}

/// All headlines; the first that fits wins, so the general ones come last.
static HEADLINES: &[&[Headline]] = &[
    kasan::HEADLINES,
    kmsan::HEADLINES,
    kcsan::HEADLINES,
    kfence::HEADLINES,
    ubsan::HEADLINES,
    lockdep::HEADLINES,
    sleep::HEADLINES,
    hang::HEADLINES,
    fault::HEADLINES,
    bug::HEADLINES,
    warning::HEADLINES,
    leak::HEADLINES,
    memory::HEADLINES,
    object::HEADLINES,
    panic::HEADLINES,
    misc::HEADLINES,
];

/// Lines that open nothing although they hold a headline's words: harmless notices, and what
/// programs and other subsystems say about user space.
const HARMLESS: &[&str] = &[
    // lockdep and NMI say so in passing.
    "INFO: lockdep is turned off",
    "INFO: NMI handler",
    "INFO: possible wait",
    "INFO: recovery required",
    "INFO: RCU_NOCB",
    "INFO: Stall ended before state dump start",
    "INFO: Stall lasted",
    "INFO: rcu_sched kthread starved",
    "INFO: SCSI",
    "INFO: vmlinuz",
    "INFO: task journal",
    "INFO: sys_",
    "took too long",
    "WARNING: /etc/ssh",
    "WARNING: workqueue cpumask",
    // A trap in user space.
    "traps: ",
    "segfault at ",
    "trap invalid opcode ",
    "trap divide error ",
    "trap int3 ",
    // Notices that go by "WARNING".
    "WARNING: the mand mount option",
    "Spectre V2 :",
    "Speculative Return Stack Overflow",
    "WARNING! power/level",
    "WARNING: Unprivileged eBPF",
    "WARNING: kernel not compiled with",
    "WARNING: CPU frequency",
    "WARNING: See https:",
    "WARNING: `",
    "deprecated",
    "WARNING: Adjusting",
    "WARNING: Deprecated",
    "WARNING! ",
    "WARNING: No ",
    "WARNING: You are running",
    "WARNING: lockdep is",
    "WARNING: mmiotrace",
    "audit: ",
    "audit(",
    "perf: interrupt took too long",
    "comm=\"",
    "FAULT_INJECTION",
    "execve(",
    "DEBUG_LOCKS_WARN_ON",
    "WARNING: chroot access",
    "WARNING: stack recursion",
    "systemd[",
    "systemd-",
];

/// Tags that subsystems put before a headline.
const TAGS: &[&str] = &[
    "NMI watchdog: ",
    "watchdog: ",
    "rcu: ",
    "kasan: ",
    "[ ",
    "mm: ",
    "slub: ",
    "x86/",
    "kernel: ",
    "INIT: ",
    "syzkaller login: ",
    "login: ",
];

/// Finds every line that may open a report; the first sieve over a console.
pub(crate) static SIEVE: LazyLock<AhoCorasick> = LazyLock::new(|| {
    AhoCorasick::builder()
        .match_kind(MatchKind::LeftmostFirst)
        .build([
            "BUG",
            "WARNING: ",
            "INFO:",
            "UBSAN: ",
            "ernel panic - ",
            "PANIC: ",
            " [#",
            "nable to handle kernel",
            "Unhandled fault",
            "hard LOCKUP",
            "Linux version ",
            "-[ cut here ]-",
            "--- cut here ---",
            "===================",
            "rust_kernel: panicked",
            "unreferenced object",
            "kmemleak: ",
            "trusty: panic",
            "SYZFAIL",
            "oom-killer",
            "allocation failure",
            "DMA-API: ",
            "general protection fault",
            "UG: unable",
            "Bad page",
            "PANICKED",
            "tried to init an initialized",
            "sysfs: cannot",
            "unregister_netdevice: ",
            "VFS: Busy inodes",
            "VFS: Close: file",
            "Booting the kernel",
            "Kernel BUG",
            "knobrig: loaded",
            "knobrig: unloaded",
        ])
        .expect("the patterns are few and fixed")
});

/// The headline in a message that [`SIEVE`] let through, if it opens a report.
pub(crate) fn headline(text: &str) -> Option<&'static Headline> {
    let start = untagged(text);
    if is_fence(start) {
        return None;
    }
    let mut present = WORDS.present(start);
    while present != 0 {
        let first = present.trailing_zeros() as usize;
        present &= present - 1;
        let headline = WORDS.all[first];
        if headline.is_in(start) {
            return (!QUIET.is_match(text)).then_some(headline);
        }
    }
    None
}

/// The words of all headlines: what each can't do without, by its number.
struct Words {
    /// In the order in which they are tried.
    all: Vec<&'static Headline>,
    /// Of those that stand at the start, by the first byte.
    starts: FxHashMap<u8, Vec<usize>>,
    /// The words of the others, to be found in one pass.
    anywhere: AhoCorasick,
    /// Whose these are.
    owners: Vec<usize>,
}

impl Words {
    /// A bit for each headline that the text may have in it.
    fn present(&self, text: &str) -> u128 {
        let first = text.bytes().next().and_then(|b| self.starts.get(&b));
        let starts = first.into_iter().flatten();
        let mut present = starts
            .filter(|&&number| text.starts_with(self.all[number].needle))
            .fold(0, |present, number| present | 1 << number);
        // Which of several overlap is only asked where there is one: that search is the slower.
        if self.anywhere.is_match(text) {
            for word in self.anywhere.find_overlapping_iter(text) {
                present |= 1 << self.owners[word.pattern().as_usize()];
            }
        }
        present
    }
}

static WORDS: LazyLock<Words> = LazyLock::new(|| {
    let all: Vec<&Headline> = HEADLINES.iter().flat_map(|class| class.iter()).collect();
    assert!(all.len() <= u128::BITS as usize, "a bit for each headline");
    let mut starts: FxHashMap<u8, Vec<usize>> = FxHashMap::default();
    let (mut words, mut owners) = (Vec::new(), Vec::new());
    for (number, headline) in all.iter().enumerate() {
        match (headline.place, headline.needle.bytes().next()) {
            (Place::Start, Some(first)) => starts.entry(first).or_default().push(number),
            (_, first) => {
                let needle = first.map_or(headline.with, |_| headline.needle);
                words.push(needle);
                owners.push(number);
            }
        }
    }
    Words {
        all,
        starts,
        anywhere: AhoCorasick::new(&words).expect("the headlines are few and fixed"),
        owners,
    }
});

static QUIET: LazyLock<AhoCorasick> =
    LazyLock::new(|| AhoCorasick::new(HARMLESS).expect("the notices are few and fixed"));

/// A message without the tags before it.
pub(crate) fn untagged(text: &str) -> &str {
    let mut text = text.trim_start();
    while let Some(rest) = TAGS.iter().find_map(|tag| text.strip_prefix(tag)) {
        text = rest.trim_start();
    }
    text
}

/// The words at `at` are not inside a quotation or a longer word.
fn stands_alone(text: &str, at: usize) -> bool {
    text[..at]
        .bytes()
        .next_back()
        .is_none_or(|b| !matches!(b, b'"' | b'\'' | b'`' | b'_' | b'=' | b'/'))
}
