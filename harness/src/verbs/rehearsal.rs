//! A module that the rig has not seen before is loaded and unloaded once, so that one that can't be
//! used is told in a line, with the console's words, before anything is made of it.

use std::path::{Path, PathBuf};

use knobrig_klog::Report;
use knobrig_proto::Step;

use super::run::say;
use crate::engine::guest::{Guest, Happening, Loss};
use crate::error::Error;
use crate::exit::Exit;
use crate::judge::oracle::result_text;
use crate::judge::plan::{ENOENT, EWOULDBLOCK};
use crate::target::{Chosen, ModuleSource};

/// Lines of the console that are shown.
const LINES: usize = 12;
/// How long a driver may take to come up, or to go.
const DEADLINE_MS: u64 = 10_000;
/// Marks where a rehearsal begins on the console.
const MARKER: &str = "knobrig: rehearsal";
/// `/proc/sys/kernel/tainted`: a module from outside the tree, one without a signature. Every
/// module of a developer's is both.
const USUAL_TAINT: u64 = 1 << 12 | 1 << 13;
/// The other bits' letters and meanings.
const TAINTS: [(u64, &str); 9] = [
    (0, "P: a proprietary module"),
    (1, "F: loaded by force"),
    (4, "M: a machine check"),
    (5, "B: a bad page"),
    (7, "D: an oops or BUG before"),
    (9, "W: a warning before"),
    (10, "C: a driver of the staging tree"),
    (15, "K: a live patch"),
    (18, "N: a test of the kernel's own"),
];

/// A module that can't be used.
#[derive(Debug)]
pub(super) enum Rehearsal {
    /// A step of it failed.
    Failed {
        /// What, in a line.
        what: String,
        /// The console's last words.
        console: Vec<String>,
    },
    /// The kernel reported.
    Reported {
        /// When.
        when: &'static str,
        /// What.
        report: Box<Report>,
    },
}

impl Rehearsal {
    /// As an error of the target, or a finding.
    pub(super) fn end(self, name: &str) -> Result<Exit, Error> {
        match self {
            Self::Failed { what, console } => Err(Error::Usage(told(&what, &console))),
            Self::Reported { when, report } => {
                say(&format!(
                    "{name}: the kernel reports {when}: {}\n{}\n",
                    report.title,
                    report.text.trim_end()
                ))?;
                Ok(Exit::Findings)
            }
        }
    }
}

/// A line, and the console's words under it.
fn told(what: &str, console: &[String]) -> String {
    match console.is_empty() {
        true => format!("{what}; the console says nothing of it"),
        false => {
            let lines: String = console.iter().map(|line| format!("\n  {line}")).collect();
            format!("{what}; the console says:{lines}")
        }
    }
}

/// Loads a target's modules and sees to it that the driver is up.
pub(super) async fn load(
    guest: &mut Guest,
    target: &Chosen,
    console: &Path,
) -> Result<Option<Rehearsal>, Loss> {
    mark(guest).await?;
    let before = taint(guest).await?;
    for step in target.bring_up_steps() {
        let outcomes = guest.run_steps(vec![step.clone()]).await?;
        if let Some(bad) = reported(guest, console).await? {
            return Ok(Some(bad));
        }
        let ret = outcomes.first().map_or(0, |outcome| outcome.ret);
        if ret < 0 {
            let what = match &step {
                Step::Load { module, .. } => format!(
                    "module {module} does not load: {}{}",
                    result_text(ret),
                    hint(ret)
                ),
                step => format!(
                    "{} does not come up: {}: {}",
                    target.target.name,
                    crate::judge::oracle::step_text(step),
                    result_text(ret)
                ),
            };
            return failed(what, console);
        }
    }
    let module = &target.target.teardown.module;
    let mut awaited = vec![format!("/sys/module/{module}")];
    awaited.extend(target.target.rules.gone.iter().cloned());
    for path in awaited {
        let wait = Step::WaitPath {
            path: path.clone(),
            present: true,
            deadline_ms: DEADLINE_MS,
        };
        let outcomes = guest.run_steps(vec![wait]).await?;
        if outcomes.first().is_some_and(|outcome| outcome.ret < 0) {
            if let Some(bad) = reported(guest, console).await? {
                return Ok(Some(bad));
            }
            let what = format!(
                "module {module} loads and never comes up: {path} is not there after {} s",
                DEADLINE_MS / 1000
            );
            return failed(what, console);
        }
    }
    let taint = taint(guest).await? & !before & !USUAL_TAINT;
    if taint != 0 {
        let meanings = TAINTS.iter().filter(|(bit, _)| taint & (1 << bit) != 0);
        let meanings: Vec<_> = meanings.map(|(_, meaning)| *meaning).collect();
        let words = words(console).join("\n  ");
        eprintln!(
            "knobrig: note: module {module} taints the kernel ({}); the console says:\n  {words}",
            meanings.join(", ")
        );
    }
    Ok(None)
}

/// Unloads them again.
pub(super) async fn unload(
    guest: &mut Guest,
    target: &Chosen,
    console: &Path,
) -> Result<Option<Rehearsal>, Loss> {
    for step in target.take_down_steps() {
        let outcomes = guest.run_steps(vec![step.clone()]).await?;
        if let Some(bad) = reported(guest, console).await? {
            return Ok(Some(bad));
        }
        let ret = outcomes.first().map_or(0, |outcome| outcome.ret);
        let Step::Unload { module, .. } = step else {
            continue;
        };
        if ret < 0 && ret != ENOENT {
            let why = match ret {
                EWOULDBLOCK => {
                    let count = count(guest, &module).await?;
                    format!("something holds it, its count is {count}")
                }
                -16 => "it has no exit function, or is still in its init".into(),
                _ => result_text(ret),
            };
            let what = format!("module {module} can't be removed: {why}");
            return failed(what, console);
        }
    }
    Ok(None)
}

/// What the kernel has reported so far.
pub(super) async fn reported(
    guest: &mut Guest,
    _console: &Path,
) -> Result<Option<Rehearsal>, Loss> {
    match guest.drain_console().await? {
        Some(Happening::Report { report, .. }) => Ok(Some(Rehearsal::Reported {
            when: "while it was tried",
            report,
        })),
        _ => Ok(None),
    }
}

fn failed(what: String, console: &Path) -> Result<Option<Rehearsal>, Loss> {
    Ok(Some(Rehearsal::Failed {
        what,
        console: words(console),
    }))
}

/// What the console has said since the rehearsal began.
fn words(console: &Path) -> Vec<String> {
    // A log that can't be read says nothing; the failure itself is told.
    let text = std::fs::read(console).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let since = text.rsplit(MARKER).next().unwrap_or_default();
    let lines = since.lines().skip(1).map(str::trim_end);
    let mut lines: Vec<_> = lines
        .filter(|line| !line.is_empty() && !line.contains("knobrig: "))
        .map(str::to_owned)
        .collect();
    lines.drain(..lines.len().saturating_sub(LINES));
    lines
}

/// What an error of a load usually means.
fn hint(ret: i64) -> &'static str {
    match ret {
        -8 => " (it was built for another kernel, or is no module)",
        -2 => " (it needs a symbol or a file that is not there)",
        -19 => " (its init found no device)",
        -17 => " (a module of that name is there, or built in)",
        -22 => " (a parameter that it doesn't know, or a symbol of another version)",
        _ => "",
    }
}

async fn mark(guest: &mut Guest) -> Result<(), Loss> {
    let step = Step::WriteFile {
        path: "/dev/kmsg".into(),
        data: format!("{MARKER}\n"),
    };
    guest.run_steps(vec![step]).await.map(drop)
}

async fn taint(guest: &mut Guest) -> Result<u64, Loss> {
    let text = read(guest, "/proc/sys/kernel/tainted".into()).await?;
    Ok(text.parse().unwrap_or(0))
}

async fn count(guest: &mut Guest, module: &str) -> Result<String, Loss> {
    read(guest, format!("/sys/module/{module}/refcnt")).await
}

async fn read(guest: &mut Guest, path: String) -> Result<String, Loss> {
    let outcomes = guest.run_steps(vec![Step::ReadFile { path }]).await?;
    let text = outcomes.into_iter().next().and_then(|outcome| outcome.text);
    Ok(text.unwrap_or_default().trim().to_owned())
}

/// Name and source of a module as the command line names it.
pub(super) fn module_source(module: &str) -> Result<(String, ModuleSource), Error> {
    let path = PathBuf::from(module);
    let absolute = |path: &Path| {
        path.canonicalize()
            .map_err(|error| Error::Usage(format!("can't find the module {module}: {error}")))
    };
    if path.is_dir() {
        let path = absolute(&path)?;
        let name = knobrig_images::module_of_dir(&path)?;
        return Ok((name, ModuleSource::Build(path)));
    }
    if module.contains(['/', '.']) {
        let path = absolute(&path)?;
        let name = knobrig_images::modinfo(&path)?.name;
        return Ok((name, ModuleSource::Path(path)));
    }
    Ok((module.replace('-', "_"), ModuleSource::Kernel))
}

/// The parameters of one of these modules.
pub(super) fn params(modules: &[(String, PathBuf)], name: &str) -> Vec<(String, String)> {
    let found = modules.iter().find(|(known, _)| known == name);
    let info = found.and_then(|(_, path)| knobrig_images::modinfo(path).ok());
    info.map(|info| info.params).unwrap_or_default()
}
