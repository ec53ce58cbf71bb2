//! The page and slab allocators' own complaints, and a machine that ran out of memory
//! (mm/page_alloc.c, mm/slub.c, mm/oom_kill.c).

use super::{Body, Headline, Verdict};
use crate::case::{Case, guilty_in, titled, untitled};
use crate::report::{Class, Role};
use crate::skip::{COMMON, PAGES, SkipSet};

pub(super) const HEADLINES: &[Headline] = &[
    Headline::new("BUG: Bad page state", Body::Plain, page_state).anywhere(),
    Headline::new("BUG: Bad page map", Body::Plain, page_map).anywhere(),
    Headline::new("BUG: Bad rss-counter state", Body::Line, rss).anywhere(),
    // KASAN before 4.7 let SLUB describe the object.
    Headline::new("BUG ", Body::Plain, slub)
        .with("): kasan: bad access detected")
        .follows(),
    Headline::new("BUG ", Body::Plain, slub).with("): "),
    Headline::new("", Body::Plain, allocation)
        .with(": page allocation failure: order:")
        .follows(),
    Headline::new("", Body::Plain, oom)
        .with(" invoked oom-killer: gfp_mask=")
        .follows(),
];

/// Nobody's bug as such: the caller has to cope (warn_alloc() in mm/page_alloc.c).
fn allocation(case: &Case<'_>) -> Verdict {
    let mut verdict = titled(
        Class::AllocationFailure,
        "",
        "page allocation failure",
        None,
        guilty_in(case.fault_frames(), &[&COMMON, &PAGES]),
    );
    verdict.suppressed = true;
    verdict
}

/// The machine ran out of memory (dump_header() in mm/oom_kill.c).
fn oom(_: &Case<'_>) -> Verdict {
    let mut verdict = untitled(Class::OutOfMemory, "", "out of memory");
    verdict.suppressed = true;
    verdict
}

fn page_state(case: &Case<'_>) -> Verdict {
    let skip: [&SkipSet; 2] = [&COMMON, &PAGES];
    // With page_owner the kernel tells whose page it was, which says more than who met it.
    let owner = case.stacks.iter().find(|s| s.role == Role::Alloc);
    let function = owner
        .and_then(|s| guilty_in(&s.frames, &skip))
        .or_else(|| case.guilty(&skip));
    titled(Class::Other, "", "BUG: Bad page state", None, function)
}

fn page_map(case: &Case<'_>) -> Verdict {
    let mut verdict = untitled(Class::Other, "", "BUG: Bad page map");
    if !case.has_chain() {
        verdict.corrupted = Some("no stack".to_owned());
    }
    verdict
}

fn rss(_: &Case<'_>) -> Verdict {
    untitled(Class::Other, "", "BUG: Bad rss-counter state")
}

/// `BUG kmalloc-8 (Tainted: G    B         ): Object already free`.
fn slub(case: &Case<'_>) -> Verdict {
    let what = case
        .headline()
        .rsplit_once("): ")
        .map_or("", |(_, what)| what)
        .trim();
    let mut verdict = untitled(Class::Slab, "DoS", format!("BUG: {what}"));
    let cache = case
        .headline()
        .split_whitespace()
        .nth(1)
        .unwrap_or_default();
    verdict.object = Some(crate::report::Object {
        cache: Some(cache.to_owned()),
        ..Default::default()
    });
    verdict.guilty = case.guilty(&[&COMMON]);
    if !case.has_chain() {
        verdict.corrupted = Some("no stack".to_owned());
    }
    verdict
}
