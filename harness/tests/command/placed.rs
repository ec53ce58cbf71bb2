//! Gates in functions, in real guests: points are found, somebody is held there, correct drivers
//! don't mind, and a race of a few instructions is found by it.

use super::place::Place;
use serde_json::Value;

fn events(place: &Place, name: &str) -> Vec<Value> {
    let events = place.json_lines("events.jsonl").into_iter();
    events.filter(|event| event["event"] == name).collect()
}

/// The giver of the last reference is still in the driver as rmmod is through. Nothing in the rig
/// knows of that point: a survey finds it.
#[test]
fn a_tail_of_a_few_instructions_is_found() {
    let place = Place::new();
    let mut command = place.run(&["--mutant", "tail", "--shapes", "placed", "--fail-fast"]);
    let output = command
        .args(["--seed", "1", "--episodes", "80"])
        .output()
        .expect("knobrig runs");
    let said = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(10), "{said}");
    let reproducer = place.json("findings/001/reproducer.json");
    let gate = &reproducer["episode"]["episode"]["gates"][0];
    assert_eq!(gate["who"]["actor"], "giver", "{gate}");
    assert_eq!(gate["own"], true, "{gate}");
    let report = std::fs::read_to_string(place.out().join("findings/001/report.txt"));
    let report = report.expect("report.txt");
    assert!(report.contains("holds giver at the "), "{report}");
    place.assert_nothing_left();
}

#[test]
fn points_are_found_and_reached_and_a_correct_lifetime_stays_clean() {
    let place = Place::new();
    let mut command = place.run(&["--lifetime", "exit-waits", "--shapes", "placed"]);
    let output = command
        .args(["--seed", "2", "--episodes", "40"])
        .output()
        .expect("knobrig runs");
    let said = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{said}");

    let surveys = events(&place, "surveyed");
    assert!(!surveys.is_empty());
    for survey in &surveys {
        let points = survey["points"].as_array().expect("points");
        assert!(points.len() > 20, "{survey}");
        // The driver's own calls are among them.
        assert!(points.iter().any(|point| point["own"] == true), "{survey}");
    }
    // A point may not come, but nearly all do.
    let gates: Vec<_> = events(&place, "gates-ended")
        .into_iter()
        .flat_map(|event| event["gates"].as_array().cloned().unwrap_or_default())
        .collect();
    let held: Vec<_> = gates
        .iter()
        .filter(|gate| gate["hold"].is_object())
        .collect();
    assert!(held.len() * 10 >= gates.len() * 8, "{gates:?}");
    for gate in held {
        let hold = &gate["hold"];
        let (from, to) = (hold["ns"].as_u64(), hold["left_ns"].as_u64());
        assert!(from.is_some() && from < to, "{gate}");
        assert_ne!(hold["how"], "slept", "nobody asked for it: {gate}");
    }
    let summary = place.json("summary.json");
    assert_eq!(summary["points"]["armed"], gates.len());
    place.assert_nothing_left();
}
