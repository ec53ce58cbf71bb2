//! Set-up that every verb with a guest shares: packages, kernel, modules, programs, initramfs.
//! All of it is cached; with a warm cache it takes a fraction of a second.

use std::path::PathBuf;
use std::time::Duration;

use knobrig_images::{Cache, Kernel, KernelRequest, Progress, Variant};

use crate::cli::AccelChoice;
use crate::engine::probe;
use crate::engine::qemu::{Accel, Qemu};
use crate::engine::symbols;
use crate::error::Error;
use crate::symbols::Files;
use crate::target::Chosen;

/// The module that holds threads in functions; the agent loads it when it is first asked to.
const GATE: &str = "guest-driver/gate";

/// What a guest is to be.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// The kernel's variant.
    pub variant: Variant,
    /// The kernel's source, if not the pinned one.
    pub source: Option<PathBuf>,
    /// How guest code runs.
    pub accel: AccelChoice,
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
    let qemu = qemu(progress)?;
    let cache = Cache::open(None)?;
    let request = KernelRequest {
        variant: wanted.variant,
        source: wanted.source.clone(),
    };
    let kernel = knobrig_images::ensure_kernel(&cache, &request, progress)?;
    let programs = knobrig_images::ensure_programs(progress)?;
    let mut modules = Vec::new();
    let mut files = Files::find(Some(&kernel.vmlinux), &[])?;
    for module in &target.target.modules {
        let path = if let Some(dir) = &module.build {
            let dir = target.base.join(dir);
            let built = knobrig_images::ensure_module(&cache, &kernel, &dir, progress)?;
            files = files.with_module(&module.name, &built.debug);
            built.path
        } else if let Some(path) = &module.path {
            target.base.join(path)
        } else {
            kernel.modules.get(&module.name).cloned().ok_or_else(|| {
                let known: Vec<_> = kernel.modules.keys().map(String::as_str).collect();
                Error::Usage(format!(
                    "the kernel has no module {}; it has: {}",
                    module.name,
                    known.join(", ")
                ))
            })?
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
            functions.extend(symbols::functions(name, path)?);
        }
    }
    let gate = knobrig_images::workspace_root().join(GATE);
    let gate = knobrig_images::ensure_module(&cache, &kernel, &gate, progress)?;
    modules.push((gate.name, gate.path));
    let initrd = knobrig_images::initramfs(&cache, &programs.agent, &modules)?;
    let accel = accel(wanted.accel)?;
    Ok(Prepared {
        qemu,
        accel,
        kernel,
        initrd,
        device: programs.device,
        functions,
        files,
    })
}

/// Finds QEMU, or installs the package that has it.
fn qemu(progress: &dyn Progress) -> Result<Qemu, Error> {
    match Qemu::find() {
        Ok(qemu) => Ok(qemu),
        Err(missing) => {
            knobrig_images::ensure_packages(&[knobrig_images::Need::qemu()], progress)
                .map_err(|why| Error::Machine(format!("{missing} ({why})")))?;
            Qemu::find()
        }
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
