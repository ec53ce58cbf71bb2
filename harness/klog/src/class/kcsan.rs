//! KCSAN (kernel/kcsan/report.c).

use super::{Body, Headline, Verdict};
use crate::case::{Case, titled, untitled};
use crate::report::Class;

pub(super) const HEADLINES: &[Headline] =
    &[Headline::new("BUG: KCSAN: ", Body::Fenced, judge).anywhere()];

fn judge(case: &Case<'_>) -> Verdict {
    let rest = case
        .headline()
        .split_once("BUG: KCSAN: ")
        .map_or("", |(_, rest)| rest);
    let (what, place) = rest.split_once(" in ").unwrap_or((rest, ""));
    let kind = match what {
        "data-race" => "KCSAN-DATARACE",
        w if w.starts_with("assert") => "KCSAN-ASSERT",
        _ => "KCSAN-UNKNOWN",
    };
    let mut functions: Vec<String> = place
        .split(" / ")
        .map(|f| crate::frame::readable(f.split('+').next().unwrap_or(f).trim()))
        .filter(|f| !f.is_empty())
        .collect();
    functions.sort();
    match functions.as_slice() {
        [] => titled(Class::Kcsan, kind, &format!("KCSAN: {what}"), None, None),
        [one] => titled(
            Class::Kcsan,
            kind,
            &format!("KCSAN: {what}"),
            None,
            Some(one.clone()),
        ),
        both => {
            let title = format!("KCSAN: {what} in {}", both.join(" / "));
            let mut verdict = untitled(Class::Kcsan, kind, title);
            verdict.guilty = functions.into_iter().next();
            verdict
        }
    }
}
