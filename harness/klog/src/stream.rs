//! Lines to reports: finds headlines in a console, tells interleaved reports apart by who printed
//! them, and sees where each ends.

use std::collections::VecDeque;

use crate::class::{self, Body, Headline, Opens, SIEVE};
use crate::judge;
use crate::line::{self, Caller, Line, MAX_LINE};
use crate::report::Report;
use crate::shape::{self, Shape};

/// A report longer than this is cut.
const MAX_LINES: usize = 4096;
/// Bytes of text, likewise.
const MAX_BYTES: usize = 512 * 1024;
/// Reports being read at once; more callers than this do not report in one moment.
const MAX_OPEN: usize = 16;
/// Lines from `cut here` or a fence to the headline.
const MAX_PRELUDE: usize = 12;
/// Lines in a row that belong to nothing we know, after which a report is over.
const MAX_STRANGE: usize = 24;
/// Lines of other callers, after which a report that has ended gets nothing more.
const MAX_FOREIGN_AFTER_END: usize = 8;
/// Lines of other callers inside a report that goes on.
const MAX_FOREIGN: usize = 1000;
/// Guest time without a line, after which a report is over, microseconds.
const MAX_PAUSE_US: u64 = 10_000_000;

/// A console being read, in pieces of any size. Memory is bounded whatever the input.
#[derive(Default)]
pub struct Stream {
    /// The bytes of the last line, its end not seen.
    partial: Vec<u8>,
    /// The offset of `partial`.
    offset: usize,
    open: Vec<Open>,
    done: VecDeque<Report>,
    boot: Boot,
}

/// What is known of the guest's life, to tell a reboot from the first boot.
#[derive(Default)]
struct Boot {
    /// The first line that had something on it was seen.
    begun: bool,
    /// The guest was already running then, or has booted since.
    alive: bool,
}

/// A report being read.
struct Open {
    headline: Option<&'static Headline>,
    head: usize,
    caller: Option<Caller>,
    lines: Vec<Line>,
    bytes: usize,
    /// The lines up to here belong to the report for sure.
    sure: usize,
    has_stack: bool,
    fenced: bool,
    ended: bool,
    strange: usize,
    foreign: usize,
    last_time: Option<u64>,
}

/// What becomes of an open report after a line.
#[derive(PartialEq, Eq)]
enum Next {
    Goes,
    Ends,
}

impl Stream {
    /// A console from its first byte.
    pub fn new() -> Self {
        Stream::default()
    }

    /// Takes the next bytes; returns the reports that became complete.
    pub fn push(&mut self, bytes: &[u8]) -> Vec<Report> {
        let mut rest = bytes;
        while !rest.is_empty() {
            if self.partial.is_empty() && self.open.is_empty() && self.boot.begun {
                rest = self.skip_quiet(rest);
                if rest.is_empty() {
                    break;
                }
            }
            let room = MAX_LINE - self.partial.len();
            let window = &rest[..room.min(rest.len())];
            match memchr::memchr(b'\n', window) {
                Some(at) => {
                    let (line, after) = rest.split_at(at + 1);
                    rest = after;
                    self.end_line(&line[..at], 1);
                }
                None if window.len() == room => {
                    let (line, after) = rest.split_at(room);
                    rest = after;
                    self.end_line(line, 0);
                }
                None => {
                    self.partial.extend_from_slice(window);
                    rest = &[];
                }
            }
        }
        self.done.drain(..).collect()
    }

    /// Ends what is open, as if nothing more came: at the end of a log, or when the guest is gone.
    /// More may be pushed afterwards; the offsets go on.
    pub fn finish(&mut self) -> Vec<Report> {
        if !self.partial.is_empty() {
            self.end_line(&[], 0);
        }
        for open in std::mem::take(&mut self.open) {
            self.done.extend(open.into_report(false));
        }
        self.done.drain(..).collect()
    }

    /// The headline of a report that has begun and may still grow; `None` if there is none. After
    /// some seconds without output, [`Stream::finish`] gives what there is.
    pub fn pending(&self) -> Option<&str> {
        self.open
            .iter()
            .find(|o| o.headline.is_some())
            .map(|o| o.lines[o.head].text.as_str())
    }

    /// Bytes taken so far.
    pub fn offset(&self) -> usize {
        self.offset + self.partial.len()
    }

    /// Skips whole lines that can't open a report, up to the one that may.
    fn skip_quiet<'b>(&mut self, bytes: &'b [u8]) -> &'b [u8] {
        let limit = SIEVE.find(bytes).map_or(bytes.len(), |m| m.start());
        // Inside a word they hide it from the sieve, and cleaning the line brings it back.
        let limit = memchr::memchr2(0, 0x1b, &bytes[..limit]).unwrap_or(limit);
        let mut from = match memchr::memrchr(b'\n', &bytes[..limit]) {
            Some(newline) => newline + 1,
            None => 0,
        };
        // A line without end is cut every MAX_LINE bytes, here as everywhere.
        from += (limit - from) / MAX_LINE * MAX_LINE;
        self.offset += from;
        &bytes[from..]
    }

    /// A line is whole: `tail` completes it, `newline` bytes follow.
    fn end_line(&mut self, tail: &[u8], newline: usize) {
        let start = self.offset;
        let partial = std::mem::take(&mut self.partial);
        let end = start + partial.len() + tail.len() + newline;
        self.offset = end;
        if partial.is_empty() {
            line::messages(tail, start, end, |l| self.message(l));
        } else {
            let mut whole = partial;
            whole.extend_from_slice(tail);
            line::messages(&whole, start, end, |l| self.message(l));
            whole.clear();
            self.partial = whole;
        }
    }

    fn message(&mut self, line: Line) {
        // No headline, no fence and no `cut here` gets through the sieve.
        let opens = SIEVE.is_match(&line.text);
        let headline = opens
            .then(|| class::headline(&line.text))
            .flatten()
            .filter(|_| !self.is_first_boot(&line.text));
        self.boot.see(&line.text);
        let mut mine = None;
        let mut at = 0;
        while at < self.open.len() {
            let open = &mut self.open[at];
            let next = if open.takes(&line) && mine.is_none() {
                let (taken, next) = open.mine(&line, headline);
                if taken {
                    mine = Some(at);
                }
                next
            } else {
                open.other(&line)
            };
            if next == Next::Ends {
                let ended = self.open.remove(at);
                self.done.extend(ended.into_report(false));
                // A line that ended a report by belonging to it is done with.
                if mine == Some(at) {
                    return;
                }
            } else {
                at += 1;
            }
        }
        if mine.is_some() || !opens {
            return;
        }
        match (headline, shape::of(&line.text)) {
            (Some(headline), _) if headline.body == Body::Line => {
                self.done
                    .extend(Open::new(line, Some(headline)).into_report(false));
            }
            (Some(_), _) | (None, Shape::CutHere | Shape::Fence) => {
                if self.open.len() == MAX_OPEN {
                    let oldest = self.open.remove(0);
                    self.done.extend(oldest.into_report(true));
                }
                self.open.push(Open::new(line, headline));
            }
            _ => {}
        }
    }

    fn is_first_boot(&self, text: &str) -> bool {
        text.starts_with("Linux version ") && !self.boot.alive
    }
}

impl Boot {
    /// What firmware and boot loaders say first.
    const FIRMWARE: [&'static str; 14] = [
        "SeaBIOS",
        "iPXE",
        "UEFI",
        "BdsDxe",
        "U-Boot",
        "Booting",
        "early console",
        "GRUB",
        "coreboot",
        "Decompressing",
        "OpenSBI",
        "Welcome to GRUB",
        "Linux version",
        "\u{1b}",
    ];

    fn see(&mut self, text: &str) {
        if text.trim().is_empty() {
            return;
        }
        if !self.begun {
            self.begun = true;
            self.alive = !Self::FIRMWARE.iter().any(|f| text.contains(f));
        }
        if text.starts_with("Linux version ") {
            self.alive = true;
        }
    }
}

impl Open {
    fn new(line: Line, headline: Option<&'static Headline>) -> Self {
        let fenced = shape::of(&line.text) == Shape::Fence;
        Open {
            headline,
            head: 0,
            caller: line.caller,
            bytes: line.text.len(),
            last_time: line.time_us,
            lines: vec![line],
            sure: 1,
            has_stack: false,
            fenced,
            ended: false,
            strange: 0,
            foreign: 0,
        }
    }

    fn body(&self) -> Body {
        self.headline.map_or(Body::Plain, |h| h.body)
    }

    /// The line may be one of this report's.
    fn takes(&self, line: &Line) -> bool {
        self.caller == line.caller || self.body() == Body::Wide
    }

    /// A line of the same caller. Returns whether it was taken, and what becomes of the report.
    fn mine(&mut self, line: &Line, headline: Option<&'static Headline>) -> (bool, Next) {
        if self.paused(line) {
            return (false, Next::Ends);
        }
        let shape = shape::of(&line.text);
        if self.headline.is_none() {
            return self.prelude(line, headline, shape);
        }
        if let Some(new) = headline {
            let follows = new.opens == Opens::UnlessFollowing;
            let bare = !self.has_stack && !self.ended;
            let within = bare
                && match self.body() {
                    Body::Wide | Body::Preamble => true,
                    // The printing itself went wrong, in the very task that printed.
                    _ => self.caller.is_some() && new.is_trap,
                };
            if follows || within {
                self.append(line, true);
                self.ended = false;
                return (true, Next::Goes);
            }
            return (false, Next::Ends);
        }
        let next = match shape {
            Shape::Fence if self.body() == Body::Fenced || self.is_hung() => {
                self.append(line, true);
                self.ended = true;
                Next::Goes
            }
            Shape::Fence | Shape::CutHere
                if matches!(self.body(), Body::Wide | Body::Preamble) && !self.has_stack =>
            {
                self.append(line, false);
                Next::Goes
            }
            Shape::Fence | Shape::CutHere => return (false, Next::Ends),
            Shape::End => {
                self.append(line, true);
                self.ended = true;
                Next::Goes
            }
            Shape::Frame | Shape::Known => {
                self.has_stack |= shape == Shape::Frame;
                self.append(line, true);
                Next::Goes
            }
            Shape::Blank => {
                self.append(line, false);
                Next::Goes
            }
            Shape::Other if self.ended => return (false, Next::Ends),
            Shape::Other => {
                self.strange += 1;
                let sure = !self.has_stack || self.body() == Body::Fenced;
                let strange = self.strange;
                self.append(line, sure && strange < MAX_STRANGE / 2);
                self.strange = strange;
                // With callers told, a line of this caller's that fits nowhere is the next story.
                let patience = if self.caller.is_some() && self.has_stack {
                    2
                } else {
                    MAX_STRANGE
                };
                if strange > patience {
                    Next::Ends
                } else {
                    Next::Goes
                }
            }
        };
        if self.lines.len() >= MAX_LINES || self.bytes >= MAX_BYTES {
            return (true, Next::Ends);
        }
        (true, next)
    }

    fn is_hung(&self) -> bool {
        self.lines
            .iter()
            .rev()
            .take(200)
            .any(|l| l.text.starts_with("Showing all locks held"))
    }

    fn prelude(
        &mut self,
        line: &Line,
        headline: Option<&'static Headline>,
        shape: Shape,
    ) -> (bool, Next) {
        if let Some(headline) = headline {
            if headline.body == Body::Line {
                return (false, Next::Ends);
            }
            self.append(line, true);
            self.headline = Some(headline);
            self.head = self.lines.len() - 1;
            return (true, Next::Goes);
        }
        let long = self.lines.len() > if self.fenced { 4 } else { MAX_PRELUDE };
        if long || matches!(shape, Shape::Fence | Shape::CutHere) {
            return (false, Next::Ends);
        }
        self.append(line, true);
        (true, Next::Goes)
    }

    /// A line of someone else.
    fn other(&mut self, line: &Line) -> Next {
        self.foreign += 1;
        let limit = if self.ended {
            MAX_FOREIGN_AFTER_END
        } else {
            MAX_FOREIGN
        };
        if self.paused(line) || self.foreign > limit {
            Next::Ends
        } else {
            Next::Goes
        }
    }

    fn paused(&self, line: &Line) -> bool {
        match (self.last_time, line.time_us) {
            (Some(last), Some(now)) => now > last.saturating_add(MAX_PAUSE_US),
            _ => false,
        }
    }

    fn append(&mut self, line: &Line, sure: bool) {
        self.bytes += line.text.len() + 1;
        self.lines.push(line.clone());
        if sure {
            self.sure = self.lines.len();
            self.strange = 0;
            self.foreign = 0;
        }
        self.last_time = line.time_us.or(self.last_time);
    }

    /// The report; none where a prelude never got its headline.
    fn into_report(mut self, crowded: bool) -> Option<Report> {
        let headline = self.headline?;
        let cut = crowded || self.lines.len() >= MAX_LINES || self.bytes >= MAX_BYTES;
        self.lines.truncate(self.sure.max(self.head + 1));
        Some(judge::report(&self.lines, self.head, headline, cut))
    }
}
