//! How fast a console is read, on one core: one without a report, one that is nothing else, and
//! ones made to be slow; beside them what `grep -c` and `rg -c` take for the same bytes.
#![expect(missing_docs, reason = "criterion's macro makes a function without")]

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

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
    let mut logs = vec![("quiet", quiet)];
    logs.extend(corpus().map(|log| ("corpus", log)));
    logs.extend(slow());
    for (name, log) in &logs {
        group.throughput(Throughput::Bytes(log.len() as u64));
        group.bench_function(*name, |b| b.iter(|| read(log)));
    }
    group.finish();
    let mut group = c.benchmark_group("grep");
    group.sample_size(10);
    for (name, log) in &logs[..logs.len().min(2)] {
        let mut file = tempfile::NamedTempFile::new().expect("a temporary file");
        file.write_all(log).expect("it is written");
        group.throughput(Throughput::Bytes(log.len() as u64));
        for program in ["grep", "rg"] {
            let count = || {
                let mut count = Command::new(program);
                count.args(["-c", "-e", "BUG", "-e", "WARNING", "-e", "INFO"]);
                count
                    .arg(file.path())
                    .env("LC_ALL", "C")
                    .stdout(Stdio::null())
                    .status()
            };
            if count().is_ok() {
                group.bench_function(format!("{name}, {program} -c"), |b| b.iter(&count));
            }
        }
    }
    group.finish();
}

/// What a search that starts anew at each line, or at each report, would never get through.
fn slow() -> Vec<(&'static str, Vec<u8>)> {
    const SIZE: usize = 4 << 20;
    let repeat = |line: &str| line.as_bytes().repeat(SIZE / line.len());
    vec![
        ("colours", repeat("\x1b[0;32m[    1.000000] green\x1b[0m\n")),
        ("no newline", repeat("x")),
        (
            "fences",
            repeat("==================================================================\n"),
        ),
        (
            "headlines",
            repeat("BUG: KASAN: use-after-free in f+0x1/0x2\n"),
        ),
        ("frames", repeat(" f+0x1/0x2 [m]\n")),
    ]
}

criterion_group!(benches, throughput);
criterion_main!(benches);
