//! The dedup key: what stays the same when the same bug shows again under another seed, build,
//! address or CPU, and differs when the bug does.

use crate::case::{Case, guilty_in};
use crate::class::Verdict;
use crate::report::{Class, Part, Role};
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

pub(crate) fn of(
    case: &Case<'_>,
    verdict: &Verdict,
    unloaded: Option<&str>,
    parts: (Option<&Part>, Option<&Part>),
) -> String {
    if let Some(key) = lifetime(case, verdict, parts) {
        return key;
    }
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
    key
}

/// A driver's object that was touched after it had been freed: the bug is that this object goes at
/// that place while somebody of that kind still has it. In which function of the driver he met it,
/// by a read or by a write, is chance.
fn lifetime(
    case: &Case<'_>,
    verdict: &Verdict,
    (victim, killer): (Option<&Part>, Option<&Part>),
) -> Option<String> {
    if !matches!(verdict.class, Class::Kasan | Class::Kfence) || !in_module(case) {
        return None;
    }
    let freed = case.stacks.iter().find(|stack| stack.role == Role::Free)?;
    let place = guilty_in(&freed.frames, &[&COMMON])?;
    // The sizes of kmalloc's caches follow the build's options, and some are chosen by chance.
    let cache = (verdict.object.as_ref())
        .and_then(|it| it.cache.as_deref())
        .filter(|cache| !cache.starts_with("kmalloc-"));
    let mut key = format!("use-after-free of {}", cache.unwrap_or("an object"));
    let made = case.stacks.iter().find(|stack| stack.role == Role::Alloc);
    if let Some(place) = made.and_then(|stack| guilty_in(&stack.frames, &[&COMMON])) {
        key.push_str(", made in ");
        key.push_str(&place);
    }
    key.push_str(", freed in ");
    key.push_str(&place);
    for (word, part) in [(" by ", killer), (", touched by ", victim)] {
        if let Some(part) = part {
            key.push_str(word);
            key.push_str(kind(part));
        }
    }
    Some(key)
}

/// What kind of part it was. Which teardown, or which operation, is chance too; what runs by itself
/// is not, since a driver has few of each.
fn kind(part: &Part) -> &str {
    match (part.teardown, part.deferred) {
        (true, _) => "a teardown",
        (false, true) => &part.doing,
        (false, false) => "an op",
    }
}

/// A module has a part in it.
fn in_module(case: &Case<'_>) -> bool {
    case.stacks
        .iter()
        .filter(|s| matches!(s.role, Role::Fault | Role::Alloc | Role::Free))
        .any(|s| {
            s.frames
                .iter()
                .any(|f| f.reliable && (f.module.is_some() || f.place.is_some()))
        })
}
