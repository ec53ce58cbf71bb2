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

#[cfg(test)]
mod tests {
    use std::io::BufRead;
    use std::process::{Command, Stdio};
    use std::sync::Mutex;

    use super::*;

    /// Keeps what was said.
    #[derive(Default)]
    struct Said(Mutex<Vec<String>>);

    impl Progress for Said {
        fn begin(&self, _: &str, _: Option<Duration>) {}
        fn update(&self, _: f64, _: &str) {}
        fn end(&self) {}
        fn say(&self, line: &str) {
            self.0.lock().expect("not poisoned").push(line.to_owned());
        }
    }

    const CHILD: &str = "KNOBRIG_TEST_LOCK_CACHE";

    /// The other process of the test below: holds the lock until its standard input ends.
    #[test]
    fn holds_as_a_child() {
        let Some(dir) = std::env::var_os(CHILD) else {
            return;
        };
        let cache = Cache::open(Some(Path::new(&dir))).expect("opens");
        let _lock = Lock::take(&cache, "k", "holds it", &Said::default()).expect("is free");
        println!("held");
        let _ = std::io::stdin().read_line(&mut String::new());
    }

    #[test]
    fn another_process_is_waited_for_and_named() {
        let dir = tempfile::tempdir().expect("a directory");
        let cache = Cache::open(Some(dir.path())).expect("opens");
        let mut child = Command::new(std::env::current_exe().expect("a path"))
            .args(["--exact", "lock::tests::holds_as_a_child", "--nocapture"])
            .env(CHILD, dir.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("starts");
        let mut lines = std::io::BufReader::new(child.stdout.take().expect("a pipe")).lines();
        let held = lines.any(|line| line.is_ok_and(|line| line.ends_with("held")));
        assert!(held, "the child ended without the lock");
        let free = || Lock::attempt_named(&cache, "k", "tests").expect("asks");
        assert!(free().is_none());
        let said = Said::default();
        std::thread::scope(|scope| {
            let waiter = scope.spawn(|| Lock::take(&cache, "k", "waited", &said));
            while said.0.lock().expect("not poisoned").is_empty() {
                std::thread::yield_now();
            }
            // Its standard input ends, and so does it.
            drop(child.stdin.take());
            let lock = waiter.join().expect("no panic").expect("gets it");
            assert!(free().is_none());
            drop(lock);
        });
        let expected = format!("waiting for process {}, which holds it", child.id());
        assert_eq!(*said.0.lock().expect("not poisoned"), [expected]);
        assert!(child.wait().expect("ends").success());
    }
}
