//! `knobrig run` in real guests: verdicts, what it keeps, and what it leaves after it was hit.

use super::place::{Background, Place, kill, wait_until};
use rustix::process::Signal;
use serde_json::Value;

fn run(place: &Place, arguments: &[&str]) -> (Option<i32>, String, String) {
    let output = place.run(arguments).output().expect("knobrig runs");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (
        output.status.code(),
        text(&output.stdout),
        text(&output.stderr),
    )
}

fn number(value: &Value, pointer: &str) -> u64 {
    value
        .pointer(pointer)
        .and_then(Value::as_u64)
        .unwrap_or_else(|| panic!("{pointer} in {value}"))
}

/// A correct lifetime comes out clean, having truly collided, and the run directory is whole.
fn correct_lifetime_is_clean(lifetime: &str) {
    let place = Place::new();
    let (code, stdout, stderr) = run(
        &place,
        &["--lifetime", lifetime, "--episodes", "80", "--seed", "1"],
    );
    assert_eq!(code, Some(0), "{stdout}{stderr}");
    let first = stdout.lines().next().unwrap_or_default();
    assert!(
        first.starts_with("clean: no finding in 80 episodes"),
        "{first}"
    );
    let summary = place.json("summary.json");
    let teardowns =
        number(&summary, "/gated/teardowns_ok") + number(&summary, "/gated/teardowns_refused");
    let overlapped = number(&summary, "/gated/overlapped");
    assert!(teardowns > 20, "{summary}");
    assert!(
        overlapped * 100 >= teardowns * 95,
        "{overlapped} of {teardowns} overlapped"
    );

    assert_eq!(place.json("manifest.json")["setting"]["lifetime"], lifetime);
    let events = place.json_lines("events.jsonl");
    assert_eq!(events[0]["event"], "run-started");
    let ended = events
        .iter()
        .filter(|event| event["event"] == "episode-ended")
        .count();
    assert_eq!(ended, 80);
    let trace = place.json_lines("device.jsonl");
    assert_eq!(trace[0]["at"], "header");
    assert!(
        trace.iter().any(|record| record["event"] == "held"),
        "the device held requests"
    );
    place.assert_nothing_left();
}

#[test]
fn pinned_is_clean() {
    correct_lifetime_is_clean("pinned");
}

#[test]
fn drained_is_clean() {
    correct_lifetime_is_clean("drained");
}

#[test]
fn free_before_remove_is_found_with_the_drivers_function() {
    let place = Place::new();
    let arguments = [
        "--mutant",
        "free-before-remove",
        "--episodes",
        "50",
        "--fail-fast",
    ];
    let (code, stdout, stderr) = run(&place, &arguments);
    assert_eq!(code, Some(10), "{stdout}{stderr}");
    let finding = place.json("findings/001/finding.json");
    let title = finding["title"].as_str().expect("a title");
    assert!(title.starts_with("KASAN: slab-use-after-free"), "{title}");
    assert!(
        title.contains("mydrv"),
        "names a function of the driver: {title}"
    );
    assert_eq!(finding["reproducer"], "reproducer.json");
    let reproducer = place.json("findings/001/reproducer.json");
    assert_eq!(reproducer["key"], finding["key"], "what replays it is kept");
    let report = std::fs::read_to_string(place.out().join("findings/001/report.txt"));
    assert!(report.expect("report.txt").contains("BUG: KASAN"));
    place.assert_nothing_left();
}

#[test]
fn an_upstream_driver_runs_by_its_target_alone() {
    let place = Place::new();
    let (code, stdout, stderr) = run(&place, &["--target", "virtio_blk", "--episodes", "20"]);
    assert_eq!(code, Some(0), "{stdout}{stderr}");
    let summary = place.json("summary.json");
    assert!(number(&summary, "/gated/overlapped") > 0, "{summary}");
}

#[test]
fn the_summary_is_one_json_object_on_request() {
    let place = Place::new();
    let (code, stdout, _) = run(&place, &["--episodes", "3", "--format", "json", "--quiet"]);
    assert_eq!(code, Some(0));
    let summary: Value = serde_json::from_str(stdout.trim()).expect("one object");
    assert_eq!(number(&summary, "/version"), 1);
    assert_eq!(summary, place.json("summary.json"));
}

#[test]
fn a_killed_device_program_costs_a_guest_and_no_verdict() {
    let place = Place::new();
    let background = Background::start(place.run(&["--lifetime", "drained", "--episodes", "120"]));
    background.await_line("is up");
    let events = place.out().join("events.jsonl");
    let episodes = || {
        let text = std::fs::read_to_string(&events).unwrap_or_default();
        text.matches("episode-ended").count()
    };
    assert!(wait_until(super::place::DEADLINE, || episodes() >= 5));
    let device = place.processes("dk-device");
    assert_eq!(device.len(), 1);
    kill(device[0], Signal::KILL);
    assert_eq!(background.end().code(), Some(0));
    let summary = place.json("summary.json");
    assert_eq!(number(&summary, "/device_deaths"), 1, "{summary}");
    place.assert_nothing_left();
}

#[test]
fn a_killed_qemu_is_the_rigs_failure_and_never_clean() {
    let place = Place::new();
    let background = Background::start(place.run(&["--episodes", "30"]));
    background.await_line("is up");
    let qemu = place.processes("qemu-system");
    assert_eq!(qemu.len(), 1);
    kill(qemu[0], Signal::KILL);
    assert_eq!(background.end().code(), Some(4));
    let summary = place.json("summary.json");
    assert_eq!(number(&summary, "/lost"), 1, "{summary}");
    let why = summary["lost_why"].as_str().unwrap_or_default();
    assert!(why.contains("signal: 9"), "{why}");
    place.assert_nothing_left();
}

#[test]
fn an_interrupt_leaves_nothing_and_a_whole_directory() {
    for moment in ["boots", "is up"] {
        let place = Place::new();
        let background = Background::start(place.run(&["--duration", "10m"]));
        match moment {
            // Plain progress tells of a guest only once it is up.
            "boots" => assert!(wait_until(super::place::DEADLINE, || {
                !place.processes("qemu-system").is_empty()
            })),
            line => {
                background.await_line(line);
                let events = place.out().join("events.jsonl");
                assert!(wait_until(super::place::DEADLINE, || {
                    let events = std::fs::read_to_string(&events).unwrap_or_default();
                    events.contains("\"episode-ended\"")
                }));
            }
        }
        kill(background.pid(), Signal::INT);
        assert_eq!(background.end().code(), Some(130), "{moment}");
        place.assert_nothing_left();
        let summary = place.json("summary.json");
        assert_eq!(summary["interrupted"], true);
        if moment == "is up" {
            assert!(number(&summary, "/episodes_ms") > 0, "{summary}");
        }
        let events = place.json_lines("events.jsonl");
        assert_eq!(events.last().expect("events")["exit"], 130);
    }
}

#[test]
fn an_interrupt_of_set_up_ends_at_once() {
    let place = Place::new();
    // Its cache is empty, so set-up takes minutes.
    let mut command = place.run(&["--duration", "10m"]);
    command.env("KNOBRIG_CACHE", place.path().join("cache"));
    let background = Background::start(command);
    background.await_line("source");
    kill(background.pid(), Signal::INT);
    assert_eq!(background.end().code(), Some(130));
    place.assert_nothing_left();
    assert_eq!(place.json("summary.json")["interrupted"], true);
}

#[test]
fn a_full_disk_is_told_and_leaves_nothing() {
    let place = Place::new();
    std::fs::create_dir_all(place.out()).expect("a directory");
    std::os::unix::fs::symlink("/dev/full", place.out().join("events.jsonl")).expect("a link");
    let (code, _, stderr) = run(&place, &["--episodes", "3"]);
    assert_eq!(code, Some(3), "{stderr}");
    assert!(
        stderr.contains("events.jsonl") && stderr.contains("space"),
        "{stderr}"
    );
    place.assert_nothing_left();
}
