//! The errors of the harness: what was tried, on what, what happened, what to do.

use std::path::PathBuf;
use std::time::Duration;

use crate::exit::Exit;

/// What can go wrong outside a target.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Input that the user can mend.
    #[error("{0}")]
    Usage(String),
    /// The machine lacks something.
    #[error("{0}")]
    Machine(String),
    /// Kernel, module, agent or initramfs can't be had.
    #[error(transparent)]
    Images(#[from] knobrig_images::Error),
    /// A file of the run can't be written or read.
    #[error("failed to {what} {path}: {source}; check the disk's space and the rights there")]
    File {
        /// create, write, read, …
        what: &'static str,
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A program can't be started.
    #[error("failed to start {program}: {source}; `cargo rig doctor` tells what is missing")]
    Spawn {
        /// Which.
        program: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A wait ran out.
    #[error("waited {after:?} for {what}; last seen: {last}")]
    Deadline {
        /// What was awaited.
        what: String,
        /// How long.
        after: Duration,
        /// What was seen last.
        last: String,
    },
    /// The guest, its QEMU or its device went away or broke the protocol.
    #[error("{0}")]
    Rig(String),
    /// The target can't be brought up.
    #[error("{0}")]
    Target(String),
    /// SIGINT or SIGTERM.
    #[error("interrupted")]
    Interrupted,
}

impl Error {
    /// The exit code that says so.
    pub fn exit(&self) -> Exit {
        match self {
            Self::Usage(_) => Exit::Usage,
            Self::Machine(_) | Self::Images(_) | Self::File { .. } | Self::Spawn { .. } => {
                Exit::Machine
            }
            Self::Deadline { .. } | Self::Rig(_) | Self::Target(_) => Exit::Rig,
            Self::Interrupted => Exit::Interrupted,
        }
    }

    /// For `map_err` on file operations.
    pub(crate) fn file(
        what: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { what, path, source }
    }
}
