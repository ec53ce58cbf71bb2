//! The run directory: plain JSON and text, written as things happen, readable after a crash of
//! the rig itself.
//!
//! ```text
//! manifest.json            versions, seed, image, command line; written first
//! events.jsonl             a line per event
//! console.log              the guests' consoles, one after the other
//! device.jsonl             the device's trace
//! findings/001/            finding.json, reproducer.json, report.txt, timeline.json, timeline.svg
//! summary.json             written when all else has ended
//! index.html               the same for the eye
//! ```

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::events::{Event, Reporter, Stamped};
use super::human;
use super::picture::html::{self, Shown};
use super::picture::links::Links;
use super::picture::svg;
use super::story::Words;
use crate::engine::qemu::{Accel, Qemu};
use crate::error::Error;
use crate::judge::finding::{self, Finding, Setting};
use crate::judge::reproducer::{self, Reproducer};
use crate::judge::summary::Summary;
use crate::judge::timeline::Timeline;

/// Version of manifest.json.
pub const VERSION: u32 = 1;

/// What the run was made of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// [`VERSION`].
    pub version: u32,
    /// Of this program.
    pub knobrig: String,
    /// The command line, as given.
    pub command: Vec<String>,
    /// When it began, RFC 3339.
    pub started: String,
    /// Target, lifetime, mutant, seed, kernel id.
    pub setting: Setting,
    /// The kernel's `uname -r`, variant, source version and source hash.
    pub kernel: KernelInfo,
    /// QEMU.
    pub qemu: Qemu,
    /// How it ran guest code.
    pub accel: Accel,
    /// vCPUs.
    pub cpus: u32,
    /// Memory in MiB.
    pub memory_mib: u32,
}

/// The kernel that ran.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KernelInfo {
    /// Its release.
    pub release: String,
    /// kasan, debug or release.
    pub variant: String,
    /// Package version or path.
    pub source: String,
    /// Hash of the source.
    pub source_hash: String,
    /// With line tables.
    pub vmlinux: PathBuf,
}

/// A run's directory.
#[derive(Debug)]
pub struct RunDir {
    path: PathBuf,
    events: File,
}

impl RunDir {
    /// Makes the directory, which must not hold a run yet.
    ///
    /// # Errors
    /// It can't be written, or holds a run.
    pub fn create(path: &Path) -> Result<Self, Error> {
        let manifest = path.join("manifest.json");
        if manifest.exists() {
            return Err(Error::Usage(format!(
                "{} holds a run already; give another --out",
                path.display()
            )));
        }
        std::fs::create_dir_all(path.join("findings"))
            .map_err(Error::file("create the run directory", path))?;
        let path = path.canonicalize().map_err(Error::file("find", path))?;
        let events = path.join("events.jsonl");
        let events = File::create(&events).map_err(Error::file("create", events))?;
        for empty in ["console.log", "device.jsonl"] {
            let file = path.join(empty);
            File::create(&file).map_err(Error::file("create", &file))?;
        }
        Ok(Self { path, events })
    }

    /// Opens a run's directory that is to go on.
    ///
    /// # Errors
    /// It can't be written, or holds no run.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let path = path.canonicalize().map_err(Error::file("find", path))?;
        if !path.join("manifest.json").exists() {
            return Err(Error::Usage(format!("{} holds no run", path.display())));
        }
        let events = path.join("events.jsonl");
        let file = File::options().append(true).open(&events);
        let events = file.map_err(Error::file("open", events))?;
        Ok(Self { path, events })
    }

    /// The findings that are kept in it, by number.
    ///
    /// # Errors
    /// One can't be read.
    pub fn findings(&self) -> Result<Vec<Finding>, Error> {
        let findings = self.path.join("findings");
        let entries = std::fs::read_dir(&findings).map_err(Error::file("read", &findings))?;
        let mut dirs: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
        // One that is not whole was being written as the run was killed.
        dirs.retain(|dir| dir.join("finding.json").exists());
        dirs.sort();
        dirs.iter().map(|dir| kept_finding(dir)).collect()
    }

    /// `knobrig-out/20260312-104501-mydrv` below the current directory.
    pub fn default_path(target: &str) -> PathBuf {
        let now = jiff::ZonedDateTime::now()
            .strftime("%Y%m%d-%H%M%S")
            .to_string();
        let base = Path::new("knobrig-out").join(format!("{now}-{target}"));
        // A second run in the same second gets a name of its own.
        (1..)
            .map(|n| {
                if n == 1 {
                    base.clone()
                } else {
                    base.with_extension(n.to_string())
                }
            })
            .find(|path| !path.exists())
            .unwrap_or(base)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The guests' consoles.
    pub fn console_log(&self) -> PathBuf {
        self.path.join("console.log")
    }

    /// The device's trace.
    pub fn device_trace(&self) -> PathBuf {
        self.path.join("device.jsonl")
    }

    /// Writes manifest.json.
    ///
    /// # Errors
    /// It can't be written.
    pub fn manifest(&self, manifest: &Manifest) -> Result<(), Error> {
        write_json(&self.path.join("manifest.json"), manifest)
    }

    /// Writes summary.json.
    ///
    /// # Errors
    /// It can't be written.
    pub fn summary(&self, summary: &Summary) -> Result<(), Error> {
        write_json(&self.path.join("summary.json"), summary)
    }

    /// Writes a finding's directory, anew where its count has changed.
    ///
    /// # Errors
    /// It can't be written.
    pub fn finding(&self, finding: &Finding) -> Result<(), Error> {
        let dir = self
            .path
            .join("findings")
            .join(format!("{:03}", finding.number));
        std::fs::create_dir_all(&dir).map_err(Error::file("create", &dir))?;
        write_finding(&dir, finding)?;
        if let Some(timeline) = timeline(finding) {
            write_json(&dir.join("timeline.json"), &timeline)?;
            let svg = svg::svg(&timeline, &finding.title);
            write_whole(&dir.join("timeline.svg"), svg.as_bytes())?;
        }
        Ok(())
    }

    /// Writes index.html.
    ///
    /// # Errors
    /// It can't be written.
    pub fn page(
        &self,
        summary: &Summary,
        findings: &[&Finding],
        links: &Links,
    ) -> Result<(), Error> {
        let shown: Vec<_> = (findings.iter())
            .map(|finding| Shown {
                finding,
                timeline: timeline(finding),
            })
            .collect();
        let page = html::page(summary, &human::answer(summary), &shown, links);
        write_whole(&self.path.join("index.html"), page.as_bytes())
    }
}

impl Reporter for RunDir {
    fn event(&mut self, at: Duration, event: &Event) -> Result<(), Error> {
        let stamped = Stamped {
            at_ms: at.as_millis() as u64,
            event: event.clone(),
        };
        let mut line = serde_json::to_vec(&stamped)
            .map_err(|error| Error::Rig(format!("an event can't be written: {error}")))?;
        line.push(b'\n');
        self.events
            .write_all(&line)
            .map_err(Error::file("write", self.path.join("events.jsonl")))
    }
}

/// The course of the episode that a finding came of, where it is known.
fn timeline(finding: &Finding) -> Option<Timeline> {
    let plan = finding.episode.as_ref()?;
    let words = Words::of(plan);
    let record = finding.record.as_ref()?;
    Timeline::of(plan, record, &finding.evidence, |step| words.step(step))
}

/// Writes a finding, what replays it, and its text.
///
/// # Errors
/// They can't be written.
pub fn write_finding(dir: &Path, finding: &Finding) -> Result<(), Error> {
    // First, so that who reads finding.json finds what it names.
    if let Some(reproducer) = Reproducer::of(finding) {
        write_json(&dir.join(reproducer::FILE), &reproducer)?;
    }
    write_json(&dir.join("finding.json"), finding)?;
    let text = super::finding::text(finding);
    write_whole(&dir.join("report.txt"), text.as_bytes())
}

/// A run's finding, with its episode where one led to it.
fn kept_finding(dir: &Path) -> Result<Finding, Error> {
    let file = dir.join("finding.json");
    let finding: Finding = typed(&file, read_json(&file)?, finding::VERSION, "finding")?;
    match finding.reproducer {
        None => Ok(finding),
        Some(_) => Ok(read_replay(dir)?.finding.unwrap_or(finding)),
    }
}

/// Something whose episode runs again.
#[derive(Debug)]
pub struct Replay {
    /// The episode, and what it ran on.
    pub reproducer: Reproducer,
    /// The finding that it came of, where that was given.
    pub finding: Option<Finding>,
}

/// Reads a finding with its reproducer, or a reproducer alone: a finding.json or reproducer.json, a
/// finding's directory, or a run that has exactly one.
///
/// # Errors
/// There is none there, it can't be told which, it can't be read, or no episode led to it.
pub fn read_replay(path: &Path) -> Result<Replay, Error> {
    let file = match path.is_dir() {
        true => finding_in(path)?,
        false => path.to_owned(),
    };
    let value = read_json(&file)?;
    if value.get("evidence").is_none() {
        let reproducer = typed(&file, value, reproducer::VERSION, "reproducer")?;
        return Ok(Replay {
            reproducer,
            finding: None,
        });
    }
    let mut finding: Finding = typed(&file, value, finding::VERSION, "finding")?;
    if let Some(name) = &finding.reproducer {
        // A name that leads elsewhere is none of ours.
        if Path::new(name).file_name() != Some(name.as_ref()) {
            return Err(Error::Usage(format!(
                "{} names {name:?} as its reproducer: a file beside it is expected",
                file.display()
            )));
        }
        let beside = file.with_file_name(name);
        let value = read_json(&beside)?;
        let read: Reproducer = typed(&beside, value, reproducer::VERSION, "reproducer")?;
        finding.episode = Some(read.episode);
    }
    let Some(reproducer) = Reproducer::of(&finding) else {
        return Err(Error::Usage(format!(
            "{} has no episode to run again: it was met before one ran",
            path.display()
        )));
    };
    Ok(Replay {
        reproducer,
        finding: Some(finding),
    })
}

fn read_json(file: &Path) -> Result<Value, Error> {
    let text = std::fs::read(file).map_err(|error| {
        Error::Usage(format!(
            "{}: {error}; give a finding.json with the reproducer.json beside it, a \
             reproducer.json, a finding's directory, or a run's",
            file.display()
        ))
    })?;
    serde_json::from_slice(&text)
        .map_err(|error| Error::Usage(format!("{} is no JSON: {error}", file.display())))
}

/// A value as what it should be; `what` it should be, up to which version.
fn typed<T: DeserializeOwned>(
    file: &Path,
    value: Value,
    known: u32,
    what: &str,
) -> Result<T, Error> {
    let version = value.get("version").and_then(Value::as_u64);
    if version.is_some_and(|version| version > known.into()) {
        return Err(Error::Usage(format!(
            "{} is of version {}, this program reads up to {known}; take a newer knobrig",
            file.display(),
            version.unwrap_or_default()
        )));
    }
    serde_json::from_value(value)
        .map_err(|error| Error::Usage(format!("{} is no {what}: {error}", file.display())))
}

fn finding_in(dir: &Path) -> Result<PathBuf, Error> {
    let own = ["finding.json", reproducer::FILE].map(|name| dir.join(name));
    if let Some(own) = own.into_iter().find(|own| own.exists()) {
        return Ok(own);
    }
    let findings = dir.join("findings");
    let mut there: Vec<_> = std::fs::read_dir(&findings)
        .map(|entries| entries.flatten().map(|entry| entry.path()).collect())
        .unwrap_or_default();
    there.sort();
    match &there[..] {
        [one] => Ok(one.join("finding.json")),
        [] => Err(Error::Usage(format!(
            "{} holds no finding; give a finding.json, its directory, or a run's directory",
            dir.display()
        ))),
        [first, ..] => Err(Error::Usage(format!(
            "{} holds {} findings; say which, as {}",
            dir.display(),
            there.len(),
            first.display()
        ))),
    }
}

/// Writes a JSON file whole.
///
/// # Errors
/// It can't be written.
pub fn write_json<T: Serialize>(path: &Path, value: &T) -> Result<(), Error> {
    let mut text = serde_json::to_vec_pretty(value)
        .map_err(|error| Error::Rig(format!("{} can't be written: {error}", path.display())))?;
    text.push(b'\n');
    write_whole(path, &text)
}

/// Writes a file whole: a reader sees the old one or the new one, never half of one.
///
/// # Errors
/// It can't be written.
pub fn write_whole(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    let dir = path.parent().unwrap_or("".as_ref());
    let write = || {
        // As any other file: whom the umask lets, may read it.
        let mut file = tempfile::Builder::new()
            .prefix(".part-")
            .permissions(std::fs::Permissions::from_mode(0o666))
            .tempfile_in(dir)?;
        file.write_all(bytes)?;
        file.persist(path).map_err(|error| error.error)
    };
    write().map(drop).map_err(Error::file("write", path))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::judge::finding::{Evidence, Findings, GuestEnd, Met};
    use crate::judge::plan::{Points, Shape, plan};
    use crate::target::Chosen;

    #[test]
    fn a_directory_that_holds_a_run_is_left_alone() {
        let dir = tempfile::tempdir().expect("a temp dir");
        std::fs::write(dir.path().join("manifest.json"), "{}").expect("writes");
        let error = RunDir::create(dir.path())
            .expect_err("a run is there")
            .to_string();
        assert!(error.contains("--out"), "{error}");
    }

    fn found() -> Finding {
        let target = Chosen::find("mydrv", Some("drained"), None).expect("built in");
        let plan = plan(&target, &Points::default(), 3, 1, &[Shape::Gated]);
        let setting = Setting {
            target: "mydrv".into(),
            lifetime: "drained".into(),
            mutant: None,
            seed: 3,
            kernel: "k".into(),
            ..Setting::default()
        };
        let met = Met {
            guest: 1,
            episode: Some(1),
            guest_ms: 5,
        };
        let silent = Evidence::Guest {
            end: GuestEnd::Silent,
            why: "w".into(),
        };
        let mut findings = Findings::default();
        (findings.add(silent, &[], met, &setting, Some(&plan), None)).clone()
    }

    #[test]
    fn what_was_written_of_a_finding_is_read_from_each_of_its_files() {
        let dir = tempfile::tempdir().expect("a temp dir");
        let finding = found();
        write_finding(dir.path(), &finding).expect("writes");
        for (path, whole) in [
            ("", true),
            ("finding.json", true),
            (reproducer::FILE, false),
        ] {
            let replay = read_replay(&dir.path().join(path)).expect("it is read");
            assert_eq!(Some(replay.reproducer), Reproducer::of(&finding), "{path}");
            assert_eq!(replay.finding.is_some(), whole, "{path}");
        }
        // Alone it is enough.
        std::fs::remove_file(dir.path().join("finding.json")).expect("it was there");
        assert!(read_replay(dir.path()).is_ok());
    }

    #[test]
    fn a_finding_of_version_1_has_its_episode_in_itself() {
        let dir = tempfile::tempdir().expect("a temp dir");
        let finding = found();
        let mut old = serde_json::to_value(&finding).expect("plain data");
        let fields = old.as_object_mut().expect("an object");
        fields.remove("reproducer");
        fields.insert("version".into(), 1.into());
        let episode = serde_json::to_value(&finding.episode).expect("plain data");
        fields.insert("episode".into(), episode);
        write_json(&dir.path().join("finding.json"), &old).expect("writes");
        let replay = read_replay(dir.path()).expect("it is read");
        assert_eq!(Some(replay.reproducer), Reproducer::of(&finding));
    }

    #[test]
    fn what_can_t_be_run_again_is_told_with_what_to_give() {
        let dir = tempfile::tempdir().expect("a temp dir");
        let file = dir.path().join("finding.json");
        let whole = serde_json::to_value(found()).expect("plain data");
        for (field, value, told) in [
            (
                "reproducer",
                Value::from("../reproducer.json"),
                "a file beside it",
            ),
            (
                "reproducer",
                Value::from("gone.json"),
                "give a finding.json",
            ),
            ("reproducer", Value::Null, "no episode to run again"),
            ("version", Value::from(9), "take a newer knobrig"),
            ("title", Value::from(9), "is no finding"),
        ] {
            let mut wrong = whole.clone();
            wrong[field] = value;
            write_json(&file, &wrong).expect("writes");
            let error = read_replay(&file).expect_err(told).to_string();
            assert!(error.contains(told), "{error}");
        }
        std::fs::write(&file, "{").expect("writes");
        assert!(read_replay(&file).is_err());
    }

    #[test]
    fn no_half_written_file_is_left() {
        let dir = tempfile::tempdir().expect("a temp dir");
        let path = dir.path().join("a.json");
        write_whole(&path, b"{}").expect("writes");
        assert!(write_whole(&dir.path().join("no/such/dir"), b"{}").is_err());
        assert_eq!(std::fs::read_dir(dir.path()).expect("reads").count(), 1);
    }
}
