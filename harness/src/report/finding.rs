//! A finding as a kernel developer reads it: what spoke, which object, which op met which
//! teardown step, and the kernel's words.

use std::fmt::Write as _;

use knobrig_klog::{Report, Role, readable};
use knobrig_proto::{Repeat, Step};

use super::story::{self, Words, function_gate};
use crate::judge::finding::{Evidence, Finding};
use crate::judge::plan::Plan;

/// The text of report.txt.
pub fn text(finding: &Finding) -> String {
    format!("{}\n{}\n", story(finding), words(finding))
}

/// What an oracle had to say, in its own words.
pub fn words(finding: &Finding) -> String {
    readable(&finding.evidence.text()).trim_end().to_owned()
}

/// What it was, who had a hand in it, and what they did.
pub fn story(finding: &Finding) -> String {
    let mut text = format!("{}\n\n", finding.title);
    let setting = &finding.setting;
    let mutant = (setting.mutant.as_ref()).map_or(String::new(), |it| format!(", mutant {it}"));
    let met = finding.placed.as_ref().unwrap_or(&finding.first);
    let episode = (met.episode).map_or(String::new(), |it| format!(", episode {it}"));
    for title in &finding.alt_titles {
        let _ = writeln!(text, "  or       {title}");
    }
    let _ = writeln!(text, "  oracles  {}", finding.oracles.join(", "));
    let _ = writeln!(
        text,
        "  target   {} ({}{mutant}), seed {}{episode}",
        setting.target, setting.lifetime, setting.seed
    );
    if let Evidence::Kernel { report } = &finding.evidence {
        kernel(&mut text, report);
    }
    for also in &finding.also {
        let _ = writeln!(
            text,
            "  also     {}",
            also.lines().next().unwrap_or_default()
        );
    }
    if let Some(plan) = &finding.episode {
        course(&mut text, plan);
    }
    text
}

/// The object, and who had a hand in it.
fn kernel(text: &mut String, report: &Report) {
    if let Some(object) = &report.object {
        let size = (object.size).map_or(String::new(), |size| format!("{size} bytes "));
        let cache = (object.cache.as_ref()).map_or(String::new(), |it| format!("of {it}"));
        let _ = writeln!(text, "  object   {size}{cache}");
    }
    if let Some(place) = &report.place {
        let _ = writeln!(text, "  was      {place}");
    }
    for (name, part) in [("victim", &report.victim), ("killer", &report.killer)] {
        if let Some(part) = part {
            let _ = writeln!(text, "  {name}   {}", part.doing);
        }
    }
    for (role, name) in [
        (Role::Fault, "touched"),
        (Role::Alloc, "made"),
        (Role::Free, "freed"),
    ] {
        let Some(stack) = report.stack(role) else {
            continue;
        };
        // What lies nearest to the driver says most; a chain without it begins anywhere.
        let frames = stack.frames.iter().filter(|frame| frame.reliable);
        let ours: Vec<_> = frames
            .filter(|frame| frame.module.is_some() && !frame.function.is_empty())
            .filter(|frame| !frame.inlined)
            .map(|frame| frame.function.as_str())
            .take(2)
            .collect();
        let task = (stack
            .task
            .as_ref()
            .or(report.task.as_ref().filter(|_| role == Role::Fault)))
        .map(|task| match (task.name.as_str(), task.pid) {
            ("", Some(pid)) => format!(" by task {pid}"),
            (name, _) => format!(" by {name}"),
        })
        .unwrap_or_default();
        if !ours.is_empty() || !task.is_empty() {
            let within = match ours.is_empty() {
                true => String::new(),
                false => format!(" in {}", ours.join(" < ")),
            };
            let _ = writeln!(text, "  {name:<8}{task}{within}");
        }
    }
    for note in &report.notes {
        let _ = writeln!(text, "  note     {note}");
    }
}

/// The episode in words: who did what, and what waited for what.
fn course(text: &mut String, plan: &Plan) {
    let words = Words::of(plan);
    let line = |steps: &[Step]| {
        let steps: Vec<_> = steps.iter().map(|step| words.step(step)).collect();
        steps.join("; ")
    };
    let shape = format!("{:?}", plan.shape).to_lowercase();
    let _ = writeln!(text, "\n  episode  {shape}");
    let loads = plan.episode.before.iter().filter(|step| {
        !matches!(step, Step::Exists { .. })
            && !matches!(step, Step::WriteFile { path, .. } if path == "/dev/kmsg")
    });
    let _ = writeln!(
        text,
        "    {:<12} {}",
        "first",
        line(&loads.cloned().collect::<Vec<_>>())
    );
    for actor in &plan.episode.actors {
        let again = match actor.repeat {
            Repeat::Once => "",
            Repeat::UntilOthersEnd => "; again and again",
        };
        let _ = writeln!(text, "    {:<12} {}{again}", actor.name, line(&actor.steps));
    }
    if let Some(apart) = story::apart(plan) {
        let _ = writeln!(text, "    apart        {apart}");
    }
    for gate in &plan.gates {
        let _ = writeln!(text, "    device       {}", words.gate(gate));
    }
    for gate in &plan.episode.gates {
        let _ = writeln!(text, "    kernel       {}", function_gate(gate));
    }
    if let Some(delays) = words.delays() {
        let _ = writeln!(text, "    QEMU         {delays}");
    }
    for edge in plan.order.iter().flat_map(|order| &order.edges) {
        let _ = writeln!(text, "    QEMU         {edge}");
    }
    for reaction in &plan.reactions {
        let _ = writeln!(text, "    when         {}", words.reaction(reaction));
    }
    let told: Vec<_> = (plan.episode.after.iter())
        .filter(|step| !matches!(step, Step::Exists { .. } | Step::ReadFile { .. }))
        .cloned()
        .collect();
    if !told.is_empty() {
        let _ = writeln!(text, "    then         {}", line(&told));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::judge::finding::{Findings, Met, Setting};
    use crate::judge::plan::{Points, Shape, plan};
    use crate::target::Chosen;

    #[test]
    fn a_finding_names_object_op_and_teardown() {
        let target = Chosen::find("mydrv", None, Some("free-before-remove")).expect("built in");
        let plan = plan(&target, &Points::default(), 1, 1, &[Shape::Unbind]);
        let log = b"[    5.000000] ==================================================================\n\
            [    5.000000] BUG: KASAN: slab-use-after-free in _RNvNtCs7hGo5QI5OSw_5mydrv5knobs4show+0x12/0x40 [mydrv]\n\
            [    5.000000] Read of size 8 at addr ffff888100000008 by task holder/77\n\
            [    5.000000] CPU: 1 UID: 0 PID: 77 Comm: holder Tainted: G           O\n\
            [    5.000000] Call Trace:\n\
            [    5.000000]  _RNvNtCs7hGo5QI5OSw_5mydrv5knobs4show+0x12/0x40 [mydrv]\n\
            [    5.000000] \n\
            [    5.000000] ==================================================================\n";
        let report = Box::new(knobrig_klog::parse(log).remove(0));
        let mut findings = Findings::default();
        let finding = findings.add(
            Evidence::Kernel { report },
            &[],
            Met {
                guest: 1,
                episode: Some(1),
                guest_ms: 5,
            },
            &Setting {
                target: "mydrv".into(),
                lifetime: "drained".into(),
                mutant: Some("free-before-remove".into()),
                seed: 1,
                kernel: "k".into(),
                ..Setting::default()
            },
            Some(&plan),
            None,
        );
        let text = text(finding);
        for part in [
            "KASAN: slab-use-after-free Read in mydrv::knobs::show\n",
            "  oracles  kernel\n",
            "  target   mydrv (drained, mutant free-before-remove), seed 1, episode 1\n",
            "  touched  by holder in mydrv::knobs::show\n",
            "\n  episode  unbind\n",
            "to /sys/bus/pci/drivers/mydrv/unbind",
            " in mydrv::knobs::show+0x12/0x40 [mydrv]\n",
        ] {
            assert!(text.contains(part), "{part:?} in\n{text}");
        }
        assert!(!text.contains("descriptor"), "{text}");
    }
}
