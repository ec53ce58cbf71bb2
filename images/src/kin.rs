//! A new kernel begins with the build tree of one of the same source: make builds again what its
//! options, its compiler or its flags make different, and nothing else.

use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use memchr::memmem::Finder;

use crate::cache::Cache;
use crate::error::Error;
use crate::kernel;
use crate::run::Run;
use crate::variant::Variant;

/// Of a gigabyte on a slow disk.
const COPY: Duration = Duration::from_secs(300);

/// A kernel in the cache whose tree another one may begin with.
#[derive(Debug)]
pub(crate) struct Kin {
    /// Its id.
    pub(crate) id: String,
    /// Its tree.
    pub(crate) build: PathBuf,
}

/// The newest of this source, of the same variant if there is one.
pub(crate) fn nearest(cache: &Cache, source: &str, variant: Variant) -> Result<Option<Kin>, Error> {
    let dir = cache.place("kernel", "")?;
    let Ok(entries) = std::fs::read_dir(&dir) else {
        return Ok(None);
    };
    let mut best: Option<((bool, SystemTime), Kin)> = None;
    let dirs = entries.filter_map(|entry| Some(entry.ok()?.path()));
    for dir in dirs.filter(|dir| dir.is_dir()) {
        let Some(kernel) = kernel::read(&dir)? else {
            continue;
        };
        if kernel.given || kernel.source_hash != source || !kernel.build.is_dir() {
            continue;
        }
        let built = std::fs::metadata(dir.join("kernel.json")).and_then(|it| it.modified());
        let rank = (
            kernel.variant == variant,
            built.unwrap_or(SystemTime::UNIX_EPOCH),
        );
        if best.as_ref().is_none_or(|(other, _)| rank > *other) {
            let kin = Kin {
                id: kernel.id,
                build: kernel.build,
            };
            best = Some((rank, kin));
        }
    }
    Ok(best.map(|(_, kin)| kin))
}

impl Kin {
    /// Puts a copy of its tree to `build`: whole, or not at all.
    ///
    /// # Errors
    /// It can't be copied: it was removed just now, or the disk is full.
    pub(crate) fn copy(&self, build: &Path) -> Result<(), Error> {
        let part = build.with_extension("part");
        let remove = || match std::fs::remove_dir_all(&part) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(Error::file("remove", &part)(error))
            }
            _ => Ok(()),
        };
        remove()?;
        // Times tell make what is up to date; file systems that can share the blocks do.
        let mut cp = Command::new("cp");
        cp.args(["--archive", "--reflink=auto"])
            .arg(&self.build)
            .arg(&part);
        let what = format!("copy the build tree of kernel {}", self.id);
        if let Err(error) = Run::new(&what, cp, COPY).output() {
            remove()?;
            return Err(error);
        }
        rename_in_commands(&part, &self.build, build)?;
        std::fs::rename(&part, build).map_err(Error::file("rename", &part))
    }
}

/// make builds again what another command line made, and some name the tree: that of objtool, on
/// which every object depends, too. Where only the tree's place differs, nothing does.
fn rename_in_commands(tree: &Path, old: &Path, new: &Path) -> Result<(), Error> {
    let (old, new) = (old.as_os_str().as_bytes(), new.as_os_str().as_bytes());
    let finder = Finder::new(old);
    let mut dirs = vec![tree.to_owned()];
    while let Some(dir) = dirs.pop() {
        let read = Error::file("read", &dir);
        for entry in std::fs::read_dir(&dir).map_err(read)? {
            let entry = entry.map_err(Error::file("read", &dir))?;
            let kind = entry.file_type().map_err(Error::file("read", &dir))?;
            let path = entry.path();
            if kind.is_dir() {
                dirs.push(path);
            } else if kind.is_file() && path.extension().is_some_and(|it| it == "cmd") {
                let text = std::fs::read(&path).map_err(Error::file("read", &path))?;
                let mut renamed = Vec::new();
                let mut done = 0;
                for at in finder.find_iter(&text) {
                    renamed.extend_from_slice(&text[done..at]);
                    renamed.extend_from_slice(new);
                    done = at + old.len();
                }
                if done > 0 {
                    renamed.extend_from_slice(&text[done..]);
                    std::fs::write(&path, renamed).map_err(Error::file("write", &path))?;
                }
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_is_copied_whole_or_not_at_all() {
        let dir = tempfile::tempdir().expect("a directory");
        let old = dir.path().join("old");
        std::fs::create_dir_all(old.join("kernel")).expect("created");
        std::fs::write(old.join("kernel/fork.o"), b"code").expect("written");
        let command = format!("cc -I{0}/include -o {0}/kernel/fork.o", old.display());
        std::fs::write(old.join("kernel/.fork.o.cmd"), command).expect("written");
        let kin = |build: &Path| Kin {
            id: "abc".into(),
            build: build.to_owned(),
        };
        let new = dir.path().join("build");
        kin(&dir.path().join("gone"))
            .copy(&new)
            .expect_err("nothing to copy");
        assert!(!new.exists() && !new.with_extension("part").exists());
        // One that was interrupted leaves a part.
        std::fs::create_dir_all(new.with_extension("part").join("stale")).expect("created");
        kin(&old).copy(&new).expect("copied");
        let object = new.join("kernel/fork.o");
        assert_eq!(std::fs::read(&object).expect("there"), b"code");
        let command = format!("cc -I{0}/include -o {0}/kernel/fork.o", new.display());
        let renamed = std::fs::read_to_string(new.join("kernel/.fork.o.cmd"));
        assert_eq!(renamed.expect("there"), command);
        assert!(!new.join("stale").exists() && !new.with_extension("part").exists());
        let time = |path: &Path| std::fs::metadata(path).and_then(|it| it.modified());
        assert_eq!(
            time(&object).expect("a time"),
            time(&old.join("kernel/fork.o")).expect("a time")
        );
    }
}
