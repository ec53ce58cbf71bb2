//! GitHub's workflow commands: a crash is an error annotation.

use std::fmt::Write as _;

use super::suite::Suite;

pub(super) fn render(suite: &Suite) -> String {
    let mut text = String::new();
    for case in &suite.cases {
        for problem in &case.problems {
            let _ = writeln!(
                text,
                "::error file={},title={}::{}",
                property(&case.file),
                property(&problem.title),
                data(problem.text.trim_end())
            );
        }
    }
    text
}

fn data(text: &str) -> String {
    text.replace('%', "%25")
        .replace('\r', "%0D")
        .replace('\n', "%0A")
}

fn property(text: &str) -> String {
    data(text).replace(':', "%3A").replace(',', "%2C")
}

#[cfg(test)]
mod tests {
    #[test]
    fn an_annotation_is_one_line() {
        let text = super::render(&super::super::sample_suite());
        assert_eq!(text.lines().count(), 1);
        assert!(
            text.starts_with(
                "::error file=con|sole.log,title=KASAN%3A slab-use-after-free Read in dk0_show::"
            ),
            "{text}"
        );
    }
}
