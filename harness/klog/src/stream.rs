//! Lines to reports: finds headlines in a console, tells interleaved reports apart by who printed
//! them, and sees where each ends.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::class::{self, Body, Headline, Opens, SIEVE};
use crate::history::{History, Known, Symbols};
use crate::judge;
use crate::line::{self, Caller, Line, MAX_LINE};
use crate::report::Report;
use crate::shape::{Seen, Shape};

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
/// Lines for which there is room in the next report.
const MAX_SPARE: usize = 256;
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
    history: History,
    symbols: Option<Arc<dyn Symbols>>,
    spare: Spare,
}

/// Room that reports which have been told leave to the next.
#[derive(Default)]
struct Spare {
    lines: Vec<Seen>,
    texts: Vec<String>,
}

impl Spare {
    /// A text to be written over.
    fn text(&mut self) -> String {
        self.texts.pop().unwrap_or_default()
    }

    /// Takes a line back.
    fn leave(&mut self, line: Seen) {
        if self.texts.len() < MAX_SPARE {
            self.texts.push(line.line.text);
        }
    }

    /// Takes a report's lines back. A long report's are not kept: memory stays bounded by what goes
    /// on.
    fn leave_all(&mut self, mut lines: Vec<Seen>) {
        for line in lines.drain(..) {
            self.leave(line);
        }
        if lines.capacity() <= MAX_SPARE {
            self.lines = lines;
        }
    }
}

/// What is known of the guest's life, to tell a reboot from the first boot.
#[derive(Default)]
struct Boot {
    /// The first line that had something on it was seen.
    begun: bool,
    /// The guest was already running then, or has booted since.
    alive: bool,
    /// The kernel's loader has spoken, the kernel itself not yet.
    loading: bool,
}

/// A report being read.
struct Open {
    headline: Option<&'static Headline>,
    head: usize,
    caller: Option<Caller>,
    lines: Vec<Seen>,
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

    /// A console from its first byte, of a kernel whose modules' files somebody knows.
    pub fn with_symbols(symbols: Arc<dyn Symbols>) -> Self {
        Stream {
            symbols: Some(symbols),
            ..Stream::default()
        }
    }

    /// Takes the next bytes; returns the reports that became complete.
    pub fn push(&mut self, bytes: &[u8]) -> Vec<Report> {
        let mut rest = bytes;
        let mut ahead = Ahead::default();
        while !rest.is_empty() {
            if self.partial.is_empty() && self.open.is_empty() && self.boot.begun {
                rest = self.skip_quiet(rest, &mut ahead);
                if rest.is_empty() {
                    break;
                }
            }
            let room = MAX_LINE - self.partial.len();
            let window = &rest[..room.min(rest.len())];
            match memchr::memchr(b'\n', window) {
                Some(at) => {
                    let plain = self.partial.is_empty() && ahead.limit(rest) >= at;
                    let (line, after) = rest.split_at(at + 1);
                    rest = after;
                    self.end_line(&line[..at], 1, plain);
                }
                None if window.len() == room => {
                    let plain = self.partial.is_empty() && ahead.limit(rest) >= room;
                    let (line, after) = rest.split_at(room);
                    rest = after;
                    self.end_line(line, 0, plain);
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
            self.end_line(&[], 0, false);
        }
        let known = known(&self.history, &self.symbols);
        for open in std::mem::take(&mut self.open) {
            self.done
                .extend(open.into_report(false, &known, &mut self.spare));
        }
        self.done.drain(..).collect()
    }

    /// The headline of a report that has begun and may still grow; `None` if there is none. After
    /// some seconds without output, [`Stream::finish`] gives what there is.
    pub fn pending(&self) -> Option<&str> {
        self.open
            .iter()
            .find(|o| o.headline.is_some())
            .map(|o| o.lines[o.head].text())
    }

    /// A report has begun and lacks what each of its kind has: a stack, the line that closes it. More
    /// of it is to come, however long the console is silent, unless the guest died over it.
    pub fn is_amid_report(&self) -> bool {
        (self.open.iter())
            .filter(|open| open.headline.is_some())
            .any(|open| match open.body() {
                Body::Fenced => !open.ended,
                Body::Plain | Body::Wide | Body::Preamble => {
                    let traps = open.headline.is_some_and(|headline| headline.is_trap);
                    !open.has_stack || traps && !open.ended
                }
                Body::Line => false,
            })
    }

    /// The loads and unloads of modules since boot, as far as the console told them. Who knows more
    /// adds to it.
    pub fn history(&mut self) -> &mut History {
        &mut self.history
    }

    /// The reports of a text that came another way than the console, as a file of the kernel's, by
    /// what is known here of modules and their files.
    pub fn aside(&self, text: &[u8]) -> Vec<Report> {
        let mut aside = Stream {
            history: self.history.clone(),
            symbols: self.symbols.clone(),
            ..Stream::default()
        };
        let mut reports = aside.push(text);
        reports.extend(aside.finish());
        reports
    }

    /// Bytes taken so far.
    pub fn offset(&self) -> usize {
        self.offset + self.partial.len()
    }

    /// Skips whole lines that can't open a report, up to the one that may.
    fn skip_quiet<'b>(&mut self, bytes: &'b [u8], ahead: &mut Ahead) -> &'b [u8] {
        let limit = ahead.limit(bytes);
        let mut from = match memchr::memrchr(b'\n', &bytes[..limit]) {
            Some(newline) => newline + 1,
            None => 0,
        };
        // A line without end is cut every MAX_LINE bytes, here as everywhere.
        from += (limit - from) / MAX_LINE * MAX_LINE;
        self.offset += from;
        &bytes[from..]
    }

    /// A line is whole: `tail` completes it, `newline` bytes follow. `plain`: the sieve finds nothing
    /// in it, and neither is there a control byte.
    fn end_line(&mut self, tail: &[u8], newline: usize, plain: bool) {
        let start = self.offset;
        let partial = std::mem::take(&mut self.partial);
        let end = start + partial.len() + tail.len() + newline;
        self.offset = end;
        if partial.is_empty() {
            line::messages(tail, start, end, plain, |l| self.message(l, plain));
        } else {
            let mut whole = partial;
            whole.extend_from_slice(tail);
            line::messages(&whole, start, end, false, |l| self.message(l, false));
            whole.clear();
            self.partial = whole;
        }
    }

    fn message(&mut self, line: Line<&str>, plain: bool) {
        // No headline, no fence and no `cut here` gets through the sieve.
        let opens = !plain && SIEVE.is_match(line.text);
        let headline = opens
            .then(|| class::headline(line.text))
            .flatten()
            .filter(|_| !self.boot.expects(line.text));
        if opens || !self.boot.begun {
            self.boot.see(line.text);
        }
        if opens && self.history.see(line.text, line.time_us) {
            return;
        }
        if self.open.is_empty() && !opens {
            return;
        }
        if line.text.starts_with("Linux version ") {
            self.history.clear();
        }
        let known = known(&self.history, &self.symbols);
        let (caller, time) = (line.caller, line.time_us);
        // Its first taker takes it away; what is left tells the others that someone spoke.
        let own = line.owned(self.spare.text());
        let mut line = Some(Seen::new(own, opens));
        let mut at = 0;
        while at < self.open.len() {
            let open = &mut self.open[at];
            let next = match &mut line {
                whole @ Some(_) if open.takes(caller) => open.mine(whole, headline),
                _ => open.other(time),
            };
            if next == Next::Ends {
                let ended = self.open.remove(at);
                self.done
                    .extend(ended.into_report(false, &known, &mut self.spare));
            } else {
                at += 1;
            }
        }
        let Some(line) = line else {
            return;
        };
        match (headline, line.shape) {
            (Some(headline), _) if headline.body == Body::Line => {
                let open = Open::new(line, Some(headline), &mut self.spare);
                self.done
                    .extend(open.into_report(false, &known, &mut self.spare));
            }
            (Some(_), _) | (None, Shape::CutHere | Shape::Fence) => {
                if self.open.len() == MAX_OPEN {
                    let oldest = self.open.remove(0);
                    self.done
                        .extend(oldest.into_report(true, &known, &mut self.spare));
                }
                self.open.push(Open::new(line, headline, &mut self.spare));
            }
            _ => self.spare.leave(line),
        }
    }
}

fn known<'a>(history: &'a History, symbols: &'a Option<Arc<dyn Symbols>>) -> Known<'a> {
    Known {
        history,
        symbols: symbols.as_deref(),
    }
}

/// Where a piece of the console has what must be looked at, so that each byte is searched once
/// however often the reader stops before it.
#[derive(Default)]
struct Ahead {
    /// Bytes that were left of the piece where the sieve hit next.
    sieve: Option<usize>,
    /// The same for a control byte: inside a word they hide it from the sieve, and cleaning the
    /// line brings it back.
    control: Option<usize>,
}

impl Ahead {
    /// How much of what is left of the piece needs no look.
    fn limit(&mut self, rest: &[u8]) -> usize {
        let sieve = Self::next(&mut self.sieve, rest, |rest| {
            SIEVE.find(rest).map(|hit| hit.start())
        });
        let control = Self::next(&mut self.control, rest, line::first_dropped);
        sieve.min(control)
    }

    fn next(
        known: &mut Option<usize>,
        rest: &[u8],
        find: impl Fn(&[u8]) -> Option<usize>,
    ) -> usize {
        let left = known
            .filter(|left| *left <= rest.len())
            .unwrap_or_else(|| rest.len() - find(rest).unwrap_or(rest.len()));
        *known = Some(left);
        rest.len() - left
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

    /// The line is one by which a boot is known, and this boot is known already or the first.
    fn expects(&self, text: &str) -> bool {
        match () {
            () if text.starts_with("Linux version ") => !self.alive || self.loading,
            () if text.starts_with("Booting the kernel") => !self.alive,
            () => false,
        }
    }

    fn see(&mut self, text: &str) {
        if text.trim_ascii().is_empty() {
            return;
        }
        if !self.begun {
            self.begun = true;
            self.alive = !Self::FIRMWARE.iter().any(|f| text.contains(f));
        }
        if text.starts_with("Linux version ") {
            self.alive = true;
            self.loading = false;
        } else if text.starts_with("Booting the kernel") {
            self.alive = true;
            self.loading = true;
        }
    }
}

impl Open {
    fn new(seen: Seen, headline: Option<&'static Headline>, spare: &mut Spare) -> Self {
        let mut lines = std::mem::take(&mut spare.lines);
        // As many as most reports have: a line is not small, and is not to be moved about.
        lines.reserve(64);
        let fenced = seen.shape == Shape::Fence;
        Open {
            headline,
            head: 0,
            caller: seen.line.caller,
            bytes: seen.text().len(),
            last_time: seen.line.time_us,
            lines: {
                lines.push(seen);
                lines
            },
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
    fn takes(&self, caller: Option<Caller>) -> bool {
        self.caller == caller || self.body() == Body::Wide
    }

    /// A line of the same caller, taken if it belongs to the report. Returns what becomes of that.
    fn mine(&mut self, offer: &mut Option<Seen>, headline: Option<&'static Headline>) -> Next {
        let Some(line) = offer else {
            return Next::Goes;
        };
        if self.paused(line.line.time_us) {
            return Next::Ends;
        }
        let shape = line.shape;
        if self.headline.is_none() {
            return self.prelude(offer, headline, shape);
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
                self.append(offer, true);
                self.ended = false;
                return Next::Goes;
            }
            return Next::Ends;
        }
        let next = match shape {
            Shape::Fence if self.body() == Body::Fenced || self.is_hung() => {
                self.append(offer, true);
                self.ended = true;
                Next::Goes
            }
            Shape::Fence | Shape::CutHere
                if matches!(self.body(), Body::Wide | Body::Preamble) && !self.has_stack =>
            {
                self.append(offer, false);
                Next::Goes
            }
            Shape::Fence | Shape::CutHere => return Next::Ends,
            Shape::End => {
                self.append(offer, true);
                self.ended = true;
                Next::Goes
            }
            Shape::Frame | Shape::Known => {
                self.has_stack |= shape == Shape::Frame;
                self.append(offer, true);
                Next::Goes
            }
            Shape::Blank => {
                self.append(offer, false);
                Next::Goes
            }
            Shape::Other if self.ended => return Next::Ends,
            Shape::Other => {
                self.strange += 1;
                let sure = !self.has_stack || self.body() == Body::Fenced;
                let strange = self.strange;
                self.append(offer, sure && strange < MAX_STRANGE / 2);
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
            return Next::Ends;
        }
        next
    }

    fn is_hung(&self) -> bool {
        self.lines
            .iter()
            .rev()
            .take(200)
            .any(|l| l.text().starts_with("Showing all locks held"))
    }

    fn prelude(
        &mut self,
        offer: &mut Option<Seen>,
        headline: Option<&'static Headline>,
        shape: Shape,
    ) -> Next {
        if let Some(headline) = headline {
            if headline.body == Body::Line {
                return Next::Ends;
            }
            self.append(offer, true);
            self.headline = Some(headline);
            self.head = self.lines.len() - 1;
            return Next::Goes;
        }
        let long = self.lines.len() > if self.fenced { 4 } else { MAX_PRELUDE };
        if long || matches!(shape, Shape::Fence | Shape::CutHere) {
            return Next::Ends;
        }
        self.append(offer, true);
        Next::Goes
    }

    /// A line of someone else.
    fn other(&mut self, time: Option<u64>) -> Next {
        self.foreign += 1;
        let limit = if self.ended {
            MAX_FOREIGN_AFTER_END
        } else {
            MAX_FOREIGN
        };
        if self.paused(time) || self.foreign > limit {
            Next::Ends
        } else {
            Next::Goes
        }
    }

    fn paused(&self, time: Option<u64>) -> bool {
        match (self.last_time, time) {
            (Some(last), Some(now)) => now > last.saturating_add(MAX_PAUSE_US),
            _ => false,
        }
    }

    /// Takes the line that is offered.
    fn append(&mut self, offer: &mut Option<Seen>, sure: bool) {
        let Some(line) = offer.take() else {
            return;
        };
        self.bytes += line.text().len() + 1;
        self.last_time = line.line.time_us.or(self.last_time);
        self.lines.push(line);
        if sure {
            self.sure = self.lines.len();
            self.strange = 0;
            self.foreign = 0;
        }
    }

    /// The report; none where a prelude never got its headline.
    fn into_report(
        mut self,
        crowded: bool,
        known: &Known<'_>,
        spare: &mut Spare,
    ) -> Option<Report> {
        let report = self.report(crowded, known);
        spare.leave_all(self.lines);
        report
    }

    fn report(&mut self, crowded: bool, known: &Known<'_>) -> Option<Report> {
        let headline = self.headline?;
        let cut = crowded || self.lines.len() >= MAX_LINES || self.bytes >= MAX_BYTES;
        self.lines.truncate(self.sure.max(self.head + 1));
        let head = self.head;
        Some(judge::report(&mut self.lines, head, headline, cut, known))
    }
}

#[cfg(test)]
mod tests {
    use super::Stream;

    #[test]
    fn a_report_that_is_still_being_printed_is_known() {
        let mut stream = Stream::new();
        let mut amid = Vec::new();
        for line in [
            "[    1.000000][   T41] random: crng init done\n",
            "[    9.000000][   T41] ==================================================================\n",
            "[    9.000001][   T41] BUG: KASAN: slab-use-after-free in dk0_show+0x1/0x2 [mydrv]\n",
            "[    9.000002][   T41] Call Trace:\n",
            "[    9.000003][   T41]  dk0_show+0x1/0x2 [mydrv]\n",
            "[    9.000004][   T41] ==================================================================\n",
            "[    9.000005][   T41] BUG: kernel NULL pointer dereference, address: 0000000000000008\n",
            "[    9.000006][   T41] RIP: 0010:dk0_show+0x12/0x40 [mydrv]\n",
            "[    9.000007][   T41] ---[ end trace 0000000000000000 ]---\n",
        ] {
            stream.push(line.as_bytes());
            amid.push(stream.is_amid_report());
        }
        assert_eq!(
            amid,
            [false, false, true, true, true, false, true, true, false]
        );
    }
}
