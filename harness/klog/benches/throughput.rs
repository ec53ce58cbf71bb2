//! How fast a console is read, on one core: one without a report, and one that is nothing else.
#![expect(missing_docs, reason = "criterion's macro makes a function without")]

use std::path::Path;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use knobrig_klog::Stream;

/// As a reader of a serial line would push it.
const CHUNK: usize = 64 * 1024;

/// A console of a busy guest that has nothing to complain about.
fn quiet() -> Vec<u8> {
    const LINES: [&str; 6] = [
        "pci 0000:00:1f.0: BAR 0 [mem 0xfea00000-0xfeafffff 64bit pref]",
        "usb 1-1: new high-speed USB device number 2 using xhci_hcd",
        "EXT4-fs (vda1): mounted filesystem with ordered data mode. Quota mode: none.",
        "audit: type=1400 audit(1750384805.360:363): avc: denied { read } for pid=91",
        "INFO is no headline here, and neither is a warning or a bug",
        "random: crng init done",
    ];
    let mut log = Vec::with_capacity(33 << 20);
    let mut at = 0u64;
    while log.len() < 32 << 20 {
        let line = LINES[(at % 6) as usize];
        let stamp = format!(
            "[{:5}.{:06}][{:>6}] ",
            at / 97,
            at * 10_309 % 1_000_000,
            "T1"
        );
        log.extend_from_slice(stamp.as_bytes());
        log.extend_from_slice(line.as_bytes());
        log.push(b'\n');
        at += 1;
    }
    log
}

/// All of `shared/corpus/syzkaller-report`, one after the other; `None` where it isn't there.
fn corpus() -> Option<Vec<u8>> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR"))
        .ancestors()
        .map(|dir| dir.join("shared/corpus/syzkaller-report/linux"))
        .find(|dir| dir.is_dir())?;
    let mut files: Vec<_> = std::fs::read_dir(dir)
        .ok()?
        .filter_map(|e| Some(e.ok()?.path()))
        .collect();
    files.sort();
    let mut log = Vec::new();
    for file in files {
        log.extend(std::fs::read(file).ok()?);
        log.push(b'\n');
    }
    Some(log)
}

fn read(log: &[u8]) -> usize {
    let mut stream = Stream::new();
    let pushed: usize = log.chunks(CHUNK).map(|c| stream.push(c).len()).sum();
    pushed + stream.finish().len()
}

fn throughput(c: &mut Criterion) {
    let mut group = c.benchmark_group("read");
    group.sample_size(10);
    let quiet = quiet();
    assert_eq!(read(&quiet), 0, "a quiet console has no report");
    group.throughput(Throughput::Bytes(quiet.len() as u64));
    group.bench_function("quiet", |b| b.iter(|| read(&quiet)));
    if let Some(corpus) = corpus() {
        group.throughput(Throughput::Bytes(corpus.len() as u64));
        group.bench_function("corpus", |b| b.iter(|| read(&corpus)));
    }
    group.finish();
}

criterion_group!(benches, throughput);
criterion_main!(benches);
