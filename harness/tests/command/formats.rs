//! Each format of `knobrig report`, of the kernel's words on every mutant, by somebody who reads that
//! format for a living.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;

use super::schema::consoles;

/// What the logs come to in a format.
fn rendered(format: &str) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_knobrig"));
    let output = (command
        .args(["report", "--format", format])
        .args(consoles()))
    .output();
    let output = output.expect("knobrig runs");
    assert_eq!(output.status.code(), Some(10));
    String::from_utf8(output.stdout).expect("UTF-8")
}

/// Titles of each log's crashes, by the JSON.
fn titles() -> BTreeMap<String, Vec<String>> {
    let objects = rendered("json");
    let objects = objects
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
    objects
        .map(|log| {
            let reports = log["reports"].as_array().expect("reports").iter();
            let titles = reports.map(|it| it["title"].as_str().expect("a title").to_owned());
            (
                log["file"].as_str().expect("a file").to_owned(),
                titles.collect(),
            )
        })
        .collect()
}

/// What the types of the SARIF schema hold is all that was written: nothing is foreign to them,
/// nothing of another shape.
#[test]
fn sarif_is_what_its_schema_s_types_hold() {
    let written: Value = serde_json::from_str(&rendered("sarif")).expect("JSON");
    let read: serde_sarif::sarif::Sarif =
        serde_json::from_value(written.clone()).expect("SARIF 2.1.0");
    assert_eq!(serde_json::to_value(&read).expect("plain data"), written);
    assert_eq!(written["version"], "2.1.0");
    let results = read.runs[0].results.as_ref().expect("results");
    let titles: usize = titles().values().map(Vec::len).sum();
    assert_eq!(results.len(), titles);
    let rules = read.runs[0].tool.driver.rules.as_ref().expect("rules");
    for result in results {
        let rule = result.rule_id.as_ref().expect("a rule");
        assert!(rules.iter().any(|it| it.id == *rule), "{rule}");
    }
    // They do refuse what is not so.
    for (pointer, wrong) in [
        ("/runs/0/results/0/message", Value::from("a text")),
        ("/runs/0/results/0/level", "fatal".into()),
        ("/runs/0/tool", Value::Null),
    ] {
        let mut other = written.clone();
        *other.pointer_mut(pointer).expect(pointer) = wrong;
        let read = serde_json::from_value::<serde_sarif::sarif::Sarif>(other);
        assert!(read.is_err(), "{pointer}");
    }
}

#[test]
fn junit_is_what_a_reader_of_junit_takes() {
    let report = quick_junit::Report::deserialize_from_str(&rendered("junit")).expect("JUnit");
    let titles = titles();
    let hit = titles.values().filter(|it| !it.is_empty()).count();
    assert_eq!((report.tests, report.failures), (titles.len(), hit));
    for case in &report.test_suites[0].test_cases {
        let quick_junit::TestCaseStatus::NonSuccess { message, .. } = &case.status else {
            panic!("{}: no failure", case.name.as_str());
        };
        let first = titles[case.name.as_str()].first().map(String::as_str);
        assert_eq!(message.as_ref().map(|it| it.as_str()), first);
    }
}

/// kunit.py of the kernel's source, where a kernel was built from one here.
fn kunit() -> Option<PathBuf> {
    let cache = knobrig_images::Cache::open(None).ok()?;
    let sources = std::fs::read_dir(cache.dir().join("source")).ok()?;
    let tools = sources.filter_map(|source| {
        let tool = source
            .ok()?
            .path()
            .join("tree/tools/testing/kunit/kunit.py");
        tool.is_file().then_some(tool)
    });
    // The newest.
    tools.max()
}

/// The kernel's own reader of KTAP, that of its unit tests.
#[test]
fn ktap_is_what_the_kernel_s_kunit_tool_takes() {
    let Some(kunit) = kunit() else {
        println!("skipped: no kernel source in the cache");
        return;
    };
    let dir = tempfile::tempdir().expect("a temp dir");
    let ktap = dir.path().join("report.ktap");
    std::fs::write(&ktap, rendered("ktap")).expect("writes");
    let json = dir.path().join("report.json");
    let output = Command::new("python3")
        // The source is the cache's: nothing is left in it.
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .current_dir(dir.path())
        .arg(&kunit)
        .arg("parse")
        .arg(format!("--json={}", json.display()))
        .arg(&ktap)
        .output();
    let output = match output {
        Ok(output) => output,
        Err(why) => {
            println!("skipped: no python3: {why}");
            return;
        }
    };
    let said = String::from_utf8_lossy(&output.stdout).into_owned()
        + &String::from_utf8_lossy(&output.stderr);
    let text = std::fs::read_to_string(&json).unwrap_or_else(|why| panic!("{why}: {said}"));
    let read: Value = serde_json::from_str(&text).expect("JSON");
    let cases = read["test_cases"].as_array().expect("cases");
    let titles = titles();
    assert_eq!(cases.len(), titles.len(), "{read:#}\n{said}");
    for case in cases {
        let name = case["name"].as_str().expect("a name");
        let status = if titles[name].is_empty() {
            "PASS"
        } else {
            "FAIL"
        };
        assert_eq!(case["status"], status, "{case}");
    }
    assert_eq!(read["misc"]["errors"], 0, "{said}");
}

/// A workflow command by the grammar of GitHub's runner: `::NAME KEY=VALUE,KEY=VALUE::DATA`, with
/// `%`, line ends and, in values, `:` and `,` escaped.
fn workflow_command(line: &str) -> Option<(&str, BTreeMap<&str, String>, String)> {
    let plain = |text: &str, escapes: &[(&str, &str)]| {
        let mut out = String::new();
        let mut rest = text;
        while let Some(at) = rest.find('%') {
            out.push_str(&rest[..at]);
            let (code, after) = rest[at..].split_at_checked(3)?;
            out.push_str(escapes.iter().find(|(it, _)| *it == code)?.1);
            rest = after;
        }
        Some(out + rest)
    };
    const DATA: [(&str, &str); 3] = [("%25", "%"), ("%0D", "\r"), ("%0A", "\n")];
    let values = [&DATA[..], &[("%3A", ":"), ("%2C", ",")]].concat();
    let (head, data) = line.strip_prefix("::")?.split_once("::")?;
    let (name, properties) = head.split_once(' ')?;
    let mut read = BTreeMap::new();
    for property in properties.split(',') {
        let (key, value) = property.split_once('=')?;
        read.insert(key, plain(value, &values)?);
    }
    Some((name, read, plain(data, &DATA)?))
}

#[test]
fn github_s_annotations_are_commands_of_its_runner() {
    let text = rendered("github");
    let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for line in text.lines() {
        let (name, properties, data) =
            workflow_command(line).unwrap_or_else(|| panic!("no command: {line}"));
        assert_eq!(name, "error");
        let keys: Vec<_> = properties.keys().copied().collect();
        assert_eq!(keys, ["file", "title"]);
        assert!(data.lines().count() > 3, "{data}");
        let titles = found.entry(properties["file"].clone()).or_default();
        titles.push(properties["title"].clone());
    }
    assert_eq!(found, titles());
    for wrong in [
        ":error::x",
        "::error file=a",
        "::error file::x",
        "::error file=a::100%",
    ] {
        assert!(workflow_command(wrong).is_none(), "{wrong}");
    }
}
