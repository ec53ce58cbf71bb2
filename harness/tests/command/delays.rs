//! Delays at instructions, in real guests under TCG: a race that no gate reaches is found by them, and
//! a driver that has none doesn't mind.

use super::place::Place;

fn sample(name: &str) -> String {
    let samples = concat!(env!("CARGO_MANIFEST_DIR"), "/../guest-driver/samples");
    format!("{samples}/{name}/{name}.toml")
}

/// Between the two ends of this race lie a few instructions, and nothing that can be held otherwise.
#[test]
fn a_race_between_two_instructions_is_found() {
    let place = Place::new();
    let target = sample("pointer_race");
    let mut command = place.run(&["--target", &target, "--shapes", "delays", "--fail-fast"]);
    let output = command
        .args(["--accel", "tcg", "--seed", "1", "--episodes", "200"])
        .output()
        .expect("knobrig runs");
    let said = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(10), "{said}");
    assert!(
        said.contains("slab-use-after-free Read in value_show"),
        "{said}"
    );
    let finding = place.json("findings/001/finding.json");
    let reproducer = place.json("findings/001/reproducer.json");
    let law = &reproducer["episode"]["delays"]["law"];
    assert!(
        law["seed"].is_u64() && law["one_in"].is_u64(),
        "{reproducer}"
    );
    let delays = &finding["record"]["delays"];
    assert!(delays["delays"].as_u64() > Some(0), "{delays}");
    let recent = delays["recent"].as_array().expect("where vCPUs stood");
    assert!(recent.iter().all(|stood| stood["module"] == "pointer_race"));
    let report = std::fs::read_to_string(place.out().join("findings/001/report.txt"));
    let report = report.expect("report.txt");
    assert!(
        report.contains("vCPUs are delayed at one instruction in "),
        "{report}"
    );
    place.assert_nothing_left();
}

#[test]
fn a_sound_driver_stays_clean_under_delays() {
    let place = Place::new();
    let target = sample("c_knob");
    let mut command = place.run(&["--target", &target, "--shapes", "delays"]);
    let output = command
        .args(["--accel", "tcg", "--seed", "1", "--episodes", "25"])
        .output()
        .expect("knobrig runs");
    let said = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{said}");
    place.assert_nothing_left();
}
