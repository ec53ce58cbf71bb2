//! Ways in which a device goes and comes back, in real guests: each does what it says, and the
//! driver is back after it.

use super::place::Place;
use serde_json::Value;

/// Episodes of a target whose loops have this teardown in each of them.
fn rounds(include: &str, teardown: &str, episodes: u64) {
    rounds_with(include, "", teardown, episodes);
}

/// As [`rounds`], with other tables before the teardown.
fn rounds_with(include: &str, tables: &str, teardown: &str, episodes: u64) {
    let place = Place::new();
    let piece = format!("{}/targets/{include}.toml", env!("CARGO_MANIFEST_DIR"));
    let text = format!(
        "version = 1\ninclude = [\"{piece}\"]\nname = \"mine\"\n\n{tables}\n[[teardown]]\nname = \"rmmod\"\n\
         module = \"{include}\"\n\n[[teardown]]\nname = \"way\"\n{teardown}\ndeadline_ms = 60000\n\n\
         [loops]\nthreads = 2\nrounds = 1\nteardowns = 100\nshare = 100\n"
    );
    let path = place.path().join("mine.toml");
    std::fs::write(&path, text).expect("writes");
    let path = path.display().to_string();
    let count = episodes.to_string();
    let mut run = place.run(&["--target", &path, "--episodes", &count, "--seed", "1"]);
    let output = run.output().expect("knobrig runs");
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(0), "{told}");
    let summary = place.json("summary.json");
    let held = |rule: &str| summary["rules"][rule].as_u64().unwrap_or(0);
    assert_eq!(summary["device_deaths"], Value::from(0), "{summary}");
    assert!(held("comes-back") >= episodes, "{summary}");
    assert_eq!(summary["guests"], Value::from(1), "{summary}");
    place.assert_nothing_left();
}

#[test]
fn a_device_is_unplugged_and_plugged_in() {
    let gone = "gone = [\"/sys/bus/pci/devices/0000:00:1f.0\", \"/sys/class/block/vda\"]";
    rounds(
        "virtio_blk",
        &format!("kind = \"unplug\"\nid = \"dk\"\n{gone}"),
        4,
    );
}

#[test]
fn a_device_is_removed_and_found_again() {
    let gone = "gone = [\"/sys/bus/pci/devices/0000:00:1f.0\", \"/sys/class/block/vda\"]";
    let device = "device = \"/sys/bus/pci/devices/0000:00:1f.0\"";
    rounds(
        "virtio_blk",
        &format!("kind = \"remove\"\n{device}\n{gone}"),
        4,
    );
}

#[test]
fn a_device_dies_and_another_takes_its_place() {
    // A read of the disk needs the device: it is back when the read is.
    let up = "up = [{ step = \"read-file\", path = \"/sys/class/block/vda/serial\" }]";
    rounds("virtio_blk", &format!("kind = \"death\"\n{up}"), 4);
}

#[test]
fn a_device_is_reset_under_its_driver() {
    // Alone behind a bridge, whose reset is the device's own: conventional PCI has no other.
    let up = "up = [{ step = \"read-file\", path = \"/sys/class/misc/hw_random/rng_current\" }]";
    let device = "[[device]]\nid = \"behind\"\ndevice = \"virtio-rng-pci,bus=bridge,addr=1.0\"\n\
                  options = [\"-device\", \"pci-bridge,id=bridge,chassis_nr=1,addr=1d.0\"]";
    let way = "kind = \"reset\"\ndevice = \"/sys/bus/pci/devices/0000:01:01.0\"";
    rounds_with("virtio_rng", device, &format!("{way}\n{up}"), 4);
}
