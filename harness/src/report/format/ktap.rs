//! KTAP (Documentation/dev-tools/ktap.rst): a log is a test.

use std::fmt::Write as _;

use crate::logs::LogReports;

pub(super) fn render(logs: &[LogReports]) -> String {
    let mut text = format!("KTAP version 1\n1..{}\n", logs.len());
    for (number, log) in (1..).zip(logs) {
        // `#` begins a directive.
        let name = log.file.replace(['#', '\n'], "_");
        for report in &log.reports {
            let _ = writeln!(text, "# {}", report.title.replace('\n', " "));
        }
        let verdict = if log.reports.is_empty() {
            "ok"
        } else {
            "not ok"
        };
        let _ = writeln!(text, "{verdict} {number} {name}");
    }
    text
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_crash_is_not_ok() {
        insta::assert_snapshot!(super::render(&super::super::sample()), @r"
        KTAP version 1
        1..2
        ok 1 quiet.log
        # KASAN: slab-use-after-free Read in dk0_show
        not ok 2 con|sole.log
        ");
    }
}
