//! `dk-device`: the virtual PCI device at 0000:00:1f.0 as a program.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use dk_device::clock;
use dk_device::device::Device;
use dk_device::disk::Disk;
use dk_device::error::Error;
use dk_device::execute::Store;
use dk_device::serve::{Options, Server};
use dk_device::trace::Trace;

/// A disk with two knobs for QEMU's vhost-user-blk, whose requests can be held.
#[derive(Debug, Parser)]
#[command(name = "dk-device", version)]
struct Arguments {
    /// Unix socket at which QEMU connects.
    #[arg(long)]
    socket: PathBuf,
    /// Unix socket for commands and events (JSON lines).
    #[arg(long)]
    control: PathBuf,
    /// File to which the trace is appended (JSON lines).
    #[arg(long)]
    trace: Option<PathBuf>,
    /// File or block device that is the disk; without it the disk is in memory.
    #[arg(long)]
    disk: Option<PathBuf>,
    /// Bytes of the disk in memory, a multiple of 512.
    #[arg(long, default_value_t = 8 * 1024 * 1024, conflicts_with = "disk")]
    size: u64,
    /// What the disk answers when asked for its id, at most 20 bytes.
    #[arg(long, default_value = "dk0")]
    id: String,
    /// Process id of the parent; the device ends when it does.
    #[arg(long)]
    parent: Option<i32>,
}

fn main() -> ExitCode {
    match serve(Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            dk_device::complain(&error);
            ExitCode::FAILURE
        }
    }
}

fn serve(arguments: Arguments) -> Result<(), Error> {
    let Arguments {
        socket,
        control,
        trace,
        disk,
        size,
        id,
        parent,
    } = arguments;
    let disk = match disk {
        Some(path) => Disk::in_file(&path)?,
        None => Disk::in_memory(size)?,
    };
    let store = Store::new(disk, &id)?;
    let trace = Trace::open(trace.as_deref(), clock::now())?;
    Server::new(
        Device::new(store, trace),
        &Options {
            socket,
            control,
            parent,
        },
    )?
    .run()
}
