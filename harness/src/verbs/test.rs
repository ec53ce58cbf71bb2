//! `knobrig test`: set-up, then the whole test suite, guests included.

use std::process::Command;

use knobrig_images::Variant;

use super::prepare::{self, Wanted};
use crate::cli::{AccelChoice, TestArgs};
use crate::error::Error;
use crate::exit::Exit;
use crate::report::progress::SetUp;
use crate::target::Chosen;

/// Runs the verb.
///
/// # Errors
/// Set-up failed, or cargo can't be started.
pub fn run(arguments: &TestArgs) -> Result<Exit, Error> {
    let target = Chosen::find("mydrv", None, None)?;
    let wanted = Wanted::pinned(Variant::Kasan, AccelChoice::Auto);
    prepare::prepare(&target, &wanted, &SetUp::new())?;
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = Command::new(&cargo)
        .args(["test", "--workspace"])
        .args(&arguments.rest)
        .current_dir(knobrig_images::workspace_root())
        .status()
        .map_err(|source| Error::Spawn {
            program: cargo.into(),
            source,
        })?;
    Ok(if status.success() {
        Exit::Clean
    } else {
        Exit::Findings
    })
}
