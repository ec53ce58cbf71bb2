//! Bytes to lines: splitting that no chunking can change, and the prefixes that printk, syslog
//! and a shared serial line put before a message.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

/// A longer line is cut here, so that a console without newlines can't grow without bound.
pub(crate) const MAX_LINE: usize = 8 * 1024;

/// Who printed a line (`CONFIG_PRINTK_CALLER`): what interleaved reports are told apart by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Caller {
    /// `[T123]`: the task with this thread id.
    Task(u32),
    /// `[C1]`: this CPU, outside any task (interrupt, NMI).
    Cpu(u32),
}

/// One message, freed of its prefix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Line<T = String> {
    /// Offset of its first byte (the prefix's) in the stream.
    pub(crate) start: usize,
    /// Offset after its last byte, the newline included.
    pub(crate) end: usize,
    /// Microseconds of guest time, where printed.
    pub(crate) time_us: Option<u64>,
    pub(crate) caller: Option<Caller>,
    pub(crate) text: T,
}

impl Line<&str> {
    /// The line in a text of its own, which is `room`, whatever that held.
    pub(crate) fn owned(&self, mut room: String) -> Line {
        room.clear();
        room.push_str(self.text);
        Line {
            start: self.start,
            end: self.end,
            time_us: self.time_us,
            caller: self.caller,
            text: room,
        }
    }
}

/// Cuts one raw line (without its newline) into messages and hands each to `sink`. There is more
/// than one where two CPUs, or the kernel and a program, wrote into the same line. `plain`: no
/// control byte is in it.
pub(crate) fn messages(
    raw: &[u8],
    start: usize,
    end: usize,
    plain: bool,
    mut sink: impl FnMut(Line<&str>),
) {
    let text = clean(raw, plain);
    if is_from_user_space(&text) {
        return;
    }
    // Offsets inside a line that needed cleaning are only known for the line as a whole.
    let exact = matches!(&text, Cow::Borrowed(_));
    let at = |pos: usize| if exact { start + pos } else { start };
    let mut from = 0;
    let mut stamp = find_stamp(&text, 0);
    let mut stamps = Stamp::default();
    loop {
        let to = stamp.as_ref().map_or(text.len(), |s| s.start);
        let message = &text[from..to];
        let last = stamp.is_none();
        let junk = before_stamp_is_noise(message);
        if (last || !message.is_empty()) && (stamps.len != 0 || last || !junk) {
            let text = match stamps.len {
                0 => strip_unstamped(message),
                _ => message,
            };
            sink(Line {
                start: if from == 0 {
                    start
                } else {
                    at(from - stamps.len)
                },
                end: if last || !exact { end } else { at(to) },
                time_us: stamps.time_us,
                caller: stamps.caller,
                text,
            });
        }
        match stamp {
            None => return,
            Some(s) => {
                from = s.start + s.len;
                stamp = find_stamp(&text, from);
                stamps = s;
            }
        }
    }
}

/// UTF-8 text of a raw line: carriage returns, NULs and ANSI sequences gone.
fn clean(raw: &[u8], plain: bool) -> Cow<'_, str> {
    let raw = raw.strip_suffix(b"\r").unwrap_or(raw);
    // Without an early exit within a block, so that a block is a few vector instructions.
    let odd = |block: &[u8]| {
        let odd = |&b: &u8| (b < 0x20 && b != b'\t') || b == 0x7f;
        block.iter().fold(false, |any, b| any | odd(b))
    };
    if (plain || !raw.chunks(64).any(odd))
        && let Ok(text) = std::str::from_utf8(raw)
    {
        return Cow::Borrowed(text);
    }
    let mut kept = Vec::with_capacity(raw.len());
    let mut rest = raw;
    while let Some((&b, tail)) = rest.split_first() {
        rest = tail;
        if b == 0x1b {
            rest = skip_ansi(rest);
        } else if b >= 0x20 && b != 0x7f || b == b'\t' {
            kept.push(b);
        }
    }
    Cow::Owned(String::from_utf8_lossy(&kept).into_owned())
}

/// The first byte that [`clean`] drops from within a line, where it may stand inside a word.
pub(crate) fn first_dropped(bytes: &[u8]) -> Option<usize> {
    const BLOCK: usize = 64;
    let dropped = |b: u8| (b < 0x20 && b != b'\t' && b != b'\n') || b == 0x7f;
    (bytes.chunks(BLOCK).zip((0..).step_by(BLOCK))).find_map(|(block, start)| {
        // Without an early exit, as above.
        if !block.iter().fold(false, |any, b| any | dropped(*b)) {
            return None;
        }
        let mut places = start..start + block.len();
        places.find(|&at| {
            dropped(bytes[at]) && !(bytes[at] == b'\r' && bytes.get(at + 1) == Some(&b'\n'))
        })
    })
}

/// What follows an ANSI sequence whose ESC has been eaten.
fn skip_ansi(rest: &[u8]) -> &[u8] {
    match rest.first() {
        Some(b'[') => match rest[1..].iter().position(|b| (0x40..0x7f).contains(b)) {
            Some(end) => &rest[end + 2..],
            None => &[],
        },
        Some(_) => &rest[1..],
        None => rest,
    }
}

/// A `[   12.345678][  T123] ` in a line.
#[derive(Default)]
struct Stamp {
    start: usize,
    len: usize,
    time_us: Option<u64>,
    caller: Option<Caller>,
}

/// The next time stamp of printk at or after `from`.
fn find_stamp(text: &str, from: usize) -> Option<Stamp> {
    let bytes = text.as_bytes();
    memchr::memchr_iter(b'[', &bytes[from..]).find_map(|i| stamp_at(bytes, from + i))
}

fn stamp_at(bytes: &[u8], start: usize) -> Option<Stamp> {
    let mut pos = start + 1;
    while bytes.get(pos) == Some(&b' ') {
        pos += 1;
    }
    let (seconds, after) = digits(bytes, pos)?;
    if bytes.get(after) != Some(&b'.') {
        return None;
    }
    let (micros, close) = digits(bytes, after + 1)?;
    if close - after != 7 || bytes.get(close) != Some(&b']') {
        return None;
    }
    let mut end = close + 1;
    let mut caller = None;
    if let Some((who, after)) = caller_at(bytes, end) {
        caller = Some(who);
        end = after;
    }
    if bytes.get(end) == Some(&b' ') {
        end += 1;
    }
    let time_us = seconds
        .checked_mul(1_000_000)
        .and_then(|us| us.checked_add(micros));
    Some(Stamp {
        start,
        len: end - start,
        time_us,
        caller,
    })
}

/// `[  T123]` or `[    C1]` at `start`, and where it ends.
fn caller_at(bytes: &[u8], start: usize) -> Option<(Caller, usize)> {
    if bytes.get(start) != Some(&b'[') {
        return None;
    }
    let mut pos = start + 1;
    while bytes.get(pos) == Some(&b' ') {
        pos += 1;
    }
    let make = match bytes.get(pos)? {
        b'T' => Caller::Task as fn(u32) -> Caller,
        b'C' => Caller::Cpu as fn(u32) -> Caller,
        _ => return None,
    };
    let (id, close) = digits(bytes, pos + 1)?;
    (bytes.get(close) == Some(&b']')).then_some((make(u32::try_from(id).ok()?), close + 1))
}

fn digits(bytes: &[u8], start: usize) -> Option<(u64, usize)> {
    let len = bytes[start.min(bytes.len())..]
        .iter()
        .take_while(|b| b.is_ascii_digit())
        .count();
    if len == 0 || len > 12 {
        return None;
    }
    let value = bytes[start..start + len]
        .iter()
        .fold(0, |n, b| n * 10 + u64::from(b - b'0'));
    Some((value, start + len))
}

/// What stands before a time stamp and is no message: a log level, a syslog prefix.
fn before_stamp_is_noise(text: &str) -> bool {
    let text = text.trim();
    (text.starts_with('<') && text.ends_with('>') && text.len() <= 6)
        || text.ends_with("kernel:")
        || (text.starts_with("** ") && text.ends_with(" **"))
}

/// A program wrote this into /dev/kmsg: the level of a raw console holds a facility too, and the
/// kernel's own is 0 (kernel/printk/printk.c, devkmsg_write()).
fn is_from_user_space(text: &str) -> bool {
    text.strip_prefix('<')
        .and_then(|rest| digits(rest.as_bytes(), 0))
        .is_some_and(|(level, after)| level >= 8 && text.as_bytes().get(1 + after) == Some(&b'>'))
}

/// Takes off what stands before a message that carries no time stamp: the log level of a raw
/// console, the date of syslog, journald or a test program, the caller alone.
fn strip_unstamped(text: &str) -> &str {
    let mut text = text;
    if let Some(rest) = text.strip_prefix('<')
        && let Some(close) = rest.bytes().take(4).position(|b| b == b'>')
        && rest[..close].bytes().all(|b| b.is_ascii_digit())
    {
        text = &rest[close + 1..];
    }
    if let Some((_, end)) = caller_at(text.as_bytes(), 0) {
        return text[end..].strip_prefix(' ').unwrap_or(&text[end..]);
    }
    if let Some(at) = text.find(" kernel: ")
        && at < 64
        && starts_with_date(text)
    {
        return &text[at + " kernel: ".len()..];
    }
    let bytes = text.as_bytes();
    let shape = b"dddd/dd/dd dd:dd:dd ";
    if bytes.len() > shape.len()
        && bytes.iter().zip(shape).all(|(b, s)| {
            if *s == b'd' {
                b.is_ascii_digit()
            } else {
                b == s
            }
        })
    {
        return &text[shape.len()..];
    }
    text
}

/// `Nov 24 04:00:54 …` or `2026-11-24T04:00:54…`.
fn starts_with_date(text: &str) -> bool {
    const MONTHS: [&str; 12] = [
        "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
    ];
    let bytes = text.as_bytes();
    MONTHS.iter().any(|m| text.starts_with(m))
        || (bytes.len() > 10
            && bytes[..4].iter().all(u8::is_ascii_digit)
            && bytes[4] == b'-'
            && bytes[7] == b'-')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(raw: &str) -> Vec<(Option<u64>, Option<Caller>, String)> {
        let mut out = Vec::new();
        messages(raw.as_bytes(), 0, raw.len(), false, |l| {
            out.push((l.time_us, l.caller, l.text.to_owned()))
        });
        out
    }

    #[test]
    fn prefixes_of_every_kind_come_off() {
        let bare = |text: &str| vec![(None, None, text.to_owned())];
        assert_eq!(
            split("[    1.234567] a b"),
            [(Some(1_234_567), None, "a b".to_owned())]
        );
        assert_eq!(
            split("<4>[   12.000001][  T123]  x"),
            [(Some(12_000_001), Some(Caller::Task(123)), " x".to_owned())]
        );
        assert_eq!(
            split("[    1.000000][    C1] x\r"),
            [(Some(1_000_000), Some(Caller::Cpu(1)), "x".to_owned())]
        );
        assert_eq!(split("<6>hello"), bare("hello"));
        assert_eq!(split("Nov 24 04:00:54 host kernel: hello"), bare("hello"));
        assert_eq!(
            split("2018/01/09 14:28:48 BUG: memory leak"),
            bare("BUG: memory leak")
        );
        assert_eq!(split("\u{1b}[0;32mgreen\u{1b}[0m\0"), bare("green"));
    }

    #[test]
    fn a_dropped_byte_is_found_unless_it_ends_a_line() {
        let long = "x".repeat(200);
        for (text, at) in [
            ("a\tb\r\nc\n", None),
            ("a\r\nb\x1ec", Some(4)),
            ("a\rb", Some(1)),
            ("\x7f", Some(0)),
            (&format!("{long}\0"), Some(200)),
            (&long, None),
        ] {
            assert_eq!(first_dropped(text.as_bytes()), at, "{text:?}");
        }
    }

    #[test]
    fn messages_of_a_line_that_had_junk_in_it_end_with_the_line() {
        let mut ranges = Vec::new();
        let raw = b"[    1.000000] a\xff[    2.000000] b\x00";
        messages(raw, 100, 100 + raw.len() + 1, false, |l| {
            ranges.push(l.start..l.end)
        });
        let end = 100 + raw.len() + 1;
        assert_eq!(ranges, [100..end, 100..end]);
    }

    #[test]
    fn what_programs_write_to_kmsg_is_not_the_kernels() {
        assert_eq!(
            split("<12>[    1.000000] BUG: KASAN: use-after-free in x+0x1/0x2"),
            []
        );
        assert_eq!(split("<30>systemd[1]: BUG: KASAN: x"), []);
        assert_eq!(split("<1>[    1.000000] a").len(), 1);
    }

    #[test]
    fn two_messages_in_one_line_are_two() {
        assert_eq!(
            split("login: [    1.000000] one[    2.000000][   T7] two"),
            [
                (None, None, "login: ".to_owned()),
                (Some(1_000_000), None, "one".to_owned()),
                (Some(2_000_000), Some(Caller::Task(7)), "two".to_owned()),
            ]
        );
        assert_eq!(
            split("Sep 23 02:31:17 box kern.err kernel: [    1.000000] x"),
            [(Some(1_000_000), None, "x".to_owned())]
        );
    }
}
