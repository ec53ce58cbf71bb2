//! Which module lay where, and when: the loads and unloads of a boot, so that an address in memory
//! that no module owns any more finds the one that did.
//!
//! The history is plain data. Who knows it tells it ([`History::loaded`], [`History::unloaded`]);
//! a console tells it, too, where somebody writes lines like these into /dev/kmsg:
//!
//! ```text
//! knobrig: loaded mydrv .text=0xffffffffa0000000+0x1d2a0 .data=0xffffffffa0021000+0x340
//! knobrig: unloaded mydrv
//! ```
//!
//! with the addresses of `/sys/module/mydrv/sections` and the sizes of the sections in `mydrv.ko`.

use std::collections::VecDeque;
use std::fmt;

use serde::{Deserialize, Serialize};

/// Loads that are remembered; what was unloaded longer ago is not reached for any more.
const MOST: usize = 256;
/// Sections of a module.
const MOST_SECTIONS: usize = 64;
/// How a line of the console that tells a load begins.
const LOADED: &str = "knobrig: loaded ";
/// The same for an unload.
const UNLOADED: &str = "knobrig: unloaded ";

/// A piece of a module's memory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Section {
    /// `.text`, `.data`…
    pub name: String,
    /// Where it was loaded.
    pub address: u64,
    /// Its bytes.
    pub size: u64,
}

/// One load of a module.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Generation {
    /// The module.
    pub module: String,
    /// The how-manieth load of it since boot, from 1.
    pub number: u32,
    /// Where it lay.
    pub sections: Vec<Section>,
    /// When it had been loaded, microseconds of guest time.
    pub loaded_us: Option<u64>,
    /// When it was gone.
    pub unloaded_us: Option<u64>,
    /// It is gone.
    pub unloaded: bool,
}

/// The loads and unloads since boot, the last ones.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct History {
    generations: VecDeque<Generation>,
}

/// A function or variable of a module's file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Symbol {
    /// As it stands in the file.
    pub name: String,
    /// Bytes from its start.
    pub offset: u64,
    /// Its bytes.
    pub size: u64,
}

/// Who knows the modules' files. The kernel forgets the names of a module's functions with the
/// module; the file has them still.
pub trait Symbols: Send + Sync {
    /// What lies at an offset of a section.
    fn symbol(&self, module: &str, section: &str, offset: u64) -> Option<Symbol>;
}

/// What is known of addresses that the kernel has no names for.
pub(crate) struct Known<'a> {
    pub(crate) history: &'a History,
    pub(crate) symbols: Option<&'a dyn Symbols>,
}

impl Known<'_> {
    /// As [`History::place`], with the symbol.
    pub(crate) fn place(
        &self,
        address: u64,
        now_us: Option<u64>,
    ) -> Option<(Place, Option<Symbol>)> {
        let mut place = self.history.place(address, now_us)?;
        let find =
            |symbols: &dyn Symbols| symbols.symbol(&place.module, &place.section, place.offset);
        let symbol = self.symbols.and_then(find);
        place.symbol = (symbol.as_ref())
            .map(|it| format!("{}+{:#x}", crate::frame::readable(&it.name), it.offset));
        Some((place, symbol))
    }
}

/// An address as a place in a module.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// The module.
    pub module: String,
    /// The how-manieth load of it since boot, from 1.
    pub generation: u32,
    /// The section.
    pub section: String,
    /// Bytes into the section.
    pub offset: u64,
    /// `function+0x12`, or a variable, where somebody looked it up in the module's file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub symbol: Option<String>,
    /// `file:line`, likewise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file_line: Option<String>,
    /// That load of the module is gone.
    pub unloaded: bool,
    /// Microseconds between its end and the report.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unloaded_us_before: Option<u64>,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "generation {} of {}, {}+{:#x}",
            self.generation, self.module, self.section, self.offset
        )?;
        if let Some(symbol) = &self.symbol {
            write!(f, " = {symbol}")?;
        }
        if let Some(line) = &self.file_line {
            write!(f, " ({line})")?;
        }
        match (self.unloaded, self.unloaded_us_before) {
            (false, _) => Ok(()),
            (true, None) => write!(f, ", unloaded"),
            (true, Some(us)) if us < 10_000 => {
                write!(f, ", unloaded {}.{} ms before", us / 1000, us % 1000 / 100)
            }
            (true, Some(us)) => write!(f, ", unloaded {} ms before", us / 1000),
        }
    }
}

impl History {
    /// A module was loaded. Gives the number of that load.
    pub fn loaded(&mut self, module: &str, sections: Vec<Section>, time_us: Option<u64>) -> u32 {
        let before = self.generations.iter().filter(|it| it.module == module);
        let number = before.map(|it| it.number).max().unwrap_or(0) + 1;
        // An unload that nobody told: a module can't be loaded twice.
        self.unloaded(module, None);
        if self.generations.len() == MOST {
            self.generations.pop_front();
        }
        self.generations.push_back(Generation {
            module: module.to_owned(),
            number,
            sections,
            loaded_us: time_us,
            unloaded_us: None,
            unloaded: false,
        });
        number
    }

    /// A module was unloaded.
    pub fn unloaded(&mut self, module: &str, time_us: Option<u64>) {
        let last = self.generations.iter_mut().rev();
        if let Some(it) = last.into_iter().find(|it| it.module == module)
            && !it.unloaded
        {
            it.unloaded = true;
            it.unloaded_us = time_us;
        }
    }

    /// The loads, the oldest first.
    pub fn generations(&self) -> impl Iterator<Item = &Generation> {
        self.generations.iter()
    }

    /// What the address was, as seen at that time: the last load that covers it.
    pub fn place(&self, address: u64, now_us: Option<u64>) -> Option<Place> {
        self.generations.iter().rev().find_map(|it| {
            let section = (it.sections.iter())
                .find(|section| address.wrapping_sub(section.address) < section.size)?;
            let ago = |gone: u64| now_us.and_then(|now| now.checked_sub(gone));
            Some(Place {
                module: it.module.clone(),
                generation: it.number,
                section: section.name.clone(),
                offset: address - section.address,
                symbol: None,
                file_line: None,
                unloaded: it.unloaded,
                unloaded_us_before: it.unloaded_us.and_then(ago),
            })
        })
    }

    /// The guest booted anew.
    pub(crate) fn clear(&mut self) {
        self.generations.clear();
    }

    /// Takes a line of a console, from `knobrig:` on; false if it tells of no module.
    pub fn see(&mut self, text: &str, time_us: Option<u64>) -> bool {
        let text = text.trim_ascii();
        if let Some(module) = text.strip_prefix(UNLOADED) {
            self.unloaded(module, time_us);
            return true;
        }
        let Some(rest) = text.strip_prefix(LOADED) else {
            return false;
        };
        let mut words = rest.split_ascii_whitespace();
        let Some(module) = words.next() else {
            return false;
        };
        let sections = words.take(MOST_SECTIONS).filter_map(|word| {
            let (name, place) = word.split_once('=')?;
            let (address, size) = place.split_once('+')?;
            Some(Section {
                name: name.to_owned(),
                address: crate::case::hex(address)?,
                size: crate::case::hex(size)?,
            })
        });
        self.loaded(module, sections.collect(), time_us);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::History;

    #[test]
    fn an_address_finds_the_last_load_that_covers_it() {
        let mut history = History::default();
        for (line, at) in [
            (
                "knobrig: loaded mydrv .text=0xffffffffa0000000+0x1000 .data=0xffffffffa0008000+0x100",
                1,
            ),
            ("knobrig: unloaded mydrv", 2),
            ("knobrig: loaded mydrv .text=0xffffffffa0002000+0x1000", 3),
            ("knobrig: loaded other .text=0xffffffffa0000800+0x1000", 4),
            ("knobrig: unloaded mydrv", 5),
        ] {
            assert!(history.see(line, Some(at * 1_000)), "{line}");
        }
        let told = |address, now| history.place(address, now).map(|place| place.to_string());
        let now = Some(5_000 + 3_100);
        assert_eq!(
            told(0xffff_ffff_a000_2140, now).as_deref(),
            Some("generation 2 of mydrv, .text+0x140, unloaded 3.1 ms before")
        );
        assert_eq!(
            told(0xffff_ffff_a000_8010, now).as_deref(),
            Some("generation 1 of mydrv, .data+0x10, unloaded 6.1 ms before")
        );
        // What lies there now is what was touched.
        assert_eq!(
            told(0xffff_ffff_a000_0900, now).as_deref(),
            Some("generation 1 of other, .text+0x100")
        );
        assert_eq!(told(0xffff_ffff_a000_3000, now), None);
        assert!(!history.see("knobrig: episode 7", None));
    }

    #[test]
    fn loads_without_end_are_not_kept_without_end() {
        let mut history = History::default();
        for number in 1..=1_000 {
            assert_eq!(history.loaded("m", Vec::new(), None), number);
        }
        assert_eq!(history.generations().count(), super::MOST);
    }
}
