//! `knobrig image build|show|clean`.

use knobrig_images::{Cache, KernelRequest};

use crate::cli::ImageCommand;
use crate::error::Error;
use crate::exit::Exit;
use crate::report::progress::SetUp;

/// Runs the verb.
///
/// # Errors
/// What is missing and can't be had.
pub fn run(command: &ImageCommand) -> Result<Exit, Error> {
    let cache = Cache::open(None)?;
    match command {
        ImageCommand::Build {
            variant,
            kernel_source,
        } => {
            let request = KernelRequest {
                variant: variant.0,
                source: kernel_source.clone(),
            };
            let kernel = knobrig_images::ensure_kernel(&cache, &request, &SetUp::new())?;
            println!(
                "{}  {}  Linux {}",
                kernel.id, kernel.variant, kernel.release
            );
        }
        ImageCommand::Show => {
            let entries = knobrig_images::list(&cache)?;
            if entries.is_empty() {
                println!(
                    "no image in {}; `cargo rig image build` makes one",
                    cache.dir().display()
                );
            }
            for entry in entries {
                println!("{entry}");
            }
        }
        ImageCommand::Clean { all } => {
            let what = if *all {
                knobrig_images::Clean::All
            } else {
                knobrig_images::Clean::Stale
            };
            let freed = knobrig_images::clean(&cache, what)?;
            println!("freed {freed} in {}", cache.dir().display());
        }
    }
    Ok(Exit::Clean)
}
