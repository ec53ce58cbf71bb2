//! The parser against logs with known titles: syzkaller's, and consoles of lifetime bugs.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use knobrig_klog::parse;

/// `shared/corpus`, beside the repository or above it.
fn corpus() -> Option<PathBuf> {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .ancestors()
        .map(|dir| dir.join("shared/corpus"))
        .find(|dir| dir.is_dir())
}

/// A log and what is expected of it.
struct Expected {
    name: String,
    log: Vec<u8>,
    title: Option<String>,
    alt: BTreeSet<String>,
    kind: Option<String>,
    corrupted: bool,
    panicked: bool,
}

impl Expected {
    fn read(path: &Path) -> Self {
        let raw: Vec<u8> = std::fs::read(path)
            .expect("a corpus file")
            .into_iter()
            .filter(|b| *b != b'\r')
            .collect();
        let split = raw
            .windows(2)
            .position(|w| w == b"\n\n")
            .map_or(raw.len(), |at| at + 1);
        let header = String::from_utf8_lossy(&raw[..split]).into_owned();
        let mut log = raw[(split + 1).min(raw.len())..].to_vec();
        let end = b"\nREPORT:\n";
        if let Some(at) = log.windows(end.len()).position(|w| w == end) {
            log.truncate(at + 1);
        }
        let values = |key: &str| -> Vec<String> {
            header
                .lines()
                .filter_map(|l| l.strip_prefix(key)?.strip_prefix(':'))
                .map(|v| v.trim().to_owned())
                .filter(|v| !v.is_empty())
                .collect()
        };
        let yes = |key: &str| values(key).iter().any(|v| v == "Y");
        Expected {
            name: path
                .file_name()
                .map(|n| n.to_string_lossy().into_owned())
                .unwrap_or_default(),
            title: values("TITLE").pop(),
            alt: values("ALT").into_iter().collect(),
            kind: values("TYPE").pop(),
            corrupted: yes("CORRUPTED"),
            panicked: yes("PANICKED"),
            log,
        }
    }
}

/// Right and all of one measure.
#[derive(Default)]
struct Score(usize, usize);

impl Score {
    fn count(&mut self, right: bool) -> bool {
        self.0 += usize::from(right);
        self.1 += 1;
        right
    }
}

#[test]
fn titles_of_syzkallers_corpus() {
    let Some(dir) = corpus().map(|c| c.join("syzkaller-report/linux")) else {
        println!(
            "skipped: no shared/corpus above {}",
            env!("CARGO_MANIFEST_DIR")
        );
        return;
    };
    let mut files: Vec<PathBuf> = std::fs::read_dir(dir)
        .expect("the corpus")
        .map(|e| e.expect("an entry").path())
        .collect();
    files.sort_by_key(|p| {
        p.file_name()
            .and_then(|n| n.to_str())
            .and_then(|n| n.parse::<u32>().ok())
    });
    let mut scores: BTreeMap<&str, Score> = BTreeMap::new();
    let mut score = |what: &'static str, right: bool| scores.entry(what).or_default().count(right);
    let mut keys: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for path in &files {
        let want = Expected::read(path);
        let reports = parse(&want.log);
        let got = reports.first();
        let Some(title) = &want.title else {
            if !score("1 negatives", got.is_none()) {
                println!("{}: NEGATIVE, got {:?}", want.name, got.map(|r| &r.title));
            }
            continue;
        };
        if !score("2 detected", got.is_some()) {
            println!("{}: MISSED {title}", want.name);
        }
        let got_title = got.map_or("", |r| r.title.as_str());
        let right = got_title == title;
        if !right && got.is_some() {
            let mark = if want.corrupted { "C" } else { "" };
            println!(
                "{}: TITLE{mark} {title}\n        got   {got_title}",
                want.name
            );
        }
        score("5 title, all", right);
        if !want.corrupted {
            score("4 title, not corrupted", right);
        }
        let kind = want.kind.clone().unwrap_or_default();
        let right = got.is_some_and(|r| r.kind == kind);
        if want.kind.is_some() && !score("3 type", right) {
            println!("{}: TYPE {kind}, got {:?}", want.name, got.map(|r| &r.kind));
        }
        let alt: BTreeSet<String> = got
            .map(|r| r.alt_titles.iter().cloned().collect())
            .unwrap_or_default();
        if !score("6 alternatives", alt == want.alt) {
            println!("{}: ALT {:?}, got {alt:?}", want.name, want.alt);
        }
        let corrupted = got.is_some_and(|r| r.corrupted.is_some());
        if !score("7 corrupted", corrupted == want.corrupted) {
            println!(
                "{}: CORRUPTED {}, got {:?}",
                want.name,
                want.corrupted,
                got.map(|r| &r.corrupted)
            );
        }
        let panicked = got.is_some_and(|r| r.panicked);
        if !score("8 panicked", panicked == want.panicked) {
            println!("{}: PANICKED {}, got {panicked}", want.name, want.panicked);
        }
        if let Some(report) = got {
            keys.entry(report.key.clone())
                .or_default()
                .insert(title.clone());
        }
    }
    // One key stands for one bug: all titles under it are each other's alternatives.
    let merged: Vec<_> = keys.iter().filter(|(_, titles)| titles.len() > 1).collect();
    println!(
        "keys {}, of them with several titles: {merged:#?}",
        keys.len()
    );
    let mut below = Vec::new();
    for (what, least) in HELD {
        let Score(right, all) = scores.remove(what).unwrap_or_default();
        let percent = right as f64 * 100.0 / all.max(1) as f64;
        println!("{what:26} {right:4} / {all:4}  {percent:5.1} %");
        if all == 0 || percent < *least {
            below.push(format!("{what}: {percent:.1} %, held is {least} %"));
        }
    }
    assert!(below.is_empty(), "worse than before: {below:?}");
}

/// What the parser has reached, in percent of the files it is measured on.
const HELD: &[(&str, f64)] = &[
    ("1 negatives", 100.0),
    ("2 detected", 100.0),
    ("3 type", 100.0),
    ("4 title, not corrupted", 99.2),
    ("5 title, all", 98.5),
    ("6 alternatives", 99.0),
    ("7 corrupted", 97.5),
    ("8 panicked", 100.0),
];
