//! What all formats but JSON and the human one are made from: cases, and what went wrong in each.

use std::ops::Range;
use std::path::Path;

use crate::judge::finding::{Evidence, Finding, kebab};
use crate::judge::summary::Summary;
use crate::logs::LogReports;

/// Cases that were looked at together.
#[derive(Clone, Debug)]
pub struct Suite {
    /// `kernel logs`, or what ran.
    pub name: String,
    /// The verdict in a line, without markup.
    pub verdict: String,
    /// In order.
    pub cases: Vec<Case>,
}

/// One log, one finding, one mutant.
#[derive(Clone, Debug)]
pub struct Case {
    /// What it is called in a list of results.
    pub name: String,
    /// The file that tells more.
    pub file: String,
    /// How long it took.
    pub wall_ms: Option<u64>,
    /// What went wrong; the first names the failure.
    pub problems: Vec<Problem>,
}

/// Something that went wrong.
#[derive(Clone, Debug)]
pub struct Problem {
    /// One line.
    pub title: String,
    /// Of the mechanism that spoke: `kasan`, `rule`, `missed`.
    pub class: String,
    /// Equal for the same bug.
    pub key: String,
    /// In full.
    pub text: String,
    /// Where in the file, in bytes.
    pub range: Option<Range<usize>>,
    /// The function's line, where it is known.
    pub place: Option<String>,
}

impl Suite {
    /// Logs of anywhere.
    pub fn of_logs(logs: &[LogReports]) -> Self {
        let cases = logs.iter().map(|log| Case {
            name: log.file.clone(),
            file: log.file.clone(),
            wall_ms: None,
            problems: log
                .reports
                .iter()
                .map(|it| Problem::of_report(it, true))
                .collect(),
        });
        Self {
            name: "kernel logs".into(),
            verdict: super::verdict(logs),
            cases: cases.collect(),
        }
    }

    /// A run: each finding is a failure, and a clean run is one success.
    pub fn of_run(summary: &Summary, findings: &[&Finding], dir: &Path) -> Self {
        let episodes = summary.episodes();
        let verdict = match findings.len() {
            0 if summary.interrupted => format!("interrupted after {episodes} episodes"),
            0 => format!("no finding in {episodes} episodes of {}", summary.title),
            1 => format!("1 finding in {episodes} episodes of {}", summary.title),
            n => format!("{n} findings in {episodes} episodes of {}", summary.title),
        };
        let mut cases: Vec<_> = (findings.iter())
            .map(|finding| {
                let place = format!("findings/{:03}/report.txt", finding.number);
                Case {
                    name: format!("finding {}: {}", finding.number, finding.title),
                    file: dir.join(place).display().to_string(),
                    wall_ms: None,
                    problems: vec![Problem::of_finding(finding)],
                }
            })
            .collect();
        // What didn't run to its end is no success.
        let broken = summary.lost > 0 || summary.interrupted || episodes == 0;
        let unheard = Problem {
            title: match &summary.lost_why {
                Some(why) => format!("a guest was lost: {why}"),
                None => verdict.clone(),
            },
            class: "rig".into(),
            key: "rig".into(),
            text: verdict.clone(),
            range: None,
            place: None,
        };
        if cases.is_empty() {
            cases.push(Case {
                name: format!("{}, seed {}", summary.title, summary.seed),
                file: dir.join("summary.json").display().to_string(),
                wall_ms: Some(summary.wall_ms),
                problems: if broken { vec![unheard] } else { Vec::new() },
            });
        }
        Self {
            name: format!("{}, seed {}", summary.title, summary.seed),
            verdict,
            cases,
        }
    }
}

impl Problem {
    /// A report of the kernel; `at`: its range is one of the case's file.
    fn of_report(report: &knobrig_klog::Report, at: bool) -> Self {
        let stack = report.stack(knobrig_klog::Role::Fault);
        let frames = stack.iter().flat_map(|stack| &stack.frames);
        let place = frames.filter(|frame| frame.module.is_some());
        Self {
            title: report.title.clone(),
            class: kebab(&report.class),
            key: report.key.clone(),
            text: report.text.clone(),
            range: at.then(|| report.range.clone()),
            place: place.map(|frame| frame.file_line.clone()).next().flatten(),
        }
    }

    fn of_finding(finding: &Finding) -> Self {
        let text = crate::report::finding::text(finding);
        let own = match &finding.evidence {
            Evidence::Kernel { report } => Self::of_report(report, false),
            other => Self {
                title: String::new(),
                class: other.oracle().into(),
                key: String::new(),
                text: String::new(),
                range: None,
                place: None,
            },
        };
        Self {
            title: finding.title.clone(),
            key: finding.key.clone(),
            text,
            ..own
        }
    }
}
