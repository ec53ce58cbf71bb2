//! What has few words and no class of its own; the general headlines, tried last.

use super::{Body, Headline, Verdict};
use crate::case::{Case, titled, untitled};
use crate::report::Class;
use crate::skip::COMMON;

pub(super) const HEADLINES: &[Headline] = &[
    Headline::new("BUG: Dentry ", Body::Plain, dentry)
        .with("still in use")
        .anywhere(),
    Headline::new("SYZFAIL: ", Body::Line, syzfail),
    Headline::new("trusty: panic", Body::Plain, trusty),
    Headline::new("Linux version ", Body::Line, reboot),
    Headline::new("Booting the kernel", Body::Line, reboot),
    Headline::new("BUG: ", Body::Plain, plain_bug),
    Headline::new("WARNING: ", Body::Plain, plain_warning),
    Headline::new("INFO: Freed in ", Body::Plain, tracked).follows(),
    Headline::new("INFO: Allocated in ", Body::Plain, tracked).follows(),
    Headline::new("INFO: ", Body::Plain, plain_info).with(" in "),
    Headline::new("INFO:", Body::Line, plain_info),
];

/// A dentry that outlives its mount (fs/dcache.c).
fn dentry(case: &Case<'_>) -> Verdict {
    let text = case.headline();
    let mut verdict = untitled(Class::Other, "", "BUG: Dentry still in use in unmount");
    if let Some((_, what)) = text.rsplit_once('[') {
        verdict.alt_titles = vec![format!("BUG: Dentry still in use [{what}")];
    }
    if !case.has_chain() {
        verdict.corrupted = Some("no stack".to_owned());
    }
    verdict
}

fn syzfail(case: &Case<'_>) -> Verdict {
    untitled(Class::Other, "SYZ_FAILURE", case.headline())
}

fn trusty(case: &Case<'_>) -> Verdict {
    let mut verdict = untitled(Class::Panic, "DoS", "trusty: panic");
    if case.own_lines().any(|l| l.contains("ASSERT FAILED")) {
        "trusty: ASSERT FAILED:".clone_into(&mut verdict.title);
    }
    verdict
}

/// The kernel's first line, a second time.
fn reboot(_: &Case<'_>) -> Verdict {
    untitled(Class::Reboot, "REBOOT", "unexpected kernel reboot")
}

/// Any other `BUG:`, by its words without the numbers in them.
pub(super) fn plain_bug(case: &Case<'_>) -> Verdict {
    worded(case, Class::Other, "")
}

fn plain_warning(case: &Case<'_>) -> Verdict {
    worded(case, Class::Warning, "WARNING")
}

fn plain_info(case: &Case<'_>) -> Verdict {
    worded(case, Class::Other, "")
}

fn worded(case: &Case<'_>, class: Class, kind: &str) -> Verdict {
    let text = super::untagged(case.headline()).trim();
    if let Some(word) = text.strip_suffix(':') {
        let mut verdict = untitled(class, kind, format!("{word}: {}", crate::case::CORRUPTED));
        verdict.corrupted = Some("the headline is cut".to_owned());
        return verdict;
    }
    let prefix = without_numbers(text);
    match case.guilty(&[&COMMON]) {
        Some(function) => titled(class, kind, &prefix, None, Some(function)),
        None => untitled(class, kind, prefix),
    }
}

/// What SLUB tells of an object, without the complaint that it belongs to.
fn tracked(case: &Case<'_>) -> Verdict {
    let title = without_numbers(&functions_only(super::untagged(case.headline())));
    let mut verdict = untitled(Class::Other, "", title);
    verdict.corrupted = Some("the complaint it belongs to is missing".to_owned());
    verdict
}

/// A text with the offsets off its functions.
fn functions_only(text: &str) -> String {
    let bare = |word: &str| word.split("+0x").next().unwrap_or(word).to_owned();
    text.split(' ').map(bare).collect::<Vec<_>>().join(" ")
}

/// Addresses become `ADDR`, numbers `NUM`: they change from run to run.
pub(crate) fn without_numbers(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let word_len = rest
            .find(|c: char| !(c.is_ascii_alphanumeric() || c == '_'))
            .unwrap_or(rest.len());
        if word_len == 0 {
            out.push(first);
            rest = &rest[first.len_utf8()..];
            continue;
        }
        let word = &rest[..word_len];
        let hex = word.strip_prefix("0x").unwrap_or(word);
        let all_hex = !hex.is_empty() && hex.bytes().all(|b| b.is_ascii_hexdigit());
        let all_digits = word.bytes().all(|b| b.is_ascii_digit());
        if all_digits && word.len() < 8 {
            out.push_str("NUM");
        } else if all_hex && (hex.len() >= 8 || word.starts_with("0x")) {
            out.push_str("ADDR");
        } else {
            out.push_str(word);
        }
        rest = &rest[word_len..];
    }
    out
}
