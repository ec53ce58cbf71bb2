//! The kernel: configured, built, and kept with its build tree, which modules need.
//!
//! `kernel/ID/` in the cache holds `build/` (make's O=), `build.log`, `boot` (what QEMU
//! starts), `modules/` and, written last, `kernel.json`. A build that was interrupted left all
//! but the last, and make goes on from there.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::{TimeVal, TimeValLike};
use serde::{Deserialize, Serialize};

use crate::cache::{Cache, write_whole};
use crate::config;
use crate::error::Error;
use crate::hash::Content;
use crate::kin;
use crate::lock::Lock;
use crate::packages::{self, Need};
use crate::progress::Progress;
use crate::run::{Run, Stream};
use crate::source::{self, KernelSource, RUST_FROM, Source};
use crate::toolchain::Toolchain;
use crate::variant::Variant;

/// Version of the layout and of the build's rules: a change makes every image stale.
const VERSION: u32 = 1;
/// file:line for every frame, and no types: half the size and a fifth of the time.
const FLAGS: [&str; 2] = [
    "KCFLAGS=-gline-tables-only",
    "KRUSTFLAGS=-Cdebuginfo=line-tables-only",
];
/// For the kernel itself, not for modules: nobody reads a pinned source's warnings, and looking
/// for them takes a tenth of the compiler's time. The proc macros run once; optimizing them takes
/// longer than they run.
const KERNEL_FLAGS: [&str; 2] = [
    "KCFLAGS=-gline-tables-only -w",
    "HOSTRUSTFLAGS=-Copt-level=0",
];
/// The same image from the same inputs, whoever builds it and when.
const STAMP: [&str; 3] = [
    "KBUILD_BUILD_TIMESTAMP=Thu Jan  1 00:00:00 UTC 1970",
    "KBUILD_BUILD_USER=knobrig",
    "KBUILD_BUILD_HOST=knobrig",
];
/// Variables of the environment that would change what make does.
const FOREIGN: [&str; 12] = [
    "MAKEFLAGS",
    "MFLAGS",
    "MAKELEVEL",
    "KBUILD_OUTPUT",
    "KBUILD_EXTMOD",
    "KCONFIG_CONFIG",
    "KCONFIG_ALLCONFIG",
    "CROSS_COMPILE",
    "LLVM",
    "RUSTFLAGS",
    "RUSTC_WRAPPER",
    "RUSTC_BOOTSTRAP",
];
/// CPU-seconds and steps of a cold build where none was measured yet.
const COLD: (u64, u64) = (650, 1500);
const BUILD: Duration = Duration::from_secs(4 * 60 * 60);
const CONFIGURE: Duration = Duration::from_secs(600);

/// Which kernel.
#[derive(Clone, Debug)]
pub struct KernelRequest {
    /// Its checkers.
    pub variant: Variant,
    /// What it is built from.
    pub source: KernelSource,
    /// Fragments of a configuration that are merged over ours.
    pub fragments: Vec<PathBuf>,
}

impl KernelRequest {
    /// The kernel that everything was tried with.
    pub fn pinned(variant: Variant) -> Self {
        Self {
            variant,
            source: KernelSource::Pinned,
            fragments: Vec::new(),
        }
    }
}

/// A kernel that is built.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Kernel {
    /// Content id: source, patches, configuration, compilers, flags.
    pub id: String,
    /// Its checkers.
    pub variant: Variant,
    /// `uname -r`
    pub release: String,
    /// What it was built from, for people.
    pub source: String,
    /// Content id of the source with its patches.
    pub source_hash: String,
    /// The image that QEMU starts: vmlinux, stripped, by its PVH entry; a bzImage where the release's
    /// PVH entry can't be used.
    pub boot: PathBuf,
    /// vmlinux with line tables.
    pub vmlinux: PathBuf,
    /// The build tree.
    pub build: PathBuf,
    /// Its modules, stripped, by name.
    pub modules: BTreeMap<String, PathBuf>,
    /// Somebody else built it: nothing of it is in the cache, and `variant` says nothing.
    #[serde(default)]
    pub given: bool,
    /// Whether modules in Rust can be built for it.
    #[serde(default = "yes")]
    pub rust: bool,
    /// The source's tree; empty in a record of old.
    #[serde(default)]
    pub tree: PathBuf,
    /// Fragments of the user's, by their file names.
    #[serde(default)]
    pub fragments: Vec<String>,
}

/// What stands in place of a variant for a kernel that somebody else built.
pub const GIVEN: &str = "given";

impl Kernel {
    /// Its variant by name, or [`GIVEN`].
    pub fn checkers(&self) -> String {
        match self.given {
            true => GIVEN.to_owned(),
            false => self.variant.to_string(),
        }
    }
}

/// Every kernel of the first records was built with Rust.
fn yes() -> bool {
    true
}

/// The record on disk.
#[derive(Serialize, Deserialize)]
struct Record {
    version: u32,
    kernel: Kernel,
}

/// What an image is made of.
struct Recipe {
    variant: Variant,
    source: Source,
    /// Ours, then the user's.
    fragments: Vec<(String, String)>,
    /// The names of the user's.
    own: Vec<String>,
    rust: bool,
    toolchain: Toolchain,
}

impl Recipe {
    fn id(&self) -> String {
        let mut content = Content::of("kernel")
            .field(&VERSION.to_le_bytes())
            .field(self.variant.name().as_bytes())
            .field(self.source.hash.as_bytes());
        for (_, text) in &self.fragments {
            // A comment changes nothing in an image.
            let options = text.lines().filter(|line| line.contains("CONFIG_"));
            content = content.field(options.collect::<Vec<_>>().join("\n").as_bytes());
        }
        for flag in FLAGS.iter().chain(&KERNEL_FLAGS) {
            content = content.field(flag.as_bytes());
        }
        self.toolchain.content(content).id()
    }
}

/// Finds a kernel that is built.
///
/// # Errors
/// The cache or the source can't be read.
pub fn find_kernel(cache: &Cache, request: &KernelRequest) -> Result<Option<Kernel>, Error> {
    match wanted_id(cache, request)? {
        Some(id) => read(&place(cache, &id)?),
        None => Ok(None),
    }
}

/// The id that a kernel has or would have; none while its source or compilers are not there.
pub(crate) fn wanted_id(cache: &Cache, request: &KernelRequest) -> Result<Option<String>, Error> {
    let Some(source) = source::find(cache, &request.source)? else {
        return Ok(None);
    };
    let Ok(toolchain) = Toolchain::find() else {
        // Without compilers nothing was built by them.
        return Ok(None);
    };
    Ok(Some(recipe(request, source, toolchain)?.id()))
}

/// Finds a kernel, or builds it; packages, source and tools are fetched as needed.
///
/// # Errors
/// What is missing and can't be had, or how the build failed.
pub fn ensure_kernel(
    cache: &Cache,
    request: &KernelRequest,
    progress: &dyn Progress,
) -> Result<Kernel, Error> {
    if let Some(kernel) = find_kernel(cache, request)? {
        return Ok(kernel);
    }
    if cfg!(not(target_arch = "x86_64")) {
        return Err(Error::Toolchain(
            "kernels are built and run on x86_64 only".to_owned(),
        ));
    }
    packages::ensure_packages(&[Need::kernel()], progress)?;
    let toolchain = Toolchain::find()?;
    let source = source::ensure(cache, &request.source, progress)?;
    let recipe = recipe(request, source, toolchain)?;
    if recipe.rust {
        recipe.toolchain.ensure_rust_lib(cache, progress)?;
        recipe.toolchain.ensure_bindgen(cache, progress)?;
    }
    let id = recipe.id();
    let dir = place(cache, &id)?;
    let purpose = format!("builds the {} kernel {id}", recipe.variant);
    let lock = Lock::take(cache, &lock_name(&id), &purpose, progress)?;
    // Another process may have built it while we waited.
    if let Some(kernel) = read(&dir)? {
        return Ok(kernel);
    }
    let build = Build {
        cache,
        recipe: &recipe,
        dir: &dir,
        log: dir.join("build.log"),
        lock: &lock,
        progress,
    };
    build.run(&id)
}

/// The name of a kernel's lock.
pub(crate) fn lock_name(id: &str) -> String {
    format!("kernel-{id}")
}

/// make, in a kernel's build tree, as the kernel was made.
pub(crate) fn make(cache: &Cache, toolchain: &Toolchain, build: &Path) -> Result<Command, Error> {
    let mut make = Command::new("make");
    make.arg("-C")
        .arg(build)
        .args(toolchain.make_variables(cache)?)
        .args(["ARCH=x86", "LC_ALL=C"])
        .args(FLAGS)
        .args(STAMP)
        .env("LIBCLANG_PATH", toolchain.libclang());
    for name in FOREIGN {
        make.env_remove(name);
    }
    Ok(make)
}

fn recipe(request: &KernelRequest, source: Source, toolchain: Toolchain) -> Result<Recipe, Error> {
    let read = |path: &Path| std::fs::read_to_string(path).map_err(Error::file("read", path));
    let rust = source::release_of(&source.tree)? >= RUST_FROM;
    let dir = Variant::config_dir(&crate::workspace_root());
    let mut fragments = Vec::new();
    let rust_fragment = rust.then_some("rust.config");
    for name in request
        .variant
        .fragments()
        .iter()
        .copied()
        .chain(rust_fragment)
    {
        fragments.push((name.to_owned(), read(&dir.join(name))?));
    }
    let mut own = Vec::new();
    for path in &request.fragments {
        let name = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        fragments.push((path.display().to_string(), read(path)?));
        own.push(name);
    }
    Ok(Recipe {
        variant: request.variant,
        source,
        fragments,
        own,
        rust,
        toolchain,
    })
}

fn place(cache: &Cache, id: &str) -> Result<PathBuf, Error> {
    cache.place("kernel", id)
}

/// The record of a kernel that is whole.
pub(crate) fn read(dir: &Path) -> Result<Option<Kernel>, Error> {
    let path = dir.join("kernel.json");
    let text = match std::fs::read(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Error::file("read", path)(error)),
    };
    let record = serde_json::from_slice::<Record>(&text).ok();
    Ok(record
        .filter(|record| record.version == VERSION && record.kernel.boot.is_file())
        .map(|record| record.kernel))
}

/// A build in progress.
struct Build<'a> {
    cache: &'a Cache,
    recipe: &'a Recipe,
    dir: &'a Path,
    log: PathBuf,
    lock: &'a Lock,
    progress: &'a dyn Progress,
}

impl Build<'_> {
    fn run(&self, id: &str) -> Result<Kernel, Error> {
        let build = self.dir.join("build");
        let from = self.begin(&build)?;
        self.configure(&build)?;
        self.compile(&build, from.as_deref())?;
        let kernel = self.finish(id, &build)?;
        let record = Record {
            version: VERSION,
            kernel,
        };
        let text = serde_json::to_vec_pretty(&record).unwrap_or_default();
        write_whole(&self.dir.join("kernel.json"), &text)?;
        Ok(record.kernel)
    }

    /// Makes the build tree, if none is there that goes on. Gives the kernel whose tree it begins
    /// with.
    fn begin(&self, build: &Path) -> Result<Option<String>, Error> {
        let create = |dir| std::fs::create_dir_all(dir).map_err(Error::file("create", dir));
        create(self.dir)?;
        if !build.exists() {
            let source = &self.recipe.source.hash;
            if let Some(kin) = kin::nearest(self.cache, source, self.recipe.variant)? {
                match kin.copy(build) {
                    Ok(()) => return Ok(Some(kin.id)),
                    // It can be built without, in more time.
                    Err(error) => self.progress.say(&format!("{error}; goes on without")),
                }
            }
        }
        create(build).map(|()| None)
    }

    /// Writes .config and checks it; a build that goes on has it already.
    fn configure(&self, build: &Path) -> Result<(), Error> {
        let done = self.dir.join("configured");
        if done.exists() {
            return Ok(());
        }
        self.progress
            .begin("configure the kernel", Some(Duration::from_secs(8)));
        let tree = self.recipe.source.tree.as_path();
        let output = format!("O={}", build.display());
        self.make(tree, "configure the kernel", &[&output, "tinyconfig"])?;
        let path = build.join(".config");
        let append = || -> std::io::Result<()> {
            let mut config = std::fs::File::options().append(true).open(&path)?;
            for (name, text) in &self.recipe.fragments {
                write!(config, "\n# {name}\n{text}")?;
            }
            Ok(())
        };
        append().map_err(Error::file("write", &path))?;
        self.make(tree, "configure the kernel", &[&output, "olddefconfig"])?;
        if self.recipe.rust {
            // What it lacks for Rust, in its own words; olddefconfig would only drop RUST.
            self.make(
                tree,
                "build Rust in this kernel",
                &[&output, "rustavailable"],
            )?;
        }
        let config = std::fs::read_to_string(&path).map_err(Error::file("read", &path))?;
        let lost = self.lost(tree, &config)?;
        if !lost.is_empty() {
            return Err(Error::LostOptions(lost));
        }
        write_whole(&done, b"")?;
        self.progress.end();
        if !self.recipe.rust {
            self.progress.say(&format!(
                "{} is built without Rust, which needs Linux {}.{} or newer here: mydrv and other \
                 modules in Rust are not built for it",
                self.recipe.source.name, RUST_FROM.0, RUST_FROM.1
            ));
        }
        Ok(())
    }

    /// The options that this source knows and did not keep. What it doesn't know is told.
    fn lost(&self, tree: &Path, config: &str) -> Result<Vec<String>, Error> {
        let lost = config::lost(&self.recipe.fragments, config);
        if lost.is_empty() {
            return Ok(Vec::new());
        }
        let names: Vec<_> = lost.iter().map(|it| it.option.as_str()).collect();
        let known = config::known(tree, &names)?;
        let (lost, unknown): (Vec<_>, Vec<_>) =
            (lost.iter()).partition(|it| known.contains(&it.option));
        if !unknown.is_empty() {
            let unknown: Vec<_> = unknown.iter().map(|it| it.option.as_str()).collect();
            self.progress.say(&format!(
                "{} does not know {}",
                self.recipe.source.name,
                unknown.join(", ")
            ));
        }
        Ok(lost.into_iter().map(ToString::to_string).collect())
    }

    fn make(&self, dir: &Path, what: &str, arguments: &[&str]) -> Result<(), Error> {
        let mut make = make(self.cache, &self.recipe.toolchain, dir)?;
        make.args(arguments);
        Run::new(what, make, CONFIGURE)
            .log(&self.log)
            .holding(self.lock)
            .output()
            .map(drop)
    }

    /// Compiles; `from` names the kernel whose tree it began with.
    fn compile(&self, build: &Path, from: Option<&str>) -> Result<(), Error> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let history = self
            .dir
            .with_file_name(format!("{}.cost", self.recipe.variant));
        let (cpu_seconds, steps) = read_cost(&history).unwrap_or(COLD);
        let before = steps_in_log(&self.log);
        let left = steps.saturating_sub(before).max(1);
        let estimate = cpu_seconds * left / steps.max(1) / cores as u64;
        let reuse = from.map_or(String::new(), |id| {
            format!(", with what {id} shares with it")
        });
        self.progress.begin(
            &format!(
                "build the {} kernel ({}){reuse}",
                self.recipe.variant, self.recipe.source.name
            ),
            Some(Duration::from_secs(estimate)),
        );
        let mut make = make(self.cache, &self.recipe.toolchain, build)?;
        make.arg(format!("-j{cores}"))
            .args(KERNEL_FLAGS)
            .args(self.goals());
        let cpu_before = cpu_of_children();
        let mut done = 0;
        Run::new("build the kernel", make, BUILD)
            .log(&self.log)
            .holding(self.lock)
            .lines(|stream, line| {
                if stream == Stream::Out && is_step(line) {
                    done += 1;
                    // The last step ends it, not the estimate of how many there are.
                    let fraction = (done as f64 / left as f64).min(0.99);
                    self.progress.update(fraction, line.trim());
                }
            })?;
        if before == 0 && from.is_none() {
            let cost = cpu_of_children().saturating_sub(cpu_before);
            write_whole(&history, format!("{} {done}\n", cost.as_secs()).as_bytes())?;
        }
        self.progress.end();
        Ok(())
    }

    /// Older kernels instrument what runs at the PVH entry, where there is no shadow memory yet:
    /// with KASAN they never say a word. They are started as a bzImage.
    fn by_pvh(&self) -> bool {
        self.recipe.rust
    }

    fn goals(&self) -> &'static [&'static str] {
        match self.by_pvh() {
            true => &["vmlinux", "modules"],
            false => &["bzImage", "modules"],
        }
    }

    /// Strips what boots and lists the modules.
    fn finish(&self, id: &str, build: &Path) -> Result<Kernel, Error> {
        let boot = self.dir.join("boot");
        match self.by_pvh() {
            true => self.strip(&["--strip-all"], &build.join("vmlinux"), &boot)?,
            false => {
                let image = build.join("arch/x86/boot/bzImage");
                std::fs::copy(&image, &boot)
                    .map(drop)
                    .map_err(Error::file("copy", &image))?;
            }
        }
        let stripped = self.dir.join("modules");
        std::fs::create_dir_all(&stripped).map_err(Error::file("create", &stripped))?;
        let order = build.join("modules.order");
        let order = std::fs::read_to_string(&order).map_err(Error::file("read", &order))?;
        let mut modules = BTreeMap::new();
        for module in order.lines().filter(|line| !line.is_empty()) {
            let module = build.join(module).with_extension("ko");
            let name = module_name(&module);
            let path = stripped.join(format!("{name}.ko"));
            self.strip(&["--strip-debug"], &module, &path)?;
            modules.insert(name, path);
        }
        let release = build.join("include/config/kernel.release");
        let release = std::fs::read_to_string(&release).map_err(Error::file("read", &release))?;
        Ok(Kernel {
            id: id.to_owned(),
            variant: self.recipe.variant,
            release: release.trim().to_owned(),
            source: self.recipe.source.name.clone(),
            source_hash: self.recipe.source.hash.clone(),
            boot,
            vmlinux: build.join("vmlinux"),
            build: build.to_path_buf(),
            modules,
            given: false,
            rust: self.recipe.rust,
            tree: self.recipe.source.tree.clone(),
            fragments: self.recipe.own.clone(),
        })
    }

    fn strip(&self, how: &[&str], from: &Path, to: &Path) -> Result<(), Error> {
        strip(&self.recipe.toolchain, how, from, to)
    }
}

/// Strips `from` into `to`.
pub(crate) fn strip(
    toolchain: &Toolchain,
    how: &[&str],
    from: &Path,
    to: &Path,
) -> Result<(), Error> {
    let mut strip = Command::new(toolchain.llvm_tool("llvm-strip"));
    strip.args(how).arg("-o").arg(to).arg(from);
    Run::new("strip a binary", strip, Duration::from_secs(120))
        .output()
        .map(drop)
}

/// The kernel's name of a module's file: `virtio_blk` of `…/virtio-blk.ko`.
pub(crate) fn module_name(path: &Path) -> String {
    path.file_stem()
        .unwrap_or_default()
        .to_string_lossy()
        .replace('-', "_")
}

/// Whether a line of make's output is a step: `  CC      mm/slub.o`.
fn is_step(line: &str) -> bool {
    line.strip_prefix("  ")
        .and_then(|rest| rest.chars().next())
        .is_some_and(|first| first.is_ascii_uppercase())
}

/// Steps that earlier attempts did.
fn steps_in_log(log: &Path) -> u64 {
    std::fs::read_to_string(log).map_or(0, |log| {
        // Those of the configuration come first, and are not of the build.
        let built = log.rsplit("configuration written to .config").next();
        let lines = built.unwrap_or_default().lines();
        lines.filter(|line| is_step(line)).count() as u64
    })
}

/// CPU time of the children, and theirs, that have ended.
fn cpu_of_children() -> Duration {
    // It fails for an unknown `who` only.
    getrusage(UsageWho::RUSAGE_CHILDREN).map_or(Duration::ZERO, |usage| {
        let of = |time: TimeVal| Duration::from_micros(time.num_microseconds().unsigned_abs());
        of(usage.user_time()) + of(usage.system_time())
    })
}

/// What the last whole build of a variant cost: CPU-seconds and steps.
fn read_cost(path: &Path) -> Option<(u64, u64)> {
    let text = std::fs::read_to_string(path).ok()?;
    let (seconds, steps) = text.trim().split_once(' ')?;
    Some((seconds.parse().ok()?, steps.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_told_from_talk() {
        assert!(is_step("  CC      mm/slub.o"));
        assert!(is_step("  RUSTC L rust/core.o"));
        assert!(!is_step("make[1]: Entering directory '/x'"));
        assert!(!is_step("    4 | ^"));
        assert!(!is_step(""));
    }

    #[test]
    fn modules_have_the_kernels_names() {
        assert_eq!(module_name(Path::new("a/virtio-blk.ko")), "virtio_blk");
    }

    #[test]
    fn the_id_follows_options_and_not_comments() {
        let source = Source {
            name: "s".into(),
            hash: "h".into(),
            tree: "/".into(),
        };
        let toolchain = Toolchain::find().expect("LLVM and rustc are installed");
        let id = |text: &str| {
            Recipe {
                variant: Variant::Kasan,
                source: source.clone(),
                fragments: vec![("base.config".into(), text.to_owned())],
                own: Vec::new(),
                rust: true,
                toolchain: toolchain.clone(),
            }
            .id()
        };
        assert_eq!(id("# why\nCONFIG_A=y\n"), id("# better\nCONFIG_A=y\n"));
        assert_ne!(id("CONFIG_A=y\n"), id("# CONFIG_A is not set\n"));
    }
}
