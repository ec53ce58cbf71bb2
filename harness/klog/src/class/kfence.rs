//! KFENCE (mm/kfence/report.c).

use std::sync::LazyLock;

use regex::Regex;

use super::{Body, Headline, Verdict};
use crate::case::{Case, function_in, hex, titled};
use crate::report::{Access, AccessKind, Class, Object};

pub(super) const HEADLINES: &[Headline] =
    &[Headline::new("BUG: KFENCE: ", Body::Fenced, judge).anywhere()];

static AT: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"^(?:Out-of-bounds|Use-after-free|Invalid|Corrupted) (?:read|write|free|memory)(?: of| at)? ?(?:at )?0x([0-9a-f]+)")
        .expect("a valid pattern")
});
static OBJECT: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"^kfence-#\d+[^:]*: 0x([0-9a-f]+)-0x[0-9a-f]+, size=(\d+), cache=(\S+)")
        .expect("a valid pattern")
});

fn judge(case: &Case<'_>) -> Verdict {
    let rest = case
        .headline()
        .split_once("BUG: KFENCE: ")
        .map_or("", |(_, rest)| rest);
    let (what, place) = rest.split_once(" in ").unwrap_or((rest, ""));
    let hint = place.split_whitespace().next().and_then(function_in);
    let function = case.hint_or_guilty(hint.as_deref());
    let (kind, generic, direction) = match what {
        "use-after-free read" => (
            "KFENCE-USE-AFTER-FREE-READ",
            Some("bad-access"),
            AccessKind::Read,
        ),
        "use-after-free write" => (
            "KFENCE-USE-AFTER-FREE-WRITE",
            Some("bad-access"),
            AccessKind::Write,
        ),
        "memory corruption" => ("KFENCE-MEMORY-CORRUPTION", None, AccessKind::Write),
        "invalid free" => (
            "KFENCE-INVALID-FREE",
            Some("invalid-free"),
            AccessKind::Free,
        ),
        w if w.ends_with("write") => ("KFENCE-WRITE", Some("bad-access"), AccessKind::Write),
        _ => ("KFENCE-READ", Some("bad-access"), AccessKind::Read),
    };
    let mut verdict = titled(
        Class::Kfence,
        kind,
        &format!("KFENCE: {what}"),
        generic,
        function,
    );
    let address = case
        .body()
        .find_map(|l| hex(AT.captures(l.trim())?.get(1)?.as_str()));
    verdict.access = Some(Access {
        kind: Some(direction),
        address,
        ..Access::default()
    });
    verdict.object = case.body().find_map(|l| {
        let c = OBJECT.captures(l.trim())?;
        let start = hex(&c[1]);
        Some(Object {
            address: start,
            size: c[2].parse().ok(),
            cache: Some(c[3].trim_end_matches(',').to_owned()),
            offset: address
                .zip(start)
                .and_then(|(a, s)| i64::try_from(i128::from(a) - i128::from(s)).ok()),
            ..Object::default()
        })
    });
    if !case.has_chain() {
        verdict.corrupted = Some("no stack".to_owned());
    }
    verdict
}
