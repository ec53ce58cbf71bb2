//! A report's lines to its stacks: which lines open one, whose it is, and why it is printed.

use crate::frame::{self, FrameLine};
use crate::report::{Frame, Role, Stack, Task};
use crate::shape::Seen;

/// A line that says which stack comes next.
struct Opener {
    /// What the line, blanks at its ends off, starts with.
    starts: &'static str,
    /// What it ends with; empty: anything.
    ends: &'static str,
    role: Role,
}

const fn opener(starts: &'static str, ends: &'static str, role: Role) -> Opener {
    Opener { starts, ends, role }
}

/// From mm/kasan/report.c, mm/kfence/report.c, mm/kmsan/report.c, kernel/kcsan/report.c and
/// kernel/locking/lockdep.c, old wordings included.
const OPENERS: &[Opener] = &[
    opener("Allocated by task", "", Role::Alloc),
    opener("allocated by task", "", Role::Alloc),
    opener("Allocated:", "", Role::Alloc),
    opener("Freed by task", "", Role::Free),
    opener("freed by task", "", Role::Free),
    opener("Freed:", "", Role::Free),
    opener("Last potentially related work creation:", "", Role::AuxWork),
    opener(
        "Second to last potentially related work creation:",
        "",
        Role::AuxWork,
    ),
    opener("Last call_rcu():", "", Role::AuxWork),
    opener("Second to last call_rcu():", "", Role::AuxWork),
    opener("Uninit was stored to memory at:", "", Role::Store),
    opener("Uninit was created at:", "", Role::Origin),
    opener("Local variable ", "created at:", Role::Origin),
    opener("-> #", ":", Role::LockChain),
    opener("... acquired at", "", Role::LockChain),
    opener("... key      at", "", Role::LockChain),
    opener("{", "state was registered at:", Role::LockChain),
    opener("Preemption disabled at:", "", Role::LockChain),
    opener("page last allocated via", "", Role::Alloc),
    opener("page last free", "", Role::Free),
    opener("NMI backtrace for cpu", "", Role::Context),
    opener("Showing all locks held in the system:", "", Role::Context),
    opener("Kernel panic - not syncing", "", Role::Panic),
    opener("read to 0x", ":", Role::Racing),
    opener("write to 0x", ":", Role::Racing),
    opener("read-write to 0x", ":", Role::Racing),
    opener("read (marked) to 0x", ":", Role::Racing),
    opener("write (marked) to 0x", ":", Role::Racing),
    opener("assert no ", ":", Role::Racing),
];

/// Every stack of the report, in the order printed; the lines' frames are moved into them. `head`
/// is the headline's index.
pub(crate) fn collect(lines: &mut [Seen], head: usize) -> Vec<Stack> {
    let mut stacks: Vec<Stack> = Vec::new();
    let mut current = Stack {
        role: Role::Fault,
        task: None,
        time_us: None,
        frames: Vec::new(),
    };
    // The frame is the opener's own, and the stack below it, if there is one, names it again.
    let mut short = false;
    // The line before announced a variable, whose name looks like a frame.
    let mut variable = false;
    // Registers after the end marker repeat what stood above.
    let mut ended = false;
    let mut context = Role::Fault;
    for line in &mut lines[head..] {
        if variable && line.frame.is_some() {
            variable = false;
            continue;
        }
        if let Some(frame) = line.frame.take() {
            if std::mem::take(&mut short) {
                current.frames.clear();
            }
            match frame {
                FrameLine::Frame(f) if ended && f.interrupted => {}
                FrameLine::Frame(f) => push(&mut current.frames, f),
                FrameLine::From(both) => {
                    let (callee, caller) = *both;
                    if (current.frames.last()).is_none_or(|last| last.symbol != callee.symbol) {
                        push(&mut current.frames, callee);
                    }
                    push(&mut current.frames, caller);
                }
            }
            continue;
        }
        let text = line.text().trim_ascii();
        variable = text == VARIABLE;
        if let Some((role, frame, task)) = tracked(text) {
            close(&mut stacks, &mut current, role, task);
            current.frames.push(frame);
            short = true;
            continue;
        }
        short = false;
        if let Some(opener) = role_opener(text) {
            let task = by_task(text);
            let racing_first = opener == Role::Racing
                && !stacks
                    .iter()
                    .any(|s| matches!(s.role, Role::Fault | Role::Racing))
                && current.frames.is_empty();
            let role = if racing_first { Role::Fault } else { opener };
            if matches!(opener, Role::Context | Role::Panic) {
                context = opener;
                ended = false;
            }
            close(&mut stacks, &mut current, role, task);
            current.time_us = when(text);
            continue;
        }
        if is_trace_header(text) {
            let only_pointer = current.frames.iter().all(|f| f.interrupted);
            let fresh = current.frames.is_empty();
            if !(fresh || only_pointer && current.frames.len() <= 2) {
                let role = if matches!(context, Role::Context | Role::Panic) {
                    context
                } else if current.role == Role::Fault {
                    Role::Context
                } else {
                    Role::Fault
                };
                close(&mut stacks, &mut current, role, None);
            }
            continue;
        }
        if text.starts_with("---[ end trace") {
            ended = true;
        }
    }
    close(&mut stacks, &mut current, Role::Fault, None);
    // Before 4.18 a WARNING with panic_on_warn had no stack but that of panic().
    if !stacks
        .iter()
        .any(|s| s.role == Role::Fault && s.frames.len() > 1)
        && let Some(panic) = stacks.iter_mut().find(|s| s.role == Role::Panic)
    {
        panic.role = Role::Fault;
    }
    stacks
}

/// Names a variable in the next line (mm/kasan/report.c).
pub(crate) const VARIABLE: &str = "The buggy address belongs to the variable:";

/// SLUB's way to open a stack: `Freed in kfree_link+0x1/0x2 age=57 cpu=0 pid=18338` (print_track()
/// in mm/slub.c).
fn tracked(text: &str) -> Option<(Role, Frame, Option<Task>)> {
    let text = text.strip_prefix("INFO: ").unwrap_or(text);
    let (role, rest) = match text.strip_prefix("Freed in ") {
        Some(rest) => (Role::Free, rest),
        None => (Role::Alloc, text.strip_prefix("Allocated in ")?),
    };
    let (place, facts) = rest.split_once(" age=")?;
    let frame = match frame::parse(place)? {
        FrameLine::Frame(frame) => frame,
        FrameLine::From(both) => both.0,
    };
    let pid = facts.split_once(" pid=").map(|(_, pid)| pid.trim());
    let task = pid.map(|pid| Task {
        name: String::new(),
        pid: pid.parse().ok(),
    });
    Some((role, frame, task))
}

/// Longer stacks are loops (a stack overflow's recursion); what matters stands at both ends.
const MAX_FRAMES: usize = 1024;

/// As many as most stacks have: a frame is not small, and is not to be moved about.
const USUAL_FRAMES: usize = 24;

fn push(frames: &mut Vec<Frame>, frame: Frame) {
    if frames.capacity() == 0 {
        frames.reserve(USUAL_FRAMES);
    }
    if frames.len() < MAX_FRAMES {
        frames.push(frame);
    }
}

fn close(stacks: &mut Vec<Stack>, current: &mut Stack, role: Role, task: Option<Task>) {
    let next = Stack {
        role,
        task,
        time_us: None,
        frames: Vec::new(),
    };
    let done = std::mem::replace(current, next);
    if !done.frames.is_empty() {
        stacks.push(done);
    }
}

/// The task in `Freed by task cat/41:`, the name of which not every kernel prints.
fn by_task(text: &str) -> Option<Task> {
    let (_, task) = text.split_once("by task ")?;
    let word = task.split_ascii_whitespace().next()?;
    let (name, pid) = word.rsplit_once('/').unwrap_or(("", word));
    let digits = pid.bytes().take_while(u8::is_ascii_digit).count();
    (digits > 0).then(|| Task {
        name: name.to_owned(),
        pid: pid[..digits].parse().ok(),
    })
}

/// The time in `by task 41 on cpu 1 at 5.123456s:` (mm/kasan/report.c with
/// `CONFIG_KASAN_EXTRA_INFO`, mm/kfence/report.c), in microseconds.
fn when(text: &str) -> Option<u64> {
    text.match_indices(" at ").find_map(|(at, word)| {
        let (seconds, rest) = text[at + word.len()..].split_once('.')?;
        let (micros, rest) = rest.split_at_checked(6)?;
        let number = |text: &str| {
            let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
            digits.then(|| text.parse::<u64>().ok()).flatten()
        };
        let (seconds, micros) = (number(seconds)?, number(micros)?);
        rest.strip_prefix('s')?;
        seconds.checked_mul(1_000_000)?.checked_add(micros)
    })
}

/// The first bytes of [`OPENERS`].
const FIRST: [bool; 256] = {
    let mut first = [false; 256];
    let mut at = 0;
    while at < OPENERS.len() {
        first[OPENERS[at].starts.as_bytes()[0] as usize] = true;
        at += 1;
    }
    first
};

fn role_opener(text: &str) -> Option<Role> {
    // Asked of every line of a report, so the first byte decides before anything is compared.
    let first = *text.as_bytes().first()?;
    if !FIRST[usize::from(first)] {
        return None;
    }
    OPENERS
        .iter()
        .filter(|o| o.starts.as_bytes()[0] == first)
        .find(|o| text.starts_with(o.starts) && text.ends_with(o.ends))
        .map(|o| o.role)
}

/// The line above a call chain.
pub(crate) fn is_trace_header(text: &str) -> bool {
    matches!(
        text,
        "Call Trace:" | "Call trace:" | "Backtrace:" | "Call Trace: (unreliable)"
    ) || text == "stack backtrace:"
}

/// The line opens a stack or a part of a report that has one.
pub(crate) fn opens_stack(text: &str) -> bool {
    is_trace_header(text) || role_opener(text).is_some() || tracked(text).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stack_s_time_is_read_where_the_kernel_keeps_it() {
        assert_eq!(
            when("Freed by task 41 on cpu 1 at 5.123456s:"),
            Some(5_123_456)
        );
        assert_eq!(
            when("allocated by task 9 on cpu 0 at 12.000001s (0.5s ago):"),
            Some(12_000_001)
        );
        assert_eq!(when("Freed by task 41:"), None);
        assert_eq!(
            when("by task 4 on cpu 1 at 99999999999999999999.000000s:"),
            None
        );
    }
}
