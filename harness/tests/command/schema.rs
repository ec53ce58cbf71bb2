//! What knobrig writes, against the schemas of `harness/schemas`, by a validator of JSON Schema.

use std::path::{Path, PathBuf};

use serde_json::Value;

/// The schema of a file of the run directory, by the file's name; `None` where it has none.
pub(crate) fn of(file: &str) -> Option<&'static str> {
    match Path::new(file).file_name()?.to_str()? {
        "finding.json" => Some("finding"),
        "reproducer.json" => Some("reproducer"),
        "summary.json" => Some("summary"),
        "manifest.json" => Some("manifest"),
        "events.jsonl" => Some("event"),
        _ => None,
    }
}

/// What is wrong with a value by a schema's rules.
pub(crate) fn errors(schema: &str, value: &Value) -> Vec<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("schemas/{schema}.schema.json"));
    let text = std::fs::read_to_string(&path).expect("a schema");
    let schema: Value = serde_json::from_str(&text).expect("JSON");
    let validator = jsonschema::validator_for(&schema).expect("a schema");
    let errors = validator.iter_errors(value);
    errors
        .map(|error| format!("{error} at {}", error.instance_path()))
        .collect()
}

/// Panics where a value is not as its schema says.
pub(crate) fn check(schema: &str, value: &Value) {
    let errors = errors(schema, value);
    assert!(errors.is_empty(), "{schema}: {errors:#?}\n{value:#}");
}

/// The kernel's words on each mutant that it reported.
pub(crate) fn consoles() -> Vec<PathBuf> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("klog/tests/mutants");
    let files = std::fs::read_dir(dir).expect("the logs of the mutants");
    let mut files: Vec<_> = files.map(|it| it.expect("an entry").path()).collect();
    files.sort();
    files
}

#[test]
fn every_line_of_a_json_report_is_as_its_schema_says() {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_knobrig"));
    let output = command
        .args(["report", "--format", "json"])
        .args(consoles())
        .output();
    let output = output.expect("knobrig runs");
    assert_eq!(output.status.code(), Some(10));
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    assert!(text.lines().count() >= 13);
    for line in text.lines() {
        check("report", &serde_json::from_str(line).expect("JSON"));
    }
}

/// A schema that lets everything pass says nothing.
#[test]
fn a_schema_refuses_what_is_not_so() {
    let quiet: Value = serde_json::json!({ "version": 1, "file": "-", "reports": [] });
    check("report", &quiet);
    for (key, wrong) in [
        ("version", 2.into()),
        ("file", Value::Null),
        ("reports", "none".into()),
        ("reports", serde_json::json!([{ "title": "" }])),
    ] {
        let mut value = quiet.clone();
        value[key] = wrong;
        assert!(!errors("report", &value).is_empty(), "{value}");
    }
    let event = serde_json::json!({ "at_ms": 1, "event": "run-ended", "exit": 10 });
    check("event", &event);
    for wrong in [
        serde_json::json!({ "event": "run-ended", "exit": 10 }),
        serde_json::json!({ "at_ms": 1, "event": "run-ended" }),
        serde_json::json!({ "at_ms": 1, "event": "no-such-event" }),
    ] {
        assert!(!errors("event", &wrong).is_empty(), "{wrong}");
    }
}
