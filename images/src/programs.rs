//! The agent, the device program and QEMU's plugin, built by cargo from this workspace.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use cargo_metadata::camino::Utf8PathBuf;
use cargo_metadata::{Artifact, Message};

use crate::error::Error;
use crate::progress::Progress;
use crate::run::{Run, Stream};
use crate::toolchain::cargo;

const TARGET: &str = "x86_64-unknown-linux-gnu";

/// The programs that a guest needs.
#[derive(Clone, Debug)]
pub struct Programs {
    /// PID 1 of the guest, static.
    pub agent: PathBuf,
    /// The device.
    pub device: PathBuf,
}

/// Builds what of the programs is not up to date.
///
/// # Errors
/// How cargo failed.
pub fn ensure_programs(progress: &dyn Progress) -> Result<Programs, Error> {
    let mut command = release("programs");
    command
        .args(["--package", "knobrig-agent", "--package", "dk-device"])
        // Static: the guest has no libraries. The device is so too, for one build of both.
        .env("CARGO_ENCODED_RUSTFLAGS", "-Ctarget-feature=+crt-static")
        // The guest unpacks the agent at each boot: 9 MB with line tables.
        .env("CARGO_PROFILE_RELEASE_STRIP", "debuginfo");
    let mut agent = None;
    let mut device = None;
    build(
        "build the agent and the device program",
        command,
        progress,
        |artifact| match artifact.target.name.as_str() {
            "knobrig-agent" => agent = artifact.executable.or(agent.take()),
            "dk-device" => device = artifact.executable.or(device.take()),
            _ => {}
        },
    )?;
    Ok(Programs {
        agent: made(agent, "program knobrig-agent")?,
        device: made(device, "program dk-device")?,
    })
}

/// Builds the plugin that delays vCPUs, if it is not up to date. Apart from the programs: what QEMU
/// loads can't be static.
///
/// # Errors
/// How cargo failed.
pub fn ensure_plugin(progress: &dyn Progress) -> Result<PathBuf, Error> {
    let mut command = release("plugin");
    command
        .args(["--package", "knobrig-vcpu"])
        .env("CARGO_ENCODED_RUSTFLAGS", "");
    let mut plugin = None;
    build("build QEMU's plugin", command, progress, |artifact| {
        if artifact.target.name == "knobrig_vcpu" {
            let mut files = artifact.filenames.into_iter();
            plugin = files.find(|file| file.extension() == Some("so"));
        }
    })?;
    made(plugin, "plugin knobrig-vcpu")
}

/// A release build, in a directory of its own.
fn release(dir: &str) -> Command {
    let mut command = cargo();
    command
        .args(["build", "--release", "--target", TARGET])
        .arg("--message-format=json-render-diagnostics")
        .arg("--target-dir")
        .arg(target_dir().join(dir));
    command
}

/// Runs such a build and hands on what it made.
fn build(
    what: &str,
    command: Command,
    progress: &dyn Progress,
    mut made: impl FnMut(Artifact),
) -> Result<(), Error> {
    let mut begun = false;
    Run::new(what, command, Duration::from_secs(3600)).lines(|stream, line| match stream {
        Stream::Out => {
            for message in Message::parse_stream(line.as_bytes()).flatten() {
                if let Message::CompilerArtifact(artifact) = message {
                    made(artifact);
                }
            }
        }
        Stream::Err => {
            let line = line.trim();
            if line.starts_with("Compiling") {
                // Only now is it known that there is something to do.
                if !std::mem::replace(&mut begun, true) {
                    progress.begin(what, Some(Duration::from_secs(60)));
                }
                progress.update(0.0, line);
            } else if line.starts_with("warning") {
                progress.say(line);
            }
        }
    })?;
    if begun {
        progress.end();
    }
    Ok(())
}

fn made(path: Option<Utf8PathBuf>, what: &str) -> Result<PathBuf, Error> {
    path.map(Utf8PathBuf::into_std_path_buf)
        .ok_or_else(|| Error::Toolchain(format!("cargo built no {what}")))
}

/// Where our own cargo runs build: not where an outer cargo, which may wait for us, does.
pub(crate) fn target_dir() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR")
        .filter(|dir| !dir.is_empty())
        .map_or_else(|| crate::workspace_root().join("target"), PathBuf::from)
        .join("knobrig")
}
