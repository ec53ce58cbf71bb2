//! A run as one HTML page: the answer, and each finding with its timeline, its course and the
//! kernel's words.

use std::fmt::Write as _;

use super::links::Links;
use super::{escaped, stacks, svg, time};
use crate::judge::finding::{Evidence, Finding};
use crate::judge::summary::Summary;
use crate::judge::timeline::Timeline;
use crate::report::finding::{story, words};

const STYLE: &str = "\
:root{color-scheme:light dark;--ink:#1d2430;--dim:#5b6472;--line:#d8dde5;--back:#fff;--code:#f5f7fa}\
@media(prefers-color-scheme:dark){:root{--ink:#e8eaed;--dim:#9aa3b0;--line:#3a414c;--back:#15181d;\
--code:#1f242b}}\
body{margin:0 auto;max-width:1280px;padding:1rem;font:15px/1.5 system-ui,sans-serif;color:var(--ink);\
background:var(--back)}h1{font-size:1.5rem}h2{font-size:1.15rem;margin-top:2.5rem;\
overflow-wrap:anywhere}a{color:inherit}.dim{color:var(--dim)}\
.wide{overflow-x:auto;border:1px solid var(--line);border-radius:6px}.wide svg{min-width:720px;\
display:block}.wide:focus{outline:2px solid #1a73e8}\
pre{overflow-x:auto;padding:.75rem;background:var(--code);border-radius:6px;font-size:13px}\
table{border-collapse:collapse;width:100%;font-size:14px}td,th{text-align:left;padding:.2rem .6rem;\
border-bottom:1px solid var(--line);vertical-align:top;overflow-wrap:anywhere}\
summary{cursor:pointer;padding:.3rem 0}ol.list{padding-left:1.4rem}\
.beside{display:grid;gap:0 1.5rem}.beside>*{min-width:0}\
@media(min-width:900px){.beside{grid-template-columns:minmax(0,1fr) minmax(0,1fr)}}\
.stack{padding-left:1.8rem;font-size:13px;overflow-wrap:anywhere}.inlined{font-style:italic}\
code{font-size:13px}";

/// A finding with what is drawn and told of it.
#[derive(Debug)]
pub struct Shown<'a> {
    /// The finding.
    pub finding: &'a Finding,
    /// Its timeline, where its times are known.
    pub timeline: Option<Timeline>,
}

/// The page. It has no script and fetches nothing; what `links` make leads elsewhere.
pub fn page(summary: &Summary, answer: &str, findings: &[Shown<'_>], links: &Links) -> String {
    let mut page = String::new();
    // Writing to a String can't fail.
    let _ = writeln!(
        page,
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src \
         'unsafe-inline'; img-src data:\"><link rel=\"icon\" href=\"data:,\">\
         <title>{0}</title><style>{STYLE}</style></head><body><main><h1>{0}</h1>\
         <p class=\"dim\">seed {1}; {3:.1} episodes/s; guests booted: {2}</p>",
        escaped(answer),
        summary.seed,
        summary.guests,
        summary.rate()
    );
    if findings.len() > 1 {
        page.push_str("<nav aria-label=\"findings\"><ol class=\"list\">");
        for shown in findings {
            let finding = shown.finding;
            let _ = writeln!(
                page,
                "<li><a href=\"#finding-{}\">{}</a></li>",
                finding.number,
                escaped(&finding.title)
            );
        }
        page.push_str("</ol></nav>");
    }
    for shown in findings {
        section(&mut page, shown, links);
    }
    page.push_str("</main></body></html>\n");
    page
}

fn times(count: u64) -> String {
    match count {
        1 => "once".into(),
        count => format!("{count} times"),
    }
}

fn section(page: &mut String, shown: &Shown<'_>, links: &Links) {
    let finding = shown.finding;
    let _ = writeln!(
        page,
        "<section id=\"finding-{0}\" aria-labelledby=\"title-{0}\"><h2 id=\"title-{0}\">{0:03} {1}\
         </h2><p>{2} spoke; met {3}, first after {4:.1} s of the guest's time. Again: \
         <code>cargo rig repro findings/{0:03}</code></p>",
        finding.number,
        escaped(&finding.title),
        escaped(&finding.oracles.join(", ")),
        times(finding.count),
        finding.first.guest_ms as f64 / 1000.0
    );
    if let Some(timeline) = &shown.timeline {
        let _ = writeln!(
            page,
            "<div class=\"wide\" role=\"region\" tabindex=\"0\" aria-label=\"timeline\">{}</div>",
            svg::svg(timeline, &finding.title)
        );
        page.push_str(
            "<details><summary>The timeline as a table</summary><table><thead><tr><th>who</th>\
             <th>from</th><th>for</th><th>what</th><th>result</th></tr></thead><tbody>",
        );
        for lane in &timeline.lanes {
            for bar in &lane.bars {
                let lasts = match bar.open {
                    true => "did not end".to_owned(),
                    false => time(bar.to_ns - bar.from_ns),
                };
                let _ = writeln!(
                    page,
                    "<tr><td>{}</td><td>{}</td><td>{lasts}</td><td>{}</td><td>{}</td></tr>",
                    escaped(&lane.name),
                    time(bar.from_ns),
                    escaped(&bar.says),
                    escaped(bar.result.as_deref().unwrap_or_default())
                );
            }
        }
        page.push_str("</tbody></table></details>");
    }
    let _ = writeln!(
        page,
        "<details open><summary>What happened</summary><pre tabindex=\"0\">{}</pre></details>\
         <div class=\"beside\"><div>",
        escaped(story(finding).trim_end())
    );
    if let Evidence::Kernel { report } = &finding.evidence {
        stacks::stacks(page, report, links);
    }
    let _ = writeln!(
        page,
        "</div><details open><summary>In its own words</summary><pre tabindex=\"0\">{}</pre>\
         </details></div></section>",
        escaped(&words(finding))
    );
}
