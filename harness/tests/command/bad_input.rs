//! Bad input: one clear line each, and the right exit code. No guest is needed.

use std::process::Output;

use super::place::Place;

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Runs with arguments that can't be right.
fn refused(arguments: &[&str], code: i32, words: &[&str]) {
    let place = Place::new();
    let output = place.run(arguments).output().expect("knobrig runs");
    let text = stderr(&output);
    assert_eq!(output.status.code(), Some(code), "{text}");
    for word in words {
        assert!(text.contains(word), "{word:?} is not in: {text}");
    }
    place.assert_nothing_left();
}

#[test]
fn an_unknown_lifetime_is_told_with_those_there_are() {
    refused(
        &["--lifetime", "nonsense"],
        2,
        &["no lifetime nonsense", "pinned, drained"],
    );
}

#[test]
fn an_unknown_mutant_is_told_with_those_there_are() {
    refused(
        &["--mutant", "nonsense"],
        2,
        &["no mutant nonsense", "free-before-remove"],
    );
}

#[test]
fn an_unknown_target_is_told_with_those_there_are() {
    refused(
        &["--target", "nonsense"],
        2,
        &["no target nonsense", "mydrv", "virtio_blk"],
    );
}

#[test]
fn a_shape_that_the_target_can_not_have_is_told_with_what_it_lacks() {
    for (target, shape, needs) in [
        ("mydrv", "loops", "[loops]"),
        ("null_blk", "gated", "`asks`"),
        ("null_blk", "placed", "no [[up]]"),
        ("pci_override", "stress,late", "[patience]"),
    ] {
        let told = ["can't have such episodes", needs];
        refused(&["--target", target, "--shapes", shape], 2, &told);
    }
}

#[test]
fn a_seed_out_of_range_is_refused() {
    refused(
        &["--seed", "18446744073709551616"],
        2,
        &["--seed", "18446744073709551616"],
    );
    refused(&["--seed=-1"], 2, &["--seed"]);
}

#[test]
fn a_duration_that_is_none_is_refused() {
    refused(
        &["--duration", "soon"],
        2,
        &["\"soon\" is no time span", "90s"],
    );
}

#[test]
fn no_episode_is_no_run() {
    refused(&["--episodes", "0"], 2, &["--episodes"]);
}

#[test]
fn a_kernel_source_that_is_not_there_is_told() {
    refused(&["--kernel-source", "/no/such/tree"], 3, &["/no/such/tree"]);
}

#[test]
fn an_output_directory_that_cannot_be_written_is_told() {
    let place = Place::new();
    let output = place
        .knobrig()
        .args(["run", "--out", "/proc/no/such/place"])
        .output()
        .expect("knobrig runs");
    assert_eq!(output.status.code(), Some(3), "{}", stderr(&output));
    assert!(
        stderr(&output).contains("/proc/no/such/place"),
        "{}",
        stderr(&output)
    );
}

#[test]
fn a_directory_that_holds_a_run_is_not_overwritten() {
    let place = Place::new();
    std::fs::create_dir_all(place.out()).expect("a directory");
    std::fs::write(place.out().join("manifest.json"), "{}").expect("writes");
    let output = place
        .run(&["--episodes", "1"])
        .output()
        .expect("knobrig runs");
    assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
    assert!(
        stderr(&output).contains("holds a run already"),
        "{}",
        stderr(&output)
    );
}

#[test]
fn a_machine_without_qemu_and_apt_is_told_what_to_install() {
    let place = Place::new();
    let empty = place.path().join("empty");
    std::fs::create_dir(&empty).expect("a directory");
    let output = place
        .run(&["--episodes", "1"])
        .env("PATH", &empty)
        .output()
        .expect("knobrig runs");
    assert_eq!(output.status.code(), Some(3), "{}", stderr(&output));
    assert!(
        stderr(&output).contains("qemu-system-x86"),
        "{}",
        stderr(&output)
    );
    place.assert_nothing_left();
}

#[test]
fn help_and_version_are_no_errors() {
    let place = Place::new();
    for flag in ["--help", "--version"] {
        let output = place.knobrig().arg(flag).output().expect("knobrig runs");
        assert_eq!(output.status.code(), Some(0));
        assert!(!output.stdout.is_empty());
    }
}
