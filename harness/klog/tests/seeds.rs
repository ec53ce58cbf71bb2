//! Three mutants, each met under many seeds, in whatever function of the driver
//! chance had it: one bug keeps one key, and no other bug has it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use knobrig_klog::{Report, parse};

fn entries(dir: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir).unwrap_or_else(|why| panic!("{}: {why}", dir.display()));
    let mut paths: Vec<_> = entries.map(|it| it.expect("an entry").path()).collect();
    paths.sort();
    paths
}

/// The first report of a console.
fn first(path: &Path) -> Report {
    let log = std::fs::read(path).unwrap_or_else(|why| panic!("{}: {why}", path.display()));
    let mut reports = parse(&log);
    assert!(!reports.is_empty(), "{}: nothing found", path.display());
    reports.remove(0)
}

fn tests() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests")
}

/// By mutant, what each of its consoles says first.
fn seeds() -> BTreeMap<String, Vec<Report>> {
    let name = |dir: &Path| {
        dir.file_name()
            .expect("a name")
            .to_string_lossy()
            .into_owned()
    };
    (entries(&tests().join("seeds")).iter())
        .map(|dir| {
            (
                name(dir),
                entries(dir).iter().map(|log| first(log)).collect(),
            )
        })
        .collect()
}

#[test]
fn a_bug_keeps_its_key_whatever_seed_and_kernel() {
    let seeds = seeds();
    assert_eq!(seeds.len(), 3);
    for (mutant, reports) in &seeds {
        assert!(reports.len() >= 4, "{mutant}");
        let keys: BTreeSet<_> = reports.iter().map(|it| it.key.as_str()).collect();
        assert_eq!(keys.len(), 1, "{mutant}: {keys:#?}");
        // The very log of the gallery's is one of them.
        let gallery = first(&tests().join(format!("mutants/{mutant}.log")));
        assert!(
            keys.contains(gallery.key.as_str()),
            "{mutant}: {}",
            gallery.key
        );
    }
    // What they share is not that they are all alike.
    for mutant in ["drvdata-null", "free-before-remove"] {
        let titles: BTreeSet<_> = seeds[mutant].iter().map(|it| &it.title).collect();
        assert!(titles.len() > 1, "{mutant}: {titles:?}");
    }
}

#[test]
fn no_two_mutants_share_a_key() {
    let mut owners: BTreeMap<String, String> = BTreeMap::new();
    let mut own = |key: String, mutant: &str| {
        let owner = owners.entry(key).or_insert_with(|| mutant.to_owned());
        assert_eq!(owner, mutant, "one key for two mutants");
    };
    for (mutant, reports) in seeds() {
        for report in reports {
            own(report.key, &mutant);
        }
    }
    let logs = entries(&tests().join("mutants"));
    assert!(logs.len() >= 14);
    for log in logs {
        let mutant = log
            .file_stem()
            .expect("a name")
            .to_string_lossy()
            .into_owned();
        own(first(&log).key, &mutant);
    }
}
