//! What boots: the pinned kernel in its variants, modules built against it, the guest's agent,
//! the initramfs. Everything is built when first asked for and cached by content.
//!
//! [`ensure_kernel`] → [`ensure_module`] and [`ensure_programs`] → [`initramfs`].
#![forbid(unsafe_code)]

mod apt;
mod cache;
mod config;
mod crates;
mod error;
mod hash;
mod initramfs;
mod kernel;
mod lock;
mod module;
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
pub use error::Error;
pub use initramfs::initramfs;
pub use kernel::{Kernel, KernelRequest, ensure_kernel, find_kernel};
pub use module::{Module, ensure_module};
pub use packages::{Need, ensure_packages, missing_packages};
pub use programs::{Programs, ensure_programs};
pub use progress::Progress;
pub use show::{Clean, Entry, Freed, clean, list};
pub use variant::Variant;

/// The root of this project's source, where it was compiled: the kernel's fragments, the
/// patches, the driver and the agent are built from there.
pub fn workspace_root() -> PathBuf {
    let crate_dir = Path::new(env!("CARGO_MANIFEST_DIR"));
    crate_dir.parent().unwrap_or(crate_dir).to_path_buf()
}
