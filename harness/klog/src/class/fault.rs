//! Traps that the kernel can't go on from: page faults, general protection, the rest
//! (arch/x86/mm/fault.c, arch/x86/kernel/{traps,dumpstack}.c, arch/arm*/mm/fault.c).

use std::sync::LazyLock;

use aho_corasick::AhoCorasick;
use regex::Regex;

use super::{Body, Headline, Verdict};
use crate::case::{Case, hex, titled, untitled};
use crate::report::{Access, AccessKind, Class};
use crate::skip::COMMON;

pub(super) const HEADLINES: &[Headline] = &[
    Headline::new("stack guard page was hit at", Body::Plain, guard_page).anywhere(),
    Headline::new("kernel NULL pointer dereference", Body::Plain, page_fault)
        .anywhere()
        .trap(),
    Headline::new("nable to handle kernel", Body::Plain, page_fault)
        .anywhere()
        .trap(),
    Headline::new("BUG: unable to handle page fault", Body::Plain, page_fault)
        .anywhere()
        .trap(),
    Headline::new("Unhandled fault", Body::Plain, unhandled),
    Headline::new("PANIC: double fault", Body::Plain, double_fault).anywhere(),
    Headline::new("kernel stack overflow", Body::Plain, guard_page)
        .with("[#")
        .follows(),
    Headline::new("stack guard page: ", Body::Plain, guard_page)
        .with("[#")
        .follows(),
    Headline::new("general protection fault", Body::Plain, general_protection)
        .with("[#")
        .anywhere()
        .trap(),
    Headline::new(
        "Oops: general protection fault",
        Body::Plain,
        general_protection,
    )
    .anywhere()
    .trap(),
    Headline::new("invalid opcode: ", Body::Plain, trap)
        .with("[#")
        .follows(),
    Headline::new("Oops: invalid opcode: ", Body::Plain, trap)
        .with("[#")
        .follows(),
    Headline::new("Oops: int3", Body::Plain, trap).with("[#"),
    Headline::new("divide error", Body::Plain, trap).with("[#"),
    Headline::new("divide_error", Body::Plain, trap).with("[#"),
    Headline::new("stack segment", Body::Plain, trap).with("[#"),
    Headline::new("int3: ", Body::Plain, trap).with("[#"),
    Headline::new("Oops: divide", Body::Plain, trap).with("[#"),
    Headline::new("Oops: stack segment", Body::Plain, trap).with("[#"),
    Headline::new("Oops: ", Body::Plain, trap)
        .with("[#")
        .follows(),
    Headline::new("Internal error: ", Body::Plain, trap)
        .with("[#")
        .follows(),
    // riscv, s390: BUG() as the trap's name.
    Headline::new("Kernel BUG [#", Body::Plain, trapped_bug).follows(),
];

static ADDRESS: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"(?:address:?|virtual address|request at|dereference at|data access at|access at|non-canonical address) (?:0x)?([0-9a-f]{4,16})\b")
        .expect("a valid pattern")
});

/// The address and kind of a fault, from the headline and the lines after it.
fn access(case: &Case<'_>) -> Access {
    let mut access = Access::default();
    for line in case.own_lines().take(24) {
        if access.address.is_none() {
            access.address = ADDRESS.captures(line).and_then(|c| hex(&c[1]));
        }
        if access.kind.is_none() && KINDS.is_match(line) {
            access.kind = kind(line);
        }
        if access.address.is_some() && access.kind.is_some() {
            break;
        }
    }
    access
}

/// What [`kind`] looks for, found in one pass: most lines have none of it.
static KINDS: LazyLock<AhoCorasick> = LazyLock::new(|| {
    AhoCorasick::new([
        "#PF: supervisor ",
        "write access",
        "instruction fetch",
        "execute",
        "read access",
        "Oops: ",
    ])
    .expect("the words are few and fixed")
});

/// What the access did, where a line tells.
fn kind(line: &str) -> Option<AccessKind> {
    if line.contains("#PF: supervisor write") || line.contains("write access") {
        Some(AccessKind::Write)
    } else if line.contains("instruction fetch") || line.contains("execute") {
        Some(AccessKind::Execute)
    } else if line.contains("#PF: supervisor read") || line.contains("read access") {
        Some(AccessKind::Read)
    } else {
        oops_code(line)
    }
}

/// The page fault error code of `Oops: 0002 [#1]`: bit 1 is a write, bit 4 an instruction fetch.
fn oops_code(line: &str) -> Option<AccessKind> {
    let rest = line.rsplit_once("Oops: ")?.1;
    let code = hex(rest.split_whitespace().next()?)?;
    Some(match code {
        c if c & 0x10 != 0 => AccessKind::Execute,
        c if c & 2 != 0 => AccessKind::Write,
        _ => AccessKind::Read,
    })
}

/// The function at the instruction pointer, or the first of the chain that means something.
fn place(case: &Case<'_>) -> Option<String> {
    case.guilty(&[&COMMON])
}

/// The kernel went on far enough to print where it stood.
fn cut(case: &Case<'_>) -> Option<String> {
    (!case.has_chain()).then(|| "no stack".to_owned())
}

fn page_fault(case: &Case<'_>) -> Verdict {
    let text = case.headline();
    let null = text.contains("NULL pointer dereference");
    if !null
        && !text.contains("paging request")
        && !text.contains("page fault")
        && !text.contains("access")
    {
        // The line was torn apart before it said what couldn't be handled.
        let mut verdict = untitled(Class::PageFault, "", "BUG: unable to handle kernel");
        verdict.corrupted = Some("the headline is cut".to_owned());
        return verdict;
    }
    let (class, kind, what) = if null {
        (
            Class::NullDeref,
            "NULL-POINTER-DEREFERENCE",
            "NULL pointer dereference",
        )
    } else {
        (Class::PageFault, "MEMORY_SAFETY_BUG", "paging request")
    };
    let prefix = format!("BUG: unable to handle kernel {what}");
    let mut verdict = titled(class, kind, &prefix, Some("bad-access"), place(case));
    verdict.corrupted = verdict.corrupted.or_else(|| cut(case));
    verdict.access = Some(access(case));
    verdict
}

fn general_protection(case: &Case<'_>) -> Verdict {
    let prefix = "general protection fault";
    let mut verdict = titled(
        Class::GeneralProtection,
        "DoS",
        prefix,
        Some("bad-access"),
        place(case),
    );
    verdict.corrupted = verdict.corrupted.or_else(|| cut(case));
    verdict.access = Some(access(case));
    verdict
}

fn unhandled(case: &Case<'_>) -> Verdict {
    let mut verdict = titled(
        Class::Trap,
        "DoS",
        "Unhandled fault",
        Some("bad-access"),
        place(case),
    );
    verdict.access = Some(access(case));
    verdict
}

fn double_fault(case: &Case<'_>) -> Verdict {
    let mut verdict = titled(Class::Trap, "DoS", "PANIC: double fault", None, place(case));
    verdict.corrupted = verdict.corrupted.or_else(|| cut(case));
    verdict
}

fn guard_page(case: &Case<'_>) -> Verdict {
    let (prefix, kind) = if case.headline().contains("stack guard page was hit") {
        ("BUG: stack guard page was hit", "")
    } else {
        ("kernel stack overflow", "DoS")
    };
    // The recursion may have eaten all that the unwinder needs; then nothing tells what began it.
    let function =
        super::hang::entry(case).or_else(|| place(case).filter(|_| case.has_reliable_chain()));
    titled(
        Class::StackOverflow,
        kind,
        prefix,
        Some("stack-overflow"),
        function,
    )
}

fn trapped_bug(case: &Case<'_>) -> Verdict {
    let mut verdict = titled(Class::Bug, "BUG", "kernel BUG", None, place(case));
    verdict.corrupted = verdict.corrupted.or_else(|| cut(case));
    verdict
}

fn trap(case: &Case<'_>) -> Verdict {
    let text = super::untagged(case.headline());
    let what = text
        .trim_start_matches("Oops: ")
        .trim_start_matches("Internal error: ");
    let what = what
        .split([':', ','])
        .next()
        .unwrap_or(what)
        .replace('_', " ");
    let what = match what.as_str() {
        "stack segment" => "stack segment fault".to_owned(),
        w if w.bytes().all(|b| b.is_ascii_hexdigit()) || w == "Oops" => "Oops".to_owned(),
        _ => what,
    };
    let mut verdict = titled(Class::Trap, "DoS", &what, None, place(case));
    verdict.corrupted = verdict.corrupted.or_else(|| cut(case));
    if what == "Oops" {
        verdict.access = Some(access(case));
    }
    if what == "int3"
        && let Some(byte) = case.own_lines().find_map(trapped_at)
        && byte != INT3
    {
        verdict.stale_code = true;
        verdict.notes.push(format!(
            "what trapped as int3 is {byte:02x} in memory, and no code does that: the CPU ran an \
             instruction that had been overwritten, as an emulator may while the kernel patches \
             its text"
        ));
    }
    verdict
}

/// The breakpoint's opcode, a byte by itself.
const INT3: u8 = 0xcc;

/// The byte before the instruction pointer, which stands past an int3 that has trapped; where the
/// line is the kernel's dump of the code (`show_opcodes` of arch/x86/kernel/dumpstack.c).
fn trapped_at(line: &str) -> Option<u8> {
    let (before, _) = line.strip_prefix("Code: ")?.split_once('<')?;
    u8::from_str_radix(before.split_whitespace().next_back()?, 16).ok()
}
