//! UBSAN (lib/ubsan.c).

use super::{Body, Headline, Verdict};
use crate::case::{Case, titled};
use crate::report::Class;
use crate::skip::COMMON;

pub(super) const HEADLINES: &[Headline] =
    &[Headline::new("UBSAN: ", Body::Fenced, judge).with(" in ")];

fn judge(case: &Case<'_>) -> Verdict {
    let rest = case
        .headline()
        .split_once("UBSAN: ")
        .map_or("", |(_, rest)| rest);
    let what = rest.split(" in ").next().unwrap_or(rest);
    // Before 5.11 one wording served all.
    let what = if what == "Undefined behaviour" {
        "undefined-behaviour"
    } else {
        what
    };
    titled(
        Class::Ubsan,
        "UBSAN",
        &format!("UBSAN: {what}"),
        None,
        case.guilty(&[&COMMON]),
    )
}
