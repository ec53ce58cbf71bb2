//! A module, built by kbuild against a kernel of ours: a directory with a Kbuild file, and for
//! Rust with crates also a Cargo.toml.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::cache::{Cache, remove, write_whole};
use crate::crates::{self, Compiled};
use crate::error::Error;
use crate::hash::{Content, files};
use crate::kernel::{self, Kernel};
use crate::lock::Lock;
use crate::progress::Progress;
use crate::run::{Run, Stream};
use crate::source::RUST_FROM;
use crate::toolchain::Toolchain;

/// Where a module's sources are copied to, beside its file.
const SOURCES: &str = "src";
/// Version of the build's rules.
const VERSION: u32 = 1;
const BUILD: Duration = Duration::from_secs(1800);

/// A module that is built.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Module {
    /// Its name in the kernel.
    pub name: String,
    /// Content id: sources, crates, kernel.
    pub id: String,
    /// What to load: without debug sections, which only take time to load.
    pub path: PathBuf,
    /// The same with them, for file:line.
    pub debug: PathBuf,
    /// The kernel that it fits.
    pub kernel: String,
}

impl Module {
    /// The copy of its sources that it was built in, whose paths its debug sections have.
    pub fn copied_to(&self) -> PathBuf {
        self.path.with_file_name(SOURCES)
    }
}

/// Finds a module for a kernel, or builds it.
///
/// # Errors
/// The directory is no module, or how its build failed.
pub fn ensure_module(
    cache: &Cache,
    kernel: &Kernel,
    dir: &Path,
    progress: &dyn Progress,
) -> Result<Module, Error> {
    let dir = dir
        .canonicalize()
        .map_err(|error| no_module(dir, &error.to_string()))?;
    if !dir.join("Kbuild").is_file() && !dir.join("Makefile").is_file() {
        return Err(no_module(&dir, "it has no Kbuild and no Makefile"));
    }
    if kernel.build.as_os_str().is_empty() {
        return Err(Error::NoBuildTree {
            path: dir,
            kernel: kernel.source.clone(),
        });
    }
    if !kernel.rust && has_rust(&dir)? {
        return Err(Error::NoRust {
            path: dir,
            kernel: format!("Linux {}", kernel.release),
            from: RUST_FROM,
        });
    }
    let manifest = Some(dir.join("Cargo.toml")).filter(|manifest| manifest.is_file());
    let mut content = Content::of("module")
        .field(&VERSION.to_le_bytes())
        .field(kernel.id.as_bytes())
        .tree(&dir)?;
    let metadata = match &manifest {
        None => None,
        Some(manifest) => {
            let metadata = crates::metadata(manifest)?;
            for local in crates::local_dirs(&metadata, manifest)? {
                content = content.tree(&local)?;
            }
            let lock = metadata.workspace_root.join("Cargo.lock");
            content = content
                .file(lock.as_std_path())?
                .file(metadata.workspace_root.join("Cargo.toml").as_std_path())?;
            Some(metadata)
        }
    };
    let id = content.id();
    let place = cache.place("module", &id)?;
    if let Some(module) = read(&place)? {
        return Ok(module);
    }
    let name = dir.file_name().unwrap_or_default().to_string_lossy();
    let purpose = format!("builds the module {name} {id}");
    let lock = Lock::take(cache, &lock_name(&id), &purpose, progress)?;
    if let Some(module) = read(&place)? {
        return Ok(module);
    }
    progress.begin(
        &format!("build the module {name}"),
        Some(Duration::from_secs(15)),
    );
    // What an interrupted build left is a few seconds of work.
    remove(&place)?;
    let source = place.join(SOURCES);
    copy(&dir, &source)?;
    let toolchain = Toolchain::find()?;
    let build = Build {
        cache,
        kernel,
        toolchain: &toolchain,
        lock: &lock,
        progress,
    };
    let compiled = match (&manifest, &metadata) {
        (Some(manifest), Some(metadata)) => build.crates(manifest, metadata, &place)?,
        _ => Compiled::default(),
    };
    progress.update(0.7, "kbuild");
    build.kbuild(&source, &compiled)?;
    let (name, debug) = built(&dir, &source)?;
    let path = place.join(format!("{name}.ko"));
    kernel::strip(&toolchain, &["--strip-debug"], &debug, &path)?;
    let module = Module {
        name,
        id,
        path,
        debug,
        kernel: kernel.id.clone(),
    };
    let record = serde_json::to_vec_pretty(&module).unwrap_or_default();
    write_whole(&place.join("module.json"), &record)?;
    progress.end();
    Ok(module)
}

/// The name of the module that a directory makes, by its Kbuild file or Makefile.
///
/// # Errors
/// It has neither, or doesn't name one module.
pub fn module_of_dir(dir: &Path) -> Result<String, Error> {
    let file = ["Kbuild", "Makefile"].map(|name| dir.join(name));
    let Some(file) = file.iter().find(|file| file.is_file()) else {
        return Err(no_module(dir, "it has no Kbuild and no Makefile"));
    };
    let text = std::fs::read_to_string(file).map_err(Error::file("read", file))?;
    let objects = text.lines().filter_map(|line| {
        let (key, value) = line.split_once('=')?;
        let key = key.trim_end_matches([':', '+', ' ', '\t']);
        (key.trim() == "obj-m").then_some(value)
    });
    let names: Vec<_> = objects
        .flat_map(str::split_whitespace)
        .filter_map(|object| object.strip_suffix(".o"))
        .collect();
    match names.as_slice() {
        [name] => Ok(kernel::module_name(Path::new(&format!("{name}.ko")))),
        _ => Err(no_module(
            dir,
            "its obj-m doesn't name one module, such as `obj-m := mine.o`",
        )),
    }
}

/// The name of a module's lock.
pub(crate) fn lock_name(id: &str) -> String {
    format!("module-{id}")
}

/// The record of a module that is whole.
pub(crate) fn read(place: &Path) -> Result<Option<Module>, Error> {
    let path = place.join("module.json");
    match std::fs::read(&path) {
        Ok(text) => Ok(serde_json::from_slice::<Module>(&text)
            .ok()
            .filter(|module| module.path.is_file())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::file("read", path)(error)),
    }
}

/// Whether a module's sources are in Rust.
fn has_rust(dir: &Path) -> Result<bool, Error> {
    let rust = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "rs");
    Ok(files(dir)?.iter().any(rust))
}

fn no_module(path: &Path, why: &str) -> Error {
    Error::NoModule {
        path: path.to_path_buf(),
        why: why.to_owned(),
    }
}

/// kbuild writes beside the sources, so it gets a copy.
fn copy(from: &Path, to: &Path) -> Result<(), Error> {
    for file in files(from)? {
        let target = to.join(file.strip_prefix(from).unwrap_or(&file));
        if let Some(parent) = target.parent() {
            std::fs::create_dir_all(parent).map_err(Error::file("create", parent))?;
        }
        std::fs::copy(&file, &target).map_err(Error::file("copy", &file))?;
    }
    Ok(())
}

/// The one module that the build made.
fn built(dir: &Path, source: &Path) -> Result<(String, PathBuf), Error> {
    let order = source.join("modules.order");
    let order = std::fs::read_to_string(&order).map_err(Error::file("read", &order))?;
    let modules: Vec<_> = order.lines().filter(|line| !line.is_empty()).collect();
    let [module] = modules.as_slice() else {
        return Err(no_module(
            dir,
            &format!("its build makes {} modules, not one", modules.len()),
        ));
    };
    // Lines are relative to the module's directory, or absolute, by release.
    let path = source.join(module).with_extension("ko");
    Ok((kernel::module_name(&path), path))
}

struct Build<'a> {
    cache: &'a Cache,
    kernel: &'a Kernel,
    toolchain: &'a Toolchain,
    lock: &'a Lock,
    progress: &'a dyn Progress,
}

impl Build<'_> {
    fn crates(
        &self,
        manifest: &Path,
        metadata: &cargo_metadata::Metadata,
        place: &Path,
    ) -> Result<Compiled, Error> {
        let target_dir = crate::programs::target_dir().join("module");
        let messages = crates::check(manifest, &target_dir, |line| {
            if line.starts_with("warning") || line.starts_with("error") {
                self.progress.say(line);
            } else {
                self.progress.update(0.2, line);
            }
        })?;
        let closure = crates::closure(metadata, &messages, manifest)?;
        let flags = self.rust_flags()?;
        self.progress.update(0.4, "crates");
        crates::compile(
            &closure,
            self.toolchain,
            &self.kernel.build,
            &flags,
            &place.join("crates"),
            |line| self.progress.say(line),
        )
    }

    fn make(&self, module: &Path) -> Result<Command, Error> {
        let mut make = kernel::make(self.cache, self.toolchain, &self.kernel.build)?;
        make.arg(format!("M={}", module.display()));
        Ok(make)
    }

    /// The flags of the kernel's own Rust code in modules, from kbuild itself: a directory
    /// whose one module is a recipe that writes them down.
    fn rust_flags(&self) -> Result<Vec<String>, Error> {
        let dir = self
            .cache
            .place("kernel", &self.kernel.id)?
            .join("rustflags");
        let kept = dir.join("flags");
        if !kept.is_file() {
            let _lock = Lock::take(
                self.cache,
                &format!("rustflags-{}", self.kernel.id),
                "asks kbuild for its flags",
                self.progress,
            )?;
            std::fs::create_dir_all(&dir).map_err(Error::file("create", &dir))?;
            write_whole(
                &dir.join("Kbuild"),
                b"obj-m := probe.o\n\
                  $(obj)/probe.o: FORCE\n\
                  \t$(file >$(FLAGS_FILE),$(rust_flags))@:\n",
            )?;
            let mut make = self.make(&dir)?;
            let asked = dir.join("asked");
            make.arg(format!("FLAGS_FILE={}", asked.display()))
                .arg("probe.o");
            Run::new("ask kbuild for its Rust flags", make, BUILD)
                .holding(self.lock)
                .output()?;
            std::fs::rename(&asked, &kept).map_err(Error::file("rename", &asked))?;
        }
        let text = std::fs::read_to_string(&kept).map_err(Error::file("read", &kept))?;
        Ok(split_flags(&text))
    }

    fn kbuild(&self, source: &Path, crates: &Compiled) -> Result<(), Error> {
        let mut make = self.make(source)?;
        if !crates.objects.is_empty() || !crates.externs.is_empty() {
            let objects: Vec<_> = crates
                .objects
                .iter()
                .map(|object| object.display().to_string())
                .collect();
            make.arg(format!("KNOBRIG_CRATES={}", crates.dir.display()))
                .arg(format!("KNOBRIG_CRATE_OBJS={}", objects.join(" ")))
                .arg(format!("KNOBRIG_EXTERNS={}", crates.externs.join(" ")));
        }
        make.arg("modules");
        Run::new("build the module", make, BUILD)
            .holding(self.lock)
            .lines(|stream, line| {
                // Compilers, objtool and modpost warn on standard error.
                if stream == Stream::Err {
                    self.progress.say(line);
                }
            })
    }
}

/// Splits make's text of flags; it quotes for a shell. The edition is each crate's own.
fn split_flags(text: &str) -> Vec<String> {
    text.split_whitespace()
        .map(|word| word.replace(['\'', '"'], ""))
        .filter(|word| !word.is_empty() && !word.starts_with("--edition="))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_words_without_quotes_or_an_edition() {
        assert_eq!(
            split_flags(" --edition=2021 -Cpanic=abort  --cfg='a' @/b/rustc_cfg\n"),
            ["-Cpanic=abort", "--cfg=a", "@/b/rustc_cfg"]
        );
    }

    #[test]
    fn a_directory_with_two_modules_is_refused() {
        let dir = tempfile::tempdir().expect("a directory");
        std::fs::write(dir.path().join("modules.order"), "a.o\nb.o\n").expect("writes");
        let error = built(dir.path(), dir.path()).expect_err("two");
        assert!(error.to_string().contains("2 modules"), "{error}");
    }
}
