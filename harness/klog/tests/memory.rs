//! What a console of any size costs: a stream keeps nothing of what it has told.

use knobrig_klog::Stream;

/// Bytes of the console.
const SIZE: usize = 48 << 20;
/// What the process may ever have taken, test harness and all.
const MOST_KIB: u64 = 32 << 10;

/// The most memory that this process ever had, in KiB (proc(5), `VmHWM`).
fn peak_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("the status of a process");
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let words = peak.and_then(|line| line.split_whitespace().next());
    words.and_then(|kib| kib.parse().ok()).expect("a peak")
}

#[test]
fn a_console_of_any_size_is_read_in_bounded_memory() {
    let report = "[    5.000000][   T71] BUG: KASAN: slab-use-after-free in dk0_show+0x1c/0x60 [mydrv]\n\
        [    5.000000][   T71] Read of size 8 at addr ffff888004a1b000 by task reader/71\n\
        [    5.000000][   T71] Call Trace:\n\
        [    5.000000][   T71]  dk0_show+0x1c/0x60 [mydrv]\n\
        [    5.000000][   T72] BUG: KASAN: no end of it in f+0x1/0x2\n";
    // Reports that end, one that doesn't, quiet lines and a line without end.
    let quiet = "[    6.000000][    T1] random: crng init done\n".repeat(1000);
    let frames = "[    6.000000][   T72]  g+0x1/0x2\n".repeat(1000);
    let piece = format!("{report}{quiet}{frames}{}", "x".repeat(100_000));
    let mut stream = Stream::new();
    let mut told = 0;
    for _ in 0..SIZE / piece.len() {
        told += stream.push(piece.as_bytes()).len();
    }
    told += stream.finish().len();
    assert!(told > 100, "{told} reports");
    let peak = peak_kib();
    assert!(peak < MOST_KIB, "{peak} KiB for {SIZE} bytes");
}
