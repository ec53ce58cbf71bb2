//! The cache: a directory of things that are named by what they were made of.
//!
//! A thing is whole or not there: it is made beside its place and renamed into it, or its
//! marker file is written last.

use std::io::Write;
use std::path::{Path, PathBuf};

use crate::error::Error;

/// The cache's directory.
#[derive(Clone, Debug)]
pub struct Cache {
    dir: PathBuf,
}

impl Cache {
    /// Opens the cache at `dir`, or at `$KNOBRIG_CACHE`, or at the user's cache directory.
    ///
    /// # Errors
    /// The directory can't be made.
    pub fn open(dir: Option<&Path>) -> Result<Self, Error> {
        let from = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
        let dir = match dir {
            Some(dir) => dir.to_path_buf(),
            None => from("KNOBRIG_CACHE")
                .map(PathBuf::from)
                .or_else(|| from("XDG_CACHE_HOME").map(|dir| PathBuf::from(dir).join("knobrig")))
                .or_else(|| from("HOME").map(|dir| PathBuf::from(dir).join(".cache/knobrig")))
                .ok_or(Error::NoCache)?,
        };
        std::fs::create_dir_all(&dir).map_err(Error::file("create", &dir))?;
        // make and cargo run elsewhere, with these paths.
        let dir = dir.canonicalize().map_err(Error::file("find", &dir))?;
        Ok(Self { dir })
    }

    /// Where it is.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The place of a thing of a kind, in a directory that exists.
    pub(crate) fn place(&self, kind: &str, name: &str) -> Result<PathBuf, Error> {
        let dir = self.dir.join(kind);
        std::fs::create_dir_all(&dir).map_err(Error::file("create", &dir))?;
        Ok(dir.join(name))
    }
}

/// Writes a file beside its place and renames it into it.
pub(crate) fn write_whole(path: &Path, content: &[u8]) -> Result<(), Error> {
    let mut temp = path.as_os_str().to_owned();
    temp.push(format!(".part{}", std::process::id()));
    let temp = PathBuf::from(temp);
    let write = || {
        let mut file = std::fs::File::create(&temp)?;
        file.write_all(content)?;
        // The name must not become durable before the content.
        file.sync_all()?;
        std::fs::rename(&temp, path)
    };
    write().map_err(|source| {
        // What is left of it is of no use; that it can't be removed either adds nothing.
        let _ = std::fs::remove_file(&temp);
        Error::file("write", path)(source)
    })
}

/// Removes a directory or file, if it is there.
pub(crate) fn remove(path: &Path) -> Result<(), Error> {
    let removed = match std::fs::symlink_metadata(path) {
        Ok(found) if found.is_dir() => std::fs::remove_dir_all(path),
        Ok(_) => std::fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::file("remove", path)(error))
        }
        _ => Ok(()),
    }
}
