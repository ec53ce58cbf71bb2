//! file:line for frames, from the kernel's and the modules' files.
//!
//! A frame names its function, the bytes into it and the function's size. That is looked up, not an
//! address: it holds for a kernel that was moved at boot and for a module wherever it was loaded. A
//! function of another size is another build's, and a line of that would be wrong: such a frame
//! stays as it is.
//!
//! - `image`: one ELF file, its functions and its lines;
//! - `hooks`: what of a module can be hooked;
//! - `relocate`: a module's debug sections, as its linker would have left them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use knobrig_klog::{Frame, Report, Symbol, Symbols};

mod hooks;
mod image;
mod relocate;

pub use hooks::hooks;
pub use image::Image;

use crate::error::Error;

/// The files that belong to a kernel's log.
#[derive(Clone, Debug, Default)]
pub struct Files {
    vmlinux: Option<PathBuf>,
    /// By the kernel's name of the module.
    modules: BTreeMap<String, PathBuf>,
    /// Beginnings of paths, and what a person knows the same directory by.
    sources: Vec<(String, String)>,
}

impl Files {
    /// A kernel's file, and modules: files, or directories that are searched for `*.ko`.
    ///
    /// # Errors
    /// Something named can't be read, or a directory has no module in it.
    pub fn find(vmlinux: Option<&Path>, modules: &[PathBuf]) -> Result<Self, Error> {
        if let Some(path) = vmlinux {
            std::fs::File::open(path).map_err(|why| {
                Error::Usage(format!("can't open the kernel {}: {why}", path.display()))
            })?;
        }
        let mut files = Self {
            vmlinux: vmlinux.map(Path::to_path_buf),
            modules: BTreeMap::new(),
            sources: Vec::new(),
        };
        for path in modules {
            let before = files.modules.len();
            files.add(path, 0).map_err(|why| {
                Error::Usage(format!(
                    "can't search {} for modules: {why}",
                    path.display()
                ))
            })?;
            if files.modules.len() == before {
                return Err(Error::Usage(format!(
                    "no module (NAME.ko, uncompressed) is in {}",
                    path.display()
                )));
            }
        }
        Ok(files)
    }

    /// Adds a module by its name.
    #[must_use]
    pub fn with_module(mut self, name: &str, path: &Path) -> Self {
        self.modules
            .insert(name.replace('-', "_"), path.to_path_buf());
        self
    }

    /// A module was built in a copy of its sources: paths in it are told as those of the sources, below
    /// the current directory without that.
    #[must_use]
    pub fn with_sources(mut self, copy: &Path, own: &Path) -> Self {
        let own = own.canonicalize().unwrap_or_else(|_| own.to_path_buf());
        let here = std::env::current_dir().ok();
        let near = here.and_then(|here| own.strip_prefix(here).ok());
        let own = near.unwrap_or(&own);
        let dir = |path: &Path| path.join("").display().to_string();
        self.sources.push((dir(copy), dir(own)));
        self
    }

    /// No file at all.
    pub fn is_empty(&self) -> bool {
        self.vmlinux.is_none() && self.modules.is_empty()
    }

    fn add(&mut self, path: &Path, depth: usize) -> std::io::Result<()> {
        /// Directories below each other: a loop of links ends here.
        const DEEPEST: usize = 16;
        if path.is_dir() {
            if depth < DEEPEST {
                for entry in std::fs::read_dir(path)? {
                    self.add(&entry?.path(), depth + 1)?;
                }
            }
            return Ok(());
        }
        let stem = path.file_name().and_then(|name| name.to_str());
        // What was named itself must be there; what a directory has may be anything.
        if depth == 0 {
            std::fs::File::open(path)?;
        }
        if let Some(stem) = stem.and_then(|name| name.strip_suffix(".ko")) {
            (self.modules)
                .entry(stem.replace('-', "_"))
                .or_insert_with(|| path.to_path_buf());
        }
        Ok(())
    }
}

/// The symbol tables of modules, each read when it is first asked for: what names an address in
/// memory that was a module's.
#[derive(Debug)]
pub struct ModuleSymbols {
    files: BTreeMap<String, PathBuf>,
    read: Mutex<BTreeMap<String, Option<Image>>>,
}

impl ModuleSymbols {
    /// Of these files.
    pub fn of(files: &Files) -> Self {
        Self {
            files: files.modules.clone(),
            read: Mutex::default(),
        }
    }
}

impl ModuleSymbols {
    /// Where a frame's function begins, in bytes of its module's `.text`; nothing if the module's file
    /// has none of that name and size there.
    pub fn start(&self, module: &str, frame: &Frame) -> Option<u64> {
        let path = self.files.get(module)?;
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        let image = (read.entry(module.to_owned())).or_insert_with(|| Image::open(path).ok());
        image.as_ref()?.start(".text", &frame.symbol, frame.size?)
    }
}

impl Symbols for ModuleSymbols {
    fn symbol(&self, module: &str, section: &str, offset: u64) -> Option<Symbol> {
        let path = self.files.get(module)?;
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        let image = (read.entry(module.to_owned())).or_insert_with(|| Image::open(path).ok());
        image.as_ref()?.symbol_at(section, offset)
    }
}

/// Finds lines for reports. The files are read when a frame first asks for them.
#[derive(Debug)]
pub struct Symbolizer {
    files: Files,
    kernel: Option<Result<image::Lines, String>>,
    modules: BTreeMap<String, Result<image::Lines, String>>,
}

impl Symbolizer {
    /// Of these files.
    pub fn new(files: Files) -> Self {
        Self {
            files,
            kernel: None,
            modules: BTreeMap::new(),
        }
    }

    /// Gives every frame that it can its file:line, and puts the calls that were inlined there
    /// before it; the text of the report gets them, too.
    pub fn symbolize(&mut self, report: &mut Report) {
        let mut known: BTreeMap<String, Vec<Frame>> = BTreeMap::new();
        for stack in &mut report.stacks {
            let mut frames = Vec::with_capacity(stack.frames.len());
            for mut frame in std::mem::take(&mut stack.frames) {
                let mut inlined = self.lines(&frame);
                if let Some(own) = inlined.pop() {
                    frame.file_line = own.file_line;
                    for inner in &mut inlined {
                        inner.reliable = frame.reliable;
                        inner.module.clone_from(&frame.module);
                    }
                    if let (Some(offset), Some(size)) = (frame.offset, frame.size) {
                        let printed = format!("{}+{offset:#x}/{size:#x}", frame.symbol);
                        let mut all = inlined.clone();
                        all.push(frame.clone());
                        known.insert(printed, all);
                    }
                    if let Some(place) = &mut frame.place {
                        place.file_line.clone_from(&frame.file_line);
                    }
                    frames.append(&mut inlined);
                }
                frames.push(frame);
            }
            stack.frames = frames;
        }
        if let Some(place) = &mut report.place {
            let image = self.module(&place.module);
            place.file_line = image.and_then(|image| image.line(&place.section, place.offset));
            self.shorten(place.file_line.as_mut());
        }
        report.text = with_lines(&report.text, &known);
    }

    /// Why a file that was asked for could not be used, a line each.
    pub fn failures(&self) -> Vec<String> {
        let all = self.kernel.iter().chain(self.modules.values());
        all.filter_map(|image| image.as_ref().err().cloned())
            .collect()
    }

    /// The frames at a frame's place, in the kernel's own paths: `drivers/base/core.c`.
    fn lines(&mut self, frame: &Frame) -> Vec<Frame> {
        let mut frames = self.found(frame);
        self.shorten(frames.iter_mut().filter_map(|it| it.file_line.as_mut()));
        frames
    }

    /// Takes off where the kernel's tree lay, and puts a module's sources where they are.
    fn shorten<'a>(&mut self, lines: impl IntoIterator<Item = &'a mut String>) {
        let mut lines = lines.into_iter().peekable();
        if lines.peek().is_none() {
            return;
        }
        let root = self.kernel().and_then(image::Lines::root);
        let kernel = root.map(|root| (root, String::new()));
        let places: Vec<_> = kernel.iter().chain(&self.files.sources).collect();
        for line in lines {
            let moved = (places.iter())
                .find_map(|(from, to)| Some(format!("{to}{}", line.strip_prefix(from.as_str())?)));
            if let Some(moved) = moved {
                *line = moved;
            }
        }
    }

    fn found(&mut self, frame: &Frame) -> Vec<Frame> {
        if frame.inlined || frame.file_line.is_some() {
            return Vec::new();
        }
        // The instruction after a call may be another line's, or another function's.
        let back = u64::from(!frame.interrupted);
        if let Some(place) = &frame.place {
            let (section, offset) = (place.section.clone(), place.offset);
            let module = self.module(&place.module.clone());
            return module.map_or_else(Vec::new, |image| {
                image.frames_at(&section, offset.saturating_sub(back))
            });
        }
        let (Some(offset), Some(size)) = (frame.offset, frame.size) else {
            return Vec::new();
        };
        let image = match &frame.module {
            Some(module) => self.module(module),
            None => self.kernel(),
        };
        image.map_or_else(Vec::new, |image| {
            image.frames_of(&frame.symbol, size, offset.saturating_sub(back))
        })
    }

    fn kernel(&mut self) -> Option<&image::Lines> {
        let path = self.files.vmlinux.as_ref()?;
        let kernel = self.kernel.get_or_insert_with(|| image::Lines::open(path));
        kernel.as_ref().ok()
    }

    fn module(&mut self, name: &str) -> Option<&image::Lines> {
        let path = self.files.modules.get(name)?;
        let module =
            (self.modules.entry(name.to_owned())).or_insert_with(|| image::Lines::open(path));
        module.as_ref().ok()
    }
}

/// The report's text with the lines that are known: the inlined calls above their frame, as
/// scripts/decode_stacktrace.sh and syzkaller print them.
fn with_lines(text: &str, known: &BTreeMap<String, Vec<Frame>>) -> String {
    let mut out = String::with_capacity(text.len() * 2);
    for (index, line) in text.split('\n').enumerate() {
        if index > 0 {
            out.push('\n');
        }
        let word = line
            .split_ascii_whitespace()
            .find_map(|word| known.get_key_value(word));
        let Some((word, frames)) = word else {
            out.push_str(line);
            continue;
        };
        let at = line.find(word.as_str()).unwrap_or(0);
        let Some((own, inlined)) = frames.split_last() else {
            out.push_str(line);
            continue;
        };
        // A headline names a place, not a chain.
        if line.starts_with(' ') {
            for inner in inlined {
                let (name, place) = (&inner.function, inner.file_line.as_deref());
                out.push_str(&line[..at]);
                out.push_str(&format!("{name} {} [inline]\n", place.unwrap_or("?")));
            }
        }
        out.push_str(&line[..at + word.len()]);
        if let Some(place) = &own.file_line {
            out.push(' ');
            out.push_str(place);
        }
        out.push_str(&line[at + word.len()..]);
    }
    out
}
