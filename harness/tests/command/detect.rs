//! `knobrig bench detect` in real guests: what each side found, kept as it goes, and gone on with.

use super::place::Place;
use serde_json::Value;

/// The seeds with which a side of the only mutant has looked for it.
fn seeds(kept: &Value, side: &str) -> Vec<u64> {
    let searches = kept["mutants"][0][side]["searches"].as_array();
    let searches = searches.unwrap_or_else(|| panic!("searches of {side} in {kept}"));
    let seeds = searches.iter().map(|it| it["seed"].as_u64());
    seeds.collect::<Option<_>>().expect("numbers")
}

#[test]
fn a_benchmark_goes_on_after_a_stop_and_looks_for_nothing_twice() {
    let place = Place::new();
    let mut command = place.knobrig();
    command.args(["bench", "detect", "--mutants", "free-before-remove"]);
    command.args(["--seeds", "1000", "--budget", "1s", "--out"]);
    command.arg(place.out());
    place.interrupt_once(command, "detect.json", "\"seed\": 1,");
    let before = place.json("detect.json");
    let done = seeds(&before, "rig").len() as u64;

    let mut command = place.knobrig();
    command.args(["bench", "detect", "--seeds"]);
    command.arg((done + 1).to_string());
    command.arg("--resume").arg(place.out());
    let output = command.output().expect("knobrig runs");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(0), "{said}");
    let after = place.json("detect.json");
    let all: Vec<_> = (1..=done + 1).collect();
    for side in ["rig", "stress", "shell"] {
        assert_eq!(seeds(&after, side), all, "{side}");
    }
    let first = |kept: &Value| kept["mutants"][0]["rig"]["searches"][0].clone();
    assert_eq!(first(&after), first(&before));
    assert!(
        after["mutants"][0]["over_stress"].as_f64() > Some(0.0),
        "{after}"
    );
    let picture = std::fs::read_to_string(place.out().join("detect.svg"));
    assert!(picture.expect("a picture").starts_with("<svg"));
}
