//! For programs: one object per log, on one line.

use std::fmt::Write as _;

use serde_json::Value;

use crate::error::Error;
use crate::logs::LogReports;

/// Version of the objects.
const VERSION: u32 = 1;

pub(super) fn render(logs: &[LogReports]) -> Result<String, Error> {
    let mut text = String::new();
    for log in logs {
        let file = Value::from(log.file.as_str());
        let _ = write!(text, "{{\"version\":{VERSION},\"file\":{file},\"reports\":");
        all(&mut text, &log.reports)?;
        if !log.suppressed.is_empty() {
            text.push_str(",\"suppressed\":");
            all(&mut text, &log.suppressed)?;
        }
        text.push_str("}\n");
    }
    Ok(text)
}

/// One after the other: as trees of values all at once they would take many times their text.
fn all(text: &mut String, reports: &[knobrig_klog::Report]) -> Result<(), Error> {
    for (number, it) in reports.iter().enumerate() {
        let value = report(it)
            .map_err(|error| Error::Rig(format!("a report can't be written: {error}")))?;
        let before = if number == 0 { '[' } else { ',' };
        let _ = write!(text, "{before}{value}");
    }
    text.push_str(if reports.is_empty() { "[]" } else { "]" });
    Ok(())
}

/// A report with the names that the format promises.
fn report(report: &knobrig_klog::Report) -> Result<Value, serde_json::Error> {
    let mut value = serde_json::to_value(report)?;
    if let Some(fields) = value.as_object_mut() {
        let kind = fields.remove("kind").unwrap_or_default();
        fields.insert("type".into(), kind);
        let why = fields.remove("corrupted").unwrap_or_default();
        fields.insert("corrupted".into(), Value::Bool(!why.is_null()));
        fields.insert("corrupted_why".into(), why);
    }
    Ok(value)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn one_object_per_log_on_one_line() {
        let text = render(&super::super::sample()).expect("plain data");
        let lines: Vec<Value> = text
            .lines()
            .map(|line| serde_json::from_str(line).expect("an object"))
            .collect();
        assert_eq!(lines.len(), 2);
        assert!(text.starts_with("{\"version\":1,\"file\":\"quiet.log\",\"reports\":[]}\n{"));
        assert_eq!(
            lines[0],
            json!({"version": 1, "file": "quiet.log", "reports": []})
        );
        let report = &lines[1]["reports"][0];
        assert_eq!(
            report["title"],
            "KASAN: slab-use-after-free Read in dk0_show"
        );
        assert_eq!(report["type"], "KASAN-USE-AFTER-FREE-READ");
        assert_eq!(report["class"], "kasan");
        assert_eq!(report["corrupted"], false);
        assert_eq!(report["panicked"], false);
    }
}
