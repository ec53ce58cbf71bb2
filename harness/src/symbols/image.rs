//! One ELF file: its functions by name, and the lines of its code.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use addr2line::Context;
use gimli::{EndianArcSlice, RunTimeEndian, SectionId};
use knobrig_klog::{Frame, Symbol};
use object::{Object, ObjectSection, ObjectSymbol, SectionIndex};

use super::relocate::{self, Layout};

type Reader = EndianArcSlice<RunTimeEndian>;

/// A function or variable.
#[derive(Clone, Debug)]
struct Entry {
    name: String,
    section: usize,
    /// Bytes into its section; of a linked file its address.
    start: u64,
    /// Its own bytes.
    size: u64,
    /// Bytes up to the next symbol: what the kernel takes for its size, padding and all.
    room: u64,
}

impl Entry {
    /// The kernel would print that size for it (kallsyms_lookup_size_offset() and
    /// find_kallsyms_symbol() take the distance to the next symbol, whatever that is).
    fn has_size(&self, size: u64) -> bool {
        /// Functions are aligned to so much at most.
        const ALIGN: u64 = 64;
        size == self.room
            || size == self.size
            || self.size > 0 && size > self.size && size - self.size < ALIGN && size <= self.room
    }
}

/// The symbol table of a file.
#[derive(Debug)]
pub struct Image {
    entries: Vec<Entry>,
    by_name: BTreeMap<String, Vec<usize>>,
    sections: BTreeMap<String, usize>,
}

impl Image {
    /// Reads a file's symbol table.
    ///
    /// # Errors
    /// It can't be read, or is no ELF file.
    pub fn open(path: &Path) -> Result<Self, String> {
        let bytes = read(path)?;
        Ok(Self::of(&parse(path, &bytes)?))
    }

    fn of(file: &object::File<'_>) -> Self {
        let mut entries: Vec<Entry> = (file.symbols())
            .filter_map(|symbol| {
                let name = symbol.name().ok()?;
                // Labels within functions are no symbols to the kernel either.
                if name.is_empty() || name.starts_with(".L") || name.starts_with('$') {
                    return None;
                }
                Some(Entry {
                    name: name.to_owned(),
                    section: symbol.section_index()?.0,
                    start: symbol.address(),
                    size: symbol.size(),
                    room: 0,
                })
            })
            .collect();
        entries.sort_by_key(|entry| (entry.section, entry.start));
        let ends: BTreeMap<usize, u64> = (file.sections())
            .map(|section| (section.index().0, section.address() + section.size()))
            .collect();
        let mut next: Option<(usize, u64)> = None;
        let mut above: Option<(usize, u64)> = None;
        for entry in entries.iter_mut().rev() {
            if let Some((section, start)) = above
                && (section, start) != (entry.section, entry.start)
            {
                next = above;
            }
            above = Some((entry.section, entry.start));
            let end = match next {
                Some((section, start)) if section == entry.section => start,
                _ => ends.get(&entry.section).copied().unwrap_or(entry.start),
            };
            entry.room = end.saturating_sub(entry.start);
        }
        let mut by_name: BTreeMap<String, Vec<usize>> = BTreeMap::new();
        for (index, entry) in entries.iter().enumerate() {
            by_name.entry(entry.name.clone()).or_default().push(index);
        }
        let sections = file.sections().filter_map(|section| {
            let name = section.name().ok()?.to_owned();
            Some((name, section.index().0))
        });
        Self {
            entries,
            by_name,
            sections: sections.collect(),
        }
    }

    /// What lies at an offset of a section.
    pub fn symbol_at(&self, section: &str, offset: u64) -> Option<Symbol> {
        let section = *self.sections.get(section)?;
        let after = (self.entries)
            .partition_point(|entry| (entry.section, entry.start) <= (section, offset));
        let entry = self.entries[..after].iter().rev();
        let entry = entry
            .take_while(|it| it.section == section)
            .find(|it| it.size > 0)?;
        // The compiler's own constants are named by a hash, which says nothing.
        if entry.name.starts_with("anon.") {
            return None;
        }
        let into = offset - entry.start;
        (into < entry.size).then(|| Symbol {
            name: entry.name.clone(),
            offset: into,
            size: entry.room,
        })
    }

    /// Where the function of that name and size begins, in bytes of the section.
    pub fn start(&self, section: &str, name: &str, size: u64) -> Option<u64> {
        let section = *self.sections.get(section)?;
        let mut functions = self.functions(name, size);
        let entry = functions.find(|entry| entry.section == section)?;
        Some(entry.start)
    }

    /// The functions of that name and size.
    fn functions(&self, name: &str, size: u64) -> impl Iterator<Item = &Entry> {
        let all = self.by_name.get(name).map_or(&[][..], Vec::as_slice);
        let all = all.iter().map(|index| &self.entries[*index]);
        all.filter(move |entry| entry.has_size(size))
    }
}

/// A file's lines.
pub(super) struct Lines {
    image: Image,
    layout: Layout,
    context: Context<Reader>,
}

impl std::fmt::Debug for Lines {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lines").finish_non_exhaustive()
    }
}

impl Lines {
    /// Reads a file with debug information.
    pub(super) fn open(path: &Path) -> Result<Self, String> {
        let bytes = read(path)?;
        let file = parse(path, &bytes)?;
        if file.section_by_name(".debug_info").is_none() {
            return Err(format!(
                "{} has no debug information, so none of its lines are known",
                path.display()
            ));
        }
        let layout = Layout::of(&file);
        let endian = match file.is_little_endian() {
            true => RunTimeEndian::Little,
            false => RunTimeEndian::Big,
        };
        let load = |id: SectionId| -> Result<Reader, gimli::Error> {
            let section = file.section_by_name(id.name());
            let bytes = section.and_then(|section| relocate::bytes(&file, &section, &layout));
            Ok(EndianArcSlice::new(
                Arc::from(bytes.unwrap_or_default()),
                endian,
            ))
        };
        let wrong =
            |why: gimli::Error| format!("can't read the lines of {}: {why}", path.display());
        let dwarf = gimli::Dwarf::load(load).map_err(wrong)?;
        let context = Context::from_dwarf(dwarf).map_err(wrong)?;
        Ok(Self {
            image: Image::of(&file),
            layout,
            context,
        })
    }

    /// The frames at an offset into the function of that name and size, the innermost first, the
    /// function's own last; none where the file has no such function, or several that disagree.
    pub(super) fn frames_of(&self, name: &str, size: u64, offset: u64) -> Vec<Frame> {
        let mut found: Option<Vec<Frame>> = None;
        for entry in self.image.functions(name, size) {
            if offset >= entry.room {
                return Vec::new();
            }
            let address = self
                .layout
                .base(SectionIndex(entry.section), 0)
                .wrapping_add(entry.start);
            let frames = self.frames(address.wrapping_add(offset));
            match &found {
                Some(before) if *before != frames => return Vec::new(),
                _ => found = Some(frames),
            }
        }
        found.unwrap_or_default()
    }

    /// Where the kernel's tree lay when it was built: what stands before `init/main.c` in the place
    /// of the function that every kernel begins with.
    pub(super) fn root(&self) -> Option<String> {
        let entry = self.image.by_name.get("start_kernel")?.first()?;
        let start = self.image.entries.get(*entry)?.start;
        let line = self.frames(start).pop()?.file_line?;
        let (file, _) = line.rsplit_once(':')?;
        file.strip_suffix("init/main.c")
            .filter(|it| !it.is_empty())
            .map(str::to_owned)
    }

    /// As [`Lines::frames_of`], at an offset into a section.
    pub(super) fn frames_at(&self, section: &str, offset: u64) -> Vec<Frame> {
        match self.image.sections.get(section) {
            Some(index) => self.frames(
                self.layout
                    .base(SectionIndex(*index), 0)
                    .wrapping_add(offset),
            ),
            None => Vec::new(),
        }
    }

    /// The innermost line at an offset into a section.
    pub(super) fn line(&self, section: &str, offset: u64) -> Option<String> {
        self.frames_at(section, offset)
            .into_iter()
            .next()?
            .file_line
    }

    fn frames(&self, address: u64) -> Vec<Frame> {
        let mut frames = Vec::new();
        let Ok(mut found) = self.context.find_frames(address).skip_all_loads() else {
            return frames;
        };
        while let Ok(Some(frame)) = found.next() {
            let Some(file_line) = frame.location.and_then(|it| Some((it.file?, it.line?))) else {
                // Half of an answer is none.
                return Vec::new();
            };
            let name = frame.function.as_ref().and_then(|it| it.raw_name().ok());
            let symbol = name.map_or(String::new(), |name| name.into_owned());
            frames.push(Frame {
                function: knobrig_klog::readable(&symbol),
                symbol,
                file_line: Some(format!("{}:{}", tidy(file_line.0), file_line.1)),
                inlined: true,
                ..Frame::default()
            });
        }
        frames
    }
}

/// A path as the kernel's developers write it: without `./` and what stands before the tree.
fn tidy(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "." => {}
            ".." if parts
                .last()
                .is_some_and(|last| !last.is_empty() && *last != "..") =>
            {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    parts.join("/")
}

pub(super) fn read(path: &Path) -> Result<Vec<u8>, String> {
    std::fs::read(path).map_err(|why| format!("can't read {}: {why}", path.display()))
}

pub(super) fn parse<'a>(path: &Path, bytes: &'a [u8]) -> Result<object::File<'a>, String> {
    object::File::parse(bytes).map_err(|why| format!("{} is no ELF file: {why}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_is_the_symbols_or_the_room_it_has() {
        let entry = Entry {
            name: "f".into(),
            section: 1,
            start: 0x100,
            size: 0x2d,
            room: 0x40,
        };
        for (size, fits) in [
            (0x2d, true),
            (0x30, true),
            (0x40, true),
            (0x20, false),
            (0x50, false),
        ] {
            assert_eq!(entry.has_size(size), fits, "{size:#x}");
        }
    }

    #[test]
    fn paths_are_tidy() {
        assert_eq!(tidy("./drivers/base/core.c"), "drivers/base/core.c");
        assert_eq!(tidy("/b/../a/x.rs"), "/a/x.rs");
    }
}
