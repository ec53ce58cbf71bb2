//! Leaks: what the driver allocated and nothing refers to any more, as kmemleak sees it once the
//! module is gone. Only kernels with CONFIG_DEBUG_KMEMLEAK have that file, and a scan takes
//! seconds, so such an episode is made on purpose.

use knobrig_klog::Report;
use knobrig_proto::{Outcome, Step};

use super::build::{Builder, SLOT};
use super::{Expect, Plan, Rule};

/// Scans on command, and lists what a scan found (Documentation/dev-tools/kmemleak.rst).
pub const KMEMLEAK: &str = "/sys/kernel/debug/kmemleak";
/// kmemleak spares objects younger than 5 s (MSECS_MIN_AGE).
const AGE_MS: u64 = 5_500;
/// Two scans of all memory with every checker on.
const DEADLINE_MS: u64 = 90_000;
/// Loads in an episode. Pointers to what the last of them left are still in stacks and the like, and it
/// passes for used: of ten loads in a fresh guest the first four's objects were listed, of three none.
const ROUNDS: usize = 14;
/// The first line of an object in the list.
const OBJECT: &str = "unreferenced object 0x";

/// The kernel scans on its own, every ten minutes; then its log would tell of what was left
/// before the first episode.
pub fn no_scan_of_its_own() -> Step {
    write("scan=off")
}

fn write(command: &str) -> Step {
    Step::WriteFile {
        path: KMEMLEAK.into(),
        data: command.into(),
    }
}

/// An object counts as left when two scans see it unreferenced and unchanged.
fn look() -> [Step; 4] {
    let list = Step::ReadFile {
        path: KMEMLEAK.into(),
    };
    [
        write("scan"),
        Step::Sleep { ms: AGE_MS },
        write("scan"),
        list,
    ]
}

/// Whether a step of a leaks episode is of the look, without which nothing is seen.
pub(super) fn looks(step: &Step) -> bool {
    look().contains(step)
}

impl Builder<'_> {
    pub(super) fn leaks(&mut self) {
        self.plan.episode.deadline_ms = DEADLINE_MS;
        self.bring_up();
        for round in 1..=ROUNDS {
            self.use_all();
            self.give_up();
            self.unload_at_zero();
            self.unload_helpers();
            if round < ROUNDS {
                self.bring_up_again();
            }
        }
        self.plan.episode.after.extend(look());
    }

    /// In `after`: opens, uses and closes each knob.
    fn use_all(&mut self) {
        let knobs: Vec<_> = self.target.knobs().cloned().collect();
        for (slot, knob) in (SLOT..).zip(&knobs) {
            let open = Self::open(knob, slot, false);
            self.after(open, Rule::OpSucceeds, Expect::OkOr(vec![]));
            self.ops_succeed(knob, slot);
            self.close(slot);
        }
    }
}

/// The objects that a leaks episode found and that a module under test allocated: with a frame of
/// a module in the backtrace, or of one that is gone, which has no name any more. `parse` reads
/// the kernel's words.
pub fn left(plan: &Plan, after: &[Outcome], parse: impl Fn(&[u8]) -> Vec<Report>) -> Vec<Report> {
    let steps = plan.episode.after.iter().zip(after);
    let lists = steps.filter_map(|(step, outcome)| match step {
        Step::ReadFile { path } if path == KMEMLEAK => outcome.text.as_deref(),
        _ => None,
    });
    let mut reports: Vec<_> = lists.flat_map(|list| parse(log(list).as_bytes())).collect();
    reports.retain(|report| {
        let mut frames = report.stacks.iter().flat_map(|stack| &stack.frames);
        frames.any(|frame| frame.module.is_some() || frame.function.is_empty())
    });
    reports
}

/// kmemleak's list with each object under the headline by which logs tell of them.
fn log(list: &str) -> String {
    let mut log = String::new();
    for line in list.lines() {
        if line.starts_with(OBJECT) {
            log.push_str("BUG: memory leak\n");
        }
        log.push_str(line);
        log.push('\n');
    }
    log
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::judge::plan::{Points, Shape, plan};
    use crate::target::Chosen;

    /// As the kernel lists them: one of a module that is gone, one of the kernel's own.
    const LIST: &str = "unreferenced object 0xffff888003a51a80 (size 96):\n  \
        comm \"agent\", pid 1, jiffies 4294940112\n  \
        hex dump (first 32 bytes):\n    \
        00 00 00 00 00 00 00 00 88 13 00 00 00 00 00 00  ................\n  \
        backtrace (crc 3c1c6f71):\n    \
        __kmalloc_noprof+0x1f3/0x400\n    \
        0xffffffffa0003c41\n    \
        pci_device_probe+0xe2/0x250\n\
        unreferenced object 0xffff888003a51b00 (size 32):\n  \
        comm \"swapper/0\", pid 1, jiffies 4294937296\n  \
        backtrace (crc 0):\n    \
        __kmalloc_noprof+0x1f3/0x400\n    \
        acpi_ns_internalize_name+0x61/0xa0\n";

    #[test]
    fn what_a_module_allocated_is_told_and_the_kernels_own_is_not() {
        let target = Chosen::find("mydrv", Some("drained"), None).expect("built in");
        let plan = plan(&target, &Points::default(), 1, 8, &[Shape::Leaks]);
        let read = |text: &str| Outcome {
            text: Some(text.into()),
            ret: 0,
            start_ns: 0,
            end_ns: 0,
        };
        let mut after: Vec<_> = plan.episode.after.iter().map(|_| read("")).collect();
        let parse = |text: &[u8]| knobrig_klog::parse(text);
        assert!(left(&plan, &after, parse).is_empty());
        *after.last_mut().expect("the list is read last") = read(LIST);
        let left = left(&plan, &after, parse);
        assert_eq!(left.len(), 1);
        let object = left[0].object.as_ref().expect("an object");
        assert_eq!(object.size, Some(96));
    }
}
