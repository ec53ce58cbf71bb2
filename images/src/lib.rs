//! What boots: the pinned kernel in its variants, modules built against it, the guest's agent,
//! the initramfs. Everything is built when first asked for and cached by content.
//!
//! [`ensure_kernel`] → [`ensure_module`] and [`ensure_programs`] → [`initramfs`].
#![forbid(unsafe_code)]

mod apt;
mod cache;
mod check;
mod config;
mod crates;
mod error;
mod given;
mod hash;
mod initramfs;
mod kernel;
mod kin;
mod lock;
mod modinfo;
mod module;
mod names;
mod packages;
mod programs;
mod progress;
mod run;
mod show;
mod source;
mod toolchain;
mod variant;

use std::path::{Path, PathBuf};

pub use cache::Cache;
pub use check::{Missing, check_config};
pub use error::Error;
pub use given::{Given, GivenKernel, given_kernel};
pub use initramfs::initramfs;
pub use kernel::{GIVEN, Kernel, KernelRequest, ensure_kernel, find_kernel};
pub use modinfo::{ModInfo, modinfo, needed_modules, plain_module};
pub use module::{Module, ensure_module, module_of_dir};
pub use names::{name_kernel, named_kernel};
pub use packages::{BROWSERS, Need, ensure_packages, missing_packages};
pub use programs::{Programs, ensure_plugin, ensure_programs};
pub use progress::Progress;
pub use show::{Clean, Entry, Freed, clean, list};
pub use source::KernelSource;
pub use variant::Variant;

/// The root of this project's source, where it was compiled: the kernel's fragments, the
/// patches, the driver and the agent are built from there.
pub fn workspace_root() -> PathBuf {
    let crate_dir = Path::new(env!("CARGO_MANIFEST_DIR"));
    crate_dir.parent().unwrap_or(crate_dir).to_path_buf()
}
