//! For people: the answer first, then each crash.

use std::fmt::Write as _;

use knobrig_klog::{Part, Report, Role};

use super::verdict;
use crate::logs::LogReports;

/// Frames of a stack that are shown; the log has the rest.
const FRAMES: usize = 8;

pub(super) fn render(logs: &[LogReports]) -> String {
    let mut text = format!("{}\n", verdict(logs));
    for log in logs {
        for report in &log.reports {
            one(&mut text, &log.file, report);
        }
        for report in &log.suppressed {
            let title = &report.title;
            let at = report.range.start;
            let _ = writeln!(text, "\nno crash: {title} ({}, byte {at})", log.file);
        }
    }
    text
}

/// `rmmod, in mydrv_exit`.
fn told(part: &Part) -> String {
    match &part.function {
        Some(function) => format!("{}, in {function}", part.doing),
        None => part.doing.clone(),
    }
}

fn one(text: &mut String, file: &str, report: &Report) {
    let _ = writeln!(text, "\n{}", report.title);
    let _ = writeln!(
        text,
        "  in      {file}, bytes {} to {}",
        report.range.start, report.range.end
    );
    if let Some(task) = &report.task {
        let cpu = report
            .cpu
            .map_or(String::new(), |cpu| format!(" on CPU {cpu}"));
        let _ = writeln!(text, "  task    {}{cpu}", task.name);
    }
    if let Some(access) = &report.access
        && let Some(address) = access.address
    {
        let size = access
            .size
            .map_or(String::new(), |size| format!("{size} bytes at "));
        let _ = writeln!(text, "  access  {size}{address:#x}");
    }
    if let Some(object) = &report.object
        && let Some(cache) = &object.cache
    {
        let _ = writeln!(text, "  object  of {cache}");
    }
    if let Some(place) = &report.place {
        let _ = writeln!(text, "  was     {place}");
    }
    for (name, part) in [("victim", &report.victim), ("killer", &report.killer)] {
        if let Some(part) = part {
            let _ = writeln!(text, "  {name}  {}", told(part));
        }
    }
    for (role, name) in [
        (Role::Fault, "at"),
        (Role::Alloc, "alloc"),
        (Role::Free, "free"),
    ] {
        let Some(stack) = report.stack(role) else {
            continue;
        };
        // What the unwinder doesn't vouch for is in the log for those who want it.
        let frames = stack.frames.iter().filter(|frame| frame.reliable);
        for (index, frame) in frames.take(FRAMES).enumerate() {
            let label = if index == 0 { name } else { "" };
            let module = (frame.module.as_ref()).map_or(String::new(), |it| format!(" [{it}]"));
            let line = (frame.file_line.as_ref()).map_or(String::new(), |it| format!("  {it}"));
            let name = if frame.function.is_empty() {
                &frame.symbol
            } else {
                &frame.function
            };
            let _ = writeln!(text, "  {label:<7} {name}{module}{line}");
        }
    }
    for note in &report.notes {
        let _ = writeln!(text, "  note    {note}");
    }
    if let Some(why) = &report.corrupted {
        let _ = writeln!(text, "  beware  the report is not whole: {why}");
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_answer_stands_first() {
        insta::assert_snapshot!(super::render(&super::super::sample()), @r"
        1 crash in 1 of 2 logs

        KASAN: slab-use-after-free Read in dk0_show
          in      con|sole.log, bytes 0 to 579
          task    cat on CPU 1
          access  8 bytes at 0xffff888100000008
          at      dk0_show [mydrv]
                  dev_attr_show
        ");
        assert_eq!(super::render(&[]), "no crash in 0 logs\n");
    }
}
