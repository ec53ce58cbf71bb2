//! Tells the console where a module was loaded and when it was gone, so that whoever reads it can
//! say what an address in memory that no module owns any more once was.
//!
//! `knobrig: loaded mydrv .text=0xffffffffa0000000+0x1d2a0 …`: addresses as
//! `/sys/module/mydrv/sections` has them, sizes as the module's file. The console is the way, not
//! the port: it comes out even if the kernel goes down a moment later.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Write as _};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Mutex;

use crate::lock;

/// Sections that are told of a module; those with code come first.
const MOST: usize = 10;
/// Section headers of a module; a Rust one has hundreds before it is linked.
const MOST_HEADERS: usize = 4096;
/// Bytes of the section names.
const MOST_NAMES: usize = 1 << 20;

/// A section that stays in memory: its name and its bytes.
type Sized = (String, u64);

/// What each module's file says, read once.
static FILES: Mutex<BTreeMap<String, Vec<Sized>>> = Mutex::new(BTreeMap::new());

/// Says that a module was loaded from this file.
pub fn loaded(name: &str, file: &Path) {
    // Without it a finding says less and is no less true.
    let Ok(line) = where_it_lies(name, file) else {
        return;
    };
    say(&line);
}

/// Says that a module was unloaded.
pub fn unloaded(name: &str) {
    say(&format!("knobrig: unloaded {name}\n"));
}

fn say(line: &str) {
    // As above: a console that can't be written to is found out about elsewhere.
    let _ = (File::options().write(true).open("/dev/kmsg"))
        .and_then(|mut kmsg| kmsg.write_all(line.as_bytes()));
}

fn where_it_lies(name: &str, file: &Path) -> io::Result<String> {
    let mut files = lock(&FILES);
    if !files.contains_key(name) {
        files.insert(name.to_owned(), kept(&File::open(file)?)?);
    }
    // The kernel has `_` where a file's name may have `-`.
    let dir = Path::new("/sys/module")
        .join(name.replace('-', "_"))
        .join("sections");
    let mut line = format!("knobrig: loaded {}", name.replace('-', "_"));
    for (section, size) in files.get(name).into_iter().flatten() {
        if let Ok(address) = std::fs::read_to_string(dir.join(section)) {
            let _ = write!(line, " {section}={}+{size:#x}", address.trim());
        }
    }
    line.push('\n');
    Ok(line)
}

/// The sections of an ELF file that a fault may lie in: code, constants, data; not what is freed
/// after the module's init. The format is of the System V ABI, chapter 4.
fn kept(file: &File) -> io::Result<Vec<Sized>> {
    const SHF_ALLOC: u64 = 2;
    const SHF_EXECINSTR: u64 = 4;
    let mut header = [0; 64];
    file.read_exact_at(&mut header, 0)?;
    let bad = || io::Error::new(io::ErrorKind::InvalidData, "no ELF file of 64 bits");
    if !header.starts_with(b"\x7fELF\x02\x01") || short(&header, 58) != 64 {
        return Err(bad());
    }
    let count = usize::from(short(&header, 60)).min(MOST_HEADERS);
    let mut headers = vec![0; count * 64];
    file.read_exact_at(&mut headers, long(&header, 40))?;
    let headers: Vec<&[u8]> = headers.chunks_exact(64).collect();
    let strings = headers
        .get(usize::from(short(&header, 62)))
        .ok_or_else(bad)?;
    let len = usize::try_from(long(strings, 32)).map_err(|_| bad())?;
    let mut names = vec![0; len.min(MOST_NAMES)];
    file.read_exact_at(&mut names, long(strings, 24))?;
    let mut found: Vec<(bool, Sized)> = Vec::new();
    for header in headers {
        let (flags, size) = (long(header, 8), long(header, 32));
        let start = u32::from_le_bytes([header[0], header[1], header[2], header[3]]);
        let name = names.get(start as usize..).unwrap_or_default();
        let name = name.split(|byte| *byte == 0).next().unwrap_or_default();
        let name = String::from_utf8_lossy(name).into_owned();
        let code = flags & SHF_EXECINSTR != 0;
        let data = [".rodata", ".data", ".bss"]
            .iter()
            .any(|kind| name.starts_with(kind));
        if flags & SHF_ALLOC != 0 && size > 0 && !name.starts_with(".init") && (code || data) {
            found.push((!code, (name, size)));
        }
    }
    found.sort_by_key(|(data, _)| *data);
    Ok(found.into_iter().take(MOST).map(|(_, it)| it).collect())
}

fn short(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

fn long(bytes: &[u8], at: usize) -> u64 {
    let mut value = [0; 8];
    value.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sections_of_a_real_file_are_found() {
        let this = std::env::current_exe().expect("this program has a file");
        let sections = kept(&File::open(this).expect("it opens")).expect("it is ELF");
        assert!(
            sections
                .iter()
                .any(|(name, size)| name == ".text" && *size > 1000)
        );
        assert!(sections.iter().any(|(name, _)| name == ".rodata"));
        assert!(
            sections
                .iter()
                .all(|(name, _)| name != ".init" && name != ".symtab")
        );
        let text = sections.iter().position(|(name, _)| name == ".text");
        let data = sections.iter().position(|(name, _)| name == ".rodata");
        assert!(text < data, "code comes first");
    }

    #[test]
    fn what_is_no_elf_file_is_told() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("m.ko");
        for bytes in [&b""[..], b"\x7fELF", &[0x7f; 200], b"#!/bin/sh\n"] {
            std::fs::write(&path, bytes).expect("writes");
            assert!(kept(&File::open(&path).expect("opens")).is_err());
        }
        // A header that points past the end.
        let mut header = [0u8; 64];
        header[..6].copy_from_slice(b"\x7fELF\x02\x01");
        header[58] = 64;
        header[60] = 9;
        header[40] = 0xff;
        std::fs::write(&path, header).expect("writes");
        assert!(kept(&File::open(&path).expect("opens")).is_err());
    }
}
