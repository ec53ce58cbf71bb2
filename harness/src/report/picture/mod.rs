//! Findings as pictures: a timeline as SVG, a run as one HTML page. Self-contained, no network, no
//! script.

pub mod chart;
pub mod html;
pub mod links;
mod scale;
mod stacks;
pub mod svg;

/// Of a picture; it is scaled to where it stands.
const WIDTH: f64 = 1000.0;
/// Of the names at its left.
const NAMES: f64 = 150.0;

/// Text and lines of every picture, for light and dark.
const PAPER: &str = "\
.t{font:12px system-ui,sans-serif;fill:#1d2430}.m{fill:#5b6472}.lane{stroke:#d8dde5}\
@media(prefers-color-scheme:dark){.t{fill:#e8eaed}.m{fill:#9aa3b0}.lane{stroke:#3a414c}}";

/// Text within markup.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            // No control character but these may stand in XML.
            '\n' | '\t' => out.push(c),
            c if c.is_control() => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

/// Nanoseconds as a person reads them.
fn time(ns: u64) -> String {
    match ns {
        0..1_000_000 => format!("{} us", ns / 1000),
        1_000_000..1_000_000_000 => format!("{:.1} ms", ns as f64 / 1e6),
        _ => format!("{:.2} s", ns as f64 / 1e9),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_of_the_text_is_markup() {
        assert_eq!(
            escaped("<a b=\"c\">&'\u{1b}"),
            "&lt;a b=&quot;c&quot;&gt;&amp;&#39;\u{fffd}"
        );
    }

    #[test]
    fn times_have_their_unit() {
        assert_eq!(time(999_999), "999 us");
        assert_eq!(time(1_500_000), "1.5 ms");
        assert_eq!(time(2_000_000_000), "2.00 s");
    }
}
