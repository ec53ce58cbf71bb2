//! `knobrig doctor`: each line ok, or what to do.

use knobrig_images::{Cache, KernelRequest, Variant};

use super::campaign::block_on;
use crate::engine::probe::{self, Kvm};
use crate::engine::qemu::Qemu;
use crate::engine::vcpu;
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
    let lines = [qemu(), kvm(), plugin()?, packages(), image()?];
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
fn kvm() -> Line {
    let found = probe::kvm();
    let text = match &found {
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
fn plugin() -> Result<Line, Error> {
    let text = match Qemu::find() {
        Err(_) => "whether QEMU loads the plugin that delays vCPUs shows once there is one".into(),
        Ok(qemu) => {
            let plugin = knobrig_images::ensure_plugin(&SetUp::new())?;
            match block_on(vcpu::trial(&qemu, &plugin)) {
                Ok(()) => "QEMU loads the plugin that delays vCPUs, which works under TCG".into(),
                Err(Error::Interrupted) => return Err(Error::Interrupted),
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
