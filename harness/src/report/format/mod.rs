//! Reports of kernel logs in the forms that people, programs, CI systems and trackers take.

use crate::cli::{CaseFormat, ReportFormat};
use crate::error::Error;
use crate::logs::LogReports;

use suite::Suite;

mod github;
mod human;
mod json;
mod junit;
mod ktap;
mod markdown;
mod sarif;
pub mod suite;

/// Logs in a format.
///
/// # Errors
/// The format can't be written.
pub fn render(format: ReportFormat, logs: &[LogReports]) -> Result<String, Error> {
    let cases = |format| render_cases(format, &Suite::of_logs(logs));
    match format {
        ReportFormat::Human => Ok(human::render(logs)),
        ReportFormat::Json => json::render(logs),
        ReportFormat::Markdown => cases(CaseFormat::Markdown),
        ReportFormat::Junit => cases(CaseFormat::Junit),
        ReportFormat::Sarif => cases(CaseFormat::Sarif),
        ReportFormat::Ktap => cases(CaseFormat::Ktap),
        ReportFormat::Github => cases(CaseFormat::Github),
    }
}

/// Cases in a format.
///
/// # Errors
/// The format can't be written.
pub fn render_cases(format: CaseFormat, suite: &Suite) -> Result<String, Error> {
    match format {
        CaseFormat::Markdown => Ok(markdown::render(suite)),
        CaseFormat::Junit => junit::render(suite),
        CaseFormat::Sarif => sarif::render(suite),
        CaseFormat::Ktap => Ok(ktap::render(suite)),
        CaseFormat::Github => Ok(github::render(suite)),
    }
}

/// `1 edge`, `2 crashes`.
pub fn plural(n: usize, one: &str) -> String {
    match n {
        1 => format!("1 {one}"),
        n => format!("{n} {one}{}", if one.ends_with('h') { "es" } else { "s" }),
    }
}

/// `2 crashes in 1 of 3 logs`, the answer that stands first.
fn verdict(logs: &[LogReports]) -> String {
    let crashes: usize = logs.iter().map(|log| log.reports.len()).sum();
    let hit = logs.iter().filter(|log| !log.reports.is_empty()).count();
    match crashes {
        0 => format!("no crash in {}", plural(logs.len(), "log")),
        n => format!(
            "{} in {hit} of {}",
            plural(n, "crash"),
            plural(logs.len(), "log")
        ),
    }
}

#[cfg(test)]
pub(crate) fn sample_suite() -> Suite {
    Suite::of_logs(&sample())
}

#[cfg(test)]
pub(crate) fn sample() -> Vec<LogReports> {
    let text = b"[    5.100000][   T77] ==================================================================\n\
        [    5.100000][   T77] BUG: KASAN: slab-use-after-free in dk0_show+0x12/0x40 [mydrv]\n\
        [    5.100000][   T77] Read of size 8 at addr ffff888100000008 by task cat/77\n\
        [    5.100000][   T77] CPU: 1 UID: 0 PID: 77 Comm: cat Tainted: G           O\n\
        [    5.100000][   T77] Call Trace:\n\
        [    5.100000][   T77]  dk0_show+0x12/0x40 [mydrv]\n\
        [    5.100000][   T77]  dev_attr_show+0x19/0x60\n\
        [    5.100000][   T77] \n\
        [    5.100000][   T77] ==================================================================\n";
    vec![
        LogReports {
            file: "quiet.log".into(),
            reports: Vec::new(),
            suppressed: Vec::new(),
        },
        LogReports {
            file: "con|sole.log".into(),
            reports: knobrig_klog::parse(text),
            suppressed: Vec::new(),
        },
    ]
}
