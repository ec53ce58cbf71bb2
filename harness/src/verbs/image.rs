//! `knobrig image build|ls|check|clean`.

use knobrig_images::{Cache, Given, Variant};

use super::prepare;
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
        ImageCommand::Build { kernel, name } => {
            let kernel = knobrig_images::ensure_kernel(
                &cache,
                &kernel.request(Variant::Kasan),
                &SetUp::new(),
            )?;
            if let Some(name) = name {
                knobrig_images::name_kernel(&cache, name, &kernel)?;
            }
            println!(
                "{}  {}  Linux {}",
                kernel.id, kernel.variant, kernel.release
            );
        }
        ImageCommand::Check {
            kernel,
            vmlinux,
            modules,
            kernel_config,
        } => {
            let given = Given {
                image: kernel.clone(),
                vmlinux: vmlinux.clone(),
                modules: modules.clone(),
                config: kernel_config.clone(),
            };
            let given = knobrig_images::given_kernel(&given)?;
            println!("Linux {}: it can be used here", given.kernel.release);
            for line in prepare::costs(&given) {
                println!("  {line}");
            }
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
