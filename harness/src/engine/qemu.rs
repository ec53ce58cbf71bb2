//! QEMU's command line, by version. Every option that the rig gives to QEMU stands here.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde::{Deserialize, Serialize};

use super::tsc;
use super::vcpu::Kind;
use crate::error::Error;
use crate::target::Device;

/// Our device's id.
pub const OURS: &str = "dk";
/// The program.
pub const PROGRAM: &str = "qemu-system-x86_64";
/// The oldest and the first no longer known version.
pub const SUPPORTED: (Version, Version) = (Version(7, 2), Version(12, 0));

/// Major and minor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Version(pub u32, pub u32);

/// How QEMU runs guest code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Accel {
    /// By the kernel's KVM.
    Kvm,
    /// Translated, one thread a vCPU.
    Tcg,
}

/// An installed QEMU.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Qemu {
    /// Where it is.
    pub path: PathBuf,
    /// Its version.
    pub version: Version,
    /// Its version with the package's suffix.
    pub text: String,
}

/// What a guest is made of.
#[derive(Clone, Debug)]
pub struct Machine<'a> {
    /// How guest code runs.
    pub accel: Accel,
    /// vCPUs.
    pub cpus: u32,
    /// Memory in MiB; the device maps all of it.
    pub memory_mib: u32,
    /// An ELF kernel with a PVH entry, or a bzImage.
    pub kernel: &'a Path,
    /// The initramfs.
    pub initrd: &'a Path,
    /// The device program's vhost-user socket.
    pub device: &'a Path,
    /// Devices of the target beside ours.
    pub devices: &'a [Device],
    /// What is to hold vCPUs.
    pub vcpus: Option<&'a Kind>,
    /// What it has of ACPI.
    pub acpi: Acpi,
}

/// What a guest has of ACPI.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Acpi {
    /// Nothing.
    Off,
    /// All but the slots that devices come into.
    On,
    /// These, too: devices come and go while it runs.
    Hotplug,
}

/// Descriptors that QEMU inherits, each one end of a socket pair.
#[derive(Clone, Copy, Debug)]
pub struct Descriptors {
    /// The serial console.
    pub console: i32,
    /// The agent's port.
    pub agent: i32,
    /// QEMU's monitor.
    pub monitor: i32,
    /// The link of what holds vCPUs, where there is something.
    pub vcpus: i32,
}

impl Qemu {
    /// Finds QEMU in PATH and asks its version.
    ///
    /// # Errors
    /// It isn't there, doesn't run, or its version isn't known to work.
    pub fn find() -> Result<Self, Error> {
        let path = std::env::var_os("PATH")
            .iter()
            .flat_map(std::env::split_paths)
            .map(|dir| dir.join(PROGRAM))
            .find(|path| path.is_file())
            .ok_or_else(|| {
                Error::Machine(format!(
                    "no {PROGRAM} in PATH; install it: sudo apt-get install qemu-system-x86"
                ))
            })?;
        let output = Command::new(&path)
            .arg("--version")
            .output()
            .map_err(|source| Error::Spawn {
                program: path.clone(),
                source,
            })?;
        let text = String::from_utf8_lossy(&output.stdout);
        let (version, text) = parse_version(&text).ok_or_else(|| {
            Error::Machine(format!(
                "{} --version printed no version: {text:?}",
                path.display()
            ))
        })?;
        if version < SUPPORTED.0 || version >= SUPPORTED.1 {
            return Err(Error::Machine(format!(
                "{} is QEMU {text}; knobrig knows {}.{} to 11: install one of these",
                path.display(),
                SUPPORTED.0.0,
                SUPPORTED.0.1
            )));
        }
        Ok(Self {
            path,
            version,
            text,
        })
    }

    /// The chardev of our device, as `-chardev` and `chardev-add` take it.
    pub fn chardev(&self, id: &str, socket: &Path) -> String {
        let reconnect = if self.version >= Version(9, 2) {
            "reconnect-ms=200"
        } else {
            "reconnect=1"
        };
        format!("socket,id={id},path={},{reconnect}", socket.display())
    }

    /// The newest of QEMU's plugin interfaces that this one surely takes. It refuses plugins that
    /// stand for one below or above those that it knows: 0 and 1 up to 8.2, 2 and its successors
    /// from 9.0 on, 7 from 11.1 on.
    pub fn plugin_api(&self) -> i32 {
        match self.version {
            version if version >= Version(11, 1) => 7,
            version if version >= Version(9, 0) => 2,
            _ => 1,
        }
    }

    /// The arguments for a machine that never runs, with what holds vCPUs: of nothing for the plugin,
    /// of a vCPU for the gdbstub, which there is not without one.
    pub fn vcpus_trial(kind: &Kind, accel: Accel, fd: i32) -> Vec<OsString> {
        let words = ["-nodefaults", "-no-user-config", "-display", "none", "-S"];
        let mut words: Vec<_> = words.map(str::to_owned).into();
        let mut option = |name: &str, value: &str| words.extend([format!("-{name}"), value.into()]);
        let cpu = processor(accel, &mut option);
        match kind {
            Kind::Plugin(_) => option("machine", "none"),
            Kind::Gdb => {
                option("machine", "pc");
                option("cpu", cpu);
                option("m", "16M");
            }
        }
        holds_vcpus(kind, fd, &mut option);
        words.into_iter().map(OsString::from).collect()
    }

    /// The arguments for a machine.
    pub fn arguments(&self, machine: &Machine<'_>, fds: Descriptors) -> Vec<OsString> {
        let mut arguments: Vec<OsString> = Vec::new();
        let mut option = |name: &str, value: String| {
            arguments.push(format!("-{name}").into());
            if !value.is_empty() {
                arguments.push(value.into());
            }
        };
        // i440fx: slot 1f of bus 0 is free there and can be hotplugged (q35 has its LPC there).
        option("nodefaults", String::new());
        option("no-user-config", String::new());
        option("display", "none".into());
        option("no-reboot", String::new());
        option("machine", "pc,usb=off,vmport=off,memory-backend=ram".into());
        if machine.acpi != Acpi::Hotplug {
            // What ACPI says of 32 slots that a device may come into takes a TCG guest with all
            // checkers on four seconds of its boot to read.
            option("global", "PIIX4_PM.acpi-root-pci-hotplug=off".into());
        }
        let cpu = processor(machine.accel, &mut |name, value| option(name, value.into()));
        option("cpu", cpu.into());
        option("smp", machine.cpus.to_string());
        option("m", format!("{}M", machine.memory_mib));
        // Shared, so that the device program can map it; of the very size of -m.
        option(
            "object",
            format!(
                "memory-backend-memfd,id=ram,size={}M,share=on",
                machine.memory_mib
            ),
        );
        option("kernel", machine.kernel.display().to_string());
        option("initrd", machine.initrd.display().to_string());
        option("append", kernel_command_line(machine.accel, machine.acpi));
        option("chardev", format!("socket,id=console,fd={}", fds.console));
        option("serial", "chardev:console".into());
        option("device", "virtio-serial-pci,id=serial".into());
        option("chardev", format!("socket,id=agent,fd={}", fds.agent));
        option(
            "device",
            format!("virtserialport,chardev=agent,name={}", knobrig_proto::PORT),
        );
        option("chardev", self.chardev(OURS, machine.device));
        option("device", our_device(OURS, OURS));
        option("chardev", format!("socket,id=monitor,fd={}", fds.monitor));
        option("mon", "chardev=monitor,mode=control".into());
        if let Some(kind) = machine.vcpus {
            holds_vcpus(kind, fds.vcpus, &mut |name, value| {
                option(name, value.into())
            });
        }
        for device in machine.devices {
            arguments.extend(device.options.iter().map(OsString::from));
            arguments.push("-device".into());
            arguments.push(target_device(device).into());
        }
        arguments
    }
}

/// What runs guest code. Gives the name of its processor.
fn processor(accel: Accel, option: &mut impl FnMut(&str, &str)) -> &'static str {
    match accel {
        Accel::Kvm => {
            option("accel", "kvm");
            "host"
        }
        Accel::Tcg => {
            option("accel", "tcg,thread=multi");
            "max"
        }
    }
}

/// What holds vCPUs, spoken with over a descriptor. A comma ends an option's value unless it is
/// doubled.
fn holds_vcpus(kind: &Kind, fd: i32, option: &mut impl FnMut(&str, &str)) {
    match kind {
        Kind::Plugin(plugin) => {
            let path = plugin.display().to_string().replace(',', ",,");
            option("plugin", &format!("file={path},fd={fd}"));
        }
        Kind::Gdb => {
            option("chardev", &format!("socket,id=gdb,fd={fd}"));
            option("gdb", "chardev:gdb");
        }
    }
}

/// A device of the target's, as `-device` and `device_add` take it.
pub fn target_device(device: &Device) -> String {
    format!("{},id={}", device.device, device.id)
}

/// Our device, as `-device` and `device_add` take it. One queue: QEMU would ask for one a vCPU,
/// and the device has one.
pub fn our_device(id: &str, chardev: &str) -> String {
    format!("vhost-user-blk-pci,id={id},chardev={chardev},addr=1f.0,disable-legacy=on,num-queues=1")
}

/// What the kernel is told. A report must not stop the guest before it is out, and an oops
/// must: the guest is spent.
fn kernel_command_line(accel: Accel, acpi: Acpi) -> String {
    let mut words: Vec<_> = [
        "console=ttyS0",
        "panic=-1",
        "oops=panic",
        "nokaslr",
        "random.trust_cpu=on",
        "8250.nr_uarts=1",
        match acpi {
            // A quarter of a TCG guest's boot goes into the reading of AML.
            Acpi::Off => "acpi=off",
            // Interrupts by the MP table. By ACPI each pci_enable_device evaluates _PRT, a loop in
            // AML that allocates so much that KASAN makes it last 6 to 12 s under TCG. PCI hotplug
            // stays ACPI's.
            Acpi::On | Acpi::Hotplug => "acpi=noirq",
        },
        // A ring that is freed while the device runs reads as zero: the device sees that at once.
        "init_on_free=1",
        // Unload waits for RCU several times; expedited, that is microseconds.
        "rcupdate.rcu_expedited=1",
    ]
    .map(str::to_owned)
    .into();
    if accel == Accel::Tcg {
        // Emulated clocks make the kernel's own calibration and watchdog slow and wrong.
        words.extend(["tsc=reliable", "no_timer_check"].map(str::to_owned));
        words.extend(tsc::khz().map(|khz| format!("tsc_early_khz={khz}")));
        // Loads and unloads are full of waits for the other CPU, and to wake a halted one costs
        // more than they do: a quarter more episodes a second without.
        words.push("idle=poll".to_owned());
    }
    words.join(" ")
}

fn parse_version(text: &str) -> Option<(Version, String)> {
    let (_, rest) = text.split_once("version ")?;
    let line = rest.lines().next()?.trim();
    let mut numbers = line.split(|c: char| !c.is_ascii_digit());
    let version = Version(numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?);
    Some((version, line.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arguments(version: Version) -> String {
        with(version, &Kind::Plugin("/a,b/p.so".into()))
    }

    fn with(version: Version, vcpus: &Kind) -> String {
        let qemu = Qemu {
            path: PROGRAM.into(),
            version,
            text: String::new(),
        };
        let machine = Machine {
            accel: Accel::Tcg,
            cpus: 2,
            memory_mib: 512,
            kernel: "/k".as_ref(),
            initrd: "/i".as_ref(),
            device: "/d.sock".as_ref(),
            vcpus: Some(vcpus),
            devices: &[Device {
                id: "rng0".into(),
                device: "virtio-rng-pci,addr=1e.0".into(),
                options: vec!["-object".into(), "rng-builtin,id=r".into()],
            }],
            acpi: Acpi::Hotplug,
        };
        let arguments = qemu.arguments(
            &machine,
            Descriptors {
                console: 3,
                agent: 4,
                monitor: 5,
                vcpus: 6,
            },
        );
        let words: Vec<_> = arguments
            .iter()
            .map(|word| word.to_string_lossy())
            .collect();
        words.join(" ")
    }

    #[test]
    fn reconnect_is_spelled_as_the_version_knows_it() {
        assert!(arguments(Version(7, 2)).contains("path=/d.sock,reconnect=1 "));
        assert!(arguments(Version(9, 1)).contains("path=/d.sock,reconnect=1 "));
        assert!(arguments(Version(9, 2)).contains("path=/d.sock,reconnect-ms=200 "));
        assert!(arguments(Version(11, 1)).contains("path=/d.sock,reconnect-ms=200 "));
    }

    #[test]
    fn a_plugin_stands_for_an_interface_that_the_version_takes() {
        let api = |version| {
            let qemu = Qemu {
                path: PROGRAM.into(),
                version,
                text: String::new(),
            };
            qemu.plugin_api()
        };
        let apis =
            [(7, 2), (8, 2), (9, 0), (10, 2), (11, 0), (11, 1)].map(|(a, b)| api(Version(a, b)));
        assert_eq!(apis, [1, 1, 2, 2, 2, 7]);
        assert!(arguments(Version(7, 2)).contains("-plugin file=/a,,b/p.so,fd=6"));
    }

    #[test]
    fn the_gdbstub_speaks_over_a_socket_of_ours() {
        let arguments = with(Version(7, 2), &Kind::Gdb);
        let wanted = "-chardev socket,id=gdb,fd=6 -gdb chardev:gdb";
        assert!(
            arguments.contains(wanted) && !arguments.contains("-plugin"),
            "{arguments}"
        );
    }

    #[test]
    fn a_targets_devices_come_with_their_options() {
        let arguments = arguments(Version(7, 2));
        let wanted = "-object rng-builtin,id=r -device virtio-rng-pci,addr=1e.0,id=rng0";
        assert!(arguments.contains(wanted), "{arguments}");
    }

    #[test]
    fn a_guest_has_as_much_of_acpi_as_is_asked_for() {
        let line = |acpi| kernel_command_line(Accel::Tcg, acpi);
        assert!(line(Acpi::Off).contains(" acpi=off "));
        for acpi in [Acpi::On, Acpi::Hotplug] {
            assert!(line(acpi).contains(" acpi=noirq "));
        }
        assert!(!arguments(Version(7, 2)).contains("acpi-root-pci-hotplug=off"));
    }

    #[test]
    fn memory_is_shared_and_of_one_size() {
        let arguments = arguments(Version(10, 0));
        assert!(arguments.contains("-m 512M"));
        assert!(arguments.contains("memory-backend-memfd,id=ram,size=512M,share=on"));
    }

    #[test]
    fn versions_are_read_with_the_packages_suffix() {
        let text = "QEMU emulator version 10.0.2 (Debian 1:10.0.2+ds-2)\nCopyright";
        let (version, text) = parse_version(text).expect("a version");
        assert_eq!(
            (version, text.as_str()),
            (Version(10, 0), "10.0.2 (Debian 1:10.0.2+ds-2)")
        );
        assert_eq!(parse_version("nonsense"), None);
    }
}
