//! The lines of one report to a [`Report`].

use crate::case::Case;
use crate::class::Headline;
use crate::facts;
use crate::history::Known;
use crate::key;
use crate::parts;
use crate::report::{Report, Role, Stack};
use crate::shape::Seen;
use crate::unloaded;

/// The address that stands in a headline where a function would: `BUG: KASAN: … in 0xffffffffa001b2bb`.
fn bare_address(headline: &str) -> Option<u64> {
    let (_, place) = headline.rsplit_once(" in 0x")?;
    crate::case::hex(place)
}

/// Judges the report whose headline is `lines[head]`. `lines` is not empty and `head` is in it.
/// `known` are the modules' loads up to its end.
pub(crate) fn report(
    lines: &mut [Seen],
    head: usize,
    headline: &Headline,
    cut: bool,
    known: &Known<'_>,
) -> Report {
    let mut case = Case::new(lines, head);
    let now = case.lines[head].line.time_us;
    for frame in case.stacks.iter_mut().flat_map(|stack| &mut stack.frames) {
        if frame.function.is_empty() {
            let place = crate::case::hex(&frame.symbol).and_then(|at| known.place(at, now));
            if let Some((place, symbol)) = place {
                frame.module = Some(place.module.clone());
                frame.place = Some(Box::new(place));
                if let Some(symbol) = symbol {
                    frame.function = crate::frame::readable(&symbol.name);
                    (frame.offset, frame.size) = (Some(symbol.offset), Some(symbol.size));
                }
            }
        }
    }
    let mut verdict = (headline.judge)(&case);
    case.class = verdict.class;
    let facts = facts::collect(&case);
    let gone = unloaded::judge(
        verdict.class,
        bare_address(case.headline()),
        verdict.access.as_mut(),
        case.fault_frames(),
        &facts,
        &|address| known.place(address, now).map(|(place, _)| place),
    );
    if gone.in_unloaded_module && (gone.module.is_some() || verdict.guilty.is_none()) {
        let usual = std::mem::take(&mut verdict.title);
        let what = usual.split(" in ").next().unwrap_or(&usual);
        let module = (gone.module.as_ref()).map_or(String::new(), |module| format!(" {module}"));
        verdict.title = format!("{what} in {}{module}", crate::key::UNLOADED);
        if verdict.guilty.is_some() {
            verdict.alt_titles.push(usual);
        } else {
            verdict.corrupted = None;
            verdict.alt_titles.clear();
        }
    }
    let (mut victim, killer) = parts::of(&case, gone.in_unloaded_module);
    if let Some(victim) = &mut victim
        && victim.task.is_none()
    {
        victim.task.clone_from(&facts.task);
    }
    let key = key::Known {
        case: &case,
        verdict: &verdict,
        facts: &facts,
        gone: &gone,
        victim: victim.as_ref(),
        killer: killer.as_ref(),
    }
    .key();
    let corrupted = verdict
        .corrupted
        .or_else(|| cut.then(|| "longer than a report may be".to_owned()));
    let panicked = (case.lines[head..].iter())
        .any(|l| l.opens && l.text().contains("Kernel panic - not syncing"));
    let lines = case.lines;
    let mut text = String::with_capacity(lines.iter().map(|l| l.text().len() + 1).sum());
    for (index, line) in lines.iter().enumerate() {
        if index > 0 {
            text.push('\n');
        }
        text.push_str(line.text().trim_ascii_end());
    }
    let start = lines.iter().map(|l| l.line.start).min().unwrap_or(0);
    let end = lines.iter().map(|l| l.line.end).max().unwrap_or(start);
    let mut stacks: Vec<Stack> = case.stacks;
    // The fault comes first, whatever was printed before it.
    stacks.sort_by_key(|s| s.role != Role::Fault);
    // Who keeps a report keeps no room that it has no use for.
    stacks.iter_mut().for_each(|s| s.frames.shrink_to_fit());
    Report {
        title: verdict.title,
        alt_titles: verdict.alt_titles,
        kind: verdict.kind,
        class: verdict.class,
        corrupted,
        panicked,
        suppressed: verdict.suppressed,
        stale_code: verdict.stale_code,
        range: start..end,
        time_us: lines[head].line.time_us,
        caller: lines[head].line.caller,
        key,
        task: facts.task,
        cpu: facts.cpu,
        access: verdict.access,
        object: verdict.object,
        place: gone.place,
        victim,
        killer,
        stacks,
        modules: facts.modules,
        last_unloaded: facts.last_unloaded,
        in_unloaded_module: gone.in_unloaded_module,
        notes: verdict.notes.into_iter().chain(gone.notes).collect(),
        taint: facts.taint,
        kernel: facts.kernel,
        text,
    }
}
