//! For issues and step summaries.

use std::fmt::Write as _;

use super::suite::Suite;

pub(super) fn render(suite: &Suite) -> String {
    let mut text = format!("**{}**\n", escape(&suite.verdict));
    for case in &suite.cases {
        for problem in &case.problems {
            let _ = write!(
                text,
                "\n### {}\n\n{}\n\n<details><summary>in full</summary>\n\n{}\n</details>\n",
                escape(&problem.title),
                code(&case.file),
                fenced(&problem.text)
            );
        }
    }
    text
}

/// What would be markup or a mention stands as itself.
fn escape(text: &str) -> String {
    let mut escaped = String::new();
    for c in text.chars() {
        if "\\`*_[]<>#|@".contains(c) {
            escaped.push('\\');
        }
        escaped.push(c);
    }
    escaped
}

fn code(text: &str) -> String {
    format!("`{}`", text.replace('`', "'"))
}

/// A fence longer than any in the text.
fn fenced(text: &str) -> String {
    let longest = text
        .split(|c| c != '`')
        .map(str::len)
        .max()
        .unwrap_or(0)
        .max(2);
    let fence = "`".repeat(longest + 1);
    format!("{fence}\n{}\n{fence}", text.trim_end())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_can_t_break_out_of_its_fence() {
        assert_eq!(fenced("a ``` b"), "````\na ``` b\n````");
        assert_eq!(fenced("a"), "```\na\n```");
    }

    #[test]
    fn titles_are_text() {
        let text = render(&super::super::sample_suite());
        assert!(text.starts_with("**1 crash in 1 of 2 logs**\n"));
        assert!(
            text.contains("### KASAN: slab-use-after-free Read in dk0\\_show\n"),
            "{text}"
        );
    }
}
