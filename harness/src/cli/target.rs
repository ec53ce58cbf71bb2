//! The options of `knobrig target`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::AccelChoice;
use super::kernel::KernelArgs;

/// `target`
#[derive(Debug, Subcommand)]
pub enum TargetCommand {
    /// List the targets that ship.
    List,
    /// Show a target's file.
    Show {
        /// A built-in target, or a target file (.toml).
        target: String,
    },
    /// Check target files: each mistake with its line, column and a hint.
    Check {
        /// Built-in targets or target files.
        #[arg(required = true)]
        targets: Vec<String>,
    },
    /// Print the format of target files as a JSON Schema.
    Schema,
    /// Boot a guest, load a module, watch what appears, and write a target file that runs as it is.
    New(Box<NewArgs>),
}

/// `target new`
#[derive(Debug, Args)]
pub struct NewArgs {
    /// A .ko file, a directory with a Kbuild file or Makefile, or the name of a module that the
    /// kernel's own build made.
    #[arg(long)]
    pub module: String,
    /// Its parameters, as insmod takes them.
    #[arg(long, default_value = "")]
    pub params: String,
    /// A device for it, as QEMU's -device takes it: virtio-rng-pci,addr=1e.0; may be given again.
    #[arg(long, value_name = "DEVICE")]
    pub device: Vec<String>,
    /// Where the target file goes [default: MODULE.toml].
    #[arg(long)]
    pub out: Option<PathBuf>,
    /// Which kernel.
    #[command(flatten)]
    pub kernel: KernelArgs,
    /// How guest code runs; auto takes KVM where it truly works.
    #[arg(long, value_enum, default_value = "auto")]
    pub accel: AccelChoice,
}
