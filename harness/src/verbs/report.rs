//! `knobrig report`: what any kernel log says, in any of the formats.

use super::run::say;
use crate::cli::ReportArgs;
use crate::error::Error;
use crate::exit::Exit;
use crate::logs;
use crate::report::dir::write_whole;
use crate::report::format;

/// Runs the verb.
///
/// # Errors
/// A log can't be read, or the report not be written. What could be read is reported before.
pub fn run(arguments: &ReportArgs) -> Result<Exit, Error> {
    let mut read = Vec::new();
    let mut failed = None;
    for log in logs::read_all(&arguments.logs) {
        match log {
            Ok(log) => read.push(log),
            Err(error) => {
                if failed.is_some() {
                    eprintln!("knobrig: {error}");
                } else {
                    failed = Some(error);
                }
            }
        }
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
