//! `knobrig repro` in real guests: a finding shows again, and without its mutant it doesn't.

use super::place::Place;
use serde_json::Value;

/// Exit code and the object that it prints.
fn verb(place: &Place, verb: &str, out: &str, arguments: &[&str]) -> (Option<i32>, Value) {
    let mut command = place.knobrig();
    command.arg(verb).arg(place.out());
    command.arg("--out").arg(place.out().with_extension(out));
    let output = command
        .args(["--format", "json"])
        .args(arguments)
        .output()
        .expect("knobrig runs");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let printed = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{said}"));
    (output.status.code(), printed)
}

/// exit leaves both knobs: each unload shows it, whatever else goes on.
#[test]
fn a_finding_shows_again_and_a_correct_driver_shows_nothing() {
    let place = Place::new();
    let mut run = place.run(&["--mutant", "knobs-left", "--shapes", "gated", "--fail-fast"]);
    let output = run
        .args(["--seed", "1", "--episodes", "40"])
        .output()
        .expect("knobrig runs");
    let said = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(10), "{said}");
    assert!(said.contains("cargo rig repro"), "{said}");
    let timeline = place.json("findings/001/timeline.json");
    let lanes = timeline["lanes"].as_array().expect("lanes");
    let lane = |name: &str| lanes.iter().any(|lane| lane["name"] == name);
    assert!(lane("holder") && lane("device"), "{timeline}");
    let page = std::fs::read_to_string(place.out().join("index.html")).expect("index.html");
    assert!(page.contains("<svg ") && page.contains("finding-1"));

    let (code, again) = verb(&place, "repro", "again", &["--times", "3"]);
    assert_eq!(code, Some(10), "{again}");
    assert_eq!(again["rate"]["hits"], 1, "{again}");
    let (code, correct) = verb(&place, "repro", "correct", &["--times", "5", "--correct"]);
    assert_eq!(code, Some(0), "{correct}");
    assert_eq!(correct["rate"]["attempts"], 5, "{correct}");
    assert_eq!(correct["others"], Value::Array(Vec::new()), "{correct}");

    place.assert_nothing_left();
}
