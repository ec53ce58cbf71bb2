//! The errors of the builder: what was tried, on what, what happened, what to do.

use std::path::PathBuf;
use std::time::Duration;

/// Why a kernel, module, program or initramfs can't be had.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No such variant.
    #[error("no kernel variant {0:?}; there are kasan, debug and release")]
    UnknownVariant(String),
    /// No kernel's version.
    #[error("{0:?} is no kernel version; write 6.1.170, or 6.1 for the newest of that series")]
    Version(String),
    /// No image of that name or id.
    #[error(
        "no image {name:?}; `cargo rig image ls` lists them, `cargo rig image build --name` makes one"
    )]
    NoImage {
        /// What was asked for.
        name: String,
    },
    /// A name that can't be a file's.
    #[error("{0:?} is no name for an image: letters, digits, '.', '-' and '_' are possible")]
    ImageName(String),
    /// A kernel that was given lacks what the rig can't do without.
    #[error("{kernel} can't be used here: {}", .lacks.join("; "))]
    Unusable {
        /// Which.
        kernel: PathBuf,
        /// What it lacks, and what for.
        lacks: Vec<String>,
    },
    /// A module in Rust for a kernel that has none.
    #[error(
        "{path} is in Rust, and {kernel} was built without it: modules in Rust need Linux \
         {}.{} or newer here", .from.0, .from.1
    )]
    NoRust {
        /// The module.
        path: PathBuf,
        /// The kernel.
        kernel: String,
        /// The first release.
        from: (u32, u32),
    },
    /// A module from source for a kernel whose build tree isn't known.
    #[error(
        "{path} can't be built: {kernel} came without its build tree; give --modules \
         /lib/modules/VERSION with its `build`, or a target with path = \"….ko\""
    )]
    NoBuildTree {
        /// The module.
        path: PathBuf,
        /// The kernel.
        kernel: String,
    },
    /// A file operation failed.
    #[error("failed to {what} {path}: {source}; check the disk's space and the rights there")]
    File {
        /// create, write, read, …
        what: &'static str,
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Neither `KNOBRIG_CACHE`, `XDG_CACHE_HOME` nor `HOME` is set.
    #[error("no place for the cache: set KNOBRIG_CACHE to a directory")]
    NoCache,
    /// A program can't be started.
    #[error("failed to start {program} in order to {what}: {source}")]
    Start {
        /// Which.
        program: String,
        /// What for.
        what: String,
        /// Why.
        source: std::io::Error,
    },
    /// A program failed.
    #[error("failed to {what}: `{command}` ended with {status}{}{}", tail_text(.tail), log_text(.log))]
    Failed {
        /// What for.
        what: String,
        /// Its command line.
        command: String,
        /// Its exit status.
        status: String,
        /// Its last words, errors first.
        tail: Vec<String>,
        /// Where all of its words are.
        log: Option<PathBuf>,
    },
    /// A program did not end in time and was stopped.
    #[error("gave up after {after:?} to {what}: `{command}` did not end; its last line: {last:?}")]
    Deadline {
        /// What for.
        what: String,
        /// Its command line.
        command: String,
        /// How long it had.
        after: Duration,
        /// What it said last.
        last: String,
    },
    /// Another process holds a lock for too long.
    #[error(
        "gave up after {after:?} to wait for {holder}, which holds {path}; end it, or wait and \
         start again"
    )]
    Locked {
        /// The lock.
        path: PathBuf,
        /// Who has it.
        holder: String,
        /// How long we waited.
        after: Duration,
    },
    /// Packages are missing and may not be installed by this user.
    #[error("missing Debian packages, and no right to install them; as root, run: apt-get install {}", .0.join(" "))]
    Packages(Vec<String>),
    /// The kernel's source can't be had.
    #[error("no kernel source: {0}")]
    Source(String),
    /// A patch of ours does not apply.
    #[error("{patch} does not apply to {tree}: {tail}")]
    Patch {
        /// Which.
        patch: PathBuf,
        /// To what.
        tree: PathBuf,
        /// What patch said.
        tail: String,
    },
    /// Options that a fragment asks for and Kconfig did not keep.
    #[error(
        "the kernel's configuration lost {}; each lacks a dependency in this source, or another \
         option rules it out",
        .0.join(", ")
    )]
    LostOptions(Vec<String>),
    /// A compiler or tool is missing or does not fit.
    #[error("{0}")]
    Toolchain(String),
    /// A module's crates can't be compiled for the kernel.
    #[error("failed to build the crates of {manifest}: {why}")]
    Crates {
        /// Whose.
        manifest: PathBuf,
        /// Why.
        why: String,
    },
    /// A module's directory is not one.
    #[error("{path} is no module to build: {why}")]
    NoModule {
        /// Which.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// The initramfs can't hold this.
    #[error("can't put {0:?} into the initramfs: a module's name has letters, digits, - and _")]
    ModuleName(String),
}

impl Error {
    /// For `map_err` on file operations.
    pub(crate) fn file(
        what: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { what, path, source }
    }
}

fn tail_text(tail: &[String]) -> String {
    tail.iter().map(|line| format!("\n  {line}")).collect()
}

fn log_text(log: &Option<PathBuf>) -> String {
    log.as_ref().map_or(String::new(), |log| {
        format!("\n  all of it: {}", log.display())
    })
}
