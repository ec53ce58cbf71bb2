//! Locks between processes that use one cache: flock(2) on a file that tells who holds it.

use std::fs::{File, TryLockError};
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::cache::Cache;
use crate::error::Error;
use crate::progress::Progress;

/// Longer than any build takes.
const PATIENCE: Duration = Duration::from_secs(2 * 60 * 60);
/// flock(2) has no deadline, so it is asked again.
const AGAIN: Duration = Duration::from_millis(100);

/// A lock that is held until it is dropped, and until every child that was given it ended.
#[derive(Debug)]
pub(crate) struct Lock {
    file: File,
}

impl Lock {
    /// Takes the lock `name`; says so if another process has it.
    pub(crate) fn take(
        cache: &Cache,
        name: &str,
        purpose: &str,
        progress: &dyn Progress,
    ) -> Result<Self, Error> {
        let path = path(cache, name)?;
        let began = Instant::now();
        let mut said = false;
        loop {
            if let Some(lock) = Self::attempt(&path, purpose)? {
                return Ok(lock);
            }
            let after = began.elapsed();
            if after >= PATIENCE {
                return Err(Error::Locked {
                    holder: holder(&path),
                    path,
                    after,
                });
            }
            if !said {
                said = true;
                progress.say(&format!("waiting for {}", holder(&path)));
            }
            std::thread::sleep(AGAIN);
        }
    }

    /// Takes the lock `name` if no one has it.
    pub(crate) fn attempt_named(
        cache: &Cache,
        name: &str,
        purpose: &str,
    ) -> Result<Option<Self>, Error> {
        Self::attempt(&path(cache, name)?, purpose)
    }

    fn attempt(path: &Path, purpose: &str) -> Result<Option<Self>, Error> {
        let mut file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
            .map_err(Error::file("open", path))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(source)) => return Err(Error::file("lock", path)(source)),
        }
        let text = format!("process {}, which {purpose}\n", std::process::id());
        let write = |file: &mut File| {
            file.set_len(0)?;
            file.rewind()?;
            file.write_all(text.as_bytes())
        };
        write(&mut file).map_err(Error::file("write", path))?;
        Ok(Some(Self { file }))
    }

    /// The open file: a child that has it keeps the lock after this process died.
    pub(crate) fn share(&self) -> std::io::Result<File> {
        self.file.try_clone()
    }
}

fn path(cache: &Cache, name: &str) -> Result<PathBuf, Error> {
    cache.place("lock", &format!("{name}.lock"))
}

/// Who holds the lock, by its own words.
fn holder(path: &Path) -> String {
    let mut text = String::new();
    let read = File::open(path).and_then(|file| file.take(200).read_to_string(&mut text));
    match read {
        Ok(_) if !text.trim().is_empty() => text.trim().to_owned(),
        _ => "another process".to_owned(),
    }
}
