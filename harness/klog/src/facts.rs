//! What every report may tell beside its own matter: task, CPU, kernel, taint, modules.

use std::sync::LazyLock;

use memchr::memmem::Finder;
use regex::Regex;

use crate::case::Case;
use crate::report::{Taint, Task};

/// Facts common to all classes.
#[derive(Default)]
pub(crate) struct Facts {
    pub(crate) task: Option<Task>,
    pub(crate) cpu: Option<u32>,
    pub(crate) kernel: Option<String>,
    pub(crate) taint: Option<Taint>,
    pub(crate) modules: Vec<String>,
    /// Those of them whose init has not returned (`mydrv(O+)`).
    pub(crate) coming_up: Vec<String>,
    pub(crate) last_unloaded: Option<String>,
}

/// dump_stack_print_info() in lib/dump_stack.c.
static CPU: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"^CPU: (\d+) (?:UID: \d+ )?PID: (-?\d+) Comm: (.*?) (Not tainted|Tainted: ([A-Z ]+?)(?: +)?)(?:, \S+)?(?: +([0-9]\S*|\S+-\S+))?(?: #|$| \()")
        .expect("a valid pattern")
});
static HUNG: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(r"^INFO: task (.+):(\d+) blocked").expect("a valid pattern"));

/// How what is looked for begins, found first.
static WORDS: LazyLock<[Finder<'_>; 2]> = LazyLock::new(|| ["CPU: ", "by t"].map(Finder::new));

pub(crate) fn collect(case: &Case<'_>) -> Facts {
    let mut facts = Facts::default();
    let mut in_modules = false;
    for text in case.own_lines() {
        let text = text.trim_ascii();
        if in_modules {
            // A long list wraps; the continuation has neither colon nor blank start.
            in_modules = !text.contains(": ") && !text.is_empty() && modules(&mut facts, text);
        }
        if let Some(rest) = text.strip_prefix("Modules linked in:") {
            in_modules = modules(&mut facts, rest);
            continue;
        }
        let from = |word: &Finder<'_>| word.find(text.as_bytes()).map(|at| &text[at..]);
        if facts.cpu.is_none()
            && let Some(c) = from(&WORDS[0]).and_then(|text| CPU.captures(text))
        {
            facts.cpu = c[1].parse().ok();
            facts.task.get_or_insert_with(|| Task {
                name: c[3].to_owned(),
                pid: c[2].parse().ok(),
            });
            facts.taint = c.get(5).map(|t| Taint {
                flags: t.as_str().chars().filter(|c| !c.is_whitespace()).collect(),
            });
            facts.kernel = c.get(6).map(|k| k.as_str().to_owned());
        }
        let named = if text.starts_with("INFO: task ") {
            HUNG.captures(text).map(|c| Task {
                name: c[1].to_owned(),
                pid: c[2].parse().ok(),
            })
        } else {
            from(&WORDS[1]).and_then(by_task)
        };
        facts.task = named.or(facts.task);
    }
    facts
}

/// `by task comm/123`, of KASAN's access line; a name may have blanks and slashes in it.
fn by_task(text: &str) -> Option<Task> {
    let rest = text.strip_prefix("by ")?;
    let rest = rest
        .strip_prefix("task ")
        .or_else(|| rest.strip_prefix("thread "))?;
    rest.rmatch_indices('/').find_map(|(at, _)| {
        let pid = &rest[at + 1..];
        let digits = pid.bytes().take_while(u8::is_ascii_digit).count();
        (at > 0 && digits > 0).then(|| Task {
            name: rest[..at].to_owned(),
            pid: pid[..digits].parse().ok(),
        })
    })
}

/// Reads `a b(OE) c [last unloaded: d(O)]`; false where the list is over.
fn modules(facts: &mut Facts, list: &str) -> bool {
    let (list, unloaded) = match list.split_once("[last unloaded: ") {
        Some((list, rest)) => (list, rest.split(']').next()),
        None => (list, None),
    };
    for module in list.split_whitespace() {
        let bare = bare_module(module);
        if !bare
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
        {
            return false;
        }
        if !facts.modules.iter().any(|m| m == bare) {
            facts.modules.push(bare.to_owned());
            if module[bare.len()..].contains('+') {
                facts.coming_up.push(bare.to_owned());
            }
        }
    }
    if let Some(name) = unloaded {
        let name = bare_module(name.trim());
        if !name.is_empty() {
            facts.last_unloaded = Some(name.to_owned());
        }
        return false;
    }
    true
}

/// A module without its state and taint: `mydrv(OE-)`, `mydrv(O):1`.
fn bare_module(module: &str) -> &str {
    module.split(['(', ':']).next().unwrap_or(module)
}
