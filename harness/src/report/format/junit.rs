//! JUnit: a log is a test case, its first crash the failure.

use quick_junit::{NonSuccessKind, Report, TestCase, TestCaseStatus, TestSuite};

use crate::error::Error;
use crate::logs::LogReports;

pub(super) fn render(logs: &[LogReports]) -> Result<String, Error> {
    let mut suite = TestSuite::new("kernel logs");
    for log in logs {
        let status = match log.reports.first() {
            None => TestCaseStatus::success(),
            Some(first) => {
                let mut status = TestCaseStatus::non_success(NonSuccessKind::Failure);
                status.set_message(first.title.as_str());
                status.set_type(first.kind.as_str());
                status.set_description(first.text.as_str());
                status
            }
        };
        let mut case = TestCase::new(log.file.as_str(), status);
        case.set_classname("knobrig.report");
        let others: Vec<_> = log
            .reports
            .iter()
            .skip(1)
            .map(|it| it.title.as_str())
            .collect();
        if !others.is_empty() {
            case.set_system_out(others.join("\n"));
        }
        suite.add_test_case(case);
    }
    let mut report = Report::new("knobrig report");
    report.add_test_suite(suite);
    report
        .to_string()
        .map_err(|error| Error::Rig(format!("the JUnit report can't be written: {error}")))
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_crash_is_a_failure() {
        let text = super::render(&super::super::sample()).expect("plain data");
        assert!(
            text.contains(r#"tests="2""#) && text.contains(r#"failures="1""#),
            "{text}"
        );
        assert!(text.contains(r#"message="KASAN: slab-use-after-free Read in dk0_show""#));
    }
}
