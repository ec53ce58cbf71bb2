//! `knobrig target` without a guest: what ships, what is shown, what is wrong with a file.

use super::place::Place;

fn target(place: &Place, arguments: &[&str]) -> (Option<i32>, String, String) {
    let mut command = place.knobrig();
    command.arg("target").args(arguments);
    let output = command.output().expect("knobrig runs");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (
        output.status.code(),
        text(&output.stdout),
        text(&output.stderr),
    )
}

#[test]
fn every_target_that_ships_is_listed_shown_and_right() {
    let place = Place::new();
    let (code, list, _) = target(&place, &["list"]);
    assert_eq!(code, Some(0));
    for line in list.lines() {
        let name = line.split_whitespace().next().expect("a name");
        let (code, shown, _) = target(&place, &["show", name]);
        assert_eq!(code, Some(0), "{name}");
        assert!(
            shown.starts_with(&format!("# {name}")),
            "{name} has a header"
        );
        let (code, told, stderr) = target(&place, &["check", name]);
        assert_eq!(code, Some(0), "{stderr}");
        assert!(told.contains("teardowns"), "{told}");
    }
    for name in [
        "virtio_rng",
        "null_blk",
        "pci_override",
        "virtio_blk",
        "mydrv",
    ] {
        assert!(list.contains(name), "{list}");
    }
}

#[test]
fn a_mistake_is_told_with_its_place_and_a_hint() {
    let place = Place::new();
    let (_, shown, _) = target(&place, &["show", "virtio_rng"]);
    let path = place.path().join("mine.toml");
    for (from, to, told) in [
        (
            "kind = \"unbind\"",
            "kind = \"unbnd\"",
            "did you mean `unbind`?",
        ),
        (
            "id = \"rng0\"\ngone",
            "id = \"rng1\"\ngone",
            "no [[device]] rng1",
        ),
        ("\"EAGAIN\"", "\"EAGIAN\"", "did you mean EAGAIN?"),
        (
            "plain = [\"unbind\"",
            "plain = [\"unbnd\"",
            "did you mean unbind?",
        ),
        ("rests = 95", "rests = 101", "rests is of a hundred"),
    ] {
        assert!(shown.contains(from), "{from}");
        std::fs::write(&path, shown.replacen(from, to, 1)).expect("writes");
        let (code, _, stderr) = target(&place, &["check", &path.display().to_string()]);
        assert_eq!(code, Some(2), "{stderr}");
        assert!(
            stderr.contains(told) && stderr.contains("line "),
            "{stderr}"
        );
    }
}

#[test]
fn a_name_that_is_nearly_one_is_told() {
    let (code, _, stderr) = target(&Place::new(), &["check", "virtio_rgn"]);
    assert_eq!(code, Some(2));
    assert!(stderr.contains("did you mean virtio_rng?"), "{stderr}");
}

#[test]
fn the_samples_are_right() {
    let place = Place::new();
    for sample in ["c_knob", "rust_knob"] {
        let path = format!(
            "{}/../guest-driver/samples/{sample}/{sample}.toml",
            env!("CARGO_MANIFEST_DIR")
        );
        let (code, told, stderr) = target(&place, &["check", &path]);
        assert_eq!(code, Some(0), "{told}{stderr}");
    }
}
