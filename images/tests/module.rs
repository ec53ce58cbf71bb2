//! Modules in plain C, built against the kasan kernel: any driver is a target.
//!
//! `cargo rig test` builds the kernel first; on its own this needs `cargo rig image build`.

use std::path::Path;
use std::sync::Mutex;
use std::time::Duration;

use knobrig_images::{
    Cache, Kernel, KernelRequest, Module, Progress, Variant, ensure_module, find_kernel,
};

/// Keeps what was said.
#[derive(Default)]
struct Said(Mutex<Vec<String>>);

impl Progress for Said {
    fn begin(&self, _: &str, _: Option<Duration>) {}
    fn update(&self, _: f64, _: &str) {}
    fn end(&self) {}
    fn say(&self, line: &str) {
        self.0.lock().expect("not poisoned").push(line.to_owned());
    }
}

impl Said {
    fn text(&self) -> String {
        self.0.lock().expect("not poisoned").join("\n")
    }
}

fn kernel(cache: &Cache) -> Kernel {
    find_kernel(cache, &KernelRequest::pinned(Variant::Kasan))
        .expect("the cache can be read")
        .expect("no kasan kernel: run `cargo rig image build`")
}

/// Writes a module's directory.
fn write(dir: &Path, body: &str) {
    std::fs::write(dir.join("Kbuild"), "obj-m := plain-c.o\n").expect("writes");
    let text = format!(
        "#include <linux/module.h>\n\
         static int __init plain_init(void) {{ {body} return 0; }}\n\
         static void __exit plain_exit(void) {{ }}\n\
         module_init(plain_init);\n\
         module_exit(plain_exit);\n\
         MODULE_LICENSE(\"GPL\");\n\
         MODULE_DESCRIPTION(\"a test\");\n"
    );
    std::fs::write(dir.join("plain-c.c"), text).expect("writes");
}

fn build(dir: &Path, body: &str, said: &Said) -> Result<Module, knobrig_images::Error> {
    let cache = Cache::open(None).expect("opens");
    write(dir, body);
    ensure_module(&cache, &kernel(&cache), dir, said)
}

/// A number that makes the sources ones that no earlier run has built.
fn unseen() -> String {
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .expect("after 1970");
    format!("/* {} */", now.as_nanos())
}

#[test]
fn a_module_in_c_is_built_once() {
    let dir = tempfile::tempdir().expect("a directory");
    let body = format!("pr_info(\"hello\\n\"); {}", unseen());
    let said = Said::default();
    let module = build(dir.path(), &body, &said).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(module.name, "plain_c");
    assert_eq!(said.text(), "");
    let size = |path: &Path| std::fs::metadata(path).expect("is there").len();
    assert!(size(&module.path) < size(&module.debug));
    let made = std::fs::metadata(&module.path).and_then(|found| found.modified());
    let again = build(dir.path(), &body, &said).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(again.id, module.id);
    let still = std::fs::metadata(&again.path).and_then(|found| found.modified());
    assert_eq!(made.expect("a time"), still.expect("a time"));
}

#[test]
fn warnings_are_told() {
    let dir = tempfile::tempdir().expect("a directory");
    let said = Said::default();
    let body = format!("int never_used; {}", unseen());
    build(dir.path(), &body, &said).unwrap_or_else(|error| panic!("{error}"));
    assert!(said.text().contains("never_used"), "{}", said.text());
}

#[test]
fn an_error_names_the_line() {
    let dir = tempfile::tempdir().expect("a directory");
    let error = build(dir.path(), "return no_such_thing;", &Said::default()).expect_err("fails");
    let text = error.to_string();
    assert!(text.contains("plain-c.c:2:"), "{text}");
    assert!(text.contains("no_such_thing"), "{text}");
}

#[test]
fn a_directory_without_a_kbuild_file_is_refused() {
    let dir = tempfile::tempdir().expect("a directory");
    let cache = Cache::open(None).expect("opens");
    let refused = ensure_module(&cache, &kernel(&cache), dir.path(), &Said::default());
    let text = refused.expect_err("no module").to_string();
    assert!(text.contains("no Kbuild"), "{text}");
}

#[test]
fn the_kernel_brings_virtio_blk() {
    let cache = Cache::open(None).expect("opens");
    assert!(kernel(&cache).modules["virtio_blk"].is_file());
}
