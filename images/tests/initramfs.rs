//! The initramfs, read back by a reader of the format.

use std::collections::BTreeMap;
use std::io::Read;

use knobrig_images::{Cache, initramfs};

/// An entry's mode, device number and content.
type Found = (u32, (u32, u32), Vec<u8>);

/// The entries by name.
fn read(mut bytes: &[u8]) -> BTreeMap<String, Found> {
    let mut entries = BTreeMap::new();
    loop {
        let mut reader = cpio::NewcReader::new(bytes).expect("an entry");
        let entry = reader.entry();
        if entry.is_trailer() {
            return entries;
        }
        let (name, mode) = (entry.name().to_owned(), entry.mode());
        let device = (entry.rdev_major(), entry.rdev_minor());
        let mut content = Vec::new();
        reader.read_to_end(&mut content).expect("its content");
        bytes = reader.finish().expect("its end");
        entries.insert(name, (mode, device, content));
    }
}

#[test]
fn it_holds_the_agent_the_modules_and_a_console() {
    let dir = tempfile::tempdir().expect("a directory");
    let cache = Cache::open(Some(dir.path())).expect("opens");
    let (agent, module) = (dir.path().join("agent"), dir.path().join("m.ko"));
    std::fs::write(&agent, "agent").expect("writes");
    std::fs::write(&module, "module").expect("writes");
    let modules = [("a_driver".to_owned(), module.clone())];
    let path = initramfs(&cache, &agent, &modules, &["a_driver".to_owned()]).expect("makes it");

    let entries = read(&std::fs::read(&path).expect("reads"));
    assert_eq!(entries["init"], (0o100_755, (0, 0), b"agent".to_vec()));
    let driver = &entries["modules/a_driver.ko"];
    assert_eq!(*driver, (0o100_644, (0, 0), b"module".to_vec()));
    assert_eq!(entries["modules/first"].2, b"a_driver\n");
    assert_eq!(entries["dev/console"], (0o020_600, (5, 1), Vec::new()));
    for name in ["dev", "proc", "sys", "modules"] {
        assert_eq!(entries[name].0, 0o040_755, "{name}");
    }
}

#[test]
fn it_is_named_by_its_content() {
    let dir = tempfile::tempdir().expect("a directory");
    let cache = Cache::open(Some(dir.path())).expect("opens");
    let agent = dir.path().join("agent");
    std::fs::write(&agent, "one").expect("writes");
    let one = initramfs(&cache, &agent, &[], &[]).expect("makes it");
    assert_eq!(one, initramfs(&cache, &agent, &[], &[]).expect("finds it"));
    std::fs::write(&agent, "two").expect("writes");
    assert_ne!(
        one,
        initramfs(&cache, &agent, &[], &[]).expect("makes another")
    );
}
