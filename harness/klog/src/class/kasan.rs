//! KASAN, every wording since 4.0 (mm/kasan/report.c).

use std::sync::LazyLock;

use regex::Regex;

use super::{Body, Headline, Verdict};
use crate::case::{Case, function_in, hex, titled, untitled};
use crate::report::{Access, AccessKind, Class, Object};
use crate::shape::Shape;
use crate::stacks::VARIABLE;

pub(super) const HEADLINES: &[Headline] =
    &[Headline::new("BUG: KASAN: ", Body::Fenced, judge).anywhere()];

static ACCESS: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"^(Read|Write|Execute) (?:of size (\d+|\(null\)) )?(?:at addr ([0-9a-fx]+) )?by (?:task|thread)")
        .expect("a valid pattern")
});
static FREE: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(r"^Free of addr ([0-9a-fx]+) by task").expect("a valid pattern"));
static LOCATED: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"^The buggy address is located (?:(\d+) bytes )?(inside of|to the right of|to the left of) (?:[a-z-]+ )?(\d+)-byte region \[([0-9a-fx]+),")
        .expect("a valid pattern")
});
static BELONGS: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"^which belongs to the cache (\S+)( of size (\d+))?").expect("a valid pattern")
});

fn judge(case: &Case<'_>) -> Verdict {
    let text = case.headline();
    let rest = text.split_once("BUG: KASAN: ").map_or("", |(_, rest)| rest);
    let (what, place) = match rest.split_once(" in ") {
        Some((what, place)) => (what, place),
        None => (rest.split(" on ").next().unwrap_or(rest), ""),
    };
    let hint = place.split_whitespace().next().and_then(function_in);
    let access = access(case, text);
    let object = object(case, access.as_ref());
    let mut verdict = title(case, what.trim(), hint.as_deref(), place, access.as_ref());
    verdict.access = access;
    verdict.object = object;
    verdict
}

fn title(
    case: &Case<'_>,
    what: &str,
    hint: Option<&str>,
    place: &str,
    access: Option<&Access>,
) -> Verdict {
    if what.contains("invalid-free") || what.contains("double-free") {
        let function = case.hint_or_guilty(hint);
        let title = "KASAN: invalid-free";
        return titled(
            Class::Kasan,
            "KASAN-INVALID-FREE",
            title,
            Some("invalid-free"),
            function,
        );
    }
    let Some(direction) = access.and_then(|a| a.kind) else {
        // The line that says what the access was got lost.
        let address = if place.contains(" at addr ") {
            " at addr ADDR"
        } else {
            ""
        };
        let title = match hint {
            Some(f) => format!("KASAN: {what} in {f}{address}"),
            None => format!("KASAN: {what}"),
        };
        let mut verdict = untitled(Class::Kasan, kind_of(what, AccessKind::Read), title);
        verdict.corrupted = Some("nothing after the headline".to_owned());
        verdict.guilty = hint.map(str::to_owned);
        return verdict;
    };
    let word = if direction == AccessKind::Write {
        "Write"
    } else {
        "Read"
    };
    let kind = kind_of(what, direction);
    let title = format!("KASAN: {what} {word}");
    if place.is_empty() && !case.has_chain() {
        let mut verdict = untitled(Class::Kasan, kind, title);
        verdict.corrupted = Some("no stack".to_owned());
        return verdict;
    }
    let mut verdict = titled(
        Class::Kasan,
        kind,
        &title,
        Some("bad-access"),
        case.hint_or_guilty(hint),
    );
    if !case.has_chain() {
        verdict.corrupted = Some("no stack".to_owned());
    }
    verdict
}

fn kind_of(what: &str, direction: AccessKind) -> &'static str {
    let write = direction == AccessKind::Write;
    if what.contains("use-after-free") {
        if write {
            "KASAN-USE-AFTER-FREE-WRITE"
        } else {
            "KASAN-USE-AFTER-FREE-READ"
        }
    } else if what.contains("null-ptr-deref") {
        if write {
            "KASAN-NULL-POINTER-DEREFERENCE-WRITE"
        } else {
            "KASAN-NULL-POINTER-DEREFERENCE-READ"
        }
    } else if write {
        "KASAN-WRITE"
    } else {
        "KASAN-READ"
    }
}

fn access(case: &Case<'_>, headline: &str) -> Option<Access> {
    // Before 4.10 the address stood in the headline.
    let head_address = headline
        .split_once(" at addr ")
        .or_else(|| headline.split_once(" on address "))
        .and_then(|(_, a)| hex(a.split_whitespace().next()?));
    case.body().take(24).map(str::trim).find_map(|line| {
        if let Some(c) = ACCESS.captures(line) {
            let kind = match &c[1] {
                "Write" => AccessKind::Write,
                "Execute" => AccessKind::Execute,
                _ => AccessKind::Read,
            };
            let address = c.get(3).and_then(|a| hex(a.as_str())).or(head_address);
            return Some(Access {
                kind: Some(kind),
                size: c.get(2).and_then(|s| s.as_str().parse().ok()),
                address,
                shadow_address: None,
            });
        }
        FREE.captures(line).map(|c| Access {
            kind: Some(AccessKind::Free),
            address: hex(&c[1]),
            ..Access::default()
        })
    })
}

fn object(case: &Case<'_>, access: Option<&Access>) -> Option<Object> {
    let mut object = Object::default();
    // The variable's name, where it stands on a line of its own, looks like a frame.
    let mut lines = case.lines[case.head + 1..]
        .iter()
        .filter(|l| l.shape != Shape::Frame || l.frame.is_some())
        .map(|l| l.text().trim());
    while let Some(line) = lines.next() {
        // The kernel breaks this sentence into two lines.
        let joined;
        let line = if line.starts_with("The buggy address is located") && line.ends_with(" of") {
            joined = format!("{line} {}", lines.next().unwrap_or_default());
            joined.as_str()
        } else {
            line
        };
        if line.starts_with("which belongs to")
            && let Some(c) = BELONGS.captures(line)
        {
            object.cache = Some(c[1].to_owned());
            object.size = object.size.or_else(|| c.get(3)?.as_str().parse().ok());
        } else if line.starts_with("The buggy address is located")
            && let Some(c) = LOCATED.captures(line)
        {
            let size: Option<i64> = c[3].parse().ok();
            let distance: i64 = c.get(1).and_then(|d| d.as_str().parse().ok()).unwrap_or(0);
            object.address = hex(&c[4]);
            object.size = c[3].parse().ok();
            object.offset = match &c[2] {
                "to the right of" => size.and_then(|s| s.checked_add(distance)),
                "to the left of" => distance.checked_neg(),
                _ => Some(distance),
            };
            if line.contains(" freed ") {
                object.state = Some("freed".to_owned());
            } else if line.contains(" allocated ") {
                object.state = Some("allocated".to_owned());
            }
        } else if let Some(rest) = line.strip_prefix(VARIABLE) {
            let rest = match rest.trim() {
                "" => lines.next().unwrap_or_default(),
                rest => rest,
            };
            object.variable = rest.split_whitespace().next().map(str::to_owned);
        } else if let Some(rest) = line.strip_prefix("Object at ")
            && let Some((_, cache)) = rest.split_once(", in cache ")
        {
            object.cache = cache.split_whitespace().next().map(str::to_owned);
        }
    }
    if object == Object::default() {
        return None;
    }
    if object.variable.is_none()
        && let (Some(start), Some(at)) = (object.address, access.and_then(|a| a.address))
    {
        object.offset = i64::try_from(i128::from(at) - i128::from(start))
            .ok()
            .or(object.offset);
    }
    if let Some(variable) = &mut object.variable {
        // `name.1234+0x18/0x40`: the compiler's number changes from build to build.
        let bare = variable
            .split(['+', '.'])
            .next()
            .unwrap_or(variable)
            .to_owned();
        *variable = bare;
    }
    Some(object)
}
