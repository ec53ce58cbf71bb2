//! A first target file of a driver, from what was seen of it in a guest.

use std::collections::BTreeSet;
use std::fmt::Write;

/// What a module did when it was loaded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// The module's name.
    pub module: String,
    /// How the target names its file: `kernel = true`, `path = "…"`, `build = "…"`.
    pub source: String,
    /// Parameters that it was loaded with.
    pub params: String,
    /// Parameters that it has, each with what it says of it.
    pub known_params: Vec<(String, String)>,
    /// Devices that QEMU had beside the rig's own, as `-device` says them.
    pub devices: Vec<String>,
    /// Files that came with it.
    pub files: Vec<File>,
    /// Paths that came with it and went with it, the uppermost ones.
    pub gone: Vec<String>,
    /// Drivers that came with it, and what each has bound.
    pub drivers: Vec<(String, Vec<String>)>,
    /// The module's count while it is up and nothing of it is open.
    pub count: Option<String>,
    /// The kernel that it was seen on.
    pub kernel: String,
}

/// A file that came with a module.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct File {
    /// Its path.
    pub path: String,
    /// What a read gave, where it can be read.
    pub read: Option<String>,
    /// It can be written.
    pub writable: bool,
    /// An open descriptor of it keeps the module.
    pub pins: bool,
    /// What an open gave, where it failed.
    pub failed: Option<String>,
}

/// A line of the agent's list of files: kind and path.
fn entry(line: &str) -> Option<(char, u32, &str)> {
    let mut words = line.splitn(3, ' ');
    let kind = words.next()?.chars().next()?;
    let mode = u32::from_str_radix(words.next()?, 8).ok()?;
    Some((kind, mode, words.next()?))
}

/// What there is after a load and was not there before: kind, mode and path of each.
pub fn news<'a>(before: &str, after: &'a str) -> Vec<(char, u32, &'a str)> {
    let old: BTreeSet<_> = before.lines().filter_map(entry).map(|it| it.2).collect();
    let new = after.lines().filter_map(entry);
    new.filter(|(.., path)| !old.contains(path)).collect()
}

/// Whether a new file is one that reaches a driver: not what the kernel's core makes for everybody.
pub fn is_knob(kind: char, path: &str) -> bool {
    const CORE: [&str; 6] = [
        "/sys/module/",
        "/sys/bus/",
        "/sys/kernel/slab/",
        "/sys/kernel/debug/tracing/",
        "/sys/kernel/tracing/",
        "/sys/kernel/btf/",
    ];
    const NAMES: [&str; 7] = [
        "uevent",
        "modalias",
        "dev",
        "driver_override",
        "waiting_for_supplier",
        "remove",
        "autosuspend",
    ];
    let name = path.rsplit('/').next().unwrap_or(path);
    matches!(kind, 'f' | 'c' | 'b')
        && !CORE.iter().any(|core| path.starts_with(core))
        && !is_of_an_interrupt(path)
        && !NAMES.contains(&name)
        && !path.contains("/power/")
}

/// Whether a path has the number of an interrupt: the kernel chooses it anew each time.
pub fn is_of_an_interrupt(path: &str) -> bool {
    let tables = ["/proc/irq/", "/sys/kernel/irq/"];
    tables.iter().any(|table| path.starts_with(table)) || path.contains("/msi_irqs/")
}

/// The uppermost of these paths: what is below a new directory came with it.
pub fn uppermost<'a>(paths: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let mut paths: Vec<_> = paths.collect();
    paths.sort_unstable();
    let mut upper: Vec<&str> = Vec::new();
    for path in paths {
        let below = |upper: &&str| {
            path.strip_prefix(*upper)
                .is_some_and(|rest| rest.starts_with('/'))
        };
        if !upper.iter().any(below) {
            upper.push(path);
        }
    }
    upper
}

/// A name for a file's knob that no other has: the last part of its path, or more of it.
fn name(path: &str, taken: &BTreeSet<String>) -> String {
    let parts: Vec<_> = path.split('/').filter(|part| !part.is_empty()).collect();
    for count in 1..=parts.len() {
        let name = parts[parts.len() - count..].join("-");
        if !taken.contains(&name) {
            return name;
        }
    }
    path.to_owned()
}

/// As TOML writes a string.
fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

impl Seen {
    /// The text of a target file that runs as it is.
    pub fn text(&self) -> String {
        // Writing to a String can't fail.
        let mut text = String::new();
        let module = &self.module;
        let _ = writeln!(
            text,
            "# {module}: written by `knobrig target new` after it had loaded the module on Linux {} and\n\
             # looked at what came with it. It runs as it is: `knobrig run --target {module}.toml`.\n\
             # What you know of the driver and the rig does not makes it better; docs/targets.md has every key.\n\
             version = 1\nname = {}\nabout = {}\n",
            self.kernel,
            quoted(module),
            quoted(&format!("the files of {module} against its unload")),
        );
        for (at, device) in self.devices.iter().enumerate() {
            let _ = writeln!(
                text,
                "[[device]]\nid = \"dev{at}\"\ndevice = {}\n",
                quoted(device)
            );
        }
        let _ = writeln!(
            text,
            "[[module]]\nname = {}\n{}",
            quoted(module),
            self.source
        );
        if !self.params.is_empty() {
            let _ = writeln!(text, "params = {}", quoted(&self.params));
        }
        for (name, about) in &self.known_params {
            let about = about.lines().next().unwrap_or_default();
            let _ = writeln!(text, "# It takes {name}: {about}");
        }
        text.push('\n');
        let names = self.knobs(&mut text);
        self.teardowns(&mut text);
        self.rules(&mut text);
        let pins: Vec<_> = (self.files.iter().zip(&names))
            .filter(|(file, name)| file.pins && !name.is_empty())
            .map(|(_, name)| quoted(name))
            .collect();
        let _ = writeln!(
            text,
            "[[lifetime]]\nname = \"seen\"\nabout = \"as it was seen: who opens what is in `pins` keeps the module\"\n\
             pins = [{}]\n# Threads that are inside may keep it for a moment, too.\nrefuses = true",
            pins.join(", ")
        );
        text
    }

    /// The knobs; gives the name of each file, none for one that is no knob.
    fn knobs(&self, text: &mut String) -> Vec<String> {
        let mut taken = BTreeSet::new();
        let mut names = Vec::new();
        let mut any = false;
        for file in &self.files {
            if file.failed.is_some() || (file.read.is_none() && !file.writable) {
                let why = file
                    .failed
                    .as_deref()
                    .unwrap_or("it can be neither read nor written");
                let _ = writeln!(text, "# {}: left out, {why}\n", file.path);
                names.push(String::new());
                continue;
            }
            let name = name(&file.path, &taken);
            let mut knob = format!(
                "[[knob]]\nname = {}\npath = {}\n",
                quoted(&name),
                quoted(&file.path)
            );
            if let Some(read) = &file.read {
                let _ = writeln!(knob, "read = {}", read.len().clamp(64, 4096));
            }
            match (&file.read, file.writable) {
                // What it said itself can't be very wrong.
                (Some(read), true) if is_small_text(read) => {
                    let _ = writeln!(
                        knob,
                        "# What it gave when it was read; give it more to choose from: [\"0\", \"1\"].\nwrite = {}",
                        quoted(read)
                    );
                    let _ = writeln!(knob, "fine = [\"EINVAL\", \"EBUSY\", \"EPERM\", \"EIO\"]");
                }
                (Some(_), true) => {
                    knob.push_str("# It can be written, too: write = \"…\"\n");
                }
                (None, true) => {
                    knob.push_str(
                        "# It can only be written; nobody knows what. An empty line is what most refuse.\n\
                         write = \"\\n\"\nfine = [\"EINVAL\", \"EBUSY\", \"EPERM\", \"EIO\", \"ENOENT\", \"ENXIO\"]\n",
                    );
                }
                (_, false) => {}
            }
            let _ = writeln!(text, "{knob}");
            taken.insert(name.clone());
            names.push(name);
            any = true;
        }
        if !any {
            let _ = writeln!(
                text,
                "# No file came with the module: its own in /sys/module is what there is to read.\n\
                 [[knob]]\nname = \"initstate\"\npath = \"/sys/module/{}/initstate\"\nread = 64\n",
                self.module
            );
        }
        names
    }

    fn teardowns(&self, text: &mut String) {
        let _ = writeln!(
            text,
            "[[teardown]]\nname = \"rmmod\"\nmodule = {}\n",
            quoted(&self.module)
        );
        let mut any = false;
        for (driver, bound) in &self.drivers {
            for device in bound {
                any = true;
                let _ = writeln!(
                    text,
                    "[[teardown]]\nname = {}\nkind = \"unbind\"\ndriver = {}\ndevice = {}\n\
                     # Somebody may be inside, or the device be gone for another reason.\n\
                     fine = [\"ENODEV\", \"EBUSY\"]\n",
                    quoted(&format!("unbind-{device}")),
                    quoted(driver),
                    quoted(device)
                );
            }
        }
        for at in 0..self.devices.len() {
            any = true;
            let _ = writeln!(
                text,
                "[[teardown]]\nname = \"unplug-dev{at}\"\nkind = \"unplug\"\nid = \"dev{at}\"\ndeadline_ms = 20000\n"
            );
        }
        let share = if any { 50 } else { 20 };
        let _ = writeln!(
            text,
            "# Tight loops of ops; the rest of the episodes makes them collide with rmmod.\n\
             [loops]\nthreads = 4\nms = 200\nshare = {share}\n"
        );
    }

    fn rules(&self, text: &mut String) {
        let gone: Vec<_> = self.gone.iter().map(|path| quoted(path)).collect();
        let _ = writeln!(text, "[rules]");
        match self.count.as_deref() {
            Some("0") => {}
            Some(count) => {
                let _ = writeln!(
                    text,
                    "# Its count was {count} with nothing of it open: something holds it."
                );
            }
            None => text.push_str("# Its count can't be read: this kernel unloads no modules.\n"),
        }
        let _ = writeln!(
            text,
            "# There while it is up, gone after it.\ngone = [{}]\n\
             lacks = [{{ path = \"/proc/modules\", text = {} }}]\n",
            gone.join(", "),
            quoted(&self.module)
        );
    }
}

/// Text of a line that can be written back.
fn is_small_text(text: &str) -> bool {
    let text = text.trim_end_matches('\n');
    !text.is_empty()
        && text.len() <= 64
        && text.chars().all(|one| one.is_ascii_graphic() || one == ' ')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen() -> Seen {
        Seen {
            module: "mine".into(),
            source: "path = \"mine.ko\"".into(),
            known_params: vec![("level".into(), "how loud (int)".into())],
            devices: vec!["virtio-rng-pci".into()],
            files: vec![
                File {
                    path: "/sys/devices/mine/level".into(),
                    read: Some("3\n".into()),
                    writable: true,
                    ..File::default()
                },
                File {
                    path: "/sys/kernel/debug/mine/level".into(),
                    writable: true,
                    ..File::default()
                },
                File {
                    path: "/dev/mine".into(),
                    read: Some(String::new()),
                    pins: true,
                    ..File::default()
                },
                File {
                    path: "/dev/shut".into(),
                    failed: Some("open gives -ENXIO".into()),
                    ..File::default()
                },
            ],
            gone: vec!["/sys/devices/mine".into()],
            drivers: vec![(
                "/sys/bus/pci/drivers/mine".into(),
                vec!["0000:00:05.0".into()],
            )],
            count: Some("0".into()),
            kernel: "6.1.0".into(),
            ..Seen::default()
        }
    }

    #[test]
    fn a_draft_is_a_target_and_says_what_it_left_out() {
        let text = seen().text();
        let target = super::super::read::parse(&text, "mine.toml", "".as_ref())
            .unwrap_or_else(|error| panic!("{error}\n{text}"));
        let names: Vec<_> = target.knobs.iter().map(|knob| knob.name.as_str()).collect();
        assert_eq!(names, ["level", "mine-level", "mine"]);
        assert_eq!(target.lifetimes[0].pins, ["mine"]);
        assert_eq!(target.teardown.others.len(), 2);
        assert!(
            text.contains("# /dev/shut: left out, open gives -ENXIO"),
            "{text}"
        );
        assert!(text.contains("# It takes level: how loud (int)"), "{text}");
    }

    #[test]
    fn a_module_without_files_still_has_something_to_read() {
        let empty = Seen {
            module: "m".into(),
            source: "kernel = true".into(),
            ..Seen::default()
        };
        let text = empty.text();
        let target = super::super::read::parse(&text, "m.toml", "".as_ref());
        assert_eq!(
            target
                .unwrap_or_else(|error| panic!("{error}\n{text}"))
                .knobs
                .len(),
            1
        );
    }

    #[test]
    fn what_is_new_and_what_is_uppermost_of_it() {
        let before = "d 755 /sys/a\nf 644 /sys/a/x\n";
        let after =
            "d 755 /sys/a\nf 644 /sys/a/x\nd 755 /sys/a/b\nf 600 /sys/a/b/y\nd 755 /sys/a/bc\n";
        let new = news(before, after);
        assert_eq!(new[1], ('f', 0o600, "/sys/a/b/y"));
        assert_eq!(
            uppermost(new.into_iter().map(|it| it.2)),
            ["/sys/a/b", "/sys/a/bc"]
        );
    }

    #[test]
    fn what_everybody_has_is_no_knob() {
        for (kind, path, is) in [
            ('f', "/sys/devices/x/level", true),
            ('c', "/dev/x", true),
            ('f', "/sys/devices/x/uevent", false),
            ('f', "/sys/devices/x/power/control", false),
            ('f', "/sys/module/x/refcnt", false),
            ('f', "/sys/devices/x/msi_irqs/26", false),
            ('l', "/sys/class/x/x0", false),
        ] {
            assert_eq!(is_knob(kind, path), is, "{path}");
        }
    }
}
