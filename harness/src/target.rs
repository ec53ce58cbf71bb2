//! Targets: a driver under test as plain data. Its modules, how it is bound, its knobs, how it
//! is torn down, and the rules that must hold. Nothing else in the harness knows a driver.

use std::collections::BTreeMap;
use std::path::PathBuf;

use dk_control::Kind;
use knobrig_images::Variant;
use knobrig_proto::Step;
use serde::{Deserialize, Serialize};

use crate::error::Error;

/// Version of the file format.
pub const VERSION: u32 = 1;

const BUILT_IN: &[(&str, &str)] = &[
    ("mydrv", include_str!("../targets/mydrv.toml")),
    ("virtio_blk", include_str!("../targets/virtio_blk.toml")),
];

/// A target file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Target {
    /// [`VERSION`].
    pub version: u32,
    /// Its name on the command line.
    pub name: String,
    /// What it shows.
    pub about: String,
    /// Run once in each guest before the first episode.
    #[serde(default)]
    pub setup: Vec<Step>,
    /// Loaded in order at the start of each episode.
    #[serde(rename = "module")]
    pub modules: Vec<Module>,
    /// The files that reach the driver.
    #[serde(rename = "knob")]
    pub knobs: Vec<Knob>,
    /// What ends it.
    pub teardown: Teardown,
    /// Ends the binding and not the module: no count refuses it.
    #[serde(default)]
    pub unbind: Option<Step>,
    /// A reference to the driver's object that neither driver nor openers hold.
    #[serde(default)]
    pub elsewhere: Option<ElsewhereRef>,
    /// How long the driver waits for its device.
    #[serde(default)]
    pub patience: Option<Patience>,
    /// What must hold.
    pub rules: Rules,
    /// Rules by which the module may be unloaded; the first is the default.
    #[serde(rename = "lifetime")]
    pub lifetimes: Vec<Lifetime>,
    /// Planted bugs.
    #[serde(default, rename = "mutant")]
    pub mutants: Vec<Mutant>,
}

/// A module of a target. One of `build`, `path` and `kernel` says where it comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Module {
    /// As /proc/modules shows it.
    pub name: String,
    /// A directory with a Kbuild file, built against the kernel in use; relative to the
    /// workspace for a built-in target, to the target file for others.
    #[serde(default)]
    pub build: Option<PathBuf>,
    /// A .ko file.
    #[serde(default)]
    pub path: Option<PathBuf>,
    /// A module that the kernel's own build made.
    #[serde(default)]
    pub kernel: bool,
    /// Its parameters; `{lifetime}`, `{mutant}` and `{timeout}` are replaced.
    #[serde(default)]
    pub params: String,
    /// Loaded once in each guest, before the set-up, and not again for each episode.
    #[serde(default)]
    pub once: bool,
    /// The lifetimes that need it; empty means all.
    #[serde(default)]
    pub lifetimes: Vec<String>,
}

/// A file that reaches the driver.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Knob {
    /// What reports call it.
    pub name: String,
    /// Absolute path in the guest.
    pub path: String,
    /// Bytes that a read asks for; absent if it can't be read.
    #[serde(default)]
    pub read: Option<u32>,
    /// What a write writes; absent if it can't be written.
    #[serde(default)]
    pub write: Option<Payload>,
    /// Per op (`read`, `write`) the request that it makes the driver send, so that the device
    /// can hold the answer with the op inside the driver.
    #[serde(default)]
    pub asks: BTreeMap<AskingOp, Ask>,
    /// `poll` waits for the end of its device.
    #[serde(default)]
    pub poll: bool,
}

/// What a write writes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged, deny_unknown_fields)]
pub enum Payload {
    /// The text as it stands.
    Text(String),
    /// One character over and over: a disk takes whole sectors.
    Fill {
        /// The character.
        fill: char,
        /// How often.
        len: usize,
    },
}

impl Payload {
    /// Most characters of a [`Payload::Fill`]: what is written in one step.
    const MOST: usize = 64 << 10;

    /// The text that is written.
    pub fn text(&self) -> String {
        match self {
            Self::Text(text) => text.clone(),
            Self::Fill { fill, len } => fill.to_string().repeat(*len),
        }
    }
}

/// Ops that can ask the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AskingOp {
    /// `read`
    Read,
    /// `write`
    Write,
}

/// A request that an op sends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ask {
    /// Its kind.
    pub kind: Kind,
    /// Its knob or first sector; absent for any.
    #[serde(default)]
    pub sector: Option<u64>,
}

/// What ends the driver: an unload of a module.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Teardown {
    /// What reports call it.
    pub name: String,
    /// The module that goes.
    pub module: String,
}

/// How to refer to the driver's object from elsewhere.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ElsewhereRef {
    /// Takes a reference.
    pub hold: Step,
    /// Gives it back.
    pub give: Step,
    /// File with the object's count, while it is held.
    #[serde(default)]
    pub count: Option<String>,
}

/// How long the driver waits for an answer of its device, through `{timeout}` of its parameters.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Patience {
    /// Milliseconds, usually: longer than any gate holds.
    pub usual_ms: u64,
    /// Milliseconds, where an episode is about an answer that doesn't come in time.
    pub short_ms: u64,
    /// What probe asks; without the answer it fails.
    #[serde(default)]
    pub probe_asks: Option<Ask>,
}

/// What must hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rules {
    /// File with the module's reference count.
    #[serde(default)]
    pub refcnt: Option<String>,
    /// Paths that are there while the driver is up and gone after its teardown.
    #[serde(default)]
    pub gone: Vec<String>,
    /// Lists of the kernel that must not name the driver once its module is gone.
    #[serde(default)]
    pub lacks: Vec<Lacks>,
    /// What outlives the knobs.
    #[serde(default)]
    pub knobs_first: Option<KnobsFirst>,
}

/// A file without a text in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lacks {
    /// The file.
    pub path: String,
    /// The text.
    pub text: String,
}

/// Knobs whose removal, and so the end of every callback of theirs, comes before that of the
/// object that they belong to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KnobsFirst {
    /// The knobs.
    pub knobs: Vec<String>,
    /// The object's paths.
    pub paths: Vec<String>,
}

/// A rule by which the module may go.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lifetime {
    /// Its name on the command line.
    pub name: String,
    /// What it says.
    pub about: String,
    /// Knobs of which an open descriptor pins the module: the teardown is refused with
    /// `EWOULDBLOCK`. An open descriptor of another knob pins nothing: the teardown succeeds
    /// and later ops on the descriptor give `ENODEV`.
    #[serde(default)]
    pub pins: Vec<String>,
    /// What its inventors said of it.
    #[serde(default)]
    pub claim: String,
    /// Counts of the module that the bound device itself holds.
    #[serde(default)]
    pub holds: u32,
    /// Gives up the object and with it the counts that it holds.
    #[serde(default)]
    pub give_up: Option<Step>,
    /// Knobs that an open with `O_EXCL` has for itself; others get `EBUSY`.
    #[serde(default)]
    pub exclusive: Vec<String>,
    /// What an unload does while a reference is held elsewhere.
    #[serde(default)]
    pub elsewhere: Option<Elsewhere>,
}

/// What an unload does while a reference to the driver's object is held elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Elsewhere {
    /// It waits until that is given back.
    Waits,
    /// It goes; modules that the object's release needs stay.
    Outlives,
}

/// A planted bug.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mutant {
    /// Its name on the command line.
    pub name: String,
    /// The mistake.
    pub about: String,
    /// The lifetime that it breaks, unless another is asked for.
    pub lifetime: String,
    /// The cheapest kernel variant that is known to show it; absent for the cheapest there is.
    #[serde(default)]
    pub variant: Option<Variant>,
}

/// A target with the choices of one run made.
#[derive(Clone, Debug)]
pub struct Chosen {
    /// The target.
    pub target: Target,
    /// Its lifetime.
    pub lifetime: Lifetime,
    /// Its mutant, if any.
    pub mutant: Option<Mutant>,
    /// What `build` and `path` of its modules are relative to.
    pub base: PathBuf,
}

impl Target {
    /// Names of the targets that ship.
    pub fn built_in() -> impl Iterator<Item = &'static str> {
        BUILT_IN.iter().map(|(name, _)| *name)
    }

    /// Reads a target's text. `file` names it in errors.
    ///
    /// # Errors
    /// Where, what is wrong, and what would be right.
    pub fn parse(text: &str, file: &str) -> Result<Self, Error> {
        let target: Self =
            toml::from_str(text).map_err(|error| Error::Usage(format!("{file}: {error}")))?;
        target
            .check()
            .map_err(|why| Error::Usage(format!("{file}: {why}")))?;
        Ok(target)
    }

    fn check(&self) -> Result<(), String> {
        if self.version != VERSION {
            return Err(format!(
                "version = {} is not known; this program reads version {VERSION}",
                self.version
            ));
        }
        if self.knobs.is_empty() {
            return Err("no [[knob]]: name at least one file that reaches the driver".into());
        }
        if self.lifetimes.is_empty() {
            return Err("no [[lifetime]]: say which open knobs pin the module".into());
        }
        for module in &self.modules {
            let sources = usize::from(module.build.is_some())
                + usize::from(module.path.is_some())
                + usize::from(module.kernel);
            if sources != 1 {
                return Err(format!(
                    "module {}: give exactly one of build, path and kernel = true",
                    module.name
                ));
            }
        }
        if !self
            .modules
            .iter()
            .any(|module| module.name == self.teardown.module)
        {
            return Err(format!(
                "teardown: {} is not a [[module]]",
                self.teardown.module
            ));
        }
        for knob in &self.knobs {
            if let Some(Payload::Fill { len, .. }) = knob.write
                && len > Payload::MOST
            {
                return Err(format!(
                    "knob {}: write has {len} characters, at most {} are possible",
                    knob.name,
                    Payload::MOST
                ));
            }
            for op in knob.asks.keys() {
                let (name, known) = match op {
                    AskingOp::Read => ("read", knob.read.is_some()),
                    AskingOp::Write => ("write", knob.write.is_some()),
                };
                if !known {
                    return Err(format!(
                        "knob {}: asks.{name} without {name}: say what a {name} does",
                        knob.name
                    ));
                }
            }
        }
        let is_knob = |name: &String| self.knobs.iter().any(|knob| knob.name == *name);
        let is_lifetime = |name: &String| self.lifetimes.iter().any(|it| it.name == *name);
        for lifetime in &self.lifetimes {
            for (key, names) in [("pins", &lifetime.pins), ("exclusive", &lifetime.exclusive)] {
                if let Some(name) = names.iter().find(|name| !is_knob(name)) {
                    return Err(format!(
                        "lifetime {}: {key} {name}, no [[knob]]",
                        lifetime.name
                    ));
                }
            }
            if lifetime.holds > 0 && lifetime.give_up.is_none() {
                return Err(format!(
                    "lifetime {}: holds without give_up: say how the module ever goes",
                    lifetime.name
                ));
            }
            if lifetime.elsewhere.is_some() && self.elsewhere.is_none() {
                return Err(format!(
                    "lifetime {}: elsewhere without [elsewhere]: say how a reference is held",
                    lifetime.name
                ));
            }
        }
        if let Some(rule) = &self.rules.knobs_first
            && let Some(name) = rule.knobs.iter().find(|name| !is_knob(name))
        {
            return Err(format!("rules: knobs_first {name}, no [[knob]]"));
        }
        for module in &self.modules {
            if let Some(name) = module.lifetimes.iter().find(|name| !is_lifetime(name)) {
                return Err(format!("module {}: no lifetime {name}", module.name));
            }
        }
        if let Some(mutant) = (self.mutants.iter()).find(|it| !is_lifetime(&it.lifetime)) {
            return Err(format!(
                "mutant {}: no lifetime {}",
                mutant.name, mutant.lifetime
            ));
        }
        Ok(())
    }
}

impl Chosen {
    /// Finds the target by built-in name or file, and its lifetime and mutant by name.
    ///
    /// # Errors
    /// The name that isn't known, and those that are.
    pub fn find(target: &str, lifetime: Option<&str>, mutant: Option<&str>) -> Result<Self, Error> {
        let (target, base) = match BUILT_IN.iter().find(|(name, _)| *name == target) {
            Some((name, text)) => (Target::parse(text, name)?, knobrig_images::workspace_root()),
            None if target.ends_with(".toml") => {
                let text = std::fs::read_to_string(target).map_err(|error| {
                    Error::Usage(format!("can't read the target file {target}: {error}"))
                })?;
                let base = std::path::Path::new(target).parent().unwrap_or("".as_ref());
                (Target::parse(&text, target)?, base.to_owned())
            }
            None => {
                let known: Vec<_> = Target::built_in().collect();
                return Err(Error::Usage(format!(
                    "no target {target}; there are {} (or give a .toml file)",
                    known.join(", ")
                )));
            }
        };
        let mutant = match mutant {
            None => None,
            Some(name) => Some(by_name("mutant", name, &target.mutants, |m| &m.name)?.clone()),
        };
        let lifetime = match (lifetime, &mutant) {
            (Some(name), _) => by_name("lifetime", name, &target.lifetimes, |l| &l.name)?,
            (None, Some(mutant)) => {
                by_name("lifetime", &mutant.lifetime, &target.lifetimes, |l| &l.name)?
            }
            (None, None) => &target.lifetimes[0],
        }
        .clone();
        Ok(Self {
            target,
            lifetime,
            mutant,
            base,
        })
    }

    /// The knobs.
    pub fn knobs(&self) -> impl Iterator<Item = &Knob> {
        self.target.knobs.iter()
    }

    /// The modules that each episode loads, in order.
    pub fn modules(&self) -> impl Iterator<Item = &Module> {
        let of = |module: &&Module| {
            !module.once
                && (module.lifetimes.is_empty() || module.lifetimes.contains(&self.lifetime.name))
        };
        self.target.modules.iter().filter(of)
    }

    /// What a fresh guest does first: the modules that stay, then the set-up.
    pub fn setup(&self) -> Vec<Step> {
        let once = self.target.modules.iter().filter(|module| module.once);
        let loads = once.map(|module| Step::Load {
            module: module.name.clone(),
            params: self.params(module, None),
        });
        loads.chain(self.target.setup.iter().cloned()).collect()
    }

    /// A module's parameters with the choices filled in.
    pub fn params(&self, module: &Module, timeout_ms: Option<u64>) -> String {
        let mutant = self.mutant.as_ref().map_or("none", |mutant| &mutant.name);
        let timeout = timeout_ms.map_or(String::new(), |ms| ms.to_string());
        module
            .params
            .replace("{lifetime}", &self.lifetime.name)
            .replace("{mutant}", mutant)
            .replace("{timeout}", &timeout)
    }

    /// Whether an open descriptor of the knob pins the module.
    pub fn pins(&self, knob: &Knob) -> bool {
        self.lifetime.pins.contains(&knob.name)
    }

    /// `mydrv (drained, free-before-remove)`
    pub fn title(&self) -> String {
        match &self.mutant {
            Some(mutant) => {
                format!(
                    "{} ({}, mutant {})",
                    self.target.name, self.lifetime.name, mutant.name
                )
            }
            None => format!("{} ({})", self.target.name, self.lifetime.name),
        }
    }
}

fn by_name<'a, T>(
    what: &str,
    name: &str,
    all: &'a [T],
    get: impl Fn(&T) -> &String,
) -> Result<&'a T, Error> {
    all.iter().find(|item| get(item) == name).ok_or_else(|| {
        let known: Vec<_> = all.iter().map(|item| get(item).as_str()).collect();
        let known = if known.is_empty() {
            "none".into()
        } else {
            known.join(", ")
        };
        Error::Usage(format!("no {what} {name}; this target has: {known}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_built_in_target_reads() {
        for (name, text) in BUILT_IN {
            let target = Target::parse(text, name).expect("a built-in target is right");
            assert_eq!(target.name, *name);
        }
    }

    #[test]
    fn an_error_names_the_place() {
        let text = BUILT_IN[0].1.replace("read = 32", "raed = 32");
        let error = Target::parse(&text, "mydrv.toml")
            .expect_err("an unknown key")
            .to_string();
        assert!(error.contains("line") && error.contains("raed"), "{error}");
    }

    #[test]
    fn what_asks_must_be_an_op_that_the_knob_has() {
        let text = BUILT_IN[0].1.replace("write = \"17\\n\"\n", "");
        let error = Target::parse(&text, "mydrv.toml").expect_err("asks.write alone");
        assert!(error.to_string().contains("asks.write without write"));
    }

    #[test]
    fn a_wrong_name_is_told_with_the_right_ones() {
        let error = Chosen::find("mydrv", Some("nonsense"), None).expect_err("no such lifetime");
        assert_eq!(error.exit(), crate::exit::Exit::Usage);
        assert_eq!(
            error.to_string(),
            "no lifetime nonsense; this target has: pinned, drained, self-destruct, outside-release, \
             exit-waits"
        );
    }

    #[test]
    fn a_mutant_brings_its_lifetime_unless_one_is_given() {
        let pick = |lifetime| {
            Chosen::find("mydrv", lifetime, Some("free-before-remove"))
                .expect("names that are there")
                .lifetime
                .name
        };
        assert_eq!(pick(None), "drained");
        assert_eq!(pick(Some("pinned")), "pinned");
    }
}
