//! Set-up that every verb with a guest shares: packages, kernel, modules, programs, initramfs.
//! All of it is cached; with a warm cache it takes a fraction of a second.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use knobrig_images::{Cache, GivenKernel, Kernel, KernelRequest, Progress, Variant};

use super::campaign::block_on;
use crate::cli::kernel::KernelChoice;
use crate::cli::{AccelChoice, VcpuChoice};
use crate::engine::probe;
use crate::engine::qemu::{Accel, Qemu};
use crate::engine::vcpu::{self, Kind};
use crate::error::Error;
use crate::judge::finding::Setting;
use crate::symbols::{self, Files};
use crate::target::{Chosen, Module};

/// The module that holds threads in functions; the agent loads it when it is first asked to.
const GATE: &str = "guest-driver/gate";

/// What a guest is to be.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// Its kernel.
    pub kernel: KernelChoice,
    /// How guest code runs.
    pub accel: AccelChoice,
    /// Directories with the sources of modules, each of which takes the place of the target's
    /// module of its name.
    pub module_dirs: Vec<PathBuf>,
    /// What vCPUs are to be held for.
    pub vcpus: Need,
}

/// For what vCPUs are to be held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// They aren't.
    Nothing,
    /// To be delayed, where QEMU can do that.
    Delays,
    /// To come to instructions in an order, by what is chosen.
    Orders(VcpuChoice),
}

impl Need {
    /// Delays, if there are to be any.
    pub fn delays(any: bool) -> Self {
        match any {
            true => Self::Delays,
            false => Self::Nothing,
        }
    }
}

impl Wanted {
    /// A guest of the pinned kernel.
    pub fn pinned(variant: Variant, accel: AccelChoice) -> Self {
        Self {
            kernel: KernelChoice::Built(KernelRequest::pinned(variant)),
            accel,
            module_dirs: Vec::new(),
            vcpus: Need::Nothing,
        }
    }
}

/// All that a guest needs.
#[derive(Clone, Debug)]
pub struct Prepared {
    /// QEMU.
    pub qemu: Qemu,
    /// How it runs guest code.
    pub accel: Accel,
    /// The kernel.
    pub kernel: Kernel,
    /// The initramfs with the agent and the target's modules.
    pub initrd: PathBuf,
    /// The device program.
    pub device: PathBuf,
    /// What the target's modules call and are, as far as it can be held.
    pub functions: Vec<String>,
    /// The files of the kernel and the modules that have lines.
    pub files: Files,
    /// Whether a thread can be held at a function of this kernel.
    pub gates: bool,
    /// The modules in the initramfs, by name.
    pub modules: Vec<(String, PathBuf)>,
    /// What holds vCPUs, where that is wanted and QEMU can.
    pub vcpus: Option<Kind>,
    /// The directories of modules that take the place of the target's.
    pub module_dirs: Vec<PathBuf>,
}

impl Prepared {
    /// Whether vCPUs can be delayed.
    pub fn delays(&self) -> bool {
        self.vcpus.as_ref().is_some_and(Kind::delays)
    }
}

/// Sets up for a target.
///
/// # Errors
/// What is missing and can't be had, with the one thing to do.
pub fn prepare(
    target: &Chosen,
    wanted: &Wanted,
    progress: &dyn Progress,
) -> Result<Prepared, Error> {
    let cache = Cache::open(None)?;
    let qemu = qemu(&cache, &wanted.kernel, progress)?;
    let (kernel, first) = kernel(&cache, &wanted.kernel, progress)?;
    let programs = knobrig_images::ensure_programs(progress)?;
    let mut modules = Vec::new();
    let own = own_modules(target, &wanted.module_dirs)?;
    // Of a kernel that was given there may be nothing but the image, which has no lines.
    let vmlinux = Some(kernel.vmlinux.as_path()).filter(|path| *path != kernel.boot);
    let mut files = Files::find(vmlinux, &[])?;
    for module in &target.target.modules {
        let dir = (own.get(&module.name).cloned())
            .or_else(|| module.build.as_ref().map(|dir| target.base.join(dir)));
        let path = match dir {
            Some(dir) => {
                let built = knobrig_images::ensure_module(&cache, &kernel, &dir, progress)?;
                files = (files.with_module(&module.name, &built.debug))
                    .with_sources(&built.copied_to(), &dir);
                built.path
            }
            None => module_file(&cache, target, module, &kernel)?,
        };
        if module.build.is_none() {
            files = files.with_module(&module.name, &path);
        }
        modules.push((module.name.clone(), path));
    }
    let mut functions = Vec::new();
    for module in target.target.modules.iter().filter(|module| !module.once) {
        let path = modules.iter().find(|(name, _)| *name == module.name);
        if let Some((name, path)) = path {
            functions.extend(symbols::hooks(name, path)?);
        }
    }
    // The gate's module is in Rust, and what it hooks into is of the same age.
    let gates = kernel.rust;
    if gates {
        let gate = knobrig_images::workspace_root().join(GATE);
        let gate = knobrig_images::ensure_module(&cache, &kernel, &gate, progress)?;
        modules.push((gate.name, gate.path));
    }
    // What the kernel's own modules need comes with them, once in each guest.
    let names = |modules: &[(String, PathBuf)]| -> Vec<String> {
        modules.iter().map(|(name, _)| name.clone()).collect()
    };
    let mut wanted_modules = first.clone();
    wanted_modules.extend(names(&modules));
    let needed = knobrig_images::needed_modules(&cache, &kernel.modules, &wanted_modules)?;
    let mut order = names(&needed);
    for name in &first {
        let path = knobrig_images::plain_module(&cache, &kernel.modules[name])?;
        modules.push((name.clone(), path));
        order.push(name.clone());
    }
    modules.extend(needed);
    let initrd = knobrig_images::initramfs(&cache, &programs.agent, &modules, &order)?;
    let accel = accel(wanted.accel)?;
    let vcpus = vcpus(&qemu, accel, wanted.vcpus, progress)?;
    Ok(Prepared {
        qemu,
        accel,
        kernel,
        initrd,
        device: programs.device,
        functions,
        files,
        gates,
        modules,
        vcpus,
        module_dirs: absolute(&wanted.module_dirs)?,
    })
}

/// The driver of a finding or an exploration, with this mutant; `other` names a target in place of its
/// own.
///
/// # Errors
/// Its file isn't there any more, or it has no such mutant.
pub fn driver_of(
    setting: &Setting,
    other: Option<&str>,
    mutant: Option<&str>,
) -> Result<Chosen, Error> {
    let own = match &setting.target_file {
        Some(file) if other.is_none() && !file.is_file() => {
            return Err(Error::Usage(format!(
                "the target's file {} is not there any more; give it by --target",
                file.display()
            )));
        }
        Some(file) => file.display().to_string(),
        None => setting.target.clone(),
    };
    Chosen::find(other.unwrap_or(&own), Some(&setting.lifetime), mutant)
}

fn absolute(paths: &[PathBuf]) -> Result<Vec<PathBuf>, Error> {
    let one = |path: &PathBuf| std::path::absolute(path).map_err(Error::file("find", path));
    paths.iter().map(one).collect()
}

/// What holds vCPUs; where that is not what was wanted it is said, or an error if it was asked for
/// by name.
fn vcpus(
    qemu: &Qemu,
    accel: Accel,
    need: Need,
    progress: &dyn Progress,
) -> Result<Option<Kind>, Error> {
    match need {
        Need::Nothing | Need::Orders(VcpuChoice::Off) => return Ok(None),
        Need::Orders(VcpuChoice::Gdb) => return Ok(Some(Kind::Gdb)),
        Need::Orders(VcpuChoice::Auto) if accel == Accel::Kvm => return Ok(Some(Kind::Gdb)),
        Need::Delays | Need::Orders(_) => {}
    }
    match (plugin(qemu, accel, progress)?, need) {
        (Ok(plugin), _) => Ok(Some(Kind::Plugin(plugin))),
        (Err(why), Need::Orders(VcpuChoice::Plugin)) => Err(Error::Machine(format!(
            "--vcpu plugin: {why}; use --vcpu gdb"
        ))),
        (Err(why), Need::Orders(_)) => {
            progress.say(&format!("vCPUs are held by QEMU's gdbstub: {why}"));
            Ok(Some(Kind::Gdb))
        }
        (Err(why), _) => {
            progress.say(&format!("vCPUs are not delayed: {why}"));
            Ok(None)
        }
    }
}

/// QEMU's plugin, or why it can't be had.
fn plugin(
    qemu: &Qemu,
    accel: Accel,
    progress: &dyn Progress,
) -> Result<Result<PathBuf, String>, Error> {
    if accel != Accel::Tcg {
        return Ok(Err("under KVM no plugin sees the guest's code".into()));
    }
    let plugin = knobrig_images::ensure_plugin(progress)?;
    match block_on(vcpu::trial(qemu, &Kind::Plugin(plugin.clone()), accel)) {
        Ok(()) => Ok(Ok(plugin)),
        Err(Error::Interrupted) => Err(Error::Interrupted),
        Err(why) => Ok(Err(why.to_string())),
    }
}

/// The kernel that was asked for, and the modules that must come first in it.
fn kernel(
    cache: &Cache,
    choice: &KernelChoice,
    progress: &dyn Progress,
) -> Result<(Kernel, Vec<String>), Error> {
    match choice {
        KernelChoice::Built(request) => {
            let kernel = knobrig_images::ensure_kernel(cache, request, progress)?;
            Ok((kernel, Vec::new()))
        }
        KernelChoice::Named(name) => Ok((knobrig_images::named_kernel(cache, name)?, Vec::new())),
        KernelChoice::Given(given) => {
            let given = knobrig_images::given_kernel(given)?;
            for line in costs(&given) {
                progress.say(&line);
            }
            Ok((given.kernel, given.first))
        }
    }
}

/// What a given kernel's configuration costs, a line each.
pub(super) fn costs(given: &GivenKernel) -> Vec<String> {
    let Some(missing) = &given.missing else {
        return vec![format!(
            "the configuration of {} is not known: neither it nor a file beside it tells; give \
             --kernel-config",
            given.kernel.source
        )];
    };
    let line = |it: &knobrig_images::Missing| format!("{} is not set: {}", it.option, it.costs);
    missing.iter().map(line).collect()
}

/// The modules whose sources were given, by name: each directory is one, or holds some.
fn own_modules(target: &Chosen, dirs: &[PathBuf]) -> Result<BTreeMap<String, PathBuf>, Error> {
    let mut found = BTreeMap::new();
    for dir in dirs {
        let makes = |dir: &Path| dir.join("Kbuild").is_file() || dir.join("Makefile").is_file();
        let mut modules = vec![dir.clone()];
        if !makes(dir) {
            let entries = std::fs::read_dir(dir)
                .map_err(|why| Error::Usage(format!("can't read {}: {why}", dir.display())))?;
            modules = entries.filter_map(Result::ok).map(|it| it.path()).collect();
            modules.retain(|path| makes(path));
        }
        if modules.is_empty() {
            return Err(Error::Usage(format!(
                "{} holds no module: neither it nor a directory in it has a Kbuild file or Makefile",
                dir.display()
            )));
        }
        for module in modules {
            found.insert(knobrig_images::module_of_dir(&module)?, module);
        }
    }
    let is_known = |name: &String| target.target.modules.iter().any(|it| it.name == *name);
    if !found.is_empty() && !found.keys().any(is_known) {
        let made: Vec<_> = found.keys().map(String::as_str).collect();
        let wanted: Vec<_> = target
            .target
            .modules
            .iter()
            .map(|it| it.name.as_str())
            .collect();
        return Err(Error::Usage(format!(
            "--module-dir makes {}, and target {} loads {}; `knobrig target new --module DIR` writes a \
             target for it",
            made.join(", "),
            target.target.name,
            wanted.join(", ")
        )));
    }
    Ok(found)
}

/// The file of a target's module.
fn module_file(
    cache: &Cache,
    target: &Chosen,
    module: &Module,
    kernel: &Kernel,
) -> Result<PathBuf, Error> {
    if let Some(path) = &module.path {
        return Ok(target.base.join(path));
    }
    let path = kernel.modules.get(&module.name).ok_or_else(|| {
        let known: Vec<_> = kernel.modules.keys().map(String::as_str).collect();
        let known = match known.len() {
            0 => "no module at all; give --modules".to_owned(),
            1..=20 => known.join(", "),
            count => format!("{count} others"),
        };
        Error::Usage(format!(
            "the kernel has no module {}; it has {known}",
            module.name
        ))
    })?;
    Ok(knobrig_images::plain_module(cache, path)?)
}

/// Finds QEMU, or installs the package that has it; where a kernel is to be built, too, the packages for
/// that with it, so that who may not install any is told of all.
fn qemu(cache: &Cache, kernel: &KernelChoice, progress: &dyn Progress) -> Result<Qemu, Error> {
    let missing = match Qemu::find() {
        Ok(qemu) => return Ok(qemu),
        Err(missing) => missing,
    };
    let mut needs = vec![knobrig_images::Need::qemu()];
    if let KernelChoice::Built(request) = kernel
        && knobrig_images::find_kernel(cache, request)?.is_none()
    {
        needs.push(knobrig_images::Need::kernel());
    }
    match knobrig_images::ensure_packages(&needs, progress) {
        Ok(()) => Qemu::find(),
        Err(why @ knobrig_images::Error::Packages(_)) => Err(why.into()),
        // No apt here at all.
        Err(why) => Err(Error::Machine(format!("{missing} ({why})"))),
    }
}

fn accel(choice: AccelChoice) -> Result<Accel, Error> {
    match choice {
        AccelChoice::Tcg => Ok(Accel::Tcg),
        AccelChoice::Kvm => match probe::kvm() {
            probe::Kvm::Usable { .. } => Ok(Accel::Kvm),
            unusable => Err(Error::Machine(format!(
                "--accel kvm: {unusable}; use --accel tcg, or a machine with a KVM that works"
            ))),
        },
        AccelChoice::Auto => match probe::kvm() {
            probe::Kvm::Usable { .. } => Ok(Accel::Kvm),
            _ => Ok(Accel::Tcg),
        },
    }
}

/// The time that a step took, as a person reads it.
pub fn seconds(time: Duration) -> String {
    format!("{:.1} s", time.as_secs_f64())
}
