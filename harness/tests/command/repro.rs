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

    let (code, minimal) = verb(&place, "minimize", "minimal", &["--proof", "8"]);
    assert_eq!(code, Some(10), "{minimal}");
    assert!(minimal["rate"]["hits"] != 0, "{minimal}");
    let edges = minimal["edges"].as_array().expect("edges");
    assert!(matches!(edges.len(), 1..=3), "{minimal}");
    for edge in edges {
        let without = &edge["without"];
        assert!(without["hits"].as_u64() < without["attempts"].as_u64());
    }
    let minimal = place.out().with_extension("minimal");
    assert!(minimal.join("reproducer.json").is_file());

    place.assert_nothing_left();
}

/// While one guest hangs the next one boots: it goes with the replay that did not need it.
#[test]
fn a_hang_shows_again_and_leaves_no_guest() {
    let place = Place::new();
    let mut run = place.run(&["--mutant", "self-remove", "--fail-fast", "--quiet"]);
    let output = run
        .args(["--shapes", "gated", "--seed", "1", "--episodes", "40"])
        .output()
        .expect("knobrig runs");
    assert_eq!(output.status.code(), Some(10), "{output:?}");
    let (code, again) = verb(&place, "repro", "again", &[]);
    assert_eq!(code, Some(10), "{again}");
    place.assert_nothing_left();
}

/// Of a target in a file of one's own the finding names the file, and of a kernel of one's own it says
/// that it doesn't hold it.
#[test]
fn a_finding_of_a_target_file_replays_by_itself() {
    let place = Place::new();
    let shown = place.knobrig().args(["target", "show", "mydrv"]).output();
    let text = String::from_utf8(shown.expect("knobrig runs").stdout).expect("UTF-8");
    let drivers = format!("{}/../guest-driver", env!("CARGO_MANIFEST_DIR"));
    let file = place.path().join("mine.toml");
    let mine = text.replace("\"guest-driver", &format!("\"{drivers}"));
    std::fs::write(&file, mine.replacen("\"mydrv\"", "\"mine\"", 1)).expect("writes");
    let file = file.display().to_string();
    let mut run = place.run(&["--target", &file, "--mutant", "knobs-left", "--fail-fast"]);
    let output = run
        .args(["--shapes", "gated", "--seed", "1", "--episodes", "40"])
        .output()
        .expect("knobrig runs");
    assert_eq!(output.status.code(), Some(10), "{output:?}");
    let finding = place.json("findings/001/finding.json");
    assert_eq!(finding["setting"]["target_file"], *file, "{finding}");
    let (code, again) = verb(&place, "repro", "again", &["--times", "3"]);
    assert_eq!(code, Some(10), "{again}");

    let path = place.out().join("findings/001/reproducer.json");
    let mut reproducer = place.json("findings/001/reproducer.json");
    reproducer["setting"]["guest"]["variant"] = "given".into();
    reproducer["setting"]["kernel"] = "000000000000".into();
    std::fs::write(&path, reproducer.to_string()).expect("writes");
    let mut repro = place.knobrig();
    let output = repro
        .arg("repro")
        .arg(&path)
        .output()
        .expect("knobrig runs");
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{told}");
    assert!(told.contains("--kernel"), "{told}");
    place.assert_nothing_left();
}
