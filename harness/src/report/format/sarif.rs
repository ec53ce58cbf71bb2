//! SARIF 2.1.0 (OASIS): a crash is a result, its class the rule.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::error::Error;
use crate::judge::finding::kebab;
use crate::logs::LogReports;

pub(super) fn render(logs: &[LogReports]) -> Result<String, Error> {
    let class = |report: &knobrig_klog::Report| kebab(&report.class);
    let all = || logs.iter().flat_map(|log| &log.reports);
    let rules: BTreeSet<_> = all().map(class).collect();
    let rules: Vec<_> = rules.into_iter().map(|id| json!({ "id": id })).collect();
    let results: Vec<Value> = (logs.iter())
        .flat_map(|log| log.reports.iter().map(move |report| (log, report)))
        .map(|(log, report)| {
            json!({
                "ruleId": class(report),
                "level": "error",
                "message": { "text": report.title },
                "partialFingerprints": { "key/v1": report.key },
                "locations": [{ "physicalLocation": {
                    "artifactLocation": { "uri": uri(&log.file) },
                    "region": {
                        "byteOffset": report.range.start,
                        "byteLength": report.range.len(),
                        "snippet": { "text": report.text },
                    },
                }}],
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
        let text = render(&super::super::sample()).expect("plain data");
        let value: Value = serde_json::from_str(&text).expect("JSON");
        let run = &value["runs"][0];
        assert_eq!(run["tool"]["driver"]["rules"], json!([{ "id": "kasan" }]));
        let result = &run["results"][0];
        assert_eq!(result["ruleId"], "kasan");
        let location = &result["locations"][0]["physicalLocation"];
        assert_eq!(location["artifactLocation"]["uri"], "con%7Csole.log");
    }
}
