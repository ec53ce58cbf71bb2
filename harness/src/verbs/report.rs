//! `knobrig report`: what any kernel log says, in any of the formats.

use std::sync::Arc;

use knobrig_klog::Symbols;

use super::run::say;
use crate::cli::ReportArgs;
use crate::error::Error;
use crate::exit::Exit;
use crate::logs;
use crate::report::dir::write_whole;
use crate::report::format;
use crate::symbols::{Files, ModuleSymbols, Symbolizer};

/// Runs the verb.
///
/// # Errors
/// A log can't be read, or the report not be written. What could be read is reported before.
pub fn run(arguments: &ReportArgs) -> Result<Exit, Error> {
    let files = Files::find(arguments.vmlinux.as_deref(), &arguments.modules)?;
    let symbols: Arc<dyn Symbols> = Arc::new(ModuleSymbols::of(&files));
    let mut symbolizer = Symbolizer::new(files);
    let mut read = Vec::new();
    let mut failed = None;
    for log in logs::read_all(&arguments.logs, &symbols) {
        match log {
            Ok(mut log) => {
                for report in &mut log.reports {
                    symbolizer.symbolize(report);
                }
                read.push(log);
            }
            Err(error) => {
                if failed.is_some() {
                    eprintln!("knobrig: {error}");
                } else {
                    failed = Some(error);
                }
            }
        }
    }
    for why in symbolizer.failures() {
        eprintln!("knobrig: {why}");
    }
    let text = format::render(arguments.format, &read)?;
    match &arguments.out {
        Some(path) => write_whole(path, text.as_bytes())?,
        None => say(&text)?,
    }
    match failed {
        Some(error) => Err(error),
        None if read.iter().all(|log| log.reports.is_empty()) => Ok(Exit::Clean),
        None => Ok(Exit::Findings),
    }
}
