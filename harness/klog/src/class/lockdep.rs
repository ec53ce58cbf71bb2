//! lockdep (kernel/locking/lockdep.c) and what debug_locks finds beside it.

use super::{Body, Headline, Verdict};
use crate::case::{Case, function_in, guilty_in, titled, untitled};
use crate::report::{Class, Role};
use crate::skip::COMMON;

pub(super) const HEADLINES: &[Headline] = &[
    Headline::new("", Body::Plain, deadlock).with("possible circular locking dependency detected"),
    Headline::new("", Body::Plain, deadlock).with("possible recursive locking detected"),
    Headline::new("", Body::Plain, deadlock)
        .with("possible irq lock inversion dependency detected"),
    Headline::new("", Body::Plain, irq_order).with("-unsafe lock order detected"),
    Headline::new("", Body::Plain, inconsistent).with("inconsistent lock state"),
    Headline::new("", Body::Plain, suspicious_rcu).with("suspicious RCU usage"),
    Headline::new("", Body::Plain, unregistered).with("INFO: trying to register non-static key"),
    Headline::new("", Body::Plain, freed).with("held lock freed!"),
    Headline::new("", Body::Plain, unbalanced).with("bad unlock balance detected"),
    Headline::new("", Body::Plain, left_held).with("lock held when returning to user space"),
    Headline::new("", Body::Plain, left_held).with("lock held at task exit time"),
    Headline::new("", Body::Plain, still_held).with("still has locks held!"),
    Headline::new("", Body::Plain, wait_context).with("Invalid wait context"),
    Headline::new("", Body::Plain, nested).with("Nested lock was not taken"),
    Headline::new("", Body::Plain, contention).with("bad contention detected"),
    Headline::new("BUG: MAX_", Body::Plain, limit).with("too low"),
    Headline::new("BUG: key ", Body::Plain, bad_key).with(" not in .data"),
    Headline::new("BUG: key ", Body::Plain, bad_key).with(" has not been registered"),
    Headline::new("BUG: spinlock ", Body::Plain, spinlock),
    Headline::new("BUG: rwlock ", Body::Plain, spinlock),
    Headline::new("BUG: rt_mutex ", Body::Plain, spinlock),
];

/// The function after `at:` in the first line that `says` introduces, or in the line after it.
fn taken_at(case: &Case<'_>, says: &str) -> Option<String> {
    let mut lines = case.body().skip_while(|l| !l.contains(says)).take(4);
    lines.find_map(|l| {
        let (_, at) = l.split_once(", at: ").or_else(|| l.split_once(") at:"))?;
        function_in(at.trim())
    })
}

/// lockdep's titles all name where the lock was taken, else the first frame that means something.
fn at_or_guilty(case: &Case<'_>, says: &str) -> Option<String> {
    let at = taken_at(case, says);
    case.hint_or_guilty(at.as_deref())
}

fn lockdep(case: &Case<'_>, prefix: &str, function: Option<String>) -> Verdict {
    let mut verdict = titled(Class::Lockdep, "LOCKDEP", prefix, None, function);
    if verdict.corrupted.is_none() && !case.has_chain() {
        verdict.corrupted = Some("no stack".to_owned());
    }
    verdict.notes.extend(active_reference(case));
    verdict
}

/// Of all locks a driver meets this one says least by its name: kernfs counts the callbacks that
/// run in a file of it, and tells lockdep that the count is a lock (fs/kernfs/dir.c).
fn active_reference(case: &Case<'_>) -> Option<String> {
    let lock = case.body().find_map(|line| {
        let rest = line.split_once("(kn->active")?.1;
        Some(rest.split([')', '{']).next().unwrap_or_default())
    })?;
    Some(format!(
        "kn->active{lock} is the active reference of a sysfs file: whoever removes the file waits \
         for every callback that runs in it"
    ))
}

/// A report without its stack that has no place to name keeps the kernel's own words.
fn bare(case: &Case<'_>, words: &str) -> Option<Verdict> {
    if case.has_chain() {
        return None;
    }
    let mut verdict = untitled(Class::Lockdep, "WARNING", words);
    verdict.corrupted = Some("no stack".to_owned());
    Some(verdict)
}

fn deadlock(case: &Case<'_>) -> Verdict {
    let place =
        taken_at(case, "is trying to acquire").or_else(|| taken_at(case, "just changed the state"));
    if place.is_none()
        && let Some(verdict) = bare(
            case,
            "WARNING: possible circular locking dependency detected",
        )
    {
        return verdict;
    }
    let function = case.hint_or_guilty(place.as_deref());
    lockdep(case, "possible deadlock", function)
}

/// An interrupt takes a lock that someone holds with interrupts on: named by the interrupt's side.
fn irq_order(case: &Case<'_>) -> Verdict {
    let side = case
        .stacks
        .iter()
        .find(|s| s.role == Role::Fault)
        .and_then(|s| guilty_in(&s.frames, &[&COMMON]));
    let place = side.or_else(|| taken_at(case, "is trying to acquire"));
    lockdep(case, "possible deadlock", place)
}

fn inconsistent(case: &Case<'_>) -> Verdict {
    let function = at_or_guilty(case, " takes:");
    lockdep(case, "inconsistent lock state", function)
}

fn suspicious_rcu(case: &Case<'_>) -> Verdict {
    let word = match case.headline().contains("INFO:") {
        true => "INFO",
        false => "WARNING",
    };
    let title = format!("{word}: suspicious RCU usage");
    if let Some(verdict) = bare(case, &title) {
        return verdict;
    }
    lockdep(case, &title, case.guilty(&[&COMMON]))
}

fn unregistered(case: &Case<'_>) -> Verdict {
    let prefix = "INFO: trying to register non-static key";
    titled(Class::Lockdep, "", prefix, None, case.guilty(&[&COMMON]))
}

fn word(case: &Case<'_>) -> &'static str {
    if case.headline().contains("BUG:") {
        "BUG"
    } else {
        "WARNING"
    }
}

fn freed(case: &Case<'_>) -> Verdict {
    // Who holds the lock made the object that another's free took away with the lock in it.
    let holder = case
        .body()
        .find_map(|l| function_in(l.split_once(", at: ")?.1.trim()));
    let function = case.hint_or_guilty(holder.as_deref());
    lockdep(case, &format!("{}: held lock freed", word(case)), function)
}

fn unbalanced(case: &Case<'_>) -> Verdict {
    let function = case.guilty(&[&COMMON]);
    lockdep(
        case,
        &format!("{}: bad unlock balance", word(case)),
        function,
    )
}

fn contention(case: &Case<'_>) -> Verdict {
    lockdep(
        case,
        &format!("{}: bad contention", word(case)),
        case.guilty(&[&COMMON]),
    )
}

fn left_held(case: &Case<'_>) -> Verdict {
    let exit = case.headline().contains("exit time");
    let what = if exit {
        "lock held at task exit"
    } else {
        "lock held when returning to user space"
    };
    let held = case
        .body()
        .filter_map(|l| function_in(l.split_once(", at: ")?.1.trim()));
    let function = held.into_iter().find(|f| !COMMON.has(f));
    titled(
        Class::Lockdep,
        "",
        &format!("{}: {what}", word(case)),
        None,
        function,
    )
}

/// A task froze or slept for long with a lock (debug_check_no_locks_held()).
fn still_held(case: &Case<'_>) -> Verdict {
    let title = format!("{}: still has locks held", word(case));
    lockdep(case, &title, case.guilty(&[&COMMON]))
}

fn wait_context(case: &Case<'_>) -> Verdict {
    lockdep(case, "WARNING: locking bug", case.guilty(&[&COMMON]))
}

fn nested(case: &Case<'_>) -> Verdict {
    lockdep(
        case,
        "WARNING: nested lock was not taken",
        case.guilty(&[&COMMON]),
    )
}

fn limit(case: &Case<'_>) -> Verdict {
    let text = super::untagged(case.headline());
    untitled(Class::Lockdep, "", text.to_owned())
}

fn bad_key(case: &Case<'_>) -> Verdict {
    titled(
        Class::Lockdep,
        "LOCKDEP",
        "BUG: lock key not registered",
        None,
        case.guilty(&[&COMMON]),
    )
}

/// kernel/locking/spinlock_debug.c: `BUG: spinlock bad magic on CPU#0, task/123`.
fn spinlock(case: &Case<'_>) -> Verdict {
    let text = super::untagged(case.headline());
    let what = text.split(" on CPU#").next().unwrap_or(text).trim();
    lockdep(case, what, case.guilty(&[&COMMON]))
}
