//! The initramfs: the agent as /init, modules in /modules and the list of those that come first,
//! /dev/console; newc, uncompressed
//! (unpacking costs the guest more than reading).

use std::io::Write;
use std::path::{Path, PathBuf};

use cpio::newc::{Builder, ModeFileType, trailer};

use crate::cache::{Cache, write_whole};
use crate::error::Error;
use crate::hash::Content;

/// Version of the layout.
const VERSION: u32 = 2;

/// Finds an initramfs with this agent and these modules (name, file), or makes it. The agent loads
/// the modules that are named `first` in that order before it does anything else.
///
/// # Errors
/// A file can't be read, or the cache can't be written.
pub fn initramfs(
    cache: &Cache,
    agent: &Path,
    modules: &[(String, PathBuf)],
    first: &[String],
) -> Result<PathBuf, Error> {
    let read = |path: &Path| std::fs::read(path).map_err(Error::file("read", path));
    let agent = read(agent)?;
    let mut content = Content::of("initramfs")
        .field(&VERSION.to_le_bytes())
        .field(&agent)
        .field(first.join("\n").as_bytes());
    let mut files = Vec::new();
    for (name, path) in modules {
        if name.is_empty()
            || !name
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
        {
            return Err(Error::ModuleName(name.clone()));
        }
        let module = read(path)?;
        content = content.field(name.as_bytes()).field(&module);
        files.push((name.as_str(), module));
    }
    let path = cache.place("initramfs", &format!("{}.cpio", content.id()))?;
    if path.is_file() {
        return Ok(path);
    }
    let archive = archive(&agent, &files, first).map_err(Error::file("write", &path))?;
    write_whole(&path, &archive)?;
    Ok(path)
}

fn archive(
    agent: &[u8],
    modules: &[(&str, Vec<u8>)],
    first: &[String],
) -> std::io::Result<Vec<u8>> {
    let mut archive = Archive::default();
    for dir in ["dev", "proc", "sys", "modules"] {
        archive.add(Builder::new(dir).mode(0o755), ModeFileType::Directory, &[])?;
    }
    // The kernel opens it as the agent's standard streams, before there is a devtmpfs.
    let console = Builder::new("dev/console")
        .mode(0o600)
        .rdev_major(5)
        .rdev_minor(1);
    archive.add(console, ModeFileType::Char, &[])?;
    archive.add(
        Builder::new("init").mode(0o755),
        ModeFileType::Regular,
        agent,
    )?;
    for (name, module) in modules {
        let entry = Builder::new(&format!("modules/{name}.ko")).mode(0o644);
        archive.add(entry, ModeFileType::Regular, module)?;
    }
    let first: String = first.iter().map(|name| format!("{name}\n")).collect();
    let entry = Builder::new("modules/first").mode(0o644);
    archive.add(entry, ModeFileType::Regular, first.as_bytes())?;
    trailer(archive.bytes)
}

#[derive(Default)]
struct Archive {
    bytes: Vec<u8>,
    entries: u32,
}

impl Archive {
    fn add(&mut self, entry: Builder, kind: ModeFileType, content: &[u8]) -> std::io::Result<()> {
        self.entries += 1;
        let size = u32::try_from(content.len()).map_err(std::io::Error::other)?;
        // Inode numbers that differ: equal ones would be hard links.
        let entry = entry.ino(self.entries).nlink(1).set_mode_file_type(kind);
        let mut writer = entry.write(&mut self.bytes, size);
        writer.write_all(content)?;
        writer.finish().map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_with_a_path_are_refused() {
        let dir = tempfile::tempdir().expect("a directory");
        let cache = Cache::open(Some(dir.path())).expect("opens");
        let file = dir.path().join("f");
        std::fs::write(&file, "x").expect("writes");
        let error =
            initramfs(&cache, &file, &[("../x".into(), file.clone())], &[]).expect_err("refused");
        assert!(matches!(error, Error::ModuleName(_)), "{error}");
    }
}
