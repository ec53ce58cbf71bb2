//! `knobrig gallery` and `knobrig lifetimes` in real guests.

use super::place::Place;
use serde_json::Value;

fn json(place: &Place, arguments: &[&str]) -> (Option<i32>, Value, String) {
    let output = place
        .knobrig()
        .current_dir(place.path())
        .args(arguments)
        .args(["--format", "json", "--seed", "1"])
        .output()
        .expect("knobrig runs");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    let value = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}{errors}"));
    (output.status.code(), value, errors)
}

#[test]
fn a_mutant_is_found_and_a_lifetime_is_clean() {
    let place = Place::new();
    let only = "free-before-remove,count-skipped,ring-before-reset,drained";
    let arguments = ["gallery", "--only", only, "--episodes", "30", "--out", "g"];
    let (code, board, errors) = json(&place, &arguments);
    assert_eq!(code, Some(0), "{board} {errors}");
    assert_eq!(board["proven"], true);
    assert_eq!(board["mutants"].as_array().map(Vec::len), Some(3));
    for row in board["mutants"].as_array().expect("rows") {
        assert!(row["found"]["title"].is_string(), "{row}");
        // Each by another oracle: the kernel, a rule, the device.
        let name = row["mutant"].as_str().expect("a name");
        let oracle = match name {
            "free-before-remove" => "kernel",
            "count-skipped" => "rule",
            _ => "witness",
        };
        assert_eq!(row["found"]["oracles"][0], oracle, "{row}");
        // Its run is kept whole.
        let run = place.path().join(format!("g/{name}-kasan-1"));
        assert!(run.join("findings/001/finding.json").is_file());
    }
    let markdown = std::fs::read_to_string(place.path().join("g/gallery.md")).expect("it is kept");
    assert!(markdown.contains("3 of 3 mutants found, 1 of 1 lifetimes clean"));
    place.assert_nothing_left();
}

#[test]
fn every_lifetime_shows_its_rules() {
    let place = Place::new();
    let (code, table, errors) = json(&place, &["lifetimes", "--episodes", "70"]);
    assert_eq!(code, Some(0), "{table} {errors}");
    let rows = table["lifetimes"].as_array().expect("rows");
    let seen = |lifetime: &str, rule: &str| {
        let row = rows.iter().find(|row| row["lifetime"] == lifetime);
        row.and_then(|row| row["rules"][rule].as_u64()).unwrap_or(0)
    };
    for (lifetime, rule) in [
        ("pinned", "refused-while-pinned"),
        ("pinned", "object-counts"),
        ("pinned", "excluded"),
        ("drained", "knobs-first"),
        ("drained", "old-descriptor"),
        ("self-destruct", "refused-while-bound"),
        ("self-destruct", "given-up"),
        ("outside-release", "outlived"),
        ("exit-waits", "waits-for-release"),
    ] {
        assert!(seen(lifetime, rule) > 0, "{lifetime} {rule}: {table}");
    }
    place.assert_nothing_left();
}
