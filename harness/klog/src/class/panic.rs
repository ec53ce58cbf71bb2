//! `Kernel panic` without a report before it, and panics of Rust code in the kernel.

use super::{Body, Headline, Verdict};
use crate::case::{Case, function_in, titled, untitled};
use crate::report::Class;
use crate::skip::COMMON;

pub(super) const HEADLINES: &[Headline] = &[
    Headline::new("Kernel panic - not syncing: ", Body::Plain, judge)
        .anywhere()
        .follows(),
    Headline::new("rust_kernel: panicked at ", Body::Preamble, rust).anywhere(),
];

fn judge(case: &Case<'_>) -> Verdict {
    let text = case.headline();
    let why = text
        .split_once("not syncing: ")
        .map_or("", |(_, why)| why)
        .trim();
    if why.starts_with("corrupted stack end detected") {
        let function = super::hang::entry(case).or_else(|| case.guilty(&[&COMMON]));
        let prefix = "kernel panic: corrupted stack end";
        return titled(
            Class::StackOverflow,
            "DoS",
            prefix,
            Some("stack-overflow"),
            function,
        );
    }
    if why == "kernel stack overflow" {
        // arm64 finds the overflow when it takes the exception on its spare stack.
        return titled(
            Class::StackOverflow,
            "DoS",
            why,
            Some("stack-overflow"),
            super::hang::entry(case).or_else(|| case.guilty(&[&COMMON])),
        );
    }
    if let Some((_, place)) = why.split_once("stack is corrupted in: ") {
        let function = function_in(place.trim()).or_else(|| case.guilty(&[&COMMON]));
        return titled(
            Class::StackOverflow,
            "DoS",
            "kernel panic: stack is corrupted",
            None,
            function,
        );
    }
    // Codes and names in it change from run to run.
    let why = match why.split_once(" exitcode=") {
        Some((why, _)) => why,
        None => why.trim_end_matches(['.', ' ']),
    };
    let why = match why.split_once(" for ") {
        Some((why @ "Couldn't open N_TTY ldisc", _)) => why,
        _ => why,
    };
    let why = super::misc::without_numbers(why);
    let mut verdict = untitled(Class::Panic, "DoS", format!("kernel panic: {why}"));
    if FOLLOWS_A_REPORT.iter().any(|f| why.contains(f)) {
        verdict.corrupted = Some("the report that led to the panic is missing".to_owned());
    }
    verdict
}

/// Panics that a report must have come before.
const FOLLOWS_A_REPORT: &[&str] = &[
    "panic_on_warn",
    "Fatal exception",
    "hung_task",
    "softlockup",
    "hardlockup",
    "panic_on_",
];

fn rust(case: &Case<'_>) -> Verdict {
    // The message stands on the next line.
    let mut message = case
        .body()
        .map(str::trim)
        .find(|l| !l.is_empty())
        .unwrap_or("panic");
    if message.contains("cut here") {
        message = "Rust panic";
    }
    titled(Class::RustPanic, "", message, None, case.guilty(&[&COMMON]))
}
