//! Modules that can't be used: each told in a line, with the console's words and the right exit
//! code. And such that take the guest along, of which nobody but the guest tells. Small modules in C,
//! built by the run itself.

use super::place::Place;

/// Runs a few episodes of a module whose source is `code`; `rules` goes into the target file.
fn run(place: &Place, name: &str, code: &str, rules: &str) -> (Option<i32>, String, String) {
    run_until(place, name, code, rules, &["--episodes", "2"])
}

/// As [`run`], for as long as the arguments say.
fn run_until(
    place: &Place,
    name: &str,
    code: &str,
    rules: &str,
    until: &[&str],
) -> (Option<i32>, String, String) {
    let dir = place.path().join(name);
    std::fs::create_dir(&dir).expect("a directory");
    let write = |file: &str, text: &str| std::fs::write(dir.join(file), text).expect("writes");
    write("Kbuild", &format!("obj-m := {name}.o\n"));
    let code = format!("#include <linux/module.h>\n{code}\nMODULE_DESCRIPTION(\"a test\");\n");
    write(&format!("{name}.c"), &code);
    let target = format!(
        "version = 1\nname = \"{name}\"\nabout = \"a test\"\n[[module]]\nname = \"{name}\"\n\
         build = \".\"\n[[knob]]\nname = \"count\"\npath = \"/sys/module/{name}/refcnt\"\n\
         read = 16\n[teardown]\nname = \"rmmod\"\nmodule = \"{name}\"\n{rules}\n"
    );
    write("t.toml", &target);
    let file = dir.join("t.toml").display().to_string();
    let mut command = place.run(&[&["--target", &file, "--seed", "1"], until].concat());
    let output = command.output().expect("knobrig runs");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (code, stdout) = (output.status.code(), text(&output.stdout));
    (code, stdout, text(&output.stderr))
}

/// What comes before a line with the console's words.
fn with_words(stderr: &str, line: &str, words: &str) {
    assert!(stderr.contains(line), "{line}: {stderr}");
    let after = stderr.split_once(line).map_or("", |it| it.1);
    assert!(after.contains("the console says:"), "{stderr}");
    assert!(after.contains(words), "{words}: {stderr}");
}

#[test]
fn one_that_does_not_load() {
    let place = Place::new();
    let code = "static int __init begin(void)\n{\n\tpr_err(\"no device of mine\\n\");\n\
                \treturn -ENODEV;\n}\nmodule_init(begin);\nMODULE_LICENSE(\"GPL\");";
    let (code, stdout, stderr) = run(&place, "noload", code, "");
    assert_eq!(code, Some(2), "{stdout}{stderr}");
    let line = "module noload does not load: -ENODEV (its init found no device)";
    with_words(&stderr, line, "no device of mine");
    place.assert_nothing_left();
}

#[test]
fn one_that_oopses_at_load() {
    let place = Place::new();
    let code = "static int __init begin(void)\n{\n\t*(volatile int *)8 = 1;\n\treturn 0;\n}\n\
                module_init(begin);\nMODULE_LICENSE(\"GPL\");";
    let (code, stdout, stderr) = run(&place, "oops", code, "");
    assert_eq!(code, Some(10), "{stdout}{stderr}");
    let finding = std::fs::read_to_string(place.out().join("findings/001/report.txt"));
    let finding = finding.expect("a finding");
    assert!(finding.contains("in init_module"), "{finding}");
    assert!(
        stdout.contains("1 finding in 0 episodes of oops"),
        "{stdout}"
    );
    place.assert_nothing_left();
}

#[test]
fn one_that_never_comes_up() {
    let place = Place::new();
    let code = "static int __init begin(void)\n{\n\tpr_info(\"I wait for a device\\n\");\n\
                \treturn 0;\n}\nmodule_init(begin);\nstatic void __exit end(void)\n{\n}\n\
                module_exit(end);\nMODULE_LICENSE(\"GPL\");";
    let (code, stdout, stderr) = run(&place, "never", code, "[rules]\ngone = [\"/dev/never\"]");
    assert_eq!(code, Some(2), "{stdout}{stderr}");
    let line = "module never loads and never comes up: /dev/never is not there after 10 s";
    with_words(&stderr, line, "I wait for a device");
    place.assert_nothing_left();
}

#[test]
fn one_that_can_not_be_removed() {
    let place = Place::new();
    let code = "static int __init begin(void)\n{\n\tpr_info(\"here to stay\\n\");\n\treturn 0;\n}\n\
                module_init(begin);\nMODULE_LICENSE(\"GPL\");";
    let (code, stdout, stderr) = run(&place, "stuck", code, "");
    assert_eq!(code, Some(2), "{stdout}{stderr}");
    let line = "module stuck can't be removed: it has no exit function";
    with_words(&stderr, line, "here to stay");
    place.assert_nothing_left();
}

#[test]
fn one_that_taints_is_told_and_run() {
    let place = Place::new();
    let code = "static int __init begin(void)\n{\n\tadd_taint(TAINT_TEST, LOCKDEP_STILL_OK);\n\
                \treturn 0;\n}\nmodule_init(begin);\nstatic void __exit end(void)\n{\n}\n\
                module_exit(end);\nMODULE_LICENSE(\"Proprietary\");";
    let (code, stdout, stderr) = run(&place, "taints", code, "");
    assert_eq!(code, Some(0), "{stdout}{stderr}");
    let line = "module taints taints the kernel (P: a proprietary module, N: a test of the \
                kernel's own)";
    with_words(&stderr, line, "");
    place.assert_nothing_left();
}

/// Runs a module that, once its parameter was read, goes like this. The guest itself is the finding:
/// its kernel says nothing.
fn goes_without_a_word(name: &str, how: &str, title: &str) {
    let place = Place::new();
    let code = format!(
        "#include <linux/smp.h>\n#include <asm/io.h>\nstatic bool used;\n\
         static int get(char *buf, const struct kernel_param *param)\n{{\n\tused = true;\n\
         \treturn sprintf(buf, \"1\\n\");\n}}\n\
         static const struct kernel_param_ops ops = {{ .get = get }};\n\
         module_param_cb(knob, &ops, NULL, 0444);\n\
         static int __init begin(void)\n{{\n\treturn 0;\n}}\nmodule_init(begin);\n\
         static void go(void *unused)\n{{\n\t{how}\n}}\n\
         static void __exit end(void)\n{{\n\tif (used)\n\
         \t\ton_each_cpu(go, NULL, 1);\n}}\n\
         module_exit(end);\nMODULE_LICENSE(\"GPL\");"
    );
    let knob = format!(
        "[[knob]]\nname = \"knob\"\npath = \"/sys/module/{name}/parameters/knob\"\nread = 16"
    );
    // Not each episode has time to read it.
    let until = ["--episodes", "100", "--fail-fast"];
    let (code, stdout, stderr) = run_until(&place, name, &code, &knob, &until);
    assert_eq!(code, Some(10), "{stdout}{stderr}");
    let finding = place.json("findings/001/finding.json");
    assert_eq!(
        finding["oracles"],
        serde_json::json!(["guest"]),
        "{finding}"
    );
    assert_eq!(finding["title"], title, "{finding}");
    place.assert_nothing_left();
}

#[test]
fn one_that_resets_the_machine() {
    // The chipset's reset register.
    goes_without_a_word("resets", "outb(6, 0xcf9);", "guest reset without a word");
}

#[test]
fn one_that_silences_the_machine() {
    goes_without_a_word(
        "silent",
        "for (;;)\n\t\tasm volatile(\"cli; hlt\");",
        "guest fell silent",
    );
}
