//! Devices that are unplugged and plugged in again while the guest runs.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::guest::Recipe;
use super::monitor::Monitor;
use super::qemu::{OURS, Qemu, our_device, target_device};
use crate::error::Error;

/// The machine's devices that can go and come.
pub(super) struct Plugs {
    qemu: Qemu,
    /// The device program's socket.
    socket: PathBuf,
    /// The target's devices as `device_add` takes them, by id.
    others: BTreeMap<String, String>,
    /// How often ours was plugged in. Each time it gets a chardev of its own: one that a device
    /// has used can't serve another.
    ours: u32,
}

impl Plugs {
    pub(super) fn new(recipe: &Recipe, socket: &Path) -> Self {
        let devices = recipe.devices.iter();
        Self {
            qemu: recipe.qemu.clone(),
            socket: socket.to_owned(),
            others: devices
                .map(|it| (it.id.clone(), target_device(it)))
                .collect(),
            ours: 0,
        }
    }

    /// QEMU's name of the device.
    fn id(&self, id: &str) -> String {
        match (id == OURS, self.ours) {
            (false, _) | (true, 0) => id.to_owned(),
            (true, times) => format!("{OURS}{times}"),
        }
    }

    pub(super) async fn unplug(&mut self, monitor: &mut Monitor, id: &str) -> Result<(), Error> {
        monitor.unplug(&self.id(id)).await
    }

    pub(super) async fn plug(&mut self, monitor: &mut Monitor, id: &str) -> Result<(), Error> {
        let old = self.id(id);
        monitor.gone(&old).await?;
        if id != OURS {
            let device = self.others.get(id).cloned().unwrap_or_default();
            return monitor.say(&format!("device_add {device}")).await;
        }
        monitor.say(&format!("chardev-remove {old}")).await?;
        self.ours += 1;
        let new = self.id(id);
        let chardev = self.qemu.chardev(&new, &self.socket);
        monitor.say(&format!("chardev-add {chardev}")).await?;
        monitor
            .say(&format!("device_add {}", our_device(&new, &new)))
            .await
    }
}
