//! What can keep the device program from its work.

use std::path::{Path, PathBuf};

/// Why the device program can't start or go on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file operation failed.
    #[error("failed to {what} {}: {source}", path.display())]
    File {
        /// What was tried.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// What happened.
        source: std::io::Error,
    },
    /// A socket's path is in use by a running program.
    #[error(
        "failed to listen at {}: another program listens there; end it or choose another path",
        .0.display()
    )]
    SocketInUse(PathBuf),
    /// A disk of a size that can't be served.
    #[error(
        "a disk of {0} bytes can't be served; its size must be a positive multiple of {sector}",
        sector = dk_abi::SECTOR_SIZE
    )]
    DiskSize(u64),
    /// An id that doesn't fit a get-id answer.
    #[error("the id {0:?} is longer than {max} bytes; choose a shorter one", max = dk_abi::ID_LEN)]
    IdTooLong(String),
    /// The program that started the device is gone, or isn't the one that was named.
    #[error("failed to watch the parent process: {0}")]
    Parent(String),
    /// The system refused something that every system has.
    #[error("failed to {what}: {source}")]
    System {
        /// What was tried.
        what: &'static str,
        /// What happened.
        source: std::io::Error,
    },
}

impl Error {
    pub(crate) fn file(what: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::File { what, path, source }
    }

    pub(crate) fn system<E: Into<std::io::Error>>(what: &'static str) -> impl FnOnce(E) -> Self {
        move |source| Self::System {
            what,
            source: source.into(),
        }
    }
}
