//! The dedup key: what stays the same when the same bug shows again under another seed, build,
//! address or CPU, and differs when the bug does.

use std::sync::LazyLock;

use crate::case::{Case, guilty_frame, guilty_of};
use crate::class::Verdict;
use crate::facts::Facts;
use crate::parts;
use crate::report::{Class, Frame, Part, Role, Stack};
use crate::skip::{COMMON, SkipSet};
use crate::unloaded;

/// Words of the keys that [`tells_less`] reads.
const BAD_ACCESS: &str = "bad-access in ";
const FREED: &str = "use-after-free of ";
const FREED_IN: &str = ", freed in ";
const FREED_BY: &str = " by ";
const TOUCHED_BY: &str = ", touched by ";
const GONE: &str = " is gone: ";
/// Begins what titles call code that is gone.
pub(crate) const UNLOADED: &str = "unloaded module";

/// Generic words for a kind of damage; whoever has one is known by it, so that a read and a write,
/// or KASAN and a page fault, in one function are one bug.
const GENERIC: &[&str] = &[
    BAD_ACCESS,
    "invalid-free in ",
    "stall in ",
    "hang in ",
    "stack-overflow in ",
];

/// Addresses below this are a pointer that is NULL, or a field behind one (Linux's `PAGE_SIZE`).
const NULL_PAGE: u64 = 4096;

/// What a key is made of.
pub(crate) struct Known<'a> {
    pub(crate) case: &'a Case<'a>,
    pub(crate) verdict: &'a Verdict,
    pub(crate) facts: &'a Facts,
    pub(crate) gone: &'a unloaded::Verdict,
    pub(crate) victim: Option<&'a Part>,
    pub(crate) killer: Option<&'a Part>,
}

impl Known<'_> {
    pub(crate) fn key(&self) -> String {
        let known = self.freed().or_else(|| self.unloaded());
        known
            .or_else(|| self.null())
            .or_else(|| self.no_code())
            .unwrap_or_else(|| self.titled())
    }

    /// A driver's object that was touched after it had been freed: the bug is that this object goes
    /// at that place while somebody of that kind still has it. In which function of the driver he
    /// met it, by a read or by a write, is chance. Where the object was made is not part of it: not
    /// every build of a kernel keeps that.
    fn freed(&self) -> Option<String> {
        let (case, verdict) = (self.case, self.verdict);
        if !matches!(verdict.class, Class::Kasan | Class::Kfence) || !in_module(case) {
            return None;
        }
        let place = parts::freeing(case).and_then(freed_in)?;
        // The sizes of kmalloc's caches follow the build's options, and some are chosen by chance.
        let cache = (verdict.object.as_ref())
            .and_then(|it| it.cache.as_deref())
            .filter(|cache| !cache.starts_with("kmalloc-"));
        let object = cache.unwrap_or("an object");
        let mut key = format!("{FREED}{object}{FREED_IN}{place}");
        for (word, part) in [(FREED_BY, self.killer), (TOUCHED_BY, self.victim)] {
            if let Some(part) = part {
                key.push_str(word);
                key.push_str(parts::kind(part));
            }
        }
        Some(key)
    }

    /// Code of a module that is gone: which function, and whether it was called then or had not
    /// been left. How that shows (int3, a page fault) depends on what lies there now.
    fn unloaded(&self) -> Option<String> {
        let module = self.gone.module.as_deref()?;
        let code = self
            .gone
            .place
            .as_ref()
            .filter(|place| place.section.contains("text"));
        let place = code.and_then(|place| place.symbol.as_deref());
        let (function, offset) = place?.rsplit_once("+0x")?;
        // An int3 has been passed when it traps.
        let called = matches!(offset, "0" | "1");
        let how = if called { "a call of" } else { "a thread in" };
        Some(format!("{module}{GONE}{how} {function}"))
    }

    /// An op of a driver that finds no object where it expects one: which pointer that was, the
    /// field behind it tells, and not the function.
    fn null(&self) -> Option<String> {
        let faults = matches!(
            self.verdict.class,
            Class::NullDeref | Class::PageFault | Class::GeneralProtection
        );
        let field = (self.verdict.access.as_ref()?.address).filter(|at| *at < NULL_PAGE)?;
        let victim = self.victim.filter(|_| faults && !self.case.is_mixed())?;
        let frames = self.case.fault_frames();
        let guilty = guilty_frame(frames, &[&COMMON])?;
        let module = guilty.module.as_deref()?;
        let mut key = format!(
            "NULL pointer, +{field:#x}, in {module}, touched by {}",
            parts::kind(victim)
        );
        if self.facts.coming_up.iter().any(|it| it == module) {
            key.push_str(" while the module comes up");
        }
        Some(key)
    }

    /// The instruction pointer is bytes of something else: a function pointer or a return address was
    /// written over. Who went there, and by which of these, is chance; what it was written over with
    /// is not.
    fn no_code(&self) -> Option<String> {
        let pointer = self.case.fault_frames().first()?;
        let went = pointer.interrupted && pointer.function.is_empty();
        let address = pointer.symbol.strip_prefix("0x").filter(|_| went)?;
        let address = u64::from_str_radix(address, 16).ok()?;
        // No kernel's addresses: what is none of these may be a module's that is gone.
        let canonical = (address as i64) >> 47;
        (!matches!(canonical, 0 | -1)).then(|| format!("a jump to {address:#018x}"))
    }

    fn titled(&self) -> String {
        let verdict = self.verdict;
        let generic = GENERIC.iter().find_map(|word| {
            let name = verdict.guilty.as_deref()?;
            let generic = format!("{word}{name}");
            verdict.alt_titles.contains(&generic).then_some(generic)
        });
        let mut key = generic.unwrap_or_else(|| verdict.title.clone());
        if let Some(module) = &self.gone.module {
            key.push_str("; module gone: ");
            key.push_str(module);
        }
        key
    }
}

/// Whether the report of a key may be of the bug of another key, and only tells less of it: whoever
/// touches an object while it is being freed gets a report without the place where that is, or with
/// half its stack; and who outlives object and module meets that the one is gone, or the other, by which
/// goes first. `titled` is the title of the other.
pub fn tells_less(key: &str, than: &str, titled: &str) -> bool {
    let Some(whole) = Freed::read(than) else {
        return false;
    };
    let at = titled.rsplit_once(" in ").map(|(_, at)| at);
    if let Some((_, who)) = key.split_once(GONE) {
        let function = who.split_once(" in ").or(who.split_once(" of "));
        return at.is_some_and(|at| {
            at.starts_with(UNLOADED) || function.is_some_and(|(_, function)| at == function)
        });
    }
    match key.strip_prefix(BAD_ACCESS) {
        Some(function) => at == Some(function),
        None => Freed::read(key).is_some_and(|half| {
            let known = Freed {
                killer: half.killer,
                ..whole
            };
            half.killer.is_none() && whole.killer.is_some() && half == known
        }),
    }
}

/// The parts of a key of an object that was touched after it had been freed.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Freed<'a> {
    object: &'a str,
    place: &'a str,
    killer: Option<&'a str>,
    victim: Option<&'a str>,
}

impl<'a> Freed<'a> {
    fn read(key: &'a str) -> Option<Self> {
        let split = |text: &'a str, word| match text.rsplit_once(word) {
            Some((text, part)) => (text, Some(part)),
            None => (text, None),
        };
        let (object, rest) = key.strip_prefix(FREED)?.split_once(FREED_IN)?;
        let (rest, victim) = split(rest, TOUCHED_BY);
        let (place, killer) = split(rest, FREED_BY);
        Some(Self {
            object,
            place,
            killer,
            victim,
        })
    }
}

/// Where an object was freed. Of one that goes by its count, that is where the last reference was
/// given back: what its release does is the same for everyone. Of the callers of the allocator the
/// first in a module, else the first that means something.
fn freed_in(stack: &Stack) -> Option<String> {
    let by_count = stack
        .frames
        .iter()
        .rposition(|it| RELEASE.has(&it.function));
    let frame = first_in(&stack.frames[by_count.map_or(0, |at| at + 1)..]);
    frame.map(|it| it.function.clone())
}

/// The first function in a module that means something, else the first of any.
pub(crate) fn first_in(frames: &[Frame]) -> Option<&Frame> {
    let own = frames.iter().filter(|frame| frame.module.is_some());
    guilty_of(own, &[&COMMON]).or_else(|| guilty_of(frames.iter(), &[&COMMON]))
}

/// Give back a reference, and release what had none left (lib/kobject.c, drivers/base/core.c,
/// fs/char_dev.c).
static RELEASE: LazyLock<SkipSet> = LazyLock::new(|| {
    SkipSet::new(&[&[
        "kref_put*",
        "kobject_put",
        "kobject_release",
        "kobject_cleanup",
        "__kobject_release",
        "put_device",
        "device_release",
        "cdev_put",
        "cdev_default_release",
        "cdev_dynamic_release",
    ]])
});

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

#[cfg(test)]
mod tests {
    use super::*;

    const WHOLE: &str =
        "use-after-free of an object, freed in m::teardown by a teardown, touched by an op";
    const TITLE: &str = "KASAN: slab-use-after-free Read in m::store";

    #[test]
    fn a_report_without_the_free_may_be_of_the_bug_that_has_one() {
        assert!(tells_less("bad-access in m::store", WHOLE, TITLE));
        let half = "use-after-free of an object, freed in m::teardown, touched by an op";
        assert!(tells_less(half, WHOLE, TITLE));
    }

    #[test]
    fn who_outlives_object_and_module_may_meet_either() {
        let tick = "KASAN: slab-use-after-free Read in <m::A as B>::tick";
        let gone = "m is gone: a thread in <m::A as B>::tick";
        assert!(tells_less(gone, WHOLE, tick));
        assert!(tells_less(
            "m is gone: a call of <m::A as B>::tick",
            WHOLE,
            tick
        ));
        let unloaded = "KASAN: slab-use-after-free Read in unloaded module";
        assert!(tells_less(gone, WHOLE, unloaded));
        assert!(!tells_less(gone, WHOLE, TITLE));
        assert!(!tells_less(gone, gone, unloaded));
    }

    #[test]
    fn another_function_or_place_is_another_bug() {
        for other in [
            "bad-access in m::show",
            "bad-access in store",
            "use-after-free of an object, freed in m::release, touched by an op",
            "use-after-free of an object, freed in m::teardown, touched by a worker",
            "use-after-free of an object, freed in m::teardown by an op, touched by an op",
            "use-after-free of dentry, freed in m::teardown, touched by an op",
            WHOLE,
        ] {
            assert!(!tells_less(other, WHOLE, TITLE), "{other}");
        }
        assert!(!tells_less(WHOLE, "bad-access in m::store", TITLE));
    }
}
