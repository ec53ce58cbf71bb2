//! `knobrig test`: set-up, then the whole test suite, guests included.

use std::process::Command;

use knobrig_images::{Need, Progress, Variant};

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
    let progress = SetUp::new();
    prepare::prepare(&target, &wanted, &progress)?;
    if let Err(why) = knobrig_images::ensure_packages(&[Need::browser()], &progress) {
        // All else is tested without one.
        progress.say(&format!("no browser looks at a run's page: {why}"));
    }
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
