//! What runs of the gallery came to where the kernel said nothing: one bug has one key, whatever the
//! seed, and another bug has another.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use knobrig_proto::EpisodeReport;
use serde::Deserialize;

use super::{Evidence, evidence};
use crate::judge::oracle;
use crate::judge::plan::Plan;

/// An episode as it was planned, and what came of it.
#[derive(Deserialize)]
struct Observed {
    mutant: String,
    plan: Plan,
    report: EpisodeReport,
}

/// By mutant, the keys that it had.
fn keys() -> BTreeMap<String, BTreeSet<String>> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/observed");
    let mut keys: BTreeMap<_, BTreeSet<_>> = BTreeMap::new();
    for entry in std::fs::read_dir(dir).expect("the observations") {
        let path = entry.expect("an entry").path();
        let text = std::fs::read_to_string(&path).expect("a file");
        let observed: Observed =
            serde_json::from_str(&text).unwrap_or_else(|why| panic!("{}: {why}", path.display()));
        let verdict = oracle::judge(&observed.plan, &observed.report, false);
        let evidence = evidence(verdict.violations, Vec::new(), Vec::new());
        let key = evidence.first().map(Evidence::key);
        let key = key.unwrap_or_else(|| panic!("{}: no failure", path.display()));
        keys.entry(observed.mutant).or_default().insert(key);
    }
    keys
}

#[test]
fn a_mutant_has_the_same_key_under_another_seed() {
    let keys = keys();
    assert_eq!(keys.len(), 8, "{:?}", keys.keys());
    for (mutant, keys) in keys {
        assert_eq!(keys.len(), 1, "{mutant}: {keys:#?}");
    }
}

#[test]
fn two_mutants_have_two_keys() {
    let mut owners: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (mutant, keys) in keys() {
        for key in keys {
            owners.entry(key).or_default().insert(mutant.clone());
        }
    }
    let shared: Vec<_> = owners.into_values().filter(|it| it.len() > 1).collect();
    assert!(shared.is_empty(), "{shared:?}");
}
