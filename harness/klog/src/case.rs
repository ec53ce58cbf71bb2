//! One report's lines with what every class needs from them: stacks, the guilty function, titles.

use std::sync::LazyLock;

use crate::class::Verdict;
use crate::frame;
use crate::names;
use crate::report::{Class, Frame, Role, Stack};
use crate::shape::{Seen, Shape};
use crate::skip::{COMMON, SkipSet};
use crate::stacks;

/// What stands where no function could be found.
pub(crate) const CORRUPTED: &str = "corrupted";

/// A report under judgement.
pub(crate) struct Case<'a> {
    /// All lines, those before the headline too.
    pub(crate) lines: &'a [Seen],
    /// The headline's index.
    pub(crate) head: usize,
    /// Its stacks.
    pub(crate) stacks: Vec<Stack>,
    /// Its class, once it is known.
    pub(crate) class: Class,
}

impl<'a> Case<'a> {
    pub(crate) fn new(lines: &'a mut [Seen], head: usize) -> Self {
        let stacks = stacks::collect(lines, head);
        Case {
            lines,
            head,
            stacks,
            class: Class::Other,
        }
    }

    /// The headline.
    pub(crate) fn headline(&self) -> &'a str {
        self.lines[self.head].text().trim()
    }

    /// The lines after the headline, the frames of stacks aside.
    pub(crate) fn body(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        self.own_lines().skip(1)
    }

    /// The headline and what follows it, the frames of stacks aside.
    pub(crate) fn own_lines(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        let (head, body) = self.lines[self.head..].split_at(1);
        let rest = body.iter().filter(|l| l.shape != Shape::Frame);
        head.iter().chain(rest).map(Seen::text)
    }

    /// The first stack that tells where it happened.
    pub(crate) fn fault_frames(&self) -> &[Frame] {
        self.stacks
            .iter()
            .find(|s| s.role == Role::Fault)
            .map_or(&[], |s| &s.frames)
    }

    /// A call chain was printed, not an instruction pointer alone.
    pub(crate) fn has_chain(&self) -> bool {
        !self.is_mixed()
            && self.stacks.iter().any(|s| {
                matches!(s.role, Role::Fault | Role::Context)
                    && s.frames.iter().any(|f| !f.interrupted)
            })
    }

    /// As [`Case::has_chain`], and the unwinder is sure of some of it.
    pub(crate) fn has_reliable_chain(&self) -> bool {
        self.stacks
            .iter()
            .filter(|s| matches!(s.role, Role::Fault | Role::Context))
            .any(|s| s.frames.iter().any(|f| !f.interrupted && f.reliable))
    }

    /// A failed allocation, or one that was made to fail, printed its own stack into this one. It
    /// happens on consoles that don't tell who prints (`CONFIG_PRINTK_CALLER`).
    pub(crate) fn is_mixed(&self) -> bool {
        self.is_injected() || self.shows(&["warn_alloc"])
    }

    /// As [`Case::is_mixed`], by an injected fault.
    pub(crate) fn is_injected(&self) -> bool {
        self.shows(&["should_fail", "should_failslab"])
    }

    /// What WARN() had to say beside where it stands: before the headline where the trap prints
    /// that, after it where the function does (`__warn_printk()`, `__warn()` in kernel/panic.c).
    pub(crate) fn message(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        let before = self.lines[..self.head].iter().map(Seen::text);
        before.chain(self.body().take(2)).map(str::trim)
    }

    fn shows(&self, functions: &[&str]) -> bool {
        self.lines[self.head].line.caller.is_none()
            && self
                .fault_frames()
                .iter()
                .any(|f| f.reliable && functions.contains(&f.function.as_str()))
    }

    /// The first frame of the fault's stack that `skip` doesn't cover.
    pub(crate) fn guilty(&self, skip: &[&SkipSet]) -> Option<String> {
        if self.is_mixed() {
            return None;
        }
        guilty_in(self.fault_frames(), skip)
    }

    /// `hint` if it means something, else the guilty frame.
    pub(crate) fn hint_or_guilty(&self, hint: Option<&str>) -> Option<String> {
        hint.filter(|f| !f.is_empty() && !COMMON.has(f))
            .map(str::to_owned)
            .or_else(|| self.guilty(&[&COMMON]))
    }
}

/// Where a stack ends. What stands below was printed by someone else.
static BASE: LazyLock<SkipSet> = LazyLock::new(|| {
    SkipSet::new(&[&[
        "entry_SYSCALL*",
        "entry_SYSENTER*",
        "entry_INT80*",
        "ret_from_fork*",
        "ret_fast_syscall",
    ]])
});

/// The first reliable frame that no set covers.
pub(crate) fn guilty_frame<'f>(frames: &'f [Frame], skip: &[&SkipSet]) -> Option<&'f Frame> {
    guilty_of(frames.iter(), skip)
}

/// As [`guilty_frame`], of some of a stack's.
pub(crate) fn guilty_of<'f>(
    frames: impl Iterator<Item = &'f Frame>,
    skip: &[&SkipSet],
) -> Option<&'f Frame> {
    frames
        .filter(|f| f.reliable && !f.function.is_empty())
        .take_while(|f| !BASE.has(&f.function))
        .find(|f| !skip.iter().any(|s| s.has(&f.function)))
}

/// Its function.
pub(crate) fn guilty_in(frames: &[Frame], skip: &[&SkipSet]) -> Option<String> {
    guilty_frame(frames, skip).map(|frame| frame.function.clone())
}

/// The function in `func+0x1/0x2 …`, readable.
pub(crate) fn function_in(text: &str) -> Option<String> {
    match frame::parse(text)? {
        frame::FrameLine::Frame(f) => (!f.function.is_empty()).then_some(f.function),
        frame::FrameLine::From(both) => Some(both.0.function),
    }
}

/// `prefix in function`, with the alternatives that other names of the function make, and those of
/// a `generic` word for the kind of damage.
pub(crate) fn titled(
    class: Class,
    kind: &str,
    prefix: &str,
    generic: Option<&str>,
    function: Option<String>,
) -> Verdict {
    let corrupted = function
        .is_none()
        .then(|| "no function that could be to blame".to_owned());
    let (name, earlier) = match &function {
        Some(f) => names::canonical(f),
        None => (CORRUPTED.to_owned(), Vec::new()),
    };
    let mut alt_titles: Vec<String> = earlier.iter().map(|n| format!("{prefix} in {n}")).collect();
    if let Some(word) = generic {
        alt_titles.push(format!("{word} in {name}"));
        alt_titles.extend(earlier.iter().map(|n| format!("{word} in {n}")));
    }
    alt_titles.sort();
    Verdict {
        title: format!("{prefix} in {name}"),
        alt_titles,
        kind: kind.to_owned(),
        class,
        corrupted,
        guilty: function.map(|_| name),
        access: None,
        object: None,
        suppressed: false,
        stale_code: false,
        notes: Vec::new(),
    }
}

/// A title that names no function.
pub(crate) fn untitled(class: Class, kind: &str, title: impl Into<String>) -> Verdict {
    Verdict {
        title: title.into(),
        alt_titles: Vec::new(),
        kind: kind.to_owned(),
        class,
        corrupted: None,
        guilty: None,
        access: None,
        object: None,
        suppressed: false,
        stale_code: false,
        notes: Vec::new(),
    }
}

/// A hexadecimal number, `0x` or not.
pub(crate) fn hex(text: &str) -> Option<u64> {
    let text = text.trim();
    u64::from_str_radix(text.strip_prefix("0x").unwrap_or(text), 16).ok()
}
