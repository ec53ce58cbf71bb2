//! Sleeping, scheduling or using per-CPU data where that is forbidden (kernel/sched/core.c,
//! lib/smp_processor_id.c, kernel/workqueue.c).

use super::{Body, Headline, Verdict};
use crate::case::{Case, titled};
use crate::report::Class;
use crate::skip::COMMON;

pub(super) const HEADLINES: &[Headline] = &[
    Headline::new(
        "BUG: sleeping function called from invalid context",
        Body::Plain,
        sleeping,
    )
    .anywhere(),
    Headline::new("BUG: scheduling while atomic", Body::Plain, scheduling).anywhere(),
    Headline::new("BUG: using ", Body::Plain, per_cpu)
        .with("in preemptible")
        .anywhere(),
    Headline::new("BUG: workqueue leaked ", Body::Plain, workqueue).anywhere(),
];

fn sleeping(case: &Case<'_>) -> Verdict {
    let prefix = "BUG: sleeping function called from invalid context";
    titled(
        Class::AtomicSleep,
        "ATOMIC_SLEEP",
        prefix,
        None,
        case.guilty(&[&COMMON]),
    )
}

fn scheduling(case: &Case<'_>) -> Verdict {
    let prefix = "BUG: scheduling while atomic";
    titled(
        Class::AtomicSleep,
        "ATOMIC_SLEEP",
        prefix,
        None,
        case.guilty(&[&COMMON]),
    )
}

fn per_cpu(case: &Case<'_>) -> Verdict {
    let text = case.headline();
    let what = text.split_once("BUG: using ").map_or("", |(_, rest)| rest);
    let what = what.split(" in preemptible").next().unwrap_or(what);
    let prefix = format!("BUG: using {what} in preemptible code");
    titled(
        Class::Lockdep,
        "LOCKDEP",
        &prefix,
        None,
        case.guilty(&[&COMMON]),
    )
}

/// A work item that returned with a lock held: the report names it.
fn workqueue(case: &Case<'_>) -> Verdict {
    let last = case.own_lines().find_map(|l| {
        let name = l.split_once("last function: ")?.1.trim();
        Some(crate::frame::readable(name.split(['+', ' ']).next()?))
    });
    let function = last.or_else(|| case.guilty(&[&COMMON]));
    titled(
        Class::AtomicSleep,
        "",
        "BUG: workqueue leaked lock or atomic",
        None,
        function,
    )
}
