//! kmemleak (mm/kmemleak.c).

use super::{Body, Headline, Verdict};
use crate::case::{Case, hex, titled, untitled};
use crate::report::{Class, Object};
use crate::skip::{COMMON, MAKERS};

pub(super) const HEADLINES: &[Headline] = &[
    Headline::new("BUG: memory leak", Body::Plain, judge).anywhere(),
    Headline::new("unreferenced object 0x", Body::Plain, judge).follows(),
    Headline::new("kmemleak: ", Body::Line, told).with(" new suspected memory leaks"),
];

/// The scan's own count, without the objects: `kmemleak: 2 new suspected memory leaks (see …)`.
fn told(case: &Case<'_>) -> Verdict {
    let mut verdict = untitled(Class::MemoryLeak, "LEAK", "memory leak");
    verdict.notes.push(case.headline().to_owned());
    verdict
}

fn judge(case: &Case<'_>) -> Verdict {
    let mut verdict = titled(
        Class::MemoryLeak,
        "LEAK",
        "memory leak",
        None,
        case.guilty(&[&COMMON, &MAKERS]),
    );
    verdict.object = case.own_lines().find_map(|l| {
        let rest = l.trim().strip_prefix("unreferenced object 0x")?;
        let (address, size) = rest.split_once(" (size ")?;
        Some(Object {
            address: hex(address),
            size: size.split(')').next()?.parse().ok(),
            ..Object::default()
        })
    });
    verdict
}
