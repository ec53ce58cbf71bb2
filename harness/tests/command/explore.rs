//! `knobrig explore` in real guests: every order within a bound, what can't be apart, and the same
//! after a stop.

use super::place::Place;
use serde_json::Value;

fn explore(place: &Place, arguments: &[&str]) -> (Option<i32>, String) {
    let mut command = place.knobrig();
    command.arg("explore").arg("--out").arg(place.out());
    let output = command.args(arguments).output().expect("knobrig runs");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let said = text(&output.stdout) + &text(&output.stderr);
    (output.status.code(), said)
}

fn count(explored: &Value, name: &str) -> u64 {
    let count = explored[name].as_u64();
    count.unwrap_or_else(|| panic!("{name} in {explored}"))
}

/// Every schedule ran in its order, or could be shown to be impossible.
fn assert_whole(explored: &Value) {
    let all = count(explored, "schedules");
    assert_eq!(count(explored, "done"), all, "{explored}");
    assert_eq!(count(explored, "undecided"), 0, "{explored}");
    let infeasible = count(explored, "waits") + count(explored, "absent");
    let ran = count(explored, "ordered") + count(explored, "found");
    assert_eq!(ran + infeasible, all, "{explored}");
    let reasons = explored["infeasible"].as_object().expect("reasons");
    let told: u64 = reasons.values().filter_map(Value::as_u64).sum();
    assert_eq!(told, infeasible, "{explored}");
}

/// A read in the device, and rmmod, which rightly waits for it in the drain.
#[test]
fn a_correct_lifetime_is_explored_to_its_end_also_after_a_stop() {
    let place = Place::new();
    let mut command = place.knobrig();
    command.arg("explore").arg("--out").arg(place.out());
    command.args(["--lifetime", "drained", "--bound", "1"]);
    place.interrupt_once(command, "explore.json", "\"ordered\"");
    let before = place.json("summary.json")["explored"].clone();
    assert!(count(&before, "done") < count(&before, "schedules"));

    let mut command = place.knobrig();
    command.arg("explore").arg("--resume").arg(place.out());
    let output = command.output().expect("knobrig runs");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert!(said.starts_with("clean: no finding in "), "{said}");
    let summary = place.json("summary.json");
    let explored = &summary["explored"];
    assert_eq!(explored["schedules"], before["schedules"]);
    assert_whole(explored);
    assert!(count(explored, "waits") > 0, "{explored}");
    assert_eq!(summary["guests"], 2);
    let drained = explored["infeasible"].as_object().expect("reasons");
    let waits = drained.keys().any(|why| why.starts_with("B waits in "));
    assert!(waits, "{explored}");
    let events = place.json_lines("events.jsonl");
    assert!(events.iter().any(|event| event["event"] == "explored"));
    place.assert_nothing_left();
}

#[test]
fn a_planted_bug_is_found_in_an_order_that_shows_again() {
    let place = Place::new();
    let arguments = [
        "--mutant",
        "free-before-remove",
        "--bound",
        "1",
        "--fail-fast",
    ];
    let (code, said) = explore(&place, &arguments);
    assert_eq!(code, Some(10), "{said}");
    let finding = place.json("findings/001/finding.json");
    let title = finding["title"].as_str().expect("a title");
    assert!(title.starts_with("KASAN: slab-use-after-free"), "{title}");
    let mut command = place.knobrig();
    command.arg("repro").arg(place.out());
    command
        .arg("--out")
        .arg(place.out().with_extension("again"));
    let output = command.output().expect("knobrig runs");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(10), "{said}");
    place.assert_nothing_left();
}

#[test]
fn a_program_that_is_none_is_told() {
    let place = Place::new();
    let (code, said) = explore(&place, &["--program", "read myknob0 || sing"]);
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("'read myknob0 || rmmod'"), "{said}");
}
