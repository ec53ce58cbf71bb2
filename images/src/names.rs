//! Names that people give to kernel images, so that they can be asked for by them.
//!
//! `name/NAME` in the cache holds an id. A name may move to another image; an image may have
//! several names, or none.

use std::path::PathBuf;

use crate::cache::{Cache, remove, write_whole};
use crate::error::Error;
use crate::kernel::{self, Kernel};

/// Calls an image so; a name that another image has moves.
///
/// # Errors
/// It is no name, or the cache can't be written.
pub fn name_kernel(cache: &Cache, name: &str, kernel: &Kernel) -> Result<(), Error> {
    write_whole(&place(cache, name)?, kernel.id.as_bytes())
}

/// The image with that name, or that id.
///
/// # Errors
/// There is none, or its build was not finished.
pub fn named_kernel(cache: &Cache, name: &str) -> Result<Kernel, Error> {
    let path = place(cache, name)?;
    let id = match std::fs::read_to_string(&path) {
        Ok(id) => id,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => name.to_owned(),
        Err(error) => return Err(Error::file("read", path)(error)),
    };
    kernel::read(&cache.place("kernel", &id)?)?.ok_or_else(|| Error::NoImage {
        name: name.to_owned(),
    })
}

/// The names of an image, in order.
pub(crate) fn names_of(cache: &Cache, id: &str) -> Result<Vec<String>, Error> {
    let mut names = Vec::new();
    for path in all(cache)? {
        // One that goes meanwhile is no name any more.
        if std::fs::read_to_string(&path).is_ok_and(|named| named == id) {
            names.extend(
                path.file_name()
                    .map(|name| name.to_string_lossy().into_owned()),
            );
        }
    }
    names.sort();
    Ok(names)
}

/// Takes away the names of an image that is gone.
pub(crate) fn forget(cache: &Cache, id: &str) -> Result<(), Error> {
    for name in names_of(cache, id)? {
        remove(&place(cache, &name)?)?;
    }
    Ok(())
}

fn all(cache: &Cache) -> Result<Vec<PathBuf>, Error> {
    let dir = cache.place("name", "")?;
    let entries = std::fs::read_dir(&dir).map_err(Error::file("read", &dir))?;
    Ok(entries.filter_map(Result::ok).map(|it| it.path()).collect())
}

fn place(cache: &Cache, name: &str) -> Result<PathBuf, Error> {
    let good = |byte: u8| byte.is_ascii_alphanumeric() || b".-_".contains(&byte);
    if name.is_empty() || name.starts_with('.') || !name.bytes().all(good) {
        return Err(Error::ImageName(name.to_owned()));
    }
    cache.place("name", name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_there_is_told_and_a_path_is_no_name() {
        let dir = tempfile::tempdir().expect("a directory");
        let cache = Cache::open(Some(dir.path())).expect("opens");
        let error = named_kernel(&cache, "mine").expect_err("none");
        assert!(matches!(error, Error::NoImage { .. }), "{error}");
        for wrong in ["", "../x", ".x", "a b"] {
            let error = named_kernel(&cache, wrong).expect_err("no name");
            assert!(matches!(error, Error::ImageName(_)), "{error}");
        }
    }

    #[test]
    fn names_move_and_go_with_their_image() {
        let dir = tempfile::tempdir().expect("a directory");
        let cache = Cache::open(Some(dir.path())).expect("opens");
        for (name, id) in [("b", "1"), ("a", "1"), ("b", "2")] {
            write_whole(&place(&cache, name).expect("a place"), id.as_bytes()).expect("writes");
        }
        assert_eq!(names_of(&cache, "1").expect("reads"), ["a"]);
        forget(&cache, "2").expect("removes");
        assert_eq!(names_of(&cache, "2").expect("reads"), [""; 0]);
    }
}
