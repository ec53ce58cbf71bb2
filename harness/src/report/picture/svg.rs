//! A timeline as SVG: a lane for each thread, the device and the object; gates as bars; the moment
//! of the fault across all of them.

use std::fmt::Write as _;

use super::scale::Scale;
use super::{NAMES, PAPER, WIDTH, escaped, time};
use crate::judge::timeline::{Bar, BarKind, LaneKind, Timeline};

const LANE: f64 = 40.0;
const BAR: f64 = 24.0;
const TOP: f64 = 26.0;
/// Below the lanes: the axis, and a line for each fault.
const AXIS: f64 = 30.0;
const LINE: f64 = 18.0;
/// Of a character of a bar's label, a little more than it takes.
const LETTER: f64 = 6.6;

/// Colours for light and dark, and what does not depend on them.
const STYLE: &str = "\
.s{font-size:11px}.fault{stroke:#c5221f;stroke-width:2}.red{fill:#c5221f;font-weight:600}\
.step{fill:#aecbfa}.teardown{fill:#fbd0a4}.wait{fill:#e8eaed}.gate{fill:#c6a9f2}\
.alive{fill:#b7e1cd}.freed{fill:#f4b6b3}.failed{stroke:#c5221f;stroke-width:1.5}\
g:focus rect{stroke:#1a73e8;stroke-width:2}\
@media(prefers-color-scheme:dark){\
.red{fill:#ff8a80}.fault{stroke:#ff8a80}\
.step{fill:#2f5597}.teardown{fill:#8a5a1f}.wait{fill:#3c4350}.gate{fill:#6b4fa0}\
.alive{fill:#2c6e49}.freed{fill:#8c3a36}.failed{stroke:#ff8a80}}";

/// The picture, a document of its own.
pub fn svg(timeline: &Timeline, title: &str) -> String {
    let scale = Scale::of(timeline);
    let x = |ns: u64| NAMES + scale.place(ns) * (WIDTH - NAMES - 10.0);
    let bottom = TOP + LANE * timeline.lanes.len() as f64;
    let height = bottom + AXIS + LINE * (timeline.faults.len() + 1) as f64;
    let mut svg = String::new();
    // Writing to a String can't fail.
    let _ = writeln!(
        svg,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" \
         role=\"img\" aria-label=\"{0}\"><title>{0}</title><style>{PAPER}{STYLE}</style>",
        escaped(title)
    );
    let _ = writeln!(
        svg,
        "<text class=\"t s m\" x=\"{NAMES}\" y=\"14\">{} in all; not to scale: long waits are \
         drawn short</text>",
        time(timeline.length_ns)
    );
    for (row, lane) in timeline.lanes.iter().enumerate() {
        let y = TOP + LANE * row as f64;
        let middle = y + LANE / 2.0;
        let _ = writeln!(
            svg,
            "<line class=\"lane\" x1=\"0\" x2=\"{WIDTH}\" y1=\"{0}\" y2=\"{0}\"/>\
             <text class=\"t\" x=\"6\" y=\"{1}\">{2}</text>",
            y + LANE,
            middle + 4.0,
            fitted(&lane.name, NAMES - 12.0)
        );
        for bar in &lane.bars {
            let _ = writeln!(svg, "{}", drawn(bar, lane.kind, &x, middle - BAR / 2.0));
        }
    }
    // The last would run out of the picture.
    let ticks = scale.ticks(0.09).into_iter();
    for (ns, place) in ticks.filter(|(_, place)| *place < 0.95) {
        let at = NAMES + place * (WIDTH - NAMES - 10.0);
        let _ = writeln!(
            svg,
            "<text class=\"t s m\" x=\"{at:.1}\" y=\"{:.1}\">{}</text>",
            bottom + 16.0,
            time(ns)
        );
    }
    for (number, fault) in timeline.faults.iter().enumerate() {
        let at = x(fault.at_ns);
        let y = bottom + AXIS + LINE * number as f64 + 8.0;
        // A label that would run out of the picture ends at its line.
        let (anchor, at_text) = match at > WIDTH / 2.0 {
            true => ("end", at - 5.0),
            false => ("start", at + 5.0),
        };
        let _ = writeln!(
            svg,
            "<line class=\"fault\" x1=\"{at:.1}\" x2=\"{at:.1}\" y1=\"{}\" y2=\"{y:.1}\"/>\
             <text class=\"t red\" text-anchor=\"{anchor}\" x=\"{at_text:.1}\" y=\"{y:.1}\">{}</text>",
            TOP - 4.0,
            escaped(&fault.says)
        );
    }
    svg.push_str("</svg>\n");
    svg
}

fn drawn(bar: &Bar, lane: LaneKind, x: &impl Fn(u64) -> f64, y: f64) -> String {
    let (from, to) = (x(bar.from_ns), x(bar.to_ns));
    let width = (to - from).max(2.0);
    let class = match (bar.kind, lane) {
        (BarKind::Step, LaneKind::Teardown) => "teardown",
        (BarKind::Step, _) => "step",
        (BarKind::Wait, _) => "wait",
        (BarKind::Gate, _) => "gate",
        (BarKind::Alive, _) => "alive",
        (BarKind::Freed, _) => "freed",
    };
    let failed = if bar.failed { " failed" } else { "" };
    let result = (bar.result.as_ref()).map_or_else(String::new, |result| format!(": {result}"));
    let lasts = match bar.open {
        true => "did not end".to_owned(),
        false => time(bar.to_ns - bar.from_ns),
    };
    let whole = format!("{}{result} (from {}, {lasts})", bar.says, time(bar.from_ns));
    format!(
        "<g tabindex=\"0\" role=\"img\" aria-label=\"{0}\"><title>{0}</title>\
         <rect class=\"{class}{failed}\" x=\"{from:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" \
         height=\"{BAR}\" rx=\"3\"/>\
         <text class=\"t s\" x=\"{1:.1}\" y=\"{2:.1}\">{3}</text></g>",
        escaped(&whole),
        from + 4.0,
        y + BAR / 2.0 + 4.0,
        fitted(&bar.says, width - 8.0)
    )
}

/// As much of a text as fits; nothing where that says nothing.
fn fitted(text: &str, width: f64) -> String {
    let letters = (width / LETTER).max(0.0) as usize;
    match text.chars().count() {
        count if count <= letters => escaped(text),
        _ if letters < 4 => String::new(),
        _ => {
            let cut: String = text.chars().take(letters - 1).collect();
            escaped(&format!("{cut}…"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::judge::timeline::{Lane, Moment, VERSION};

    fn bar(from_ns: u64, to_ns: u64, kind: BarKind) -> Bar {
        Bar {
            from_ns,
            to_ns,
            kind,
            says: "read \"<knob>\" & more".into(),
            result: Some("-ENODEV".into()),
            failed: true,
            open: false,
        }
    }

    fn timeline() -> Timeline {
        let lane = |name: &str, kind, bars| Lane {
            name: name.into(),
            kind,
            bars,
        };
        Timeline {
            version: VERSION,
            begin_ns: 7,
            length_ns: 1_000_000,
            lanes: vec![
                lane(
                    "holder",
                    LaneKind::Actor,
                    vec![bar(0, 900_000, BarKind::Step)],
                ),
                lane(
                    "rmmod",
                    LaneKind::Teardown,
                    vec![bar(5, 10, BarKind::Wait), bar(10, 999_000, BarKind::Step)],
                ),
                lane(
                    "device",
                    LaneKind::Device,
                    vec![bar(100, 500_000, BarKind::Gate)],
                ),
            ],
            faults: vec![Moment {
                at_ns: 600_000,
                says: "KASAN: <bug>".into(),
            }],
        }
    }

    #[test]
    fn every_bar_is_drawn_within_the_picture_and_said() {
        let svg = svg(&timeline(), "a <title>");
        assert_eq!(svg.matches("<rect").count(), 4);
        assert_eq!(
            svg.matches("<g tabindex=\"0\"").count(),
            svg.matches("</g>").count()
        );
        assert!(svg.contains(
            "aria-label=\"read &quot;&lt;knob&gt;&quot; &amp; more: -ENODEV (from 0 us, 900 us)\""
        ));
        assert!(svg.contains("KASAN: &lt;bug&gt;") && !svg.contains("<bug>"));
        for part in svg.split("<rect ").skip(1) {
            let number = |name: &str| -> f64 {
                let (_, rest) = part.split_once(&format!("{name}=\"")).expect("it has one");
                let (number, _) = rest.split_once('"').expect("it ends");
                number.parse().expect("a number")
            };
            assert!(
                number("x") >= NAMES && number("x") + number("width") <= WIDTH,
                "{part}"
            );
        }
    }

    #[test]
    fn a_label_is_cut_to_its_bar() {
        assert_eq!(fitted("read it", 100.0), "read it");
        assert_eq!(fitted("read it now", 40.0), "read …");
        assert_eq!(fitted("read it now", 20.0), "");
    }
}
