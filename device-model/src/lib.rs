//! The virtual PCI device at 0000:00:1f.0: a disk with knobs, whose requests can be held.
//!
//! A vhost-user-blk backend for stock QEMU. The layers, each of which knows only those before
//! it: [`chain`] reads requests out of guest memory, [`execute`] carries them out on a
//! [`disk`] and the [`knobs`], [`gate`] decides which are held and for how long, [`ring`] and
//! its [`ledger`] are the virtqueue, [`witness`] tells whether the driver left it alone,
//! [`device`] puts them together and writes the [`trace`], [`link`] speaks vhost-user,
//! [`control`] speaks with the harness, and [`serve`] waits for both in one thread: between a
//! kick and its interrupt no other thread has to run, and nothing needs a lock that a held
//! request could keep.
#![forbid(unsafe_code)]

pub mod chain;
pub mod clock;
pub mod config;
pub mod control;
pub mod device;
pub mod disk;
pub mod error;
pub mod execute;
pub mod gate;
pub mod knobs;
pub mod ledger;
pub mod link;
pub mod ring;
pub mod serve;
pub mod trace;
pub mod witness;

/// Says on stderr what goes wrong. Nobody may be listening there by now, which changes nothing.
pub fn complain(what: &dyn std::fmt::Display) {
    use std::io::Write;
    let _ = writeln!(std::io::stderr(), "dk-device: {what}");
}
