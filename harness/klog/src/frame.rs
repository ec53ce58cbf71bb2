//! One line of a stack to a [`Frame`]: every architecture's way to print one.

use std::fmt::Write as _;

use crate::report::Frame;

/// What a line of a stack dump turned out to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum FrameLine {
    /// A frame of the call chain.
    Frame(Frame),
    /// A frame printed as `callee from caller` (arm): the callee, and the caller, which the next
    /// line names again.
    From(Box<(Frame, Frame)>),
}

/// The halves of `callee from caller`, where the callee is one word.
fn from(line: &str) -> Option<(&str, &str)> {
    let word = skip_address(line);
    let end = memchr::memchr(b' ', word.as_bytes())?;
    let caller = word[end..].trim_ascii_start().strip_prefix("from ")?;
    Some((&word[..end], caller))
}

/// Reads a stack line; `None` where it is none.
pub(crate) fn parse(text: &str) -> Option<FrameLine> {
    let line = text.trim_ascii();
    if line.len() < 3 || line.len() > 2048 {
        return None;
    }
    if let Some(frame) = usual(line) {
        return Some(FrameLine::Frame(frame));
    }
    if !has_place(line) {
        return None;
    }
    if let Some((callee, caller)) = from(line)
        && let Some(callee) = arm_half(callee)
        && let Some(caller) = arm_half(caller)
    {
        return Some(FrameLine::From(Box::new((callee, caller))));
    }
    if let Some(rest) = instruction_pointer(line) {
        let mut frame = plain(rest)?;
        frame.interrupted = true;
        return Some(FrameLine::Frame(frame));
    }
    plain(line).map(FrameLine::Frame)
}

/// Whether there is an offset, an address or a bracket in the line: every frame has one of them, and
/// most of what is no frame has none.
fn has_place(line: &str) -> bool {
    memchr::memchr3(b'+', b'[', b'(', line.as_bytes()).is_some() || line.contains("0x")
}

/// The commonest line, `? function+0x1/0x2 [module]`: nearly all of every stack, so it is not asked
/// what else it could be.
fn usual(line: &str) -> Option<Frame> {
    let (at, reliable) = match line.strip_prefix("? ") {
        Some(rest) => (rest, false),
        None => (line, true),
    };
    let end = (at.bytes()).position(|b| !SYMBOL[usize::from(b)] || b == b':' || b == b'<')?;
    let (symbol, rest) = at.split_at(end);
    let first = symbol.bytes().next()?;
    let named_so = first.is_ascii_alphabetic() || matches!(first, b'_' | b'.' | b'$');
    let tails = match memchr::memchr(b' ', rest.as_bytes()) {
        None => true,
        Some(blank) => {
            let module = rest[blank + 1..].starts_with('[') && rest.ends_with(']');
            module && !rest.ends_with("[inline]")
        }
    };
    if !named_so || !rest.starts_with("+0x") || !tails {
        return None;
    }
    let mut frame = named(symbol);
    frame.reliable = reliable;
    tail(&mut frame, rest);
    frame.size.is_some().then_some(frame)
}

/// `RIP: 0010:…`, `IP: …`, `pc : …`, `PC is at …`, `NIP […] …`, `epc : …`, `Krnl PSW`'s symbol.
fn instruction_pointer(line: &str) -> Option<&str> {
    if let Some(rest) = line
        .strip_prefix("RIP:")
        .or_else(|| line.strip_prefix("EIP:"))
    {
        let rest = rest.trim_start();
        // A kernel code segment, or none printed; user space (0033, 0023) is no frame of ours.
        if let Some((segment, at)) = rest.split_once(':')
            && segment.len() == 4
            && segment.bytes().all(|b| b.is_ascii_hexdigit())
        {
            let kernel = u16::from_str_radix(segment, 16).is_ok_and(|s| s & 3 == 0);
            return kernel.then_some(at.trim_start());
        }
        return Some(rest);
    }
    // powerpc names the function an exception interrupted inside the chain.
    if let Some((_, at)) = line
        .strip_prefix("--- interrupt: ")
        .and_then(|rest| rest.split_once(" at "))
    {
        return Some(at.trim_start());
    }
    for prefix in ["IP: ", "pc : ", "PC is at ", "epc : ", "NIP: ", "pc: "] {
        if let Some(rest) = line.strip_prefix(prefix) {
            return Some(rest.trim_start());
        }
    }
    line.strip_prefix("NIP [")
        .and_then(|rest| rest.split_once("] "))
        .map(|(_, rest)| rest)
}

/// One half of arm's `[<addr>] (callee) from [<addr>] (caller+0x1/0x2)`, or without addresses.
fn arm_half(half: &str) -> Option<Frame> {
    let mut half = skip_address(half.trim());
    if let Some(inner) = half.strip_prefix('(') {
        // `(callee) from [<addr>] (caller+0x8/0x10 file:line)`; the bracket may close late.
        half = inner.trim_end().trim_end_matches(')');
    }
    let (symbol, rest) = split_symbol(half);
    if !is_symbol(symbol) {
        return None;
    }
    let mut frame = named(symbol);
    frame.reliable = true;
    tail(&mut frame, rest);
    Some(frame)
}

/// `[<ffffffff81234567>] `, possibly twice (old `RIP`), or ppc's two bracketed words.
fn skip_address(text: &str) -> &str {
    let mut text = text;
    for _ in 0..2 {
        let Some(rest) = text.strip_prefix('[') else {
            break;
        };
        let Some((inside, rest)) = rest.split_once(']') else {
            break;
        };
        let hex = inside.trim_start_matches('<').trim_end_matches('>');
        let hex = hex.strip_prefix("0x").unwrap_or(hex);
        if hex.len() < 8 || !hex.bytes().all(|b| b.is_ascii_hexdigit()) {
            break;
        }
        text = rest.trim_start();
    }
    text
}

fn plain(line: &str) -> Option<Frame> {
    let at = skip_address(line);
    let had_address = at.len() != line.len();
    let (at, reliable) = match at.strip_prefix("? ") {
        Some(rest) => (rest.trim_start(), false),
        None => (at.strip_prefix("=> ").unwrap_or(at), true),
    };
    if let Some(address) = bare_address(at) {
        return Some(Frame {
            symbol: address,
            reliable,
            ..Frame::default()
        });
    }
    if let Some(rest) = at.strip_prefix("(null)") {
        // A call through a null pointer.
        return rest.trim().is_empty().then(|| Frame {
            symbol: "0x0".to_owned(),
            reliable,
            ..Frame::default()
        });
    }
    if at.starts_with('(') {
        let at = skip_address(at.strip_prefix('(')?);
        // s390 prints the frames it is sure of like this.
        let mut frame = plain_symbol(at.strip_suffix(')').unwrap_or(at), true)?;
        frame.reliable = reliable;
        return Some(frame);
    }
    let mut frame = plain_symbol(at, had_address)?;
    frame.reliable = reliable && !at.ends_with("(unreliable)");
    Some(frame)
}

/// `0xffffffffc0201234` alone: code that no symbol covers.
fn bare_address(text: &str) -> Option<String> {
    let text = text.trim_start();
    let word = text.split_whitespace().next()?;
    let hex = word.strip_prefix("0x")?;
    let rest = text[word.len()..].trim();
    (!hex.is_empty()
        && hex.len() <= 16
        && hex.bytes().all(|b| b.is_ascii_hexdigit())
        && (rest.is_empty() || rest.starts_with('[')))
    .then(|| word.to_owned())
}

fn plain_symbol(at: &str, had_address: bool) -> Option<Frame> {
    let (symbol, rest) = split_symbol(at);
    let may_be = had_address || rest.starts_with("+0x") || rest.ends_with("[inline]");
    if !may_be || !is_symbol(symbol) {
        return None;
    }
    let mut frame = named(symbol);
    let rest = tail(&mut frame, rest);
    frame.reliable = true;
    if let Some(stripped) = rest.strip_suffix("[inline]") {
        frame.inlined = true;
        frame.file_line = file_line(stripped.trim());
    }
    // Without an offset only a symbolized line, or one that printed an address, is a frame.
    let sure = frame.offset.is_some() || frame.inlined && frame.file_line.is_some();
    (sure || had_address && rest.trim().is_empty()).then_some(frame)
}

/// The symbol, and what stands after it.
fn split_symbol(text: &str) -> (&str, &str) {
    let end = (text.bytes())
        .position(|b| b == b'+' || b.is_ascii_whitespace())
        .unwrap_or(text.len());
    // Demangled Rust names hold blanks and brackets (`<A as B>::c`): take all up to the offset.
    if (text.starts_with('<') || text[..end].contains(':'))
        && let Some(at) = text.find("+0x")
        && (text.starts_with('<') || text[..at].contains("::"))
        && !text[..at].contains("[inline]")
    {
        return text.split_at(at);
    }
    text.split_at(end)
}

/// The bytes of symbols.
const SYMBOL: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        let b = byte as u8;
        table[byte] =
            b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'$' | b':' | b'<' | b'>');
        byte += 1;
    }
    table
};

fn is_symbol(symbol: &str) -> bool {
    let Some(first) = symbol.bytes().next() else {
        return false;
    };
    if symbol.starts_with('<') {
        return symbol.contains("::");
    }
    (first.is_ascii_alphabetic() || first == b'_' || first == b'.' || first == b'$')
        && symbol.bytes().all(|b| SYMBOL[usize::from(b)])
        && !symbol.ends_with(':')
}

/// A frame with its readable name.
pub(crate) fn named(symbol: &str) -> Frame {
    Frame {
        function: readable(symbol),
        symbol: symbol.to_owned(),
        ..Frame::default()
    }
}

/// The name a human knows the function by.
pub(crate) fn readable(symbol: &str) -> String {
    let bare = symbol
        .strip_prefix("__cfi_")
        .or_else(|| symbol.strip_prefix("__pfx_"));
    let bare = bare.unwrap_or(symbol);
    if bare.starts_with("_R") || bare.starts_with("_ZN") {
        // The compiler's suffixes may stand on a Rust symbol too.
        let base = bare.split('.').next().unwrap_or(bare);
        let demangled = rustc_demangle::demangle(base);
        let mut name = String::new();
        // The alternate form drops the hash and the crates' disambiguators.
        if demangled.as_str() != base || write!(name, "{demangled:#}").is_err() {
            return bare.to_owned();
        }
        if name != base {
            return name;
        }
    }
    strip_suffixes(bare).to_owned()
}

/// Drops `.isra.0`, `.part.3`, `.constprop.1`, `.cold.78`, `.llvm.123` and their like.
fn strip_suffixes(symbol: &str) -> &str {
    const SUFFIXES: [&str; 8] = [
        ".isra",
        ".part",
        ".constprop",
        ".cold",
        ".llvm",
        ".cfi",
        ".localalias",
        ".str",
    ];
    if !symbol.contains('.') {
        return symbol;
    }
    SUFFIXES
        .iter()
        .filter_map(|s| symbol.find(s))
        .min()
        .map_or(symbol, |at| match at {
            0 => symbol,
            at => &symbol[..at],
        })
}

/// Reads `+0x1/0x2 file:line [module]`, and returns what it didn't know.
fn tail<'a>(frame: &mut Frame, rest: &'a str) -> &'a str {
    let mut rest = rest;
    if let Some(offsets) = rest.strip_prefix("+0x") {
        let end = hex_len(offsets);
        frame.offset = u64::from_str_radix(&offsets[..end], 16).ok();
        rest = &offsets[end..];
        if let Some(size) = rest.strip_prefix("/0x") {
            let end = hex_len(size);
            frame.size = u64::from_str_radix(&size[..end], 16).ok();
            rest = &size[end..];
        }
    }
    let words = rest.trim_ascii();
    if !words.is_empty() && frame.offset.is_some() {
        let (before, bracket) = match words.split_once('[') {
            Some((before, after)) => (before.trim(), after.split(']').next()),
            None => (words, None),
        };
        frame.file_line = file_line(before);
        if let Some(inside) = bracket {
            if inside == "inline" {
                frame.inlined = true;
            } else {
                // A build id may follow the module's name.
                frame.module = inside
                    .split_whitespace()
                    .next()
                    .filter(|m| is_module(m))
                    .map(Into::into);
            }
        }
    }
    words
}

fn hex_len(text: &str) -> usize {
    let hex = text.bytes().take_while(u8::is_ascii_hexdigit);
    hex.count()
}

fn is_module(name: &str) -> bool {
    name.bytes()
        .all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
}

/// `path/file.c:123`.
fn file_line(text: &str) -> Option<String> {
    let word = text.split_whitespace().next()?.trim_end_matches(')');
    let (file, line) = word.rsplit_once(':')?;
    (file.contains('.') && !line.is_empty() && line.bytes().all(|b| b.is_ascii_digit()))
        .then(|| word.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(text: &str) -> Frame {
        match parse(text) {
            Some(FrameLine::Frame(frame)) => frame,
            other => panic!("{text:?} is no frame: {other:?}"),
        }
    }

    #[test]
    fn every_way_to_print_a_frame() {
        let f = frame(" ? handle_mm_fault+0x53a/0xc70");
        assert_eq!(
            (f.function.as_str(), f.offset, f.size, f.reliable),
            ("handle_mm_fault", Some(0x53a), Some(0xc70), false)
        );
        let f = frame(" [<ffffffff814d143e>] null_map_queues.cold+0xf/0x21 [null_blk]");
        assert_eq!(
            (f.function.as_str(), f.module.as_deref()),
            ("null_map_queues", Some("null_blk"))
        );
        let f = frame(
            "RIP: 0010:[<ffffffff83408ca0>]  [<ffffffff83408ca0>] drm_legacy_newctx+0x190/0x290",
        );
        assert_eq!(
            (f.function.as_str(), f.interrupted),
            ("drm_legacy_newctx", true)
        );
        let f = frame(" node_state include/linux/nodemask.h:405 [inline]");
        assert_eq!(
            (f.inlined, f.file_line.as_deref()),
            (true, Some("include/linux/nodemask.h:405"))
        );
        let f = frame("RIP: 0010:0xffffffffc0201234");
        assert_eq!(
            (f.function.as_str(), f.symbol.as_str()),
            ("", "0xffffffffc0201234")
        );
        let f = frame(" tty_buffer_flush+0xbb/0x3a0 drivers/tty/tty_buffer.c:221");
        assert_eq!(f.file_line.as_deref(), Some("drivers/tty/tty_buffer.c:221"));
        let f = frame("[c00000003ae5b860] [c00000000016ab98] panic+0x1cc/0x534 (unreliable)");
        assert_eq!((f.function.as_str(), f.reliable), ("panic", false));
    }

    #[test]
    fn arm_names_callee_and_caller() {
        let line = "[<80c1eb20>] (schedule) from [<80c1ec14>] (io_schedule+0x48/0x6c)";
        let Some(FrameLine::From(both)) = parse(line) else {
            panic!("no frame")
        };
        let (callee, caller) = *both;
        assert_eq!(callee.function, "schedule");
        assert_eq!(
            (caller.function.as_str(), caller.offset),
            ("io_schedule", Some(0x48))
        );
    }

    #[test]
    fn rust_names_are_readable() {
        let f = frame(
            " _RNvXs1_CscPPBqWtAqum_11ashmem_rustNtB5_6AshmemNtNtCs43vyB533jt3_6kernel10miscdevice10MiscDevice4mmap+0xe4/0x1a0",
        );
        assert_eq!(
            f.function,
            "<ashmem_rust::Ashmem as kernel::miscdevice::MiscDevice>::mmap"
        );
    }

    #[test]
    fn what_is_no_frame() {
        for text in [
            "RIP: 0033:0x43c33f",
            "Modules linked in: null_blk",
            "Call Trace:",
            "R10: 0000000000000000 R11: 0",
            " <TASK>",
            "hello world",
            "\u{a0}0xxBUG[\u{fffd}",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
