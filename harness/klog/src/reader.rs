//! A log from its first byte to its last: what [`Stream`] finds, in order, and what only the end
//! tells, whether the kernel lived on.

use std::sync::Arc;

use crate::history::Symbols;
use crate::report::{Class, Report};
use crate::stream::Stream;

/// Reads a whole log in pieces of any size. It keeps every report; who reads a console without end
/// takes a [`Stream`].
#[derive(Default)]
pub struct Reader {
    stream: Stream,
    reports: Vec<Report>,
}

impl Reader {
    /// A log from its first byte.
    pub fn new() -> Self {
        Reader::default()
    }

    /// A log from its first byte, of a kernel whose modules' files somebody knows.
    pub fn with_symbols(symbols: Arc<dyn Symbols>) -> Self {
        Reader {
            stream: Stream::with_symbols(symbols),
            reports: Vec::new(),
        }
    }

    /// Takes the next bytes.
    pub fn push(&mut self, bytes: &[u8]) {
        self.reports.extend(self.stream.push(bytes));
    }

    /// The log is over: all its reports, in the order they begin.
    pub fn finish(mut self) -> Vec<Report> {
        self.reports.extend(self.stream.finish());
        let mut reports = self.reports;
        reports.sort_by_key(|r| (r.range.start, r.range.end));
        tell_panics(&mut reports);
        reports
    }
}

/// A kernel that panics does it for what it reported before. Of that life every report gets to
/// know, and a panic that says no more than that is none of its own.
fn tell_panics(reports: &mut Vec<Report>) {
    let mut panicked = false;
    for report in reports.iter_mut().rev() {
        if report.class == Class::Reboot {
            panicked = false;
        }
        panicked |= report.panicked;
        report.panicked |= panicked;
    }
    let mut reported = false;
    reports.retain(|report| {
        let echo = report.class == Class::Panic && report.corrupted.is_some();
        let keep = !(echo && reported);
        reported = match report.class {
            Class::Reboot => false,
            _ => reported || !report.suppressed,
        };
        keep
    });
}

#[cfg(test)]
mod tests {
    use crate::parse;

    const BUG: &str = "[    1.000000] BUG: KASAN: slab-use-after-free in show+0x1/0x2\n\
        [    1.000000] Read of size 8 at addr ffff888100000000 by task a/1\n\
        [    1.000000] ==================================================================\n";
    const PANIC: &str = "[   60.000000] Kernel panic - not syncing: hung_task: blocked tasks\n";
    const BOOT: &str = "[    0.000000] Linux version 7.2.0\n";

    fn told(log: &str) -> Vec<(String, bool)> {
        let reports = parse(log.as_bytes());
        reports.into_iter().map(|r| (r.title, r.panicked)).collect()
    }

    #[test]
    fn a_report_knows_that_its_kernel_panicked_in_the_end() {
        let title = || "KASAN: slab-use-after-free Read in show".to_owned();
        assert_eq!(told(BUG), [(title(), false)]);
        assert_eq!(told(&format!("{BUG}{PANIC}")), [(title(), true)]);
        let reboot = || "unexpected kernel reboot".to_owned();
        let alone = "kernel panic: hung_task: blocked tasks".to_owned();
        assert_eq!(
            told(&format!("{BUG}{BOOT}{PANIC}")),
            [(title(), false), (reboot(), false), (alone, true)]
        );
    }
}
