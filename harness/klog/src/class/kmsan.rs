//! KMSAN (mm/kmsan/report.c).

use super::{Body, Headline, Verdict};
use crate::case::{Case, function_in, guilty_in, titled};
use crate::report::{Class, Role};
use crate::skip::{COMMON, MAKERS, USB};

pub(super) const HEADLINES: &[Headline] =
    &[Headline::new("BUG: KMSAN: ", Body::Fenced, judge).anywhere()];

fn judge(case: &Case<'_>) -> Verdict {
    let rest = case
        .headline()
        .split_once("BUG: KMSAN: ")
        .map_or("", |(_, rest)| rest);
    let (what, place) = rest.split_once(" in ").unwrap_or((rest, ""));
    let what = what.trim();
    let hint = place.split_whitespace().next().and_then(function_in);
    let kind = match what {
        "uninit-value" => "KMSAN-UNINIT-VALUE",
        w if w.ends_with("infoleak") => "KMSAN-INFO-LEAK",
        w if w.starts_with("use-after-free") => "KMSAN-USE-AFTER-FREE-READ",
        _ => "KMSAN-UNKNOWN",
    };
    let function = match what {
        "kernel-usb-infoleak" => case.guilty(&[&COMMON, &USB]),
        _ => case.hint_or_guilty(hint.as_deref()),
    };
    let title = format!("KMSAN: {what}");
    let mut verdict = titled(Class::Kmsan, kind, &title, Some("bad-access"), function);
    if what == "kernel-usb-infoleak"
        && let Some(origin) = case
            .stacks
            .iter()
            .find(|s| s.role == Role::Origin)
            .and_then(|s| guilty_in(&s.frames, &[&COMMON, &MAKERS]))
    {
        // Which buffer leaks is told by where it was made, not by which transfer sent it.
        verdict.alt_titles = vec![format!("KMSAN origin in {origin}")];
    }
    if !case.has_chain() {
        verdict.corrupted = Some("no stack".to_owned());
    }
    verdict
}
