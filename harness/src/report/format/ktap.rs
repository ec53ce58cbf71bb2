//! KTAP (Documentation/dev-tools/ktap.rst): a case is a test.

use std::fmt::Write as _;

use super::suite::Suite;

pub(super) fn render(suite: &Suite) -> String {
    let mut text = format!("KTAP version 1\n1..{}\n", suite.cases.len());
    for (number, case) in (1..).zip(&suite.cases) {
        // `#` begins a directive.
        let name = case.name.replace(['#', '\n', '\r'], "_");
        for problem in &case.problems {
            let _ = writeln!(text, "# {}", problem.title.replace(['\n', '\r'], " "));
        }
        let verdict = if case.problems.is_empty() {
            "ok"
        } else {
            "not ok"
        };
        let _ = writeln!(text, "{verdict} {number} {name}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crash_is_not_ok() {
        insta::assert_snapshot!(super::render(&super::super::sample_suite()), @r"
        KTAP version 1
        1..2
        ok 1 quiet.log
        # KASAN: slab-use-after-free Read in dk0_show
        not ok 2 con|sole.log
        ");
    }

    /// The rules of ktap.rst for a flat list: version, plan, then diagnostics and results, numbered
    /// from 1, as many as planned. Gives the results.
    fn check(text: &str) -> Result<Vec<bool>, String> {
        let mut lines = text.lines();
        if lines.next() != Some("KTAP version 1") {
            return Err("no version line".into());
        }
        let plan = lines.next().and_then(|line| line.strip_prefix("1.."));
        let plan: usize = plan.and_then(|n| n.parse().ok()).ok_or("no plan")?;
        let mut results = Vec::new();
        for line in lines {
            if line.starts_with("# ") {
                continue;
            }
            let (ok, rest) = match line.strip_prefix("not ") {
                Some(rest) => (false, rest),
                None => (true, line),
            };
            let rest = rest
                .strip_prefix("ok ")
                .ok_or(format!("no result: {line:?}"))?;
            let (number, name) = rest.split_once(' ').ok_or(format!("no name: {line:?}"))?;
            if number.parse() != Ok(results.len() + 1) {
                return Err(format!("number {number} after {}", results.len()));
            }
            if name.is_empty() || name.contains('#') {
                return Err(format!("a bad name: {name:?}"));
            }
            results.push(ok);
        }
        match results.len() == plan {
            true => Ok(results),
            false => Err(format!("{} results of {plan}", results.len())),
        }
    }

    #[test]
    fn a_strict_reader_of_ktap_takes_it_whatever_the_names() {
        let mut suite = super::super::sample_suite();
        assert_eq!(check(&render(&suite)), Ok(vec![true, false]));
        suite.cases[0].name = "a # SKIP\nok 7 x".into();
        suite.cases[1].problems[0].title = "a\nnot ok 9 b".into();
        assert_eq!(check(&render(&suite)), Ok(vec![true, false]));
        suite.cases.clear();
        assert_eq!(check(&render(&suite)), Ok(vec![]));
        for wrong in [
            "",
            "KTAP version 1\n1..1\n",
            "KTAP version 1\n1..1\nok 2 a\n",
            "TAP version 14\n",
        ] {
            assert!(check(wrong).is_err(), "{wrong:?}");
        }
    }
}
