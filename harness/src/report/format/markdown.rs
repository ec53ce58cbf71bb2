//! For issues and step summaries.

use std::fmt::Write as _;

use super::verdict;
use crate::logs::LogReports;

pub(super) fn render(logs: &[LogReports]) -> String {
    let mut text = format!("**{}**\n", verdict(logs));
    for log in logs {
        for report in &log.reports {
            let _ = write!(
                text,
                "\n### {}\n\n{}\n\n<details><summary>the kernel's words</summary>\n\n{}\n</details>\n",
                escape(&report.title),
                code(&log.file),
                fenced(&report.text)
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
        let text = render(&super::super::sample());
        assert!(text.starts_with("**1 crash in 1 of 2 logs**\n"));
        assert!(
            text.contains("### KASAN: slab-use-after-free Read in dk0\\_show\n"),
            "{text}"
        );
    }
}
