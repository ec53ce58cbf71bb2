//! A run's directory for who keeps nothing of the run.

use std::path::PathBuf;

use tempfile::TempDir;

use crate::error::Error;
use crate::interrupt::RunListens;
use crate::report::dir::RunDir;

/// A directory that goes with this, also at a signal between one run and the next: whichever comes next
/// hears of that.
pub(super) struct Scratch {
    temp: TempDir,
    /// After the directory, in the order of fields.
    _listens: RunListens,
}

impl Scratch {
    /// An empty one.
    pub(super) fn new() -> Result<Self, Error> {
        let listens = RunListens::new();
        let temp = tempfile::tempdir();
        let temp = temp.map_err(Error::file("create a directory in", std::env::temp_dir()))?;
        Ok(Self {
            temp,
            _listens: listens,
        })
    }

    /// Its run's.
    pub(super) fn run_dir(&self) -> Result<RunDir, Error> {
        RunDir::create(&self.temp.path().join("run"))
    }

    /// Leaves it where it is.
    pub(super) fn keep(self) -> PathBuf {
        self.temp.keep()
    }
}
