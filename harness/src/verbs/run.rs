//! `knobrig run`: boot, collide, judge, again; a fresh guest after each failure.

use std::path::Path;

use super::campaign::{Campaign, Settings, blank};
use super::mix::Mix;
use super::prepare::{self, Need, Prepared, Wanted};
use crate::cli::{Format, ReportTo, RunArgs};
use crate::error::Error;
use crate::exit::Exit;
use crate::judge::finding::kebab;
use crate::judge::plan::{Shape, lacks, may_delay};
use crate::judge::summary::Summary;
use crate::report::dir::{RunDir, write_whole};
use crate::report::format::render_cases;
use crate::report::format::suite::Suite;
use crate::report::human;
use crate::report::progress::{Goal, SetUp};
use crate::target::Chosen;

/// A seed is drawn from so many random bytes.
const SEED_BYTES: usize = 8;

/// Runs the verb.
///
/// # Errors
/// What kept the run from ending with a verdict.
pub fn run(arguments: &RunArgs, command: Vec<String>) -> Result<Exit, Error> {
    let started = std::time::Instant::now();
    let target = arguments.driver.choose()?;
    has_shapes(&target, &arguments.shapes)?;
    let seed = seed_or_random(arguments.seed)?;
    let path = arguments
        .out
        .clone()
        .unwrap_or_else(|| RunDir::default_path(&target.target.name));
    let dir = RunDir::create(&path)?;
    // True from now on: whoever reads it before the end finds a run that was cut short.
    dir.summary(&Summary {
        interrupted: true,
        ..blank(&target, seed)
    })?;
    let wanted = Wanted {
        kernel: arguments.kernel.choice(),
        accel: arguments.accel,
        module_dirs: arguments.driver.module_dir.clone(),
        vcpus: Need::delays(may_delay(&target, &arguments.shapes)),
    };
    let prepared = prepare::prepare(&target, &wanted, &SetUp::new())?;
    delays_or_else(&prepared, &arguments.shapes)?;
    let settings = Settings {
        seed,
        goal: match arguments.episodes {
            Some(episodes) => Goal::Episodes(episodes),
            None => Goal::Duration(arguments.duration.0),
        },
        fail_fast: arguments.fail_fast,
        cpus: arguments.cpus.or(target.target.cpus).unwrap_or(2),
        memory_mib: arguments.memory,
        live: !arguments.quiet,
        command,
        source_url: arguments.beside.source_url.clone(),
    };
    let mut episodes = Mix::new(&target, &prepared, seed, arguments.shapes.clone());
    let mut campaign = Campaign::new(started, &target, &prepared, settings, dir)?;
    let ended = campaign.drive(&mut episodes)?;
    print(&ended, arguments.format, campaign.dir())?;
    let suite = Suite::of_run(&ended, &campaign.findings(), campaign.dir());
    write_cases(&arguments.beside.reports, &suite)?;
    Ok(ended.exit())
}

/// What was asked for must be possible: by the target, before anything is set up for it.
pub(super) fn has_shapes(target: &Chosen, shapes: &[Shape]) -> Result<(), Error> {
    for shape in shapes {
        if let Some(needs) = lacks(target, *shape) {
            let (name, title) = (kebab(shape), target.title());
            return Err(Error::Usage(format!(
                "--shapes {name}: {title} can't have such episodes: its target file would need {needs}"
            )));
        }
    }
    Ok(())
}

/// Nothing but delays was asked for, so they must be possible.
pub(super) fn delays_or_else(prepared: &Prepared, shapes: &[Shape]) -> Result<(), Error> {
    match shapes == [Shape::Delays] && !prepared.delays() {
        false => Ok(()),
        true => Err(Error::Machine(
            "--shapes delays: vCPUs can't be delayed here, as told above; use --accel tcg and a QEMU \
             with plugins, or other shapes"
                .into(),
        )),
    }
}

/// The seed that was asked for, or a new one.
pub(super) fn seed_or_random(asked: Option<u64>) -> Result<u64, Error> {
    if let Some(seed) = asked {
        return Ok(seed);
    }
    let mut bytes = [0; SEED_BYTES];
    std::fs::File::open("/dev/urandom")
        .and_then(|mut file| std::io::Read::read_exact(&mut file, &mut bytes))
        .map_err(Error::file("read", "/dev/urandom"))?;
    // Short enough to be typed again.
    Ok(u64::from_le_bytes(bytes) % 1_000_000_000)
}

pub(super) fn print(summary: &Summary, format: Format, dir: &Path) -> Result<(), Error> {
    match format {
        Format::Human => say(&human::summary(summary, dir)),
        Format::Json => say_json(summary),
    }
}

/// Writes what `--report` asked for.
pub(super) fn write_cases(reports: &[ReportTo], suite: &Suite) -> Result<(), Error> {
    for report in reports {
        let text = render_cases(report.format, suite)?;
        match report.path.as_os_str() == "-" {
            true => say(&text)?,
            false => write_whole(&report.path, text.as_bytes())?,
        }
    }
    Ok(())
}

/// Prints one object on one line.
pub(super) fn say_json<T: serde::Serialize>(value: &T) -> Result<(), Error> {
    let text = serde_json::to_string(value)
        .map_err(|error| Error::Rig(format!("the result can't be written: {error}")))?;
    say(&format!("{text}\n"))
}

/// Prints.
pub(super) fn say(text: &str) -> Result<(), Error> {
    use std::io::Write;
    match std::io::stdout().write_all(text.as_bytes()) {
        // Whoever read our output has gone: the verdict stands in the exit code and the files.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        result => result.map_err(Error::file("write", "standard output")),
    }
}
