//! The kernel's source: the pinned release from Debian, another one of Debian's, or the user's
//! tree or tarball; in a copy of our own, with our patches where mydrv can be built.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::apt::{self, Apt};
use crate::cache::{Cache, remove, write_whole};
use crate::error::Error;
use crate::hash::Content;
use crate::lock::Lock;
use crate::progress::Progress;
use crate::run::Run;

/// The package, its suite, and the version that everything was tried with. If the mirror has
/// it no more, the newest of the same series is taken.
pub(crate) const PACKAGE: &str = "linux-source-7.2";
const SUITE: &str = "trixie-backports";
const PINNED: &str = "7.2.12-1~bpo13+1";
/// Where other releases are looked for, in this order.
const SUITES: [&str; 5] = [
    "bookworm",
    "trixie",
    "trixie-backports",
    "bookworm-backports",
    "sid",
];
/// The first release whose `kernel` crate has what mydrv and its like are written on. Before it
/// kernels are built without Rust, and without our patches, which are mydrv's.
pub(crate) const RUST_FROM: (u32, u32) = (7, 2);

const UNPACK: Duration = Duration::from_secs(1800);

/// Which source.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum KernelSource {
    /// The release that everything was tried with.
    #[default]
    Pinned,
    /// A release of Debian's `linux-source-MAJOR.MINOR`: `6.1.170`, or `6.1` for the newest.
    Version(String),
    /// A tree or a tarball.
    Own(PathBuf),
}

/// A release on the command line.
struct Release {
    /// `linux-source-6.1`
    package: String,
    /// `6.1.170`, where one was asked for.
    exact: Option<String>,
}

impl Release {
    fn parse(text: &str) -> Result<Self, Error> {
        let numbers: Option<Vec<u32>> = text.split('.').map(|part| part.parse().ok()).collect();
        match numbers.as_deref() {
            Some([major, minor]) => Ok(Self {
                package: format!("linux-source-{major}.{minor}"),
                exact: None,
            }),
            Some([major, minor, _]) => Ok(Self {
                package: format!("linux-source-{major}.{minor}"),
                exact: Some(text.to_owned()),
            }),
            _ => Err(Error::Version(text.to_owned())),
        }
    }

    /// Whether a package's version is one that was asked for.
    fn is(&self, version: &str) -> bool {
        (self.exact.as_ref()).is_none_or(|exact| apt::upstream(version) == exact)
    }
}

/// A tree, unpacked and patched.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Source {
    /// What it is, for people.
    pub(crate) name: String,
    /// Content id of the source and the patches.
    pub(crate) hash: String,
    /// Where it is.
    pub(crate) tree: PathBuf,
}

/// Finds the source in the cache.
pub(crate) fn find(cache: &Cache, wanted: &KernelSource) -> Result<Option<Source>, Error> {
    let patches = patches_id()?;
    match wanted {
        KernelSource::Own(path) => read(&place(cache, &Own::look(path)?.key(&patches))?),
        KernelSource::Version(version) => {
            let release = Release::parse(version)?;
            newest(cache, &release.package, &patches, |it| release.is(it))
        }
        KernelSource::Pinned => {
            if let Some(source) = read(&place(cache, &key(PACKAGE, PINNED, &patches))?)? {
                return Ok(Some(source));
            }
            newest(cache, PACKAGE, &patches, |_| true)
        }
    }
}

/// Gets the source.
pub(crate) fn ensure(
    cache: &Cache,
    wanted: &KernelSource,
    progress: &dyn Progress,
) -> Result<Source, Error> {
    if let Some(source) = find(cache, wanted)? {
        return Ok(source);
    }
    let lock = Lock::take(cache, "source", "unpacks a kernel's source", progress)?;
    if let Some(source) = find(cache, wanted)? {
        return Ok(source);
    }
    progress.begin("the kernel's source", Some(Duration::from_secs(40)));
    let source = match wanted {
        KernelSource::Own(path) => copy_own(cache, path, &lock, progress)?,
        KernelSource::Pinned => download_pinned(cache, &lock, progress)?,
        KernelSource::Version(version) => download_release(cache, version, &lock, progress)?,
    };
    progress.end();
    Ok(source)
}

/// The newest of a package's versions that are unpacked.
fn newest(
    cache: &Cache,
    package: &str,
    patches: &str,
    is_wanted: impl Fn(&str) -> bool,
) -> Result<Option<Source>, Error> {
    let dir = cache.place("source", "")?;
    let mut found = Vec::new();
    for entry in std::fs::read_dir(&dir).map_err(Error::file("read", &dir))? {
        let entry = entry.map_err(Error::file("read", &dir))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let version = name
            .strip_prefix(&format!("{package}_"))
            .and_then(|rest| rest.strip_suffix(&format!("_{patches}")));
        if let Some(version) = version.filter(|version| is_wanted(version)) {
            found.push((release_number(version), entry.path()));
        }
    }
    found.sort();
    match found.pop() {
        Some((_, place)) => read(&place),
        None => Ok(None),
    }
}

fn key(package: &str, version: &str, patches: &str) -> String {
    format!("{package}_{version}_{patches}")
}

/// A tree's major and minor, by its Makefile.
pub(crate) fn release_of(tree: &Path) -> Result<(u32, u32), Error> {
    let path = tree.join("Makefile");
    let text = std::fs::read_to_string(&path).map_err(Error::file("read", &path))?;
    let number = |name: &str| {
        let mut lines = text.lines().take(20);
        lines.find_map(|line| {
            let (key, value) = line.split_once('=')?;
            (key.trim() == name).then(|| value.trim().parse().ok())?
        })
    };
    match (number("VERSION"), number("PATCHLEVEL")) {
        (Some(major), Some(minor)) => Ok((major, minor)),
        _ => Err(Error::Source(format!(
            "{} is no kernel's: it has no VERSION and PATCHLEVEL",
            path.display()
        ))),
    }
}

/// `[7, 2, 12]` of `7.2.12-1~bpo13+1`.
fn release_number(version: &str) -> Vec<u32> {
    apt::upstream(version)
        .split('.')
        .map_while(|part| part.parse().ok())
        .collect()
}

fn download_pinned(cache: &Cache, lock: &Lock, progress: &dyn Progress) -> Result<Source, Error> {
    let apt = Apt::open(cache, SUITE)?;
    let versions = apt.versions(PACKAGE)?;
    let version = match versions.iter().find(|version| *version == PINNED) {
        Some(version) => version,
        None => {
            let newest = versions
                .iter()
                .max_by_key(|version| release_number(version))
                .ok_or_else(|| {
                    Error::Source(format!(
                        "{SUITE} has no {PACKAGE}; name a kernel's tree or tarball by \
                         --kernel-source"
                    ))
                })?;
            progress.say(&format!(
                "the mirror has {PACKAGE} {newest} in place of the pinned {PINNED}"
            ));
            newest
        }
    };
    unpack_package(cache, &apt, (PACKAGE, version), lock, progress)
}

/// Any other release: the version that was asked for, from the first suite that has it.
fn download_release(
    cache: &Cache,
    wanted: &str,
    lock: &Lock,
    progress: &dyn Progress,
) -> Result<Source, Error> {
    let release = Release::parse(wanted)?;
    let mut seen = Vec::new();
    for suite in SUITES {
        let apt = Apt::open(cache, suite)?;
        let versions = apt.versions(&release.package)?;
        let newest = (versions.iter())
            .filter(|version| release.is(version))
            .max_by_key(|version| release_number(version));
        if let Some(version) = newest {
            return unpack_package(cache, &apt, (&release.package, version), lock, progress);
        }
        seen.extend(
            versions
                .iter()
                .map(|version| format!("{version} ({suite})")),
        );
    }
    let has = match seen.is_empty() {
        true => "nothing of this series".to_owned(),
        false => seen.join(", "),
    };
    Err(Error::Source(format!(
        "the mirror has no {} {wanted}; it has {has}; name a tree or tarball by --kernel-source",
        release.package
    )))
}

fn unpack_package(
    cache: &Cache,
    apt: &Apt,
    (package_name, version): (&str, &str),
    lock: &Lock,
    progress: &dyn Progress,
) -> Result<Source, Error> {
    let patches = patches_id()?;
    let place = place(cache, &key(package_name, version, &patches))?;
    let temp = part(&place)?;
    progress.update(0.05, &format!("download {package_name} {version}"));
    let package = apt.download(package_name, version, &temp)?;
    let hash = Content::of("source")
        .file(&package)?
        .field(patches.as_bytes());
    progress.update(0.15, "unpack");
    let mut unpack = Command::new("dpkg-deb");
    unpack.arg("-x").arg(&package).arg(temp.join("root"));
    Run::new("unpack the kernel's package", unpack, UNPACK)
        .holding(lock)
        .output()?;
    remove(&package)?;
    progress.update(0.2, "unpack");
    let tarball = temp.join(format!("root/usr/src/{package_name}.tar.xz"));
    unpack_tarball(&tarball, &temp, lock)?;
    remove(&temp.join("root"))?;
    let name = format!("{package_name} {version}");
    finish(&place, &temp, name, &hash, lock)
}

/// A source of the user's.
struct Own {
    path: PathBuf,
    content: Content,
}

impl Own {
    /// A tarball is known by its content. A tree has a gigabyte and a half, so it is known by
    /// its files' names, sizes and times.
    fn look(path: &Path) -> Result<Self, Error> {
        let path = path
            .canonicalize()
            .map_err(|error| Error::Source(format!("{}: {error}", path.display())))?;
        let mut content = Content::of("own");
        if path.is_file() {
            content = content.file(&path)?;
        } else {
            if !path.join("Kconfig").is_file() || !path.join("Makefile").is_file() {
                return Err(Error::Source(format!(
                    "{} is no kernel tree: it has no Kconfig and Makefile",
                    path.display()
                )));
            }
            for file in crate::hash::files(&path)? {
                let found = std::fs::symlink_metadata(&file).map_err(Error::file("read", &file))?;
                content = content
                    .field(file.as_os_str().as_encoded_bytes())
                    .field(&found.size().to_le_bytes())
                    .field(&found.mtime().to_le_bytes())
                    .field(&found.mtime_nsec().to_le_bytes());
            }
        }
        Ok(Self { path, content })
    }

    fn key(&self, patches: &str) -> String {
        format!("own_{}_{patches}", self.content.id())
    }
}

fn copy_own(
    cache: &Cache,
    path: &Path,
    lock: &Lock,
    progress: &dyn Progress,
) -> Result<Source, Error> {
    let own = Own::look(path)?;
    let patches = patches_id()?;
    let place = place(cache, &own.key(&patches))?;
    let temp = part(&place)?;
    progress.update(0.05, "copy");
    if own.path.is_file() {
        unpack_tarball(&own.path, &temp, lock)?;
    } else {
        let tree = temp.join("tree");
        std::fs::create_dir_all(&tree).map_err(Error::file("create", &tree))?;
        let mut copy = Command::new("sh");
        copy.args([
            "-c",
            "tar -C \"$1\" --exclude=./.git -cf - . | tar -C \"$2\" -xf -",
            "copy",
        ])
        .args([&own.path, &tree]);
        Run::new("copy the kernel's tree", copy, UNPACK)
            .holding(lock)
            .output()?;
        let mut clean = Command::new("make");
        clean.arg("-C").arg(&tree).arg("mrproper");
        Run::new("clean the copy of the kernel's tree", clean, UNPACK)
            .holding(lock)
            .output()?;
    }
    let name = own.path.display().to_string();
    let hash = own.content.field(patches.as_bytes());
    finish(&place, &temp, name, &hash, lock)
}

/// Unpacks a tarball's one directory as `tree` in `temp`.
fn unpack_tarball(tarball: &Path, temp: &Path, lock: &Lock) -> Result<(), Error> {
    let tree = temp.join("tree");
    std::fs::create_dir_all(&tree).map_err(Error::file("create", &tree))?;
    let mut unpack = Command::new("tar");
    unpack
        .args(["--strip-components=1", "-xf"])
        .arg(tarball)
        .arg("-C")
        .arg(&tree);
    Run::new("unpack the kernel's source", unpack, UNPACK)
        .holding(lock)
        .output()?;
    if tree.join("Kconfig").is_file() {
        return Ok(());
    }
    Err(Error::Source(format!(
        "{} holds no kernel tree: its first directory has no Kconfig",
        tarball.display()
    )))
}

/// Patches the tree in `temp` and puts it in its place.
fn finish(
    place: &Path,
    temp: &Path,
    name: String,
    hash: &Content,
    lock: &Lock,
) -> Result<Source, Error> {
    let tree = temp.join("tree");
    if release_of(&tree)? >= RUST_FROM {
        for patch in patches()? {
            apply(&patch, &tree, lock)?;
        }
    }
    let source = Source {
        name,
        hash: hash.id(),
        tree: place.join("tree"),
    };
    let record = serde_json::to_vec_pretty(&source).unwrap_or_default();
    write_whole(&temp.join("source.json"), &record)?;
    std::fs::rename(temp, place).map_err(Error::file("rename", temp))?;
    Ok(source)
}

/// Applies a patch, unless the tree has it already.
fn apply(patch: &Path, tree: &Path, lock: &Lock) -> Result<(), Error> {
    let run = |arguments: &[&str]| {
        let mut command = Command::new("patch");
        command
            // --force: patch must not take a tree that lacks the patch for one to be reversed.
            .args(["-p1", "--force", "--input"])
            .arg(patch)
            .args(arguments)
            .current_dir(tree);
        Run::new("patch the kernel", command, Duration::from_secs(60))
            .holding(lock)
            .output()
    };
    if run(&["--reverse", "--dry-run"]).is_ok() {
        return Ok(());
    }
    // Nothing but a clean fit: a hunk in the wrong function would still build.
    match run(&["--forward", "--fuzz=0"]) {
        Ok(_) => Ok(()),
        Err(Error::Failed { tail, .. }) => Err(Error::Patch {
            patch: patch.to_path_buf(),
            tree: tree.to_path_buf(),
            tail: tail.join("; "),
        }),
        Err(error) => Err(error),
    }
}

fn patches() -> Result<Vec<PathBuf>, Error> {
    let mut patches = crate::hash::files(&crate::workspace_root().join("images/kernel/patches"))?;
    patches.retain(|path| {
        path.extension()
            .is_some_and(|extension| extension == "patch")
    });
    Ok(patches)
}

fn patches_id() -> Result<String, Error> {
    let mut content = Content::of("patches");
    for patch in patches()? {
        content = content.file(&patch)?;
    }
    Ok(content.id())
}

fn place(cache: &Cache, key: &str) -> Result<PathBuf, Error> {
    cache.place("source", key)
}

/// An empty directory beside the place.
fn part(place: &Path) -> Result<PathBuf, Error> {
    let mut temp = place.as_os_str().to_owned();
    temp.push(".part");
    let temp = PathBuf::from(temp);
    remove(&temp)?;
    std::fs::create_dir_all(&temp).map_err(Error::file("create", &temp))?;
    Ok(temp)
}

/// The record of a source that is whole.
fn read(place: &Path) -> Result<Option<Source>, Error> {
    let path = place.join("source.json");
    let text = match std::fs::read(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Error::file("read", path)(error)),
    };
    // A record of another version of ours: as good as none.
    Ok(serde_json::from_slice(&text).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn newer_releases_sort_last() {
        assert!(release_number("7.2.12-1~bpo13+1") > release_number("7.2.9-1~bpo13+1"));
    }

    #[test]
    fn a_release_names_its_package_and_its_versions() {
        let series = Release::parse("6.1").expect("a series");
        assert_eq!(series.package, "linux-source-6.1");
        assert!(series.is("6.1.170-3") && series.is("6.1.176-1"));
        let exact = Release::parse("6.1.170").expect("a release");
        assert!(exact.is("6.1.170-3") && !exact.is("6.1.176-1"));
        for wrong in ["", "6", "6.1.2.3", "six", "6.x"] {
            assert!(Release::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_directory_without_kconfig_is_no_kernel() {
        let dir = tempfile::tempdir().expect("a directory");
        let error = Own::look(dir.path()).err().expect("no kernel");
        assert!(error.to_string().contains("no kernel tree"), "{error}");
    }

    struct Silent;

    impl Progress for Silent {
        fn begin(&self, _: &str, _: Option<Duration>) {}
        fn update(&self, _: f64, _: &str) {}
        fn end(&self) {}
        fn say(&self, _: &str) {}
    }

    #[test]
    fn a_patch_goes_in_once_and_only_where_it_fits() {
        let dir = tempfile::tempdir().expect("a directory");
        let cache = Cache::open(Some(&dir.path().join("cache"))).expect("opens");
        let lock = Lock::take(&cache, "test", "tests", &Silent).expect("free");
        let (file, patch) = (dir.path().join("f"), dir.path().join("p"));
        let hunk = "--- a/f\n+++ b/f\n@@ -1,2 +1,3 @@\n one\n two\n+three\n";
        std::fs::write(&patch, hunk).expect("writes");
        let read = || std::fs::read_to_string(&file).expect("reads");
        std::fs::write(&file, "one\ntwo\n").expect("writes");
        for _ in 0..2 {
            apply(&patch, dir.path(), &lock).expect("applies, or is in already");
            assert_eq!(read(), "one\ntwo\nthree\n");
        }
        std::fs::write(&file, "another\nfile\n").expect("writes");
        let error = apply(&patch, dir.path(), &lock).expect_err("it doesn't fit");
        assert!(matches!(error, Error::Patch { .. }), "{error}");
    }
}
