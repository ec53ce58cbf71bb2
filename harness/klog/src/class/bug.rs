//! BUG(): `kernel BUG at file:line!` (lib/bug.c), told apart by what called it.

use super::{Body, Headline, Verdict};
use crate::case::{Case, titled};
use crate::report::Class;
use crate::skip::COMMON;

pub(super) const HEADLINES: &[Headline] =
    &[Headline::new("kernel BUG at ", Body::Plain, judge).anywhere()];

fn judge(case: &Case<'_>) -> Verdict {
    let file = case
        .headline()
        .split_once("kernel BUG at ")
        .map_or("", |(_, rest)| rest);
    let function = case.guilty(&[&COMMON]);
    let mut verdict = if file.contains("lib/list_debug.c") {
        let prefix = "BUG: corrupted list";
        titled(
            Class::ListCorruption,
            "MEMORY_SAFETY_BUG",
            prefix,
            Some("bad-access"),
            function,
        )
    } else if file.contains("mm/usercopy.c") {
        titled(Class::Bug, "BUG", "BUG: bad usercopy", None, function)
    } else {
        titled(Class::Bug, "BUG", "kernel BUG", None, function)
    };
    if verdict.corrupted.is_none() && !case.has_chain() {
        verdict.corrupted = Some("no stack".to_owned());
    }
    verdict
}
