//! `knobrig doctor`: each line ok, or what to do.

use knobrig_images::{Cache, KernelRequest, Variant};

use super::campaign::block_on;
use crate::engine::probe::{self, Kvm};
use crate::engine::qemu::{Accel, Qemu};
use crate::engine::vcpu::{self, Kind};
use crate::error::Error;
use crate::exit::Exit;
use crate::report::progress::SetUp;

/// One line.
struct Line {
    ok: bool,
    subject: &'static str,
    text: String,
}

/// Runs the verb: exit 3 when a run could not start as things are and set-up could not mend it.
///
/// # Errors
/// The cache can't be opened.
pub fn run() -> Result<Exit, Error> {
    let found = probe::kvm();
    let vcpus = (plugin(&found)?, gdbstub(&found)?);
    let lines = [qemu(), kvm(&found), vcpus.0, vcpus.1, packages(), image()?];
    for line in &lines {
        println!(
            "{}  {:<8} {}",
            if line.ok { "ok   " } else { "to do" },
            line.subject,
            line.text
        );
    }
    Ok(if lines.iter().all(|line| line.ok) {
        Exit::Clean
    } else {
        Exit::Machine
    })
}

fn qemu() -> Line {
    let (ok, text) = match Qemu::find() {
        Ok(qemu) => (true, format!("{} at {}", qemu.text, qemu.path.display())),
        Err(error) => (false, error.to_string()),
    };
    Line {
        ok,
        subject: "QEMU",
        text,
    }
}

/// A run goes by TCG where KVM can't be used: slower, and nothing to do.
fn kvm(found: &Kvm) -> Line {
    let text = match found {
        Kvm::Usable { .. } => found.to_string(),
        Kvm::Absent { .. } | Kvm::Broken { .. } => format!("{found}; guests run by TCG"),
    };
    Line {
        ok: true,
        subject: "KVM",
        text,
    }
}

/// A run without delays finds less under TCG, and goes.
fn plugin(kvm: &Kvm) -> Result<Line, Error> {
    let text = match Qemu::find() {
        Err(_) => "whether QEMU loads the plugin that delays vCPUs shows once there is one".into(),
        Ok(qemu) => {
            let plugin = Kind::Plugin(knobrig_images::ensure_plugin(&SetUp::new())?);
            let place = match kvm {
                Kvm::Usable { .. } => "works under TCG alone: by --accel tcg",
                Kvm::Absent { .. } | Kvm::Broken { .. } => "works under TCG",
            };
            match tried(&qemu, &plugin, Accel::Tcg)? {
                Ok(()) => {
                    format!("QEMU loads the plugin that delays and orders vCPUs, which {place}")
                }
                Err(why) => format!("vCPUs can't be delayed: {why}"),
            }
        }
    };
    Ok(Line {
        ok: true,
        subject: "plugin",
        text,
    })
}

/// The other one that orders vCPUs: the only one under KVM.
fn gdbstub(kvm: &Kvm) -> Result<Line, Error> {
    let (accel, place) = match kvm {
        Kvm::Usable { .. } => (
            Accel::Kvm,
            "QEMU's gdbstub orders vCPUs under KVM, by four hardware breakpoints; delays are TCG's",
        ),
        Kvm::Absent { .. } | Kvm::Broken { .. } => (
            Accel::Tcg,
            "QEMU's gdbstub orders vCPUs (--vcpu gdb); that it does under KVM only a machine with \
             KVM shows",
        ),
    };
    let text = match Qemu::find() {
        Err(_) => "whether QEMU's gdbstub orders vCPUs shows once there is one".into(),
        Ok(qemu) => match tried(&qemu, &Kind::Gdb, accel)? {
            Ok(()) => place.into(),
            Err(why) => format!("vCPUs can't be ordered by QEMU's gdbstub: {why}"),
        },
    };
    Ok(Line {
        ok: true,
        subject: "gdbstub",
        text,
    })
}

/// Whether that works, or why not.
fn tried(qemu: &Qemu, kind: &Kind, accel: Accel) -> Result<Result<(), Error>, Error> {
    match block_on(vcpu::trial(qemu, kind, accel)) {
        Err(Error::Interrupted) => Err(Error::Interrupted),
        tried => Ok(tried),
    }
}

fn packages() -> Line {
    let missing = knobrig_images::missing_packages();
    let (ok, text) = if missing.is_empty() {
        (true, "every package for the kernel's build is there".into())
    } else {
        let install = format!("sudo apt-get install {}", missing.join(" "));
        (
            false,
            format!("`cargo rig run` installs what is missing, or: {install}"),
        )
    };
    Line {
        ok,
        subject: "tools",
        text,
    }
}

fn image() -> Result<Line, Error> {
    let cache = Cache::open(None)?;
    let mut built = Vec::new();
    for variant in Variant::ALL {
        let request = KernelRequest::pinned(variant);
        if let Ok(Some(kernel)) = knobrig_images::find_kernel(&cache, &request) {
            built.push(format!(
                "{} {} ({})",
                kernel.variant, kernel.id, kernel.release
            ));
        }
    }
    let (ok, text) = if built.is_empty() {
        (
            false,
            "no kernel is built; `cargo rig image build` takes some ten minutes".into(),
        )
    } else {
        (true, built.join(", "))
    };
    Ok(Line {
        ok,
        subject: "image",
        text,
    })
}
