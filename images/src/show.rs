//! What the cache holds, and what of it can go.

use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use crate::cache::{Cache, remove};
use crate::error::Error;
use crate::kernel::{self, Kernel, KernelRequest};
use crate::lock::Lock;
use crate::module;
use crate::names;
use crate::source::{self, KernelSource};
use crate::variant::Variant;

/// An initramfs takes milliseconds to make; one this old is not about to be booted.
const INITRAMFS_AGE: Duration = Duration::from_secs(60 * 60);

/// A kernel in the cache.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The kernel; none where its build was not finished.
    pub kernel: Option<Kernel>,
    /// Its id.
    pub id: String,
    /// What it takes on disk, its modules included.
    pub bytes: u64,
    /// Since it was built.
    pub age: Duration,
    /// Whether the pinned source of today makes this very kernel.
    pub current: bool,
    /// What people call it.
    pub names: Vec<String>,
}

impl Entry {
    /// Whether it was made of something else than the pinned source and our fragments: it is
    /// never stale, since nothing here says that it is no longer wanted.
    fn asked_for(&self, pinned: &str) -> bool {
        self.kernel
            .as_ref()
            .is_some_and(|kernel| own(kernel, pinned))
            || !self.names.is_empty()
    }
}

fn own(kernel: &Kernel, pinned: &str) -> bool {
    !kernel.source.starts_with(pinned) || !kernel.fragments.is_empty()
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (variant, release) = self.kernel.as_ref().map_or(("-", "-"), |kernel| {
            (kernel.variant.name(), kernel.release.as_str())
        });
        let state = match &self.kernel {
            None => "unfinished; the next build goes on from here",
            Some(_) if self.current => "current",
            Some(_) if self.asked_for(source::PACKAGE) => "kept",
            Some(_) => "stale",
        };
        write!(
            f,
            "{}  {variant:<7}  {release:<9}  {:>8}  {:>8}  {state}",
            self.id,
            Size(self.bytes).to_string(),
            age(self.age)
        )?;
        if let Some(kernel) = &self.kernel {
            write!(f, "  {}", kernel.source)?;
            for fragment in &kernel.fragments {
                write!(f, " + {fragment}")?;
            }
            if !kernel.rust {
                write!(f, ", no Rust")?;
            }
        }
        for name in &self.names {
            write!(f, "  [{name}]")?;
        }
        Ok(())
    }
}

/// What to remove.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clean {
    /// Everything, the sources and tools included.
    All,
    /// What today's sources do not use.
    Stale,
}

/// What was removed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Freed {
    /// Bytes that it took.
    pub bytes: u64,
    /// What another process uses, and so stays.
    pub in_use: Vec<PathBuf>,
}

impl fmt::Display for Freed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", Size(self.bytes))?;
        for path in &self.in_use {
            write!(f, " (in use and kept: {})", path.display())?;
        }
        Ok(())
    }
}

/// The kernels in the cache.
///
/// # Errors
/// The cache can't be read.
pub fn list(cache: &Cache) -> Result<Vec<Entry>, Error> {
    let current = current(cache)?;
    let mut entries = Vec::new();
    for dir in children(&cache.place("kernel", "")?)? {
        if !dir.is_dir() {
            continue;
        }
        let id = name(&dir);
        let kernel = kernel::read(&dir)?;
        let mut bytes = size(&dir);
        for module in children(&cache.place("module", "")?)? {
            if module::read(&module)?.is_some_and(|module| module.kernel == id) {
                bytes += size(&module);
            }
        }
        let record = if kernel.is_some() { "kernel.json" } else { "" };
        entries.push(Entry {
            current: current.contains(&id),
            age: since(&dir.join(record)),
            names: names::names_of(cache, &id)?,
            kernel,
            id,
            bytes,
        });
    }
    Ok(entries)
}

/// Removes things from the cache; what another process uses stays.
///
/// # Errors
/// Something can't be removed.
pub fn clean(cache: &Cache, what: Clean) -> Result<Freed, Error> {
    let all = what == Clean::All;
    let kept: BTreeSet<_> = (list(cache)?.iter())
        .filter(|entry| entry.current || entry.asked_for(source::PACKAGE))
        .map(|entry| entry.id.clone())
        .collect();
    let used: Vec<_> = (list(cache)?.into_iter())
        .filter_map(|entry| Some(entry.kernel?.tree))
        .chain(source::find(cache, &KernelSource::Pinned)?.map(|source| source.tree))
        .collect();
    let mut freed = Freed::default();
    let mut drop_locked = |path: &Path, lock: &str| -> Result<bool, Error> {
        match Lock::attempt_named(cache, lock, "cleans the cache")? {
            // Held until the thing is gone.
            Some(_lock) => {
                freed.bytes += size(path);
                remove(path).map(|()| true)
            }
            None => {
                freed.in_use.push(path.to_path_buf());
                Ok(false)
            }
        }
    };
    for dir in children(&cache.place("module", "")?)? {
        let stale = module::read(&dir)?.is_none_or(|module| !kept.contains(&module.kernel));
        if all || stale {
            drop_locked(&dir, &module::lock_name(&name(&dir)))?;
        }
    }
    for dir in children(&cache.place("kernel", "")?)? {
        let id = name(&dir);
        if (all || (dir.is_dir() && !kept.contains(&id)))
            && drop_locked(&dir, &kernel::lock_name(&id))?
        {
            names::forget(cache, &id)?;
        }
    }
    for file in children(&cache.place("initramfs", "")?)? {
        if all || since(&file) > INITRAMFS_AGE {
            drop_locked(&file, "initramfs")?;
        }
    }
    for dir in children(&cache.place("source", "")?)? {
        if all || !used.iter().any(|tree| tree.starts_with(&dir)) {
            drop_locked(&dir, "source")?;
        }
    }
    if all {
        for (kind, lock) in [
            ("apt", "source"),
            ("rust-src", "rust-src"),
            ("tool", "bindgen"),
        ] {
            drop_locked(&cache.dir().join(kind), lock)?;
        }
    }
    Ok(freed)
}

/// The ids of the kernels that today's sources make.
fn current(cache: &Cache) -> Result<BTreeSet<String>, Error> {
    let mut ids = BTreeSet::new();
    for variant in Variant::ALL {
        ids.extend(kernel::wanted_id(cache, &KernelRequest::pinned(variant))?);
    }
    Ok(ids)
}

fn children(dir: &Path) -> Result<Vec<PathBuf>, Error> {
    let entries = std::fs::read_dir(dir).map_err(Error::file("read", dir))?;
    let mut paths: Vec<_> = entries
        .filter_map(Result::ok)
        .map(|entry| entry.path())
        .collect();
    paths.sort();
    Ok(paths)
}

fn name(path: &Path) -> String {
    path.file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned()
}

/// Bytes on disk below a path; what can't be read counts nothing.
fn size(path: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let Ok(found) = std::fs::symlink_metadata(path) else {
        return 0;
    };
    let below = if found.is_dir() {
        children(path).unwrap_or_default()
    } else {
        Vec::new()
    };
    found.blocks() * 512 + below.iter().map(|child| size(child)).sum::<u64>()
}

fn since(path: &Path) -> Duration {
    std::fs::metadata(path)
        .and_then(|found| found.modified())
        .ok()
        .and_then(|then| SystemTime::now().duration_since(then).ok())
        .unwrap_or_default()
}

fn age(age: Duration) -> String {
    let minutes = age.as_secs() / 60;
    match minutes {
        0..120 => format!("{minutes} min"),
        120..2880 => format!("{} h", minutes / 60),
        _ => format!("{} d", minutes / 1440),
    }
}

/// Bytes, as a person reads them.
struct Size(u64);

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0..1_000_000 => write!(f, "{} kB", self.0 / 1000),
            1_000_000..1_000_000_000 => write!(f, "{} MB", self.0 / 1_000_000),
            _ => write!(f, "{:.1} GB", self.0 as f64 / 1e9),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_ages_read_well() {
        assert_eq!(Size(1_500_000_000).to_string(), "1.5 GB");
        assert_eq!(Size(42_000_000).to_string(), "42 MB");
        assert_eq!(age(Duration::from_secs(3 * 3600)), "3 h");
    }

    #[test]
    fn clean_keeps_what_is_locked() {
        let dir = tempfile::tempdir().expect("a directory");
        let cache = Cache::open(Some(dir.path())).expect("opens");
        let held = cache.place("kernel", "aaa").expect("place");
        let free = cache.place("kernel", "bbb").expect("place");
        for dir in [&held, &free] {
            std::fs::create_dir_all(dir).expect("creates");
        }
        let lock = Lock::attempt_named(&cache, &kernel::lock_name("aaa"), "tests")
            .expect("locks")
            .expect("is free");
        let freed = clean(&cache, Clean::Stale).expect("cleans");
        assert_eq!(freed.in_use, std::slice::from_ref(&held));
        assert!(held.is_dir() && !free.exists());
        drop(lock);
        assert!(
            clean(&cache, Clean::Stale)
                .expect("cleans")
                .in_use
                .is_empty()
        );
        assert!(!held.exists());
    }
}
