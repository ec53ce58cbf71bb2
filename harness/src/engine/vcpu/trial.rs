//! Whether QEMU's part of the gate works here: tried with a machine that never runs.

use std::os::unix::net::UnixStream as StdUnixStream;
use std::process::Stdio;

use command_fds::{CommandFdExt, FdMapping};
use knobrig_vcpu_proto::API_VARIABLE;
use tokio::net::UnixStream;

use super::wire::Wire;
use super::{Kind, Plugin};
use crate::engine::process::{self, Tail};
use crate::engine::qemu::{Accel, Qemu};
use crate::error::Error;

/// The descriptor that QEMU inherits.
const FD: i32 = 3;
/// Somewhere.
const ADDRESS: u64 = 0x1000;

/// Whether this QEMU loads the plugin, or has a gdbstub that reads registers and takes breakpoints
/// where guest code runs so.
///
/// # Errors
/// Why not, with QEMU's own words.
pub async fn trial(qemu: &Qemu, kind: &Kind, accel: Accel) -> Result<(), Error> {
    let failed = |error: std::io::Error| Error::Rig(format!("failed to make a socket: {error}"));
    let (ours, theirs) = StdUnixStream::pair().map_err(failed)?;
    ours.set_nonblocking(true).map_err(failed)?;
    let ours = UnixStream::from_std(ours).map_err(failed)?;
    let mut command = tokio::process::Command::new(&qemu.path);
    command
        .args(Qemu::vcpus_trial(kind, accel, FD))
        .env(API_VARIABLE, qemu.plugin_api().to_string())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    let mapping = FdMapping {
        parent_fd: theirs.into(),
        child_fd: FD,
    };
    command
        .fd_mappings(vec![mapping])
        .map_err(|error| Error::Rig(format!("failed to hand QEMU its socket: {error}")))?;
    let mut child = process::spawn(&mut command, &qemu.path)?;
    drop(command);
    let mut stderr = Tail::follow(child.stderr.take());
    let tried = match kind {
        Kind::Plugin(_) => Plugin::greet(ours).await.map(drop),
        Kind::Gdb => breakpoint(ours).await,
    };
    // It is gone already, or is to go.
    let _ = child.kill().await;
    match tried {
        Ok(()) => Ok(()),
        Err(error) => {
            let said = stderr.text().await;
            Err(Error::Rig(format!("{error}; QEMU said: {said}")))
        }
    }
}

/// What an order does with the gdbstub, for one vCPU.
async fn breakpoint(socket: UnixStream) -> Result<(), Error> {
    let mut wire = Wire::new(socket);
    wire.registers(0).await?;
    wire.breakpoint(ADDRESS, true).await?;
    wire.breakpoint(ADDRESS, false).await
}
