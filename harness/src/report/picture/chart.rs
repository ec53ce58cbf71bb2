//! A chart as SVG: a row for each thing measured, in it a mark for each side with its interval, on
//! a logarithmic axis of milliseconds.

use std::fmt::Write as _;

use super::{NAMES, PAPER, WIDTH, escaped, time};

const TOP: f64 = 52.0;
/// Of a mark; a row has one line for each side.
const LINE: f64 = 12.0;
const GAP: f64 = 10.0;
const AXIS: f64 = 30.0;

/// Sides differ by shape as well as by colour.
const STYLE: &str = "\
.s0{fill:#1a73e8;stroke:#1a73e8}.s1{fill:#b06000;stroke:#b06000}.s2{fill:#5b6472;stroke:#5b6472}\
line{stroke-width:2}.lane{stroke-width:1}\
@media(prefers-color-scheme:dark){\
.s0{fill:#8ab4f8;stroke:#8ab4f8}.s1{fill:#fdb462;stroke:#fdb462}.s2{fill:#9aa3b0;stroke:#9aa3b0}}";

/// What one side came to.
#[derive(Clone, Debug)]
pub struct Mark {
    /// In milliseconds.
    pub at: f64,
    /// The interval's lower end.
    pub low: f64,
    /// The interval's upper end.
    pub high: f64,
    /// The true value lies at this or beyond it.
    pub beyond: bool,
    /// In words.
    pub says: String,
}

/// A thing measured.
#[derive(Clone, Debug)]
pub struct Row {
    /// Its name.
    pub name: String,
    /// By side.
    pub marks: Vec<Mark>,
}

/// The picture, a document of its own.
pub fn svg(title: &str, sides: &[&str], rows: &[Row]) -> String {
    let marks = || rows.iter().flat_map(|row| &row.marks);
    let least = marks()
        .map(|mark| mark.low.max(1.0))
        .fold(f64::MAX, f64::min);
    let most = marks().map(|mark| mark.high.max(1.0)).fold(1.0, f64::max);
    // Whole decades.
    let from = least.min(most).log10().floor();
    let to = most.log10().ceil().max(from + 1.0);
    let room = WIDTH - NAMES - 30.0;
    let x = |ms: f64| NAMES + (ms.max(1.0).log10() - from) / (to - from) * room;
    let row_height = LINE * sides.len() as f64 + GAP;
    let bottom = TOP + row_height * rows.len() as f64;
    let mut svg = String::new();
    // Writing to a String can't fail.
    let _ = writeln!(
        svg,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {0}\" role=\"img\" \
         aria-label=\"{1}\"><title>{1}</title><style>{PAPER}{STYLE}</style>\
         <text class=\"t\" x=\"6\" y=\"18\">{1}</text>",
        bottom + AXIS,
        escaped(title)
    );
    for (side, name) in sides.iter().enumerate() {
        let at = NAMES + 120.0 * side as f64;
        let _ = writeln!(
            svg,
            "{}<text class=\"t\" x=\"{}\" y=\"40\">{}</text>",
            shape(side, at + 6.0, 36.0),
            at + 16.0,
            escaped(name)
        );
    }
    for decade in from as i32..=to as i32 {
        let ms = 10f64.powi(decade);
        let at = x(ms);
        let _ = writeln!(
            svg,
            "<line class=\"lane\" x1=\"{at:.1}\" x2=\"{at:.1}\" y1=\"{TOP}\" y2=\"{bottom}\"/>\
             <text class=\"t m\" text-anchor=\"middle\" x=\"{at:.1}\" y=\"{}\">{}</text>",
            bottom + 18.0,
            time((ms * 1e6) as u64)
        );
    }
    for (number, row) in rows.iter().enumerate() {
        let y = TOP + row_height * number as f64;
        let _ = writeln!(
            svg,
            "<text class=\"t\" x=\"6\" y=\"{:.1}\">{}</text>",
            y + row_height / 2.0,
            escaped(&row.name)
        );
        for (side, mark) in row.marks.iter().enumerate() {
            let middle = y + GAP / 2.0 + LINE * (side as f64 + 0.5);
            let says = format!(
                "{}, {}: {}",
                row.name,
                sides.get(side).unwrap_or(&""),
                mark.says
            );
            let beyond = match mark.beyond {
                true => format!(
                    "<text class=\"t m\" x=\"{:.1}\" y=\"{:.1}\">or more</text>",
                    (x(mark.at) + 9.0).min(WIDTH - 46.0),
                    middle + 4.0
                ),
                false => String::new(),
            };
            let _ = writeln!(
                svg,
                "<g role=\"img\" aria-label=\"{0}\"><title>{0}</title>\
                 <line class=\"s{side}\" x1=\"{1:.1}\" x2=\"{2:.1}\" y1=\"{middle:.1}\" y2=\"{middle:.1}\"/>\
                 {3}{beyond}</g>",
                escaped(&says),
                x(mark.low),
                x(mark.high),
                shape(side, x(mark.at), middle)
            );
        }
    }
    svg.push_str("</svg>\n");
    svg
}

/// The mark of a side: a disc, a square, a diamond.
fn shape(side: usize, x: f64, y: f64) -> String {
    match side {
        0 => format!("<circle class=\"s0\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"4\"/>"),
        1 => format!(
            "<rect class=\"s1\" x=\"{:.1}\" y=\"{:.1}\" width=\"7\" height=\"7\"/>",
            x - 3.5,
            y - 3.5
        ),
        _ => format!(
            "<path class=\"s2\" d=\"M{:.1} {y:.1}L{x:.1} {:.1}L{:.1} {y:.1}L{x:.1} {:.1}Z\"/>",
            x - 4.5,
            y - 4.5,
            x + 4.5,
            y + 4.5
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark(at: f64, beyond: bool) -> Mark {
        Mark {
            at,
            low: at / 2.0,
            high: at * 2.0,
            beyond,
            says: "3 of <3>".into(),
        }
    }

    #[test]
    fn later_is_further_right_and_all_is_within_the_picture() {
        let rows = [Row {
            name: "a & b".into(),
            marks: vec![mark(20.0, false), mark(400.0, false), mark(60_000.0, true)],
        }];
        let svg = svg("<title>", &["rig", "stress", "shell"], &rows);
        assert!(svg.contains("a &amp; b, rig: 3 of &lt;3&gt;") && !svg.contains("<3>"));
        assert_eq!(svg.matches("or more").count(), 1);
        let lines = svg.split("<line class=\"s").skip(1);
        let ends: Vec<(f64, f64)> = lines
            .map(|part| {
                let number = |name: &str| -> f64 {
                    let (_, rest) = part.split_once(name).expect("it has one");
                    let (number, _) = rest.split_once('"').expect("it ends");
                    number.parse().expect("a number")
                };
                (number("x1=\""), number("x2=\""))
            })
            .collect();
        assert_eq!(ends.len(), 3);
        assert!(ends.windows(2).all(|two| two[0].1 < two[1].0), "{ends:?}");
        assert!(ends.iter().all(|(from, to)| NAMES <= *from && *to <= WIDTH));
    }

    #[test]
    fn nothing_measured_is_a_picture_all_the_same() {
        assert!(svg("t", &["rig"], &[]).ends_with("</svg>\n"));
    }
}
