//! Where the code of modules lies, and instructions of it as addresses and back.

use std::collections::BTreeMap;

use knobrig_klog::{Generation, History};
use knobrig_proto::Actor;
use knobrig_vcpu_proto::{Counts, Edge, Point, Range};

use crate::judge::record::{Delayed, Stood};
use crate::schedule::{At, Occurrence, Schedule};

/// Where the modules of an episode lie, as the console tells.
#[derive(Debug)]
pub struct Texts {
    modules: Vec<String>,
    history: History,
}

impl Texts {
    /// Nothing is loaded yet of these.
    pub fn of(modules: &[String]) -> Self {
        Self {
            modules: modules.to_vec(),
            history: History::default(),
        }
    }

    /// Takes a line of the rig's on the console. Gives the code of all these modules if the line
    /// told of a load that completed them.
    pub fn see(&mut self, line: &str) -> Option<Vec<Range>> {
        let count = |history: &History| history.generations().count();
        let before = count(&self.history);
        self.history.see(line, None);
        if count(&self.history) == before {
            return None;
        }
        let mut ranges = Vec::new();
        for module in &self.modules {
            let mut loads: Vec<&Generation> = self.history.generations().collect();
            loads.retain(|it| it.module == *module && !it.unloaded);
            let code = loads.last()?.sections.iter().filter(|it| is_code(&it.name));
            ranges.extend(code.map(|section| Range {
                start: section.address,
                end: section.address.saturating_add(section.size),
            }));
        }
        ranges.truncate(knobrig_vcpu_proto::MOST_RANGES);
        (!ranges.is_empty()).then_some(ranges)
    }

    /// An order as a gate takes it: actors by the vCPUs on which they run and, where they are known,
    /// by their threads, instructions by where they lie now.
    ///
    /// # Errors
    /// What of it is not there.
    pub fn edges(
        &self,
        order: &Schedule,
        actors: &[Actor],
        cpus: u32,
        threads: &BTreeMap<String, u64>,
    ) -> Result<Vec<Edge>, String> {
        let point = |occurrence: &Occurrence| {
            let actor = actors.iter().find(|it| it.name == occurrence.actor);
            let At::Instruction { module, offset } = &occurrence.at else {
                return Err(format!(
                    "{occurrence}: only instructions can be ordered here"
                ));
            };
            let actor = actor.ok_or(format!("{occurrence}: no such thread"))?;
            let text = self
                .text(module)
                .ok_or(format!("{occurrence}: not loaded"))?;
            Ok(Point {
                vcpu: actor.cpu % cpus.max(1),
                address: text.saturating_add(*offset),
                nth: occurrence.nth,
                thread: threads.get(&occurrence.actor).copied(),
            })
        };
        let edges = order.edges.iter().map(|edge| {
            Ok(Edge {
                before: point(&edge.before)?,
                after: point(&edge.after)?,
            })
        });
        edges.collect()
    }

    /// Where a module's `.text` lies.
    fn text(&self, module: &str) -> Option<u64> {
        let mut loads: Vec<&Generation> = self.history.generations().collect();
        loads.retain(|it| it.module == *module && !it.unloaded);
        let section = loads.last()?.sections.iter().find(|it| it.name == TEXT)?;
        Some(section.address)
    }

    /// What the plugin counted, in words that hold wherever the modules lie.
    pub fn delayed(&self, counts: Counts) -> Delayed {
        let recent = counts.recent.iter().filter_map(|stood| {
            let (module, at) = self.offset(stood.at)?;
            Some(Stood {
                vcpu: stood.vcpu,
                next: (self.offset(stood.next))
                    .and_then(|(of, next)| (of == module).then_some(next)),
                module,
                at,
            })
        });
        Delayed {
            instructions: counts.instructions,
            delays: counts.delays,
            delayed_us: counts.delayed_us,
            recent: recent.collect(),
        }
    }

    /// An address as bytes of a module's `.text`.
    fn offset(&self, address: u64) -> Option<(String, u64)> {
        let place = self.history.place(address, None)?;
        (place.section == TEXT && !place.unloaded).then_some((place.module, place.offset))
    }
}

/// The section of a module that offsets are of.
const TEXT: &str = ".text";

/// A section's name says whether it is code: `.text`, `.text.unlikely`, `.exit.text`, `.noinstr.text`.
fn is_code(section: &str) -> bool {
    section.contains(".text")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(lines: &[&str]) -> Vec<Option<Vec<Range>>> {
        let mut texts = Texts::of(&["a".into(), "b".into()]);
        lines.iter().map(|line| texts.see(line)).collect()
    }

    fn range(start: u64, end: u64) -> Range {
        Range { start, end }
    }

    #[test]
    fn code_is_known_once_every_module_is_loaded() {
        let seen = texts(&[
            "knobrig: episode 1",
            "knobrig: loaded a .text=0x1000+0x10 .data=0x2000+0x20",
            "knobrig: loaded c .text=0x9000+0x10",
            "knobrig: loaded b .text=0x3000+0x10 .exit.text=0x4000+0x8",
        ]);
        assert_eq!(seen[..3], [None, None, None]);
        let whole = [
            range(0x1000, 0x1010),
            range(0x3000, 0x3010),
            range(0x4000, 0x4008),
        ];
        assert_eq!(seen[3].as_deref(), Some(&whole[..]));
    }

    #[test]
    fn a_new_load_lies_elsewhere() {
        let seen = texts(&[
            "knobrig: loaded a .text=0x1000+0x10",
            "knobrig: loaded b .text=0x3000+0x10",
            "knobrig: unloaded a",
            "knobrig: loaded a .text=0x5000+0x10",
        ]);
        let again = [range(0x5000, 0x5010), range(0x3000, 0x3010)];
        assert_eq!(seen[2], None);
        assert_eq!(seen[3].as_deref(), Some(&again[..]));
    }

    #[test]
    fn where_a_vcpu_stood_is_told_by_offset() {
        let mut texts = Texts::of(&["a".into()]);
        texts.see("knobrig: loaded a .text=0x1000+0x10 .exit.text=0x4000+0x8");
        let stood = |at, next| knobrig_vcpu_proto::Stood { vcpu: 1, at, next };
        let delayed = texts.delayed(Counts {
            instructions: 3,
            recent: vec![
                stood(0x1008, 0x100c),
                stood(0x1008, 0),
                stood(0x4000, 0x1000),
            ],
            ..Counts::default()
        });
        let told: Vec<_> = delayed.recent.iter().map(|it| (it.at, it.next)).collect();
        assert_eq!(told, [(8, Some(12)), (8, None)]);
        assert_eq!((delayed.instructions, &*delayed.recent[0].module), (3, "a"));
    }
}
