//! Exit codes of `knobrig`, documented here and in the README.

use std::process::ExitCode;

/// How a verb ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// It did what was asked; a run found nothing.
    Clean = 0,
    /// The command line, a target file or another input is wrong.
    Usage = 2,
    /// The machine lacks something: a package, a kernel, a right, disk space.
    Machine = 3,
    /// The rig itself failed: the guest never came up, or was lost without a report.
    Rig = 4,
    /// A run or a report has findings.
    Findings = 10,
    /// SIGINT or SIGTERM.
    Interrupted = 130,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}
