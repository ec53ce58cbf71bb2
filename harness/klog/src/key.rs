//! The dedup key: what stays the same when the same bug shows again under another seed, build,
//! address or CPU, and differs when the bug does.

use crate::case::{Case, guilty_in};
use crate::class::Verdict;
use crate::report::{Class, Role};
use crate::skip::COMMON;

/// Generic words for a kind of damage; whoever has one is known by it, so that a read and a write,
/// or KASAN and a page fault, in one function are one bug.
const GENERIC: &[&str] = &[
    "bad-access in ",
    "invalid-free in ",
    "stall in ",
    "hang in ",
    "stack-overflow in ",
];

pub(crate) fn of(case: &Case<'_>, verdict: &Verdict, unloaded: Option<&str>) -> String {
    let generic = GENERIC.iter().find_map(|word| {
        let name = verdict.guilty.as_deref()?;
        let generic = format!("{word}{name}");
        verdict.alt_titles.contains(&generic).then_some(generic)
    });
    let mut key = generic.unwrap_or_else(|| verdict.title.clone());
    if let Some(module) = unloaded {
        key.push_str("; module gone: ");
        key.push_str(module);
    }
    // A driver under test is small: one function may meet an object that several teardown steps
    // freed, and those are several bugs.
    if matches!(verdict.class, Class::Kasan | Class::Kfence) && in_module(case) {
        for (role, word) in [(Role::Alloc, "allocated"), (Role::Free, "freed")] {
            if let Some(stack) = case.stacks.iter().find(|s| s.role == role)
                && let Some(function) = guilty_in(&stack.frames, &[&COMMON])
            {
                key.push_str("; ");
                key.push_str(word);
                key.push_str(" in ");
                key.push_str(&function);
            }
        }
    }
    key
}

/// A module has a part in it.
fn in_module(case: &Case<'_>) -> bool {
    case.stacks
        .iter()
        .filter(|s| matches!(s.role, Role::Fault | Role::Alloc | Role::Free))
        .any(|s| s.frames.iter().any(|f| f.reliable && f.module.is_some()))
}
