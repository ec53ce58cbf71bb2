//! Any bytes, in pieces of any size, are read without a panic, and the pieces change nothing.
#![no_main]

use knobrig_klog::{Reader, Report, parse};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    // The first byte is the length of the pieces.
    let Some((piece, log)) = input.split_first() else {
        return;
    };
    let mut reader = Reader::new();
    for chunk in log.chunks(usize::from(*piece).max(1)) {
        reader.push(chunk);
    }
    let reports = reader.finish();
    assert_eq!(reports, parse(log));
    for report in &reports {
        assert!(report.range.start < report.range.end && report.range.end <= log.len());
        let json = serde_json::to_string(report).expect("a report is JSON");
        let back: Report = serde_json::from_str(&json).expect("its own JSON");
        assert_eq!(&back, report);
    }
});
