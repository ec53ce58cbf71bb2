//! Any bytes, in pieces of any size, are read without a panic, and the pieces change nothing.
#![no_main]

use knobrig_klog::{Report, Stream, parse};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    // The first byte is the length of the pieces.
    let Some((piece, log)) = input.split_first() else {
        return;
    };
    let mut stream = Stream::new();
    let mut reports = Vec::new();
    for chunk in log.chunks(usize::from(*piece).max(1)) {
        reports.extend(stream.push(chunk));
    }
    reports.extend(stream.finish());
    reports.sort_by_key(|r| (r.range.start, r.range.end));
    assert_eq!(reports, parse(log));
    for report in &reports {
        assert!(report.range.start < report.range.end && report.range.end <= log.len());
        let json = serde_json::to_string(report).expect("a report is JSON");
        let back: Report = serde_json::from_str(&json).expect("its own JSON");
        assert_eq!(&back, report);
    }
});
