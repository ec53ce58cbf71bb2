//! What holds for every console, whatever is in it.

use knobrig_klog::{Reader, Report, parse};
use proptest::prelude::*;

/// Pieces that consoles are made of; any order of them is a console.
const PIECES: &[&str] = &[
    "[   12.000001][   T71] BUG: KASAN: slab-use-after-free in dk0_show+0x1c/0x60 [mydrv]\n",
    "[   12.000001][   T72] BUG: kernel NULL pointer dereference, address: 0000000000000008\n",
    "[   12.000001][    C1] watchdog: BUG: soft lockup - CPU#1 stuck for 22s! [a:1]\n",
    "[   12.000002][   T71] Read of size 8 at addr ffff888004a1b000 by task reader/71\n",
    "[   12.000003][   T71] Call Trace:\n",
    "[   12.000003][   T72] Call Trace:\n",
    "[   12.000004][   T71]  dev_attr_show+0x19/0x60\n",
    "[   12.000004][   T72]  ? vfs_read+0x10/0x90\n",
    "[   12.000005][   T71] Freed by task 64:\n",
    "[   12.000006][   T71]  mydrv_exit+0x20/0x40 [mydrv]\n",
    "==================================================================\n",
    "------------[ cut here ]------------\n",
    "WARNING: CPU: 0 PID: 9 at lib/refcount.c:28 refcount_warn_saturate+0xdd/0x140\n",
    "RIP: 0010:refcount_warn_saturate+0xdd/0x140\n",
    "Modules linked in: a(O) b [last unloaded: mydrv(O)]\n",
    "---[ end trace 0000000000000000 ]---\n",
    "[   40.000000] random: crng init done\n",
    "INFO: task rmmod:80 blocked for more than 120 seconds.\n",
    "Linux version 7.2.0 (root@vm)\n",
    "Kernel panic - not syncing: Fatal exception\n",
    "login: ",
    "\n",
];

fn console() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        8 => (0..PIECES.len()).prop_map(|i| PIECES[i].as_bytes().to_vec()),
        1 => proptest::collection::vec(any::<u8>(), 0..64),
    ];
    proptest::collection::vec(piece, 0..48).prop_map(|pieces| pieces.concat())
}

fn in_chunks(log: &[u8], cuts: &[usize]) -> Vec<Report> {
    let mut reader = Reader::new();
    let mut rest = log;
    for cut in cuts {
        let (chunk, after) = rest.split_at((*cut).min(rest.len()));
        reader.push(chunk);
        rest = after;
    }
    reader.push(rest);
    reader.finish()
}

/// What a report says, without where it stands.
fn said(reports: &[Report]) -> Vec<(String, String, usize)> {
    let said = |r: &Report| (r.title.clone(), r.text.clone(), r.stacks.len());
    reports.iter().map(said).collect()
}

/// A console of printable lines only, so that junk added to it is the only junk.
fn clean_console() -> impl Strategy<Value = String> {
    proptest::collection::vec((0..PIECES.len()).prop_map(|i| PIECES[i]), 0..48)
        .prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn chunking_never_changes_the_result(
        log in console(),
        cuts in proptest::collection::vec(0usize..200, 0..40),
    ) {
        prop_assert_eq!(in_chunks(&log, &cuts), parse(&log));
    }

    #[test]
    fn any_bytes_are_read(log in proptest::collection::vec(any::<u8>(), 0..4096)) {
        for report in parse(&log) {
            prop_assert!(report.range.end <= log.len());
        }
    }

    #[test]
    fn a_report_lies_in_its_console_and_survives_json(log in console()) {
        for report in parse(&log) {
            prop_assert!(report.range.start < report.range.end);
            prop_assert!(report.range.end <= log.len());
            prop_assert!(!report.title.is_empty() && !report.key.is_empty());
            let json = serde_json::to_string(&report).expect("a report is JSON");
            prop_assert_eq!(serde_json::from_str::<Report>(&json).expect("and back"), report);
        }
    }

    #[test]
    fn line_ends_of_a_serial_console_say_nothing(log in clean_console()) {
        prop_assert_eq!(said(&parse(log.replace('\n', "\r\n").as_bytes())), said(&parse(log.as_bytes())));
    }

    #[test]
    fn control_bytes_and_colours_say_nothing(
        log in clean_console(),
        at in 0usize..4000,
        byte in prop_oneof![Just(0u8), 1u8..9, 0x0bu8..0x1b, 0x1cu8..0x20, Just(0x7f)],
    ) {
        let at = at.min(log.len());
        let mut junk = log.as_bytes().to_vec();
        junk.splice(at..at, [byte, 0x1b, b'[', b'3', b'1', b'm']);
        prop_assert_eq!(said(&parse(&junk)), said(&parse(log.as_bytes())));
    }
}
