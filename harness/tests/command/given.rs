//! A kernel that somebody else built: the rig's own serves as one, of which nothing is known but what
//! is given.

use std::path::Path;

use knobrig_images::{Cache, Kernel, KernelRequest, Variant, find_kernel};

use super::place::Place;

/// The kernel that the other tests run, for which it was built.
fn built() -> Kernel {
    let cache = Cache::open(None).expect("the cache");
    let request = KernelRequest::pinned(Variant::Kasan);
    let found = find_kernel(&cache, &request).expect("the cache can be read");
    found.expect("`knobrig test` builds the kernel first")
}

fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

#[test]
fn a_driver_runs_on_a_kernel_that_was_given() {
    let kernel = built();
    let modules = kernel.modules["virtio_blk"].parent().expect("a directory");
    let config = kernel.build.join(".config");
    let place = Place::new();
    let mut run = place.run(&["--target", "virtio_blk", "--episodes", "10", "--seed", "1"]);
    run.args(["--kernel", text(&kernel.boot), "--modules", text(modules)]);
    run.args(["--kernel-config", text(&config)]);
    let output = run.output().expect("knobrig runs");
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(0), "{told}");
    let manifest = place.json("manifest.json");
    assert_eq!(manifest["kernel"]["release"], *kernel.release, "{manifest}");
    assert_ne!(manifest["kernel"]["id"], *kernel.id, "{manifest}");
    place.assert_nothing_left();
}

#[test]
fn a_kernel_that_lacks_what_the_rig_needs_is_refused_by_name() {
    let kernel = built();
    let place = Place::new();
    let config = std::fs::read_to_string(kernel.build.join(".config")).expect("reads");
    let poor = place.path().join("config");
    let without = config.replace(
        "CONFIG_VIRTIO_CONSOLE=y",
        "# CONFIG_VIRTIO_CONSOLE is not set",
    );
    assert_ne!(config, without);
    std::fs::write(&poor, without).expect("writes");
    let mut check = place.knobrig();
    check.args(["image", "check", text(&kernel.boot)]);
    check.args(["--kernel-config", text(&poor)]);
    let output = check.output().expect("knobrig runs");
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(3), "{told}");
    assert!(told.contains("CONFIG_VIRTIO_CONSOLE"), "{told}");
}
