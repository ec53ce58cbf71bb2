//! JUnit: a case is a test case, what went wrong in it first the failure.

use std::time::Duration;

use quick_junit::{NonSuccessKind, Report, TestCase, TestCaseStatus, TestSuite};

use super::suite::Suite;
use crate::error::Error;

pub(super) fn render(suite: &Suite) -> Result<String, Error> {
    let mut cases = TestSuite::new(suite.name.as_str());
    for case in &suite.cases {
        let status = match case.problems.first() {
            None => TestCaseStatus::success(),
            Some(first) => {
                let mut status = TestCaseStatus::non_success(NonSuccessKind::Failure);
                status.set_message(first.title.as_str());
                status.set_type(first.class.as_str());
                status.set_description(first.text.as_str());
                status
            }
        };
        let mut test = TestCase::new(case.name.as_str(), status);
        test.set_classname("knobrig");
        if let Some(ms) = case.wall_ms {
            test.set_time(Duration::from_millis(ms));
        }
        let others = case.problems.iter().skip(1);
        let others: Vec<_> = others.map(|it| it.title.as_str()).collect();
        if !others.is_empty() {
            test.set_system_out(others.join("\n"));
        }
        cases.add_test_case(test);
    }
    let mut report = Report::new("knobrig");
    report.add_test_suite(cases);
    report
        .to_string()
        .map_err(|error| Error::Rig(format!("the JUnit report can't be written: {error}")))
}

#[cfg(test)]
mod tests {
    use quick_junit::{Report, TestCaseStatus};

    #[test]
    fn a_crash_is_a_failure_to_a_reader_of_junit() {
        let text = super::render(&super::super::sample_suite()).expect("plain data");
        let report = Report::deserialize_from_str(&text).expect("JUnit");
        assert_eq!((report.tests, report.failures), (2, 1));
        let cases = &report.test_suites[0].test_cases;
        assert!(matches!(cases[0].status, TestCaseStatus::Success { .. }));
        let TestCaseStatus::NonSuccess { message, .. } = &cases[1].status else {
            panic!("a failure, not {:?}", cases[1].status);
        };
        let message = message.as_ref().map(|it| it.as_str());
        assert_eq!(message, Some("KASAN: slab-use-after-free Read in dk0_show"));
    }
}
