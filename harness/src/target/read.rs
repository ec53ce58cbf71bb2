//! Target files: read with their includes, each mistake told with its place and a hint.

use std::path::{Path, PathBuf};

use knobrig_proto::Step;
use schemars::JsonSchema;
use serde::Deserialize;
use toml::de::{DeTable, DeValue};

use super::{
    BUILT_IN, Detour, Device, ElsewhereRef, Knob, Lifetime, Loops, Module, Mutant, PIECES,
    Patience, Rules, Target, Teardown, VERSION,
};
use crate::error::Error;

/// Files that include each other go no deeper.
const DEEPEST: usize = 8;

/// A target file as it is written. A file that others include need not be whole.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "A target of knobrig")]
pub(super) struct File {
    /// Version of the format: 1.
    version: u32,
    /// Files whose content comes before this one's: arrays are joined, and of what can be there
    /// once only, the including file's wins. Relative to this file, or the name of a piece that ships.
    #[serde(default)]
    include: Vec<String>,
    /// The target's name.
    #[serde(default)]
    name: Option<String>,
    /// What it shows, in a line.
    #[serde(default)]
    about: Option<String>,
    /// vCPUs of the guest, 2 to 8, where the command line says nothing.
    #[serde(default)]
    cpus: Option<u32>,
    /// Steps that are done once in each guest before the first episode.
    #[serde(default)]
    setup: Vec<Step>,
    /// Devices on QEMU's command line beside the rig's own.
    #[serde(default, rename = "device")]
    devices: Vec<Device>,
    /// Modules, loaded in order at the start of each episode.
    #[serde(default, rename = "module")]
    modules: Vec<Module>,
    /// Steps that are done in each episode once the modules are loaded: a `mkdir` in configfs.
    #[serde(default)]
    up: Vec<Step>,
    /// Steps that are done in each episode before the module goes.
    #[serde(default)]
    down: Vec<Step>,
    /// The files that reach the driver.
    #[serde(default, rename = "knob")]
    knobs: Vec<Knob>,
    /// Ways to where knobs lead that are more than an op.
    #[serde(default, rename = "detour")]
    detours: Vec<Detour>,
    /// What ends the driver.
    #[serde(default)]
    teardown: Option<Teardown>,
    /// A step that ends the binding under open descriptors, and not the module.
    #[serde(default)]
    unbind: Option<Step>,
    /// How a reference to the driver's object is held that neither driver nor openers hold.
    #[serde(default)]
    elsewhere: Option<ElsewhereRef>,
    /// How long the driver waits for its device, through a parameter of its module.
    #[serde(default)]
    patience: Option<Patience>,
    /// Tight loops of ops by weight.
    #[serde(default)]
    loops: Option<Loops>,
    /// What must hold.
    #[serde(default)]
    rules: Option<Rules>,
    /// Rules by which the module may be unloaded; the first is the default.
    #[serde(default, rename = "lifetime")]
    lifetimes: Vec<Lifetime>,
    /// Planted bugs.
    #[serde(default, rename = "mutant")]
    mutants: Vec<Mutant>,
}

/// Where something of a target is written: the table, which of its kind by name, the key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Spot {
    pub(super) table: &'static str,
    pub(super) name: Option<String>,
    pub(super) key: Option<&'static str>,
}

/// A contradiction in a target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wrong {
    pub(super) spot: Spot,
    pub(super) what: String,
}

/// A text and what errors call it.
struct Source {
    file: String,
    text: String,
}

/// Finds a target by the name of one that ships, or by its file; with it comes the directory that
/// `build` and `path` of its modules are relative to.
pub(super) fn find(target: &str) -> Result<(Target, PathBuf), Error> {
    if let Some((name, text)) = BUILT_IN.iter().find(|(name, _)| *name == target) {
        let base = knobrig_images::workspace_root();
        return Ok((parse(text, name, &base)?, base));
    }
    if !target.ends_with(".toml") {
        let known: Vec<_> = Target::built_in().collect();
        let hint = did_you_mean(target, known.iter().copied());
        return Err(Error::Usage(format!(
            "no target {target}; there are {} (or give a .toml file){hint}",
            known.join(", ")
        )));
    }
    let text = std::fs::read_to_string(target)
        .map_err(|error| Error::Usage(format!("can't read the target file {target}: {error}")))?;
    let base = Path::new(target).parent().unwrap_or("".as_ref());
    Ok((parse(&text, target, base)?, base.to_owned()))
}

/// Reads a target's text. `file` names it in errors, and `base` is where its includes are.
pub(super) fn parse(text: &str, file: &str, base: &Path) -> Result<Target, Error> {
    let mut sources = Vec::new();
    let whole = read(text.to_owned(), file.to_owned(), base, 0, &mut sources)?;
    let target = whole.target().map_err(|what| {
        Error::Usage(format!(
            "{file}: {what}; docs/targets.md shows each table and its keys"
        ))
    })?;
    target.check().map_err(|wrong| told(&wrong, &sources))?;
    Ok(target)
}

fn read(
    text: String,
    file: String,
    base: &Path,
    depth: usize,
    sources: &mut Vec<Source>,
) -> Result<File, Error> {
    let parsed = toml::from_str::<File>(&text)
        .map_err(|error| Error::Usage(format!("{file}: {}", with_hint(&error.to_string()))))?;
    let spot = |key| Spot {
        table: key,
        ..Spot::default()
    };
    let wrong = |key, what: String| {
        let place = place(&text, &spot(key)).map_or(String::new(), |(line, column)| {
            format!("line {line}, column {column}: ")
        });
        Error::Usage(format!("{file}: {place}{what}"))
    };
    if parsed.version != VERSION {
        return Err(wrong(
            "version",
            format!(
                "version = {} is not known; this program reads version {VERSION}",
                parsed.version
            ),
        ));
    }
    if depth == DEEPEST {
        return Err(wrong(
            "include",
            format!("files include each other {DEEPEST} deep; does one include itself?"),
        ));
    }
    let mut before: Option<File> = None;
    for include in &parsed.include {
        let (text, name, base) = match PIECES.iter().find(|(name, _)| name == include) {
            Some((name, text)) => ((*text).to_owned(), (*name).to_owned(), base.to_owned()),
            None => {
                let path = base.join(include);
                let text = std::fs::read_to_string(&path).map_err(|error| {
                    let pieces: Vec<_> = PIECES.iter().map(|(name, _)| *name).collect();
                    wrong(
                        "include",
                        format!(
                            "can't read {}: {error}; pieces that ship: {}",
                            path.display(),
                            pieces.join(", ")
                        ),
                    )
                })?;
                let below = path.parent().unwrap_or(base).to_owned();
                (text, path.display().to_string(), below)
            }
        };
        let piece = read(text, name, &base, depth + 1, sources)?;
        before = Some(match before {
            Some(before) => before.then(piece),
            None => piece,
        });
    }
    sources.push(Source { file, text });
    Ok(match before {
        Some(before) => before.then(parsed),
        None => parsed,
    })
}

impl File {
    /// This, then another: what can be there once only is the other's.
    fn then(self, other: Self) -> Self {
        fn join<T>(mut one: Vec<T>, other: Vec<T>) -> Vec<T> {
            one.extend(other);
            one
        }
        Self {
            version: other.version,
            include: Vec::new(),
            name: other.name.or(self.name),
            about: other.about.or(self.about),
            cpus: other.cpus.or(self.cpus),
            setup: join(self.setup, other.setup),
            devices: join(self.devices, other.devices),
            modules: join(self.modules, other.modules),
            up: join(self.up, other.up),
            down: join(self.down, other.down),
            knobs: join(self.knobs, other.knobs),
            detours: join(self.detours, other.detours),
            teardown: other.teardown.or(self.teardown),
            unbind: other.unbind.or(self.unbind),
            elsewhere: other.elsewhere.or(self.elsewhere),
            patience: other.patience.or(self.patience),
            loops: other.loops.or(self.loops),
            rules: other.rules.or(self.rules),
            lifetimes: join(self.lifetimes, other.lifetimes),
            mutants: join(self.mutants, other.mutants),
        }
    }

    /// A whole target, or what it lacks.
    fn target(self) -> Result<Target, &'static str> {
        if self.modules.is_empty() {
            return Err("no [[module]]: say which module is loaded");
        }
        if self.knobs.is_empty() {
            return Err("no [[knob]]: name at least one file that reaches the driver");
        }
        let mut lifetimes = self.lifetimes;
        if lifetimes.is_empty() {
            lifetimes.push(Lifetime::plain());
        }
        Ok(Target {
            name: self.name.ok_or("no `name`")?,
            about: self
                .about
                .ok_or("no `about`: say in a line what it shows")?,
            cpus: self.cpus,
            setup: self.setup,
            devices: self.devices,
            modules: self.modules,
            up: self.up,
            down: self.down,
            knobs: self.knobs,
            detours: self.detours,
            teardown: self
                .teardown
                .ok_or("no [teardown]: say which module goes")?,
            unbind: self.unbind,
            elsewhere: self.elsewhere,
            patience: self.patience,
            loops: self.loops,
            rules: self.rules.unwrap_or_default(),
            lifetimes,
            mutants: self.mutants,
        })
    }
}

/// A contradiction, told with the place where one of its sides is written.
fn told(wrong: &Wrong, sources: &[Source]) -> Error {
    for source in sources.iter().rev() {
        if let Some((line, column)) = place(&source.text, &wrong.spot) {
            return Error::Usage(format!(
                "{}: line {line}, column {column}: {}",
                source.file, wrong.what
            ));
        }
    }
    let file = sources.last().map_or("", |source| &source.file);
    Error::Usage(format!("{file}: {}", wrong.what))
}

/// Line and column of a spot, from 1; none where this text doesn't have it.
fn place(text: &str, spot: &Spot) -> Option<(usize, usize)> {
    let table = DeTable::parse(text).ok()?;
    let found = table
        .get_ref()
        .iter()
        .find(|(key, _)| key.get_ref() == spot.table);
    let (key, value) = found?;
    let mut at = key.span().start;
    let inner = match (value.get_ref(), &spot.name) {
        (DeValue::Array(array), Some(name)) => {
            let named = array.iter().find(|item| is_named(item.get_ref(), name))?;
            at = named.span().start;
            named.get_ref()
        }
        (value, None) => value,
        (_, Some(_)) => return None,
    };
    if let (DeValue::Table(table), Some(key)) = (inner, spot.key) {
        let found = table.iter().find(|(known, _)| known.get_ref() == key);
        if let Some((key, _)) = found {
            at = key.span().start;
        }
    }
    let before = text.get(..at)?;
    let line = before.matches('\n').count() + 1;
    let column = before.len() - before.rfind('\n').map_or(0, |newline| newline + 1) + 1;
    Some((line, column))
}

fn is_named(item: &DeValue<'_>, name: &str) -> bool {
    let DeValue::Table(table) = item else {
        return false;
    };
    let mut keys = table.iter();
    keys.any(|(key, value)| {
        let id = key.get_ref() == "name" || key.get_ref() == "id";
        id && matches!(value.get_ref(), DeValue::String(text) if text == name)
    })
}

/// A parser's message, with the known word that is nearest to an unknown one.
fn with_hint(message: &str) -> String {
    let message = message.trim_end();
    let unknown = message
        .lines()
        .last()
        .filter(|line| line.starts_with("unknown "));
    let mut words = unknown.unwrap_or_default().split('`').skip(1).step_by(2);
    let hint = words.next().and_then(|unknown| nearest(unknown, words));
    match hint {
        Some(known) => format!("{message}\nhint: did you mean `{known}`?"),
        None => message.to_owned(),
    }
}

/// The known name that is nearest, as the end of a sentence; nothing if none is near.
pub(super) fn did_you_mean<'a>(word: &str, known: impl Iterator<Item = &'a str>) -> String {
    let hint = nearest(word, known);
    hint.map_or(String::new(), |known| format!("; did you mean {known}?"))
}

/// The word that is nearest to another, if it is near.
fn nearest<'a>(word: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let near = known.map(|known| (distance(word, known), known));
    let (distance, nearest) = near.min_by_key(|(distance, _)| *distance)?;
    (distance <= word.len().max(nearest.len()) / 2).then_some(nearest)
}

/// Levenshtein's.
fn distance(one: &str, other: &str) -> usize {
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (at, a) in one.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = at + 1;
        for (column, b) in other.bytes().enumerate() {
            let change = diagonal + usize::from(a != b);
            diagonal = row[column + 1];
            row[column + 1] = change.min(row[column] + 1).min(diagonal + 1);
        }
    }
    row[other.len()]
}

/// The format as a JSON Schema.
pub(super) fn schema() -> serde_json::Value {
    schemars::schema_for!(File).to_value()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MYDRV: &str = BUILT_IN[0].1;

    fn wrong(text: &str) -> String {
        let error = parse(text, "mine.toml", "".as_ref()).expect_err("it is wrong");
        assert_eq!(error.exit(), crate::exit::Exit::Usage);
        error.to_string()
    }

    #[test]
    fn a_mistyped_key_is_told_with_its_place_and_the_right_one() {
        let error = wrong(&MYDRV.replace("read = 32", "raed = 32"));
        assert!(
            error.contains("line") && error.contains("column"),
            "{error}"
        );
        assert!(error.ends_with("hint: did you mean `read`?"), "{error}");
    }

    #[test]
    fn a_contradiction_is_told_with_its_place() {
        let text = MYDRV.replace("write = \"17\\n\"\n", "");
        let line = text
            .lines()
            .position(|line| line.starts_with("asks.read"))
            .expect("is there");
        let error = wrong(&text);
        assert!(error.contains("asks.write without write"), "{error}");
        assert!(
            error.starts_with(&format!("mine.toml: line {}, column 1: ", line + 1)),
            "{error}"
        );
    }

    #[test]
    fn an_unknown_version_is_told() {
        let error = wrong(&MYDRV.replace("version = 1", "version = 9"));
        assert!(
            error.contains("line 3, column 1: version = 9 is not known"),
            "{error}"
        );
    }

    #[test]
    fn what_is_missing_is_told() {
        assert!(wrong("version = 1\n").contains("no [[module]]"));
        assert!(wrong("").contains("missing field `version`"));
    }

    #[test]
    fn an_include_comes_first_and_its_includer_wins() {
        let dir = tempfile::tempdir().expect("a directory");
        let piece = "version = 1\nname = \"piece\"\nabout = \"a\"\n[[module]]\nname = \"m\"\n\
                     kernel = true\n[[knob]]\nname = \"one\"\npath = \"/sys/one\"\nread = 1\n\
                     [teardown]\nname = \"rmmod\"\nmodule = \"m\"\n";
        std::fs::write(dir.path().join("piece.toml"), piece).expect("writes");
        let text = "version = 1\nname = \"whole\"\ninclude = [\"piece.toml\"]\n[[knob]]\n\
                    name = \"two\"\npath = \"/sys/two\"\nread = 1\n";
        let target = parse(text, "mine.toml", dir.path()).expect("reads");
        let knobs: Vec<_> = target.knobs.iter().map(|knob| knob.name.as_str()).collect();
        assert_eq!((target.name.as_str(), knobs), ("whole", vec!["one", "two"]));
        // A mistake in a piece is told as the piece's.
        std::fs::write(dir.path().join("piece.toml"), piece.replace("read", "raed"))
            .expect("writes");
        let error = parse(text, "mine.toml", dir.path())
            .expect_err("wrong")
            .to_string();
        assert!(
            error.contains("piece.toml: TOML parse error at line 10"),
            "{error}"
        );
        let circle = text.replace("piece.toml", "circle.toml");
        std::fs::write(dir.path().join("circle.toml"), &circle).expect("writes");
        let error = parse(&circle, "circle.toml", dir.path())
            .expect_err("endless")
            .to_string();
        assert!(error.contains("does one include itself"), "{error}");
    }

    #[test]
    fn words_that_are_near() {
        assert_eq!(
            nearest("virtio_blck", ["mydrv", "virtio_blk"].into_iter()),
            Some("virtio_blk")
        );
        assert_eq!(nearest("xyz", ["mydrv", "virtio_blk"].into_iter()), None);
    }
}
