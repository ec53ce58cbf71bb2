//! Content ids: what a cached thing was made of.

use std::path::{Path, PathBuf};

use crate::error::Error;

/// Letters of an id: 12 hex digits tell 2^24 images apart with a chance of one in ten million
/// to mix two up.
const ID: usize = 12;

/// Hashes fields so that no two lists of fields look the same.
#[derive(Default)]
pub(crate) struct Content(blake3::Hasher);

impl Content {
    /// Starts with what the thing is.
    pub(crate) fn of(kind: &str) -> Self {
        Self::default().field(kind.as_bytes())
    }

    /// Adds a field.
    pub(crate) fn field(mut self, bytes: &[u8]) -> Self {
        self.0.update(&(bytes.len() as u64).to_le_bytes());
        self.0.update(bytes);
        self
    }

    /// Adds a file's content.
    pub(crate) fn file(self, path: &Path) -> Result<Self, Error> {
        let bytes = std::fs::read(path).map_err(Error::file("read", path))?;
        Ok(self.field(&bytes))
    }

    /// Adds the names and contents of all files below a directory, in order of name.
    pub(crate) fn tree(mut self, dir: &Path) -> Result<Self, Error> {
        for path in files(dir)? {
            let name = path.strip_prefix(dir).unwrap_or(&path);
            self = self
                .field(name.as_os_str().as_encoded_bytes())
                .file(&path)?;
        }
        Ok(self)
    }

    /// The id.
    pub(crate) fn id(&self) -> String {
        let mut hex = self.0.finalize().to_hex().to_string();
        hex.truncate(ID);
        hex
    }
}

/// All files below `dir` (links are not followed; `target` and hidden names are left out), in
/// order.
pub(crate) fn files(dir: &Path) -> Result<Vec<PathBuf>, Error> {
    let mut found = Vec::new();
    let mut dirs = vec![dir.to_path_buf()];
    while let Some(dir) = dirs.pop() {
        for entry in std::fs::read_dir(&dir).map_err(Error::file("read", &dir))? {
            let entry = entry.map_err(Error::file("read", &dir))?;
            let name = entry.file_name();
            if name.as_encoded_bytes().starts_with(b".") || name == "target" {
                continue;
            }
            let kind = entry
                .file_type()
                .map_err(Error::file("read", entry.path()))?;
            if kind.is_dir() {
                dirs.push(entry.path());
            } else if kind.is_file() {
                found.push(entry.path());
            }
        }
    }
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_do_not_run_into_each_other() {
        let one = Content::of("k").field(b"ab").field(b"c").id();
        let other = Content::of("k").field(b"a").field(b"bc").id();
        assert_ne!(one, other);
        assert_eq!(one.len(), ID);
    }

    #[test]
    fn a_tree_changes_with_names_and_contents() {
        let dir = tempfile::tempdir().expect("a directory");
        let id = || Content::of("t").tree(dir.path()).expect("hashes").id();
        std::fs::write(dir.path().join("a"), "1").expect("writes");
        let first = id();
        assert_eq!(first, id());
        std::fs::rename(dir.path().join("a"), dir.path().join("b")).expect("renames");
        let renamed = id();
        assert_ne!(first, renamed);
        std::fs::write(dir.path().join("b"), "2").expect("writes");
        assert_ne!(renamed, id());
    }
}
