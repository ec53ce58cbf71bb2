//! `knobrig target new`: loads a module in a guest of its own, looks at what comes with it, tries
//! each file, unloads it, and writes down what it saw.

use std::path::Path;
use std::time::Instant;

use knobrig_proto::{Outcome, Step};

use super::super::campaign::{self, Settings};
use super::super::prepare::{self, Need, Wanted};
use super::super::rehearsal::{self, Rehearsal};
use super::super::run::say;
use super::super::scratch::Scratch;
use crate::cli::target::NewArgs;
use crate::engine::guest::{BootFailure, Guest, Loss};
use crate::error::Error;
use crate::exit::Exit;
use crate::judge::oracle::result_text;
use crate::judge::plan::EWOULDBLOCK;
use crate::report::progress::{Goal, SetUp};
use crate::target::draft::{File, Seen, is_knob, is_of_an_interrupt, news, uppermost};
use crate::target::{Chosen, Device};

/// Where a driver's files are looked for.
const ROOTS: [&str; 3] = ["/sys", "/dev", "/proc"];
/// Files that are tried, at most; the others are named.
const MOST_FILES: usize = 64;
/// A read asks for so much.
const READ: u32 = 4096;
const SLOT: u32 = 0;
/// A boot that was not clean says nothing of the module: another one, so often.
const BOOTS: usize = 3;

/// Runs the verb.
///
/// # Errors
/// Set-up failed, the module can't be used, or the file can't be written.
pub(super) fn run(arguments: &NewArgs) -> Result<Exit, Error> {
    let (name, source) = rehearsal::module_source(&arguments.module)?;
    let out = (arguments.out.clone()).unwrap_or_else(|| format!("{name}.toml").into());
    if out.exists() {
        return Err(Error::Usage(format!(
            "{} is there already; give another --out",
            out.display()
        )));
    }
    let target = Chosen::bare(
        &name,
        source.clone(),
        &arguments.params,
        &devices(arguments),
    );
    let wanted = Wanted {
        kernel: arguments.kernel.choice(),
        accel: arguments.accel,
        vcpus: Need::Nothing,
        module_dirs: Vec::new(),
    };
    let progress = SetUp::new();
    let prepared = prepare::prepare(&target, &wanted, &progress)?;
    let scratch = Scratch::new()?;
    let dir = scratch.run_dir()?;
    let settings = Settings::inner(0, Goal::Episodes(1), &[]);
    let recipe = campaign::recipe(&target, &prepared, &settings, &dir);
    let began = Instant::now();
    let seen = campaign::block_on(async {
        let mut guest = boot(&recipe).await?;
        let seen = look(&mut guest, &target, &dir.console_log()).await;
        guest.stop().await;
        seen
    })?;
    let seen = match seen {
        Ok(seen) => Seen {
            source: source.toml(),
            params: arguments.params.clone(),
            known_params: rehearsal::params(&prepared.modules, &name),
            devices: arguments.device.clone(),
            ..seen
        },
        Err(bad) => return bad.end(&name),
    };
    crate::report::dir::write_whole(&out, seen.text().as_bytes())?;
    let used = seen
        .files
        .iter()
        .filter(|file| file.failed.is_none())
        .count();
    say(&format!(
        "{}: {} files of {name}, {used} of them to be used, {} teardowns beside rmmod, in {:.0} s\n\
         next: knobrig run --target {}\n",
        out.display(),
        seen.files.len(),
        seen.drivers
            .iter()
            .map(|(_, bound)| bound.len())
            .sum::<usize>()
            + seen.devices.len(),
        began.elapsed().as_secs_f64(),
        out.display(),
    ))?;
    Ok(Exit::Clean)
}

fn devices(arguments: &NewArgs) -> Vec<Device> {
    let devices = arguments.device.iter().enumerate();
    devices
        .map(|(at, device)| Device {
            id: format!("dev{at}"),
            device: device.clone(),
            options: Vec::new(),
        })
        .collect()
}

async fn boot(recipe: &crate::engine::guest::Recipe) -> Result<Guest, Error> {
    let mut why = String::new();
    for _ in 0..BOOTS {
        match Guest::boot(recipe).await {
            Ok(guest) => return Ok(guest),
            Err(BootFailure::Unfit(report)) => why = report.title.clone(),
            Err(BootFailure::Lost(Loss::Rig(error))) => return Err(error),
            Err(BootFailure::Lost(loss)) => return Err(Error::Rig(loss.why())),
        }
    }
    Err(Error::Rig(format!(
        "{BOOTS} boots were not clean; the last: {why}"
    )))
}

/// All that is to be seen; the inner error is a module that can't be used.
async fn look(
    guest: &mut Guest,
    target: &Chosen,
    console: &Path,
) -> Result<Result<Seen, Rehearsal>, Error> {
    match watch(guest, target, console).await {
        Ok(seen) => Ok(seen),
        Err(loss) => Err(match guest.cause(loss).await {
            Loss::Rig(error) => error,
            loss => Error::Rig(loss.why()),
        }),
    }
}

async fn watch(
    guest: &mut Guest,
    target: &Chosen,
    console: &Path,
) -> Result<Result<Seen, Rehearsal>, Loss> {
    let before = list(guest).await?;
    if let Some(bad) = rehearsal::load(guest, target, console).await? {
        return Ok(Err(bad));
    }
    let after = list(guest).await?;
    let new = news(&before, &after);
    let module = &target.target.teardown.module;
    let mut seen = Seen {
        module: module.clone(),
        kernel: guest.release.clone(),
        count: text(guest, &format!("/sys/module/{module}/refcnt")).await?,
        ..Seen::default()
    };
    for (kind, _, path) in &new {
        let parts: Vec<_> = path.split('/').collect();
        // /sys/bus/BUS/drivers/DRIVER
        if let ["", "sys", "bus", _, "drivers", _] = parts.as_slice()
            && *kind == 'd'
        {
            let links = new.iter().filter(|(kind, _, link)| {
                *kind == 'l'
                    && link
                        .strip_prefix(path)
                        .is_some_and(|it| it.starts_with('/'))
            });
            let bound = links.map(|(.., link)| link[path.len() + 1..].to_owned());
            let bound = bound.filter(|name| name != "module").collect();
            seen.drivers.push(((*path).to_owned(), bound));
        }
    }
    let knobs = new.iter().filter(|(kind, _, path)| is_knob(*kind, path));
    for (_, mode, path) in knobs.take(MOST_FILES) {
        let file = try_file(guest, target, path, *mode).await?;
        if let Some(bad) = rehearsal::reported(guest, console).await? {
            return Ok(Err(bad));
        }
        seen.files.push(file);
    }
    if let Some(bad) = rehearsal::unload(guest, target, console).await? {
        return Ok(Err(bad));
    }
    let left = list(guest).await?;
    let left: std::collections::BTreeSet<_> =
        news(&before, &left).into_iter().map(|it| it.2).collect();
    let went = new.iter().filter(|(.., path)| !left.contains(path));
    let went = went.filter(|(kind, _, path)| {
        let core = ["/sys/module/", "/sys/kernel/slab"];
        *kind != 'l' && !core.iter().any(|core| path.starts_with(core)) && !is_of_an_interrupt(path)
    });
    let gone = uppermost(went.map(|it| it.2)).into_iter();
    seen.gone = gone.take(MOST_FILES).map(str::to_owned).collect();
    Ok(Ok(seen))
}

/// Every file there is.
async fn list(guest: &mut Guest) -> Result<String, Loss> {
    let mut all = String::new();
    for root in ROOTS {
        let step = Step::List { path: root.into() };
        let outcomes = guest.run_steps(vec![step]).await?;
        all.extend(outcomes.into_iter().filter_map(|outcome| outcome.text));
    }
    Ok(all)
}

async fn text(guest: &mut Guest, path: &str) -> Result<Option<String>, Loss> {
    let step = Step::ReadFile { path: path.into() };
    let outcomes = guest.run_steps(vec![step]).await?;
    let text = outcomes.into_iter().next().and_then(|outcome| outcome.text);
    Ok(text.map(|text| text.trim().to_owned()))
}

/// Opens and reads a file, and tries whether an open descriptor of it keeps the module.
async fn try_file(guest: &mut Guest, target: &Chosen, path: &str, mode: u32) -> Result<File, Loss> {
    let (readable, writable) = (mode & 0o444 != 0, mode & 0o222 != 0);
    let mut file = File {
        path: path.into(),
        writable,
        ..File::default()
    };
    // A poll first: a read of a device that has nothing to say may wait for ever.
    let open = |read, write| Step::Open {
        path: path.into(),
        read,
        write,
        exclusive: false,
        slot: SLOT,
    };
    let steps = vec![
        open(readable || !writable, false),
        Step::Poll {
            slot: SLOT,
            timeout_ms: 100,
            hangup: false,
        },
    ];
    let outcomes = guest.run_steps(steps).await?;
    let first = |outcomes: &[Outcome]| outcomes.first().map_or(-1, |outcome| outcome.ret);
    let ready = outcomes.get(1).is_some_and(|poll| poll.ret > 0);
    if first(&outcomes) < 0 && readable {
        file.failed = Some(format!("open gives {}", result_text(first(&outcomes))));
        return Ok(file);
    }
    let ordinary = !path.starts_with("/dev/");
    if readable && (ready || ordinary) {
        let step = match ordinary {
            true => Step::ReadFile { path: path.into() },
            false => Step::Read {
                slot: SLOT,
                len: READ.min(512),
            },
        };
        let steps = match ordinary {
            true => vec![step],
            false => vec![open(true, false), step],
        };
        let outcomes = guest.run_steps(steps).await?;
        match outcomes.last() {
            Some(outcome) if outcome.ret >= 0 => {
                file.read = Some(outcome.text.clone().unwrap_or_default());
            }
            Some(outcome) if !writable => {
                file.failed = Some(format!("read gives {}", result_text(outcome.ret)));
                return Ok(file);
            }
            _ => {}
        }
    } else if readable && !writable {
        file.failed = Some("a read waits for what doesn't come by itself".into());
        return Ok(file);
    }
    let module = target.target.teardown.module.clone();
    let steps = vec![open(readable, writable && !readable), Step::unload(&module)];
    let outcomes = guest.run_steps(steps).await?;
    let opened = first(&outcomes) >= 0;
    file.pins = opened
        && outcomes
            .last()
            .is_some_and(|unload| unload.ret == EWOULDBLOCK);
    if outcomes.last().is_some_and(|unload| unload.ret == 0) {
        // It went under the open descriptor: back for the next file.
        guest.run_steps(target.bring_up_steps()).await?;
        let wait = Step::WaitPath {
            path: path.into(),
            present: true,
            deadline_ms: 5_000,
        };
        guest.run_steps(vec![wait]).await?;
    }
    Ok(file)
}
