//! The ways in which a driver ends, and how it comes back from each.

use std::fmt;

use knobrig_proto::Step;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::de::{self, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use super::errno::errnos;

/// What ends the driver: the unload of a module, and other ways beside it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Teardown {
    /// What reports call the unload.
    pub name: String,
    /// The module that goes.
    pub module: String,
    /// The other ways.
    pub others: Vec<Way>,
}

impl Teardown {
    /// Whether a device comes and goes by QEMU's doing.
    pub fn hotplugs(&self) -> bool {
        self.others.iter().any(|way| way.kind == Kind::Unplug)
    }
}

/// A way in which a driver ends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Way {
    /// What reports call it.
    pub name: String,
    /// How it is done. Absent: an unload.
    #[serde(default)]
    pub kind: Kind,
    /// `rmmod`: the module that goes.
    #[serde(default)]
    pub module: Option<String>,
    /// `unbind`: the driver's directory in sysfs. `driver-override`: the driver's name.
    #[serde(default)]
    pub driver: Option<String>,
    /// `unbind`: the device's name on its bus. Others: its directory in sysfs. May be a pattern.
    #[serde(default)]
    pub device: Option<String>,
    /// `rmdir`: the directory; `write`: the file.
    #[serde(default)]
    pub path: Option<String>,
    /// `write`: what is written.
    #[serde(default)]
    pub data: Option<String>,
    /// `unplug`: the id of a `[[device]]`, or `dk` for the rig's own.
    #[serde(default)]
    pub id: Option<String>,
    /// `steps`: what ends it.
    #[serde(default)]
    pub down: Vec<Step>,
    /// What brings it back beside, or in place of, what the kind does.
    #[serde(default)]
    pub up: Vec<Step>,
    /// Paths that are gone while it is down.
    #[serde(default)]
    pub gone: Vec<String>,
    /// Errors that it may give, by name: somebody else may have been first.
    #[serde(default)]
    pub fine: Vec<String>,
    /// How long it may take, down and up.
    #[serde(default = "Way::deadline_ms")]
    pub deadline_ms: u64,
    /// How often it goes down and up in an episode, where that is not what `loops` says.
    #[serde(default)]
    pub rounds: Option<usize>,
    /// How often it is chosen, against the others.
    #[serde(default = "Way::weight")]
    pub weight: u32,
}

/// How a driver ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// `delete_module`; back by a load.
    #[default]
    Rmmod,
    /// The driver's `unbind`; back by its `bind`.
    Unbind,
    /// The device's `driver_override` names nobody, and the driver is unbound; back by
    /// `driver_override` and `drivers_probe`.
    DriverOverride,
    /// The device's `remove`; back by the PCI bus's `rescan`.
    Remove,
    /// A write to an attribute that deletes; back by `up`.
    Write,
    /// `rmdir` (configfs); back by `mkdir` and `up`.
    Rmdir,
    /// QEMU's `device_del`; back by `device_add`.
    Unplug,
    /// The device's `reset`; nothing is gone.
    Reset,
    /// The program behind the rig's own device is killed, and with it what it was asked; back by a
    /// new one.
    Death,
    /// `down`; back by `up`.
    Steps,
}

/// What a way does, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Act {
    /// A step in the guest.
    Step(Step),
    /// QEMU unplugs the device of this id.
    Unplug(String),
    /// QEMU plugs it in again.
    Plug(String),
    /// The program behind the rig's own device is killed.
    Kill,
    /// Another one takes its place.
    Revive,
}

impl Way {
    fn deadline_ms() -> u64 {
        5_000
    }

    fn weight() -> u32 {
        1
    }

    /// The errors that it may give.
    pub fn fine(&self) -> Vec<i64> {
        errnos(&self.fine)
    }

    /// What ends the driver.
    ///
    /// # Errors
    /// The key that this kind needs and that is not there.
    pub fn downs(&self) -> Result<Vec<Act>, &'static str> {
        let write = |path: String, data: &str| {
            Act::Step(Step::WriteFile {
                path,
                data: data.to_owned(),
            })
        };
        let mut acts = match self.kind {
            Kind::Rmmod => {
                let module = self.module.as_ref().ok_or("module")?;
                vec![Act::Step(Step::unload(module))]
            }
            Kind::Unbind => {
                let driver = self.driver.as_ref().ok_or("driver")?;
                let device = self.device.as_ref().ok_or("device")?;
                vec![write(format!("{driver}/unbind"), device)]
            }
            Kind::DriverOverride => {
                let device = self.device.as_ref().ok_or("device")?;
                self.driver.as_ref().ok_or("driver")?;
                vec![
                    write(format!("{device}/driver_override"), "nobody"),
                    write(format!("{device}/driver/unbind"), name(device)),
                ]
            }
            Kind::Remove => {
                let device = self.device.as_ref().ok_or("device")?;
                vec![write(format!("{device}/remove"), "1")]
            }
            Kind::Write => {
                let path = self.path.clone().ok_or("path")?;
                vec![write(path, self.data.as_ref().ok_or("data")?)]
            }
            Kind::Rmdir => vec![Act::Step(Step::Rmdir {
                path: self.path.clone().ok_or("path")?,
            })],
            Kind::Unplug => vec![Act::Unplug(self.id.clone().ok_or("id")?)],
            Kind::Reset => {
                let device = self.device.as_ref().ok_or("device")?;
                vec![write(format!("{device}/reset"), "1")]
            }
            Kind::Death => vec![Act::Kill],
            Kind::Steps => Vec::new(),
        };
        acts.extend(self.down.iter().cloned().map(Act::Step));
        if acts.is_empty() {
            return Err("down");
        }
        acts.extend(self.waits(&self.gone, false));
        Ok(acts)
    }

    /// What brings it back.
    pub fn ups(&self) -> Vec<Act> {
        let write = |path: String, data: &str| {
            Act::Step(Step::WriteFile {
                path,
                data: data.to_owned(),
            })
        };
        let text = |value: &Option<String>| value.clone().unwrap_or_default();
        let mut acts = match self.kind {
            Kind::Unbind => vec![write(
                format!("{}/bind", text(&self.driver)),
                &text(&self.device),
            )],
            Kind::DriverOverride => {
                let device = text(&self.device);
                let bus = "/sys/bus/pci/drivers_probe".to_owned();
                vec![
                    write(format!("{device}/driver_override"), &text(&self.driver)),
                    write(bus, name(&device)),
                ]
            }
            Kind::Remove => vec![write("/sys/bus/pci/rescan".into(), "1")],
            Kind::Rmdir => vec![Act::Step(Step::Mkdir {
                path: text(&self.path),
            })],
            Kind::Unplug => vec![Act::Plug(text(&self.id))],
            Kind::Death => vec![Act::Revive],
            Kind::Rmmod | Kind::Write | Kind::Reset | Kind::Steps => Vec::new(),
        };
        acts.extend(self.up.iter().cloned().map(Act::Step));
        acts.extend(self.waits(&self.gone, true));
        acts
    }

    /// Waits until these paths are there, or gone.
    fn waits(&self, paths: &[String], present: bool) -> Vec<Act> {
        let wait = |path: &String| {
            Act::Step(Step::WaitPath {
                path: path.clone(),
                present,
                deadline_ms: self.deadline_ms,
            })
        };
        paths.iter().map(wait).collect()
    }
}

/// The last part of a path: a device's name on its bus.
fn name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

impl Teardown {
    fn new(ways: Vec<Way>) -> Result<Self, String> {
        let unload = |way: &Way| way.kind == Kind::Rmmod;
        let Some(at) = ways.iter().position(unload) else {
            return Err(
                "no [[teardown]] of kind rmmod: an episode begins with a load and ends with an \
                 unload; say which module goes"
                    .to_owned(),
            );
        };
        let mut others = ways;
        let rmmod = others.remove(at);
        let module = rmmod
            .module
            .clone()
            .ok_or_else(|| format!("teardown {}: kind rmmod needs the key `module`", rmmod.name))?;
        if let Some(second) = others.iter().find(|way| unload(way)) {
            return Err(format!(
                "teardown {}: a second rmmod; modules beside it go with it, in reverse order",
                second.name
            ));
        }
        for way in &others {
            way.downs()
                .map_err(|key| format!("teardown {}: this kind needs the key `{key}`", way.name))?;
        }
        Ok(Self {
            name: rmmod.name,
            module,
            others,
        })
    }
}

/// A table is an unload alone; an array of tables has one unload among other ways. Not an
/// untagged enum, whose errors have no place.
impl<'de> Deserialize<'de> for Teardown {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct OneOrMany;
        impl<'de> Visitor<'de> for OneOrMany {
            type Value = Vec<Way>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("[teardown] or [[teardown]]")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
                let way = Way::deserialize(de::value::MapAccessDeserializer::new(map))?;
                Ok(vec![way])
            }

            fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Self::Value, A::Error> {
                Vec::deserialize(de::value::SeqAccessDeserializer::new(seq))
            }
        }
        let ways = from.deserialize_any(OneOrMany)?;
        Self::new(ways).map_err(de::Error::custom)
    }
}

impl JsonSchema for Teardown {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Teardown".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let way = generator.subschema_for::<Way>();
        schemars::json_schema!({
            "description": "What ends the driver: one table for an unload, or an array of tables \
                            with one `rmmod` among other ways.",
            "anyOf": [way, { "type": "array", "items": way }]
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Teardown, String> {
        #[derive(Deserialize)]
        struct File {
            teardown: Teardown,
        }
        toml::from_str::<File>(text)
            .map(|file| file.teardown)
            .map_err(|error| error.to_string())
    }

    #[test]
    fn a_table_is_an_unload_and_an_array_has_other_ways() {
        let one = read("[teardown]\nname = \"rmmod\"\nmodule = \"m\"\n").expect("reads");
        assert_eq!((one.module.as_str(), one.others.len()), ("m", 0));
        let text = "[[teardown]]\nname = \"unbind\"\nkind = \"unbind\"\ndriver = \"/sys/d\"\n\
                    device = \"x\"\n[[teardown]]\nname = \"rmmod\"\nmodule = \"m\"\n";
        let many = read(text).expect("reads");
        let down = many.others[0].downs().expect("has its keys");
        let path = "/sys/d/unbind".into();
        let data = "x".into();
        assert_eq!(down, [Act::Step(Step::WriteFile { path, data })]);
    }

    #[test]
    fn what_a_kind_needs_is_told() {
        for (text, wanted) in [
            ("name = \"a\"\nkind = \"unplug\"\n", "needs the key `id`"),
            (
                "name = \"a\"\nkind = \"unbind\"\n",
                "needs the key `driver`",
            ),
            ("name = \"a\"\nkind = \"rmdir\"\n", "needs the key `path`"),
            ("name = \"a\"\nkind = \"steps\"\n", "needs the key `down`"),
            ("name = \"a\"\nkind = \"nonsense\"\n", "unknown variant"),
            ("name = \"a\"\n", "needs the key `module`"),
        ] {
            let rmmod = "[[teardown]]\nname = \"rmmod\"\nmodule = \"m\"\n";
            let text = match text.contains("kind") {
                true => format!("{rmmod}[[teardown]]\n{text}"),
                false => format!("[[teardown]]\n{text}"),
            };
            let error = read(&text).expect_err(wanted);
            assert!(error.contains(wanted) && error.contains("line"), "{error}");
        }
        let error = read("[[teardown]]\nname = \"r\"\nkind = \"reset\"\ndevice = \"/d\"\n");
        assert!(error.expect_err("no rmmod").contains("kind rmmod"));
    }
}
