//! SARIF 2.1.0 (OASIS): a crash is a result, its class the rule.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::suite::{Case, Problem, Suite};
use crate::error::Error;

pub(super) fn render(suite: &Suite) -> Result<String, Error> {
    let all = || suite.cases.iter().flat_map(|case| &case.problems);
    let rules: BTreeSet<_> = all().map(|it| it.class.as_str()).collect();
    let rules: Vec<_> = rules.into_iter().map(|id| json!({ "id": id })).collect();
    let results: Vec<Value> = (suite.cases.iter())
        .flat_map(|case| case.problems.iter().map(move |problem| (case, problem)))
        .map(|(case, problem)| {
            json!({
                "ruleId": problem.class,
                "level": "error",
                "message": { "text": problem.title },
                "partialFingerprints": { "key/v1": problem.key },
                "locations": locations(case, problem),
            })
        })
        .collect();
    let sarif = json!({
        "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
        "version": "2.1.0",
        "runs": [{
            "tool": { "driver": {
                "name": "knobrig",
                "version": env!("CARGO_PKG_VERSION"),
                "rules": rules,
            }},
            "results": results,
        }],
    });
    serde_json::to_string_pretty(&sarif)
        .map(|text| text + "\n")
        .map_err(|error| Error::Rig(format!("the SARIF report can't be written: {error}")))
}

/// The source's line first, where it is known: that is what a reviewer is shown.
fn locations(case: &Case, problem: &Problem) -> Value {
    let mut region = json!({ "snippet": { "text": problem.text } });
    match &problem.range {
        Some(range) => {
            region["byteOffset"] = range.start.into();
            region["byteLength"] = range.len().into();
        }
        None => region["startLine"] = 1.into(),
    }
    let log = json!({ "physicalLocation": {
        "artifactLocation": { "uri": uri(&case.file) },
        "region": region,
    }});
    let source = (problem.place.as_ref())
        .and_then(|place| place.rsplit_once(':'))
        .and_then(|(file, line)| Some((file, line.parse::<u32>().ok().filter(|it| *it > 0)?)))
        .map(|(file, line)| {
            json!({ "physicalLocation": {
                "artifactLocation": { "uri": uri(file) },
                "region": { "startLine": line },
            }})
        });
    Value::Array(source.into_iter().chain([log]).collect())
}

/// A path as a relative reference: what a URI has another meaning for is escaped.
fn uri(file: &str) -> String {
    let mut uri = String::new();
    for byte in file.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' => {
                uri.push(char::from(byte));
            }
            _ => uri.push_str(&format!("%{byte:02X}")),
        }
    }
    uri
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crash_is_a_result_of_its_class() {
        let text = render(&super::super::sample_suite()).expect("plain data");
        let value: Value = serde_json::from_str(&text).expect("JSON");
        let run = &value["runs"][0];
        assert_eq!(run["tool"]["driver"]["rules"], json!([{ "id": "kasan" }]));
        let result = &run["results"][0];
        assert_eq!(result["ruleId"], "kasan");
        let location = &result["locations"][0]["physicalLocation"];
        assert_eq!(location["artifactLocation"]["uri"], "con%7Csole.log");
    }
}
