//! WARN() (kernel/panic.c), told apart by the file or function it stands in.

use std::sync::LazyLock;

use super::{Body, Headline, Verdict};
use crate::case::{Case, guilty_in, titled, untitled};
use crate::report::{Class, Frame, Role};
use crate::skip::{COMMON, REGISTRATION, SkipSet, USB};

pub(super) const HEADLINES: &[Headline] = &[
    Headline::new("WARNING: CPU: ", Body::Plain, judge)
        .with(" at ")
        .anywhere(),
    // Since 6.18: `WARNING: file:line at function, CPU#1: comm/pid`.
    Headline::new("WARNING: ", Body::Plain, judge)
        .with(", CPU#")
        .anywhere(),
    Headline::new("WARNING: kernel stack regs", Body::Line, stack_regs),
    Headline::new(
        "WARNING: kernel stack frame pointer",
        Body::Line,
        stack_regs,
    ),
    Headline::new("WARNING: at ", Body::Plain, judge),
];

/// A kind of warning that is known by where it stands.
struct Kind {
    /// In the headline: a file, or a function.
    says: &'static str,
    title: &'static str,
    class: Class,
    kind: &'static str,
}

const KINDS: &[Kind] = &[
    Kind {
        says: "lib/refcount.c",
        title: "WARNING: refcount bug",
        class: Class::Refcount,
        kind: "REFCOUNT_WARNING",
    },
    Kind {
        says: "lib/debugobjects.c",
        title: "WARNING: ODEBUG bug",
        class: Class::DebugObjects,
        kind: "WARNING",
    },
    Kind {
        says: "lib/kobject.c",
        title: "WARNING: kobject bug",
        class: Class::Kobject,
        kind: "WARNING",
    },
    Kind {
        says: "fs/proc/generic.c",
        title: "WARNING: proc registration bug",
        class: Class::Kobject,
        kind: "WARNING",
    },
    Kind {
        says: "fs/sysfs/",
        title: "WARNING: sysfs bug",
        class: Class::Kobject,
        kind: "WARNING",
    },
    Kind {
        says: "fs/kernfs/",
        title: "WARNING: kernfs bug",
        class: Class::Kobject,
        kind: "WARNING",
    },
    Kind {
        says: "mm/usercopy.c",
        title: "WARNING: bad usercopy",
        class: Class::Warning,
        kind: "WARNING",
    },
    Kind {
        says: "lib/list_debug.c",
        title: "WARNING: corrupted list",
        class: Class::ListCorruption,
        kind: "WARNING",
    },
    Kind {
        says: "kmalloc_slab+",
        title: "WARNING: kmalloc bug",
        class: Class::Warning,
        kind: "WARNING",
    },
    Kind {
        says: "kvmalloc_node",
        title: "WARNING: kmalloc bug",
        class: Class::Warning,
        kind: "WARNING",
    },
    Kind {
        says: "mm/vmalloc.c",
        title: "WARNING: zero-size vmalloc",
        class: Class::Warning,
        kind: "WARNING",
    },
    Kind {
        says: "kernel/locking/lockdep.c",
        title: "WARNING: locking bug",
        class: Class::Lockdep,
        kind: "LOCKDEP",
    },
    Kind {
        says: "kernel/dma/debug.c",
        title: "WARNING: DMA-API bug",
        class: Class::DmaApi,
        kind: "WARNING",
    },
];

/// A timer's, work's or callback's own functions say nothing about who freed it.
static TIMERS: LazyLock<SkipSet> =
    LazyLock::new(|| SkipSet::new(&[&["*timer*", "*work_*", "*rcu*"]]));

/// The stack of the warning itself: with panic_on_warn it is panic()'s, and where another CPU's
/// stack got in between, it is the one that shows the warning's own machinery.
fn warned_frames<'c>(case: &'c Case<'_>) -> &'c [Frame] {
    let shows = |frames: &[Frame]| {
        frames
            .iter()
            .any(|f| f.reliable && (f.interrupted || WARN.has(&f.function)))
    };
    if shows(case.fault_frames()) {
        return case.fault_frames();
    }
    case.stacks
        .iter()
        .find(|s| matches!(s.role, Role::Fault | Role::Panic) && shows(&s.frames))
        .map_or(case.fault_frames(), |s| &s.frames)
}

static WARN: LazyLock<SkipSet> =
    LazyLock::new(|| SkipSet::new(&[&["__warn", "warn_slowpath*", "report_bug", "__report_bug"]]));

fn judge(case: &Case<'_>) -> Verdict {
    let text = case.headline();
    let known = KINDS.iter().find(|k| text.contains(k.says));
    let (title, class, kind) = known.map_or(("WARNING", Class::Warning, "WARNING"), |k| {
        (k.title, k.class, k.kind)
    });
    let frames = warned_frames(case);
    let function = match class {
        _ if case.is_injected() => None,
        Class::DebugObjects => guilty_in(frames, &[&COMMON, &TIMERS]),
        Class::Kobject => guilty_in(frames, &[&COMMON, &REGISTRATION]),
        _ => guilty_in(frames, &[&COMMON]),
    };
    let class = match class {
        Class::Warning => by_message(case).unwrap_or(class),
        class => class,
    };
    let mut verdict = if text.contains("usb_submit_urb") {
        usb(guilty_in(frames, &[&COMMON, &USB]))
    } else {
        titled(class, kind, title, None, function)
    };
    if !case.has_chain() {
        verdict.corrupted = Some("no stack".to_owned());
    }
    verdict.notes = notes(case, class);
    verdict
}

/// Warnings that stand in files of many matters, by what they say.
const MESSAGES: &[(&str, Class)] = &[
    // drivers/base/core.c
    ("does not have a release() function", Class::Kobject),
    // mm/slab_common.c
    ("Slab cache still has objects", Class::Slab),
    ("is not initialized, yet kobject_", Class::Kobject),
    ("list_add corruption", Class::ListCorruption),
    ("list_del corruption", Class::ListCorruption),
];

fn by_message(case: &Case<'_>) -> Option<Class> {
    case.message().find_map(|line| {
        let known = MESSAGES.iter().find(|(says, _)| line.contains(says));
        known.map(|(_, class)| *class)
    })
}

/// The message itself, of classes whose place in the code tells little.
fn notes(case: &Case<'_>, class: Class) -> Vec<String> {
    const TAGS: [&str; 3] = ["ODEBUG: ", "DMA-API: ", "refcount_t: "];
    let says = |line: &&str| match class {
        Class::DebugObjects | Class::DmaApi | Class::Refcount => {
            TAGS.iter().any(|tag| line.starts_with(tag))
        }
        Class::Kobject | Class::Slab => MESSAGES.iter().any(|(says, _)| line.contains(says)),
        _ => false,
    };
    let message = case.message().find(says);
    message.map(crate::readable).into_iter().collect()
}

/// usb_submit_urb() warns about the driver that called it.
fn usb(caller: Option<String>) -> Verdict {
    let Some(caller) = caller else {
        let itself = Some("usb_submit_urb".to_owned());
        return titled(Class::Warning, "WARNING", "WARNING", None, itself);
    };
    let title = format!("WARNING in {caller}/usb_submit_urb");
    let mut verdict = untitled(Class::Warning, "WARNING", title);
    verdict.guilty = Some(caller);
    verdict
}

/// arch/x86/kernel/unwind_frame.c: a broken frame pointer, told without a stack.
fn stack_regs(case: &Case<'_>) -> Verdict {
    let text = case.headline();
    let title = match text
        .split_once(" has bad '")
        .and_then(|(_, rest)| rest.split_once('\''))
    {
        Some((register, rest)) if !rest.contains("(ptrval)") => {
            format!("WARNING: kernel stack regs has bad '{register}' value")
        }
        _ => "WARNING: kernel stack regs has bad value".to_owned(),
    };
    untitled(Class::Warning, "", title)
}
