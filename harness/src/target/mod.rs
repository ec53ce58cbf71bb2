//! Targets: a driver under test as plain data. Its modules, how it is bound, its knobs, how it
//! is torn down, and the rules that must hold. Nothing else in the harness knows a driver.
//!
//! Here is what a target is made of; `read` makes one of files, with a place and a hint for each
//! mistake, `check` looks for contradictions, `knob` is the files that reach the driver, `route`
//! other ways to where they lead,
//! `teardown` the ways in which it ends, `expand` fills in what only the guest knows.

use std::path::PathBuf;

use knobrig_images::Variant;
use knobrig_proto::Step;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::judge::plan::Rule;

mod check;
#[cfg(test)]
mod docs;
pub mod draft;
mod errno;
pub mod expand;
mod knob;
mod read;
mod route;
pub mod teardown;

pub use knob::{Ask, AskingOp, Data, Knob, KnobKind, Payload, Weights};
pub use route::Detour;
pub use teardown::{Kind as TeardownKind, Teardown, Way};

/// Version of the file format.
pub const VERSION: u32 = 1;
/// How long whoever takes a driver down outside of an episode tries to unload what is in use.
const USED_FOR_A_MOMENT_MS: u64 = 2_000;

/// What target files may include by name.
const PIECES: &[(&str, &str)] = &[];

const BUILT_IN: &[(&str, &str)] = &[
    ("mydrv", include_str!("../../targets/mydrv.toml")),
    ("virtio_blk", include_str!("../../targets/virtio_blk.toml")),
    ("virtio_rng", include_str!("../../targets/virtio_rng.toml")),
    ("null_blk", include_str!("../../targets/null_blk.toml")),
    (
        "pci_override",
        include_str!("../../targets/pci_override.toml"),
    ),
];

/// A target.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Target {
    /// Its name on the command line.
    pub name: String,
    /// What it shows.
    pub about: String,
    /// vCPUs of the guest where the command line says nothing: more than the host has makes the
    /// host interrupt a thread at any instruction, which is what some races need.
    pub cpus: Option<u32>,
    /// Run once in each guest before the first episode.
    pub setup: Vec<Step>,
    /// Devices beside ours.
    pub devices: Vec<Device>,
    /// Loaded in order at the start of each episode.
    pub modules: Vec<Module>,
    /// Done after that, in each episode.
    pub up: Vec<Step>,
    /// Done before the module goes, in each episode.
    pub down: Vec<Step>,
    /// The files that reach the driver.
    pub knobs: Vec<Knob>,
    /// Ways to where knobs lead that are more than an op.
    pub detours: Vec<Detour>,
    /// What ends it.
    pub teardown: Teardown,
    /// Ends the binding and not the module: no count refuses it.
    pub unbind: Option<Step>,
    /// A reference to the driver's object that neither driver nor openers hold.
    pub elsewhere: Option<ElsewhereRef>,
    /// How long the driver waits for its device.
    pub patience: Option<Patience>,
    /// Tight loops of ops.
    pub loops: Option<Loops>,
    /// What must hold.
    pub rules: Rules,
    /// Rules by which the module may be unloaded; the first is the default.
    pub lifetimes: Vec<Lifetime>,
    /// Planted bugs.
    pub mutants: Vec<Mutant>,
}

/// A device on QEMU's command line beside ours.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Device {
    /// Its id, for unplug.
    pub id: String,
    /// What `-device` says, without the id: `virtio-rng-pci,addr=1e.0`.
    pub device: String,
    /// What the device needs besides, as QEMU's options with their values: `["-object", "…"]`.
    #[serde(default)]
    pub options: Vec<String>,
}

/// Tight loops of ops, by weight, with or without a teardown that goes down and up meanwhile.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Loops {
    /// Threads that loop.
    #[serde(default = "Loops::threads")]
    pub threads: usize,
    /// Threads beside them that only keep a CPU busy: whoever is preempted stays so for longer.
    #[serde(default)]
    pub spinners: usize,
    /// Milliseconds that they loop where no teardown sets the time.
    #[serde(default = "Loops::ms")]
    pub ms: u64,
    /// How often a teardown goes down and up.
    #[serde(default = "Loops::rounds")]
    pub rounds: usize,
    /// Of a hundred of these episodes, those with a teardown in them; the others only loop.
    #[serde(default = "Loops::teardowns")]
    pub teardowns: u32,
    /// Of a hundred of all episodes, these; the other shapes share the rest.
    #[serde(default = "Loops::share")]
    pub share: u32,
    /// Of a hundred of these episodes, those with all loops on one CPU: whoever is woken there may
    /// take it from whoever wakes him, at that very instruction.
    #[serde(default = "Loops::together")]
    pub together: u32,
    /// Of a hundred of these episodes, those in which each thread's priority (nice) is drawn.
    #[serde(default = "Loops::priorities")]
    pub priorities: u32,
    /// Of a hundred of these episodes, those with a thread on each CPU that goes before all others
    /// and wakes at short random intervals: whoever runs there stops at random instructions.
    #[serde(default = "Loops::interrupted")]
    pub interrupted: u32,
    /// Of a hundred rounds of a teardown, those that rest for some milliseconds between down and
    /// up: what is freed later (by RCU, by a work) is gone by then.
    #[serde(default = "Loops::rests")]
    pub rests: u32,
    /// What `bench find` races the rig against: the threads that a person would start, each by the
    /// name of the knob that it opens, uses and closes, or of the teardown that it goes through.
    /// Without it, four threads: the first teardown and the knobs, in the order of this file.
    #[serde(default)]
    pub plain: Vec<String>,
}

impl Loops {
    fn threads() -> usize {
        4
    }
    fn ms() -> u64 {
        200
    }
    fn rounds() -> usize {
        4
    }
    fn teardowns() -> u32 {
        50
    }
    fn share() -> u32 {
        60
    }
    fn together() -> u32 {
        30
    }
    fn priorities() -> u32 {
        50
    }
    fn interrupted() -> u32 {
        30
    }
    fn rests() -> u32 {
        30
    }
}

/// A module of a target. One of `build`, `path` and `kernel` says where it comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
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

/// How to refer to the driver's object from elsewhere.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
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
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
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
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Rules {
    /// Rules that are not judged for this target, by name.
    #[serde(default)]
    pub off: Vec<Rule>,
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
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Lacks {
    /// The file.
    pub path: String,
    /// The text.
    pub text: String,
}

/// Knobs whose removal, and so the end of every callback of theirs, comes before that of the
/// object that they belong to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct KnobsFirst {
    /// The knobs.
    pub knobs: Vec<String>,
    /// The object's paths.
    pub paths: Vec<String>,
}

/// A rule by which the module may go.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
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
    /// An unload may be refused whatever is open: nothing is known of what pins the module.
    #[serde(default)]
    pub refuses: bool,
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Elsewhere {
    /// It waits until that is given back.
    Waits,
    /// It goes; modules that the object's release needs stay.
    Outlives,
}

/// A planted bug.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
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
    /// The target's file; none for one that is built in.
    pub file: Option<PathBuf>,
}

impl Target {
    /// The format of target files as a JSON Schema.
    pub fn schema() -> String {
        format!("{:#}\n", read::schema())
    }

    /// The text of a target's file.
    ///
    /// # Errors
    /// The file can't be read.
    pub fn text(target: &str) -> Result<String, Error> {
        match BUILT_IN.iter().find(|(name, _)| *name == target) {
            Some((_, text)) => Ok((*text).to_owned()),
            None => std::fs::read_to_string(target).map_err(Error::file("read", target)),
        }
    }

    /// Names of the targets that ship.
    pub fn built_in() -> impl Iterator<Item = &'static str> {
        BUILT_IN.iter().map(|(name, _)| *name)
    }
}

impl Lifetime {
    /// Of a target that names none: nothing is known of what pins its module.
    fn plain() -> Self {
        Self {
            name: "plain".into(),
            about: "the module goes when nothing uses it".into(),
            pins: Vec::new(),
            claim: String::new(),
            holds: 0,
            give_up: None,
            exclusive: Vec::new(),
            elsewhere: None,
            refuses: true,
        }
    }
}

/// Where a module comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ModuleSource {
    /// A directory to build.
    Build(PathBuf),
    /// A .ko file.
    Path(PathBuf),
    /// The kernel's own build.
    Kernel,
}

impl ModuleSource {
    /// As a target file writes it.
    pub fn toml(&self) -> String {
        let quoted = |path: &PathBuf| toml::Value::String(path.display().to_string());
        match self {
            Self::Build(path) => format!("build = {}", quoted(path)),
            Self::Path(path) => format!("path = {}", quoted(path)),
            Self::Kernel => "kernel = true".into(),
        }
    }
}

impl Chosen {
    /// A target of which nothing but its module is known.
    pub fn bare(name: &str, source: ModuleSource, params: &str, devices: &[Device]) -> Self {
        let module = Module {
            name: name.to_owned(),
            build: match &source {
                ModuleSource::Build(path) => Some(path.clone()),
                _ => None,
            },
            path: match &source {
                ModuleSource::Path(path) => Some(path.clone()),
                _ => None,
            },
            kernel: source == ModuleSource::Kernel,
            params: params.to_owned(),
            once: false,
            lifetimes: Vec::new(),
        };
        Self {
            target: Target {
                name: name.to_owned(),
                about: String::new(),
                cpus: None,
                setup: Vec::new(),
                devices: devices.to_vec(),
                modules: vec![module],
                up: Vec::new(),
                down: Vec::new(),
                knobs: Vec::new(),
                detours: Vec::new(),
                teardown: Teardown {
                    name: "rmmod".into(),
                    module: name.to_owned(),
                    others: Vec::new(),
                },
                unbind: None,
                elsewhere: None,
                patience: None,
                loops: None,
                rules: Rules::default(),
                lifetimes: vec![Lifetime::plain()],
                mutants: Vec::new(),
            },
            lifetime: Lifetime::plain(),
            mutant: None,
            base: PathBuf::new(),
            file: None,
        }
    }

    /// Finds the target by built-in name or file, and its lifetime and mutant by name.
    ///
    /// # Errors
    /// The name that isn't known, and those that are.
    pub fn find(name: &str, lifetime: Option<&str>, mutant: Option<&str>) -> Result<Self, Error> {
        let (target, base) = read::find(name)?;
        let file = match Target::built_in().any(|it| it == name) {
            true => None,
            false => Some(std::path::absolute(name).map_err(Error::file("find", name))?),
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
            file,
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

    /// Whether it is one of those that ship.
    pub fn ships(&self) -> bool {
        Target::built_in().any(|name| name == self.target.name)
            && self.base == knobrig_images::workspace_root()
    }

    /// What brings the driver up outside of an episode.
    pub fn bring_up_steps(&self) -> Vec<Step> {
        let patience = self.target.patience.as_ref().map(|it| it.usual_ms);
        let loads = self.modules().map(|module| Step::Load {
            module: module.name.clone(),
            params: self.params(module, patience),
        });
        loads.chain(self.target.up.iter().cloned()).collect()
    }

    /// What takes it down again. The kernel itself may use a module for a moment after it came up.
    pub fn take_down_steps(&self) -> Vec<Step> {
        let unload = |module: &String| Step::Unload {
            module: module.clone(),
            patience_ms: USED_FOR_A_MOMENT_MS,
        };
        let goes = &self.target.teardown.module;
        let mut modules: Vec<_> = self.modules().map(|module| &module.name).collect();
        modules.retain(|name| *name != goes);
        let helpers = modules.into_iter().rev().map(unload);
        let give_up = self.lifetime.give_up.iter().cloned();
        (give_up.chain(self.target.down.iter().cloned()))
            .chain([unload(goes)])
            .chain(helpers)
            .collect()
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
        for name in Target::built_in() {
            let target = Chosen::find(name, None, None).unwrap_or_else(|error| panic!("{error}"));
            assert_eq!(target.target.name, name);
        }
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
