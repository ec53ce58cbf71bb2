//! Lines for frames, from files that a real compiler made: a linked program and a relocatable
//! object, which is what a module's file is.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use knobrig::symbols::{Files, Image, ModuleSymbols, Symbolizer};
use knobrig_klog::{Reader, Report, Symbols};
use object::{Object, ObjectSection, ObjectSymbol};

/// Line 3 is inlined into line 8's function.
const SOURCE: &str = "\
volatile int sink;
static inline __attribute__((always_inline)) int touch(int *p)
{ return *p + sink; }
__attribute__((noinline)) int other(int *p)
{ sink = 1;
  return *p; }
int dk0_show(int *p)
{ int a = touch(p);
  a += other(p);
  return a * 3; }
int _start(int *p) { return dk0_show(p); }
";

/// Compiles the source; `None`, and said so, where there is no compiler.
fn compile(dir: &Path, name: &str, how: &[&str]) -> Option<PathBuf> {
    let source = dir.join("dk.c");
    std::fs::write(&source, SOURCE).expect("writes");
    let out = dir.join(name);
    let done = Command::new("cc")
        .current_dir(dir)
        .args(["-O1", "-g", "-fno-pie", "-fno-stack-protector", "-o", name])
        .args(how)
        .arg("dk.c")
        .status();
    match done {
        Ok(status) if status.success() => Some(out),
        _ => {
            println!("skipped: no C compiler");
            None
        }
    }
}

/// A function of a file: where it starts in its section, and its size.
fn function(path: &Path, name: &str) -> (u64, u64) {
    let bytes = std::fs::read(path).expect("reads");
    let file = object::File::parse(&*bytes).expect("ELF");
    let symbol = file
        .symbols()
        .find(|it| it.name() == Ok(name))
        .expect("it is there");
    (symbol.address(), symbol.size())
}

/// The offset after the first call in a function, as a stack has it.
fn after_call(path: &Path, name: &str) -> u64 {
    let bytes = std::fs::read(path).expect("reads");
    let file = object::File::parse(&*bytes).expect("ELF");
    let symbol = file
        .symbols()
        .find(|it| it.name() == Ok(name))
        .expect("it is there");
    let section = symbol
        .section_index()
        .and_then(|it| file.section_by_index(it).ok());
    let section = section.expect("its section");
    let start = (symbol.address() - section.address()) as usize;
    let code = &section.data().expect("its bytes")[start..start + symbol.size() as usize];
    let call = code.iter().position(|byte| *byte == 0xe8).expect("a call");
    call as u64 + 5
}

fn console(offset: u64, size: u64, module: &str) -> String {
    format!(
        "BUG: KASAN: slab-use-after-free in dk0_show+{offset:#x}/{size:#x}{module}\n\
         Read of size 4 at addr ffff888004a1b000 by task reader/71\n\
         CPU: 1 UID: 0 PID: 71 Comm: reader Tainted: G           O       7.2.0 #1\n\
         Call Trace:\n\
         \x20dk0_show+{offset:#x}/{size:#x}{module}\n\
         \x20dev_attr_show+0x19/0x60\n"
    )
}

fn read(log: &str, files: &Files) -> Report {
    let symbols: Arc<dyn Symbols> = Arc::new(ModuleSymbols::of(files));
    let mut reader = Reader::with_symbols(symbols);
    reader.push(log.as_bytes());
    let mut report = reader.finish().remove(0);
    let mut symbolizer = Symbolizer::new(files.clone());
    symbolizer.symbolize(&mut report);
    assert_eq!(symbolizer.failures(), Vec::<String>::new());
    report
}

fn lines(report: &Report) -> Vec<(String, Option<String>, bool)> {
    (report.stacks[0].frames.iter())
        .map(|it| {
            let file = it
                .file_line
                .as_ref()
                .and_then(|line| line.rsplit('/').next());
            (it.function.clone(), file.map(str::to_owned), it.inlined)
        })
        .collect()
}

#[cfg(target_arch = "x86_64")]
#[test]
fn a_modules_frame_has_its_line_and_what_was_inlined() {
    let dir = tempfile::tempdir().expect("a directory");
    let Some(path) = compile(dir.path(), "my-drv.ko", &["-c"]) else {
        return;
    };
    let files = Files::find(None, &[dir.path().to_path_buf()]).expect("a module is there");
    let (_, size) = function(&path, "dk0_show");
    let offset = after_call(&path, "dk0_show");
    let report = read(&console(offset, size, " [my_drv]"), &files);
    let told = lines(&report);
    assert_eq!(told[0], ("dk0_show".into(), Some("dk.c:9".into()), false));
    assert_eq!(
        told[1],
        ("dev_attr_show".into(), None, false),
        "no kernel was given"
    );
    assert!(report.text.contains("dk0_show+"), "{}", report.text);
    assert!(report.text.contains("/dk.c:9 [my_drv]") || report.text.contains(" dk.c:9 [my_drv]"));
    // The first instruction that is the inlined function's.
    let inlined = (1..size).find_map(|offset| {
        let report = read(&console(offset, size, " [my_drv]"), &files);
        let told = lines(&report);
        (told[0].2).then_some(told)
    });
    let inlined = inlined.expect("an inlined call");
    assert_eq!(inlined[0], ("touch".into(), Some("dk.c:3".into()), true));
    assert_eq!(inlined[1].0, "dk0_show");
    assert_eq!(inlined[1].1.as_deref(), Some("dk.c:8"));
}

#[cfg(target_arch = "x86_64")]
#[test]
fn a_function_of_another_build_has_no_line() {
    let dir = tempfile::tempdir().expect("a directory");
    let Some(path) = compile(dir.path(), "mydrv.ko", &["-c"]) else {
        return;
    };
    let files = Files::find(None, std::slice::from_ref(&path)).expect("it is there");
    let (_, size) = function(&path, "dk0_show");
    let report = read(&console(4, size + 0x100, " [mydrv]"), &files);
    assert!(
        report.stacks[0]
            .frames
            .iter()
            .all(|it| it.file_line.is_none())
    );
    // Nor has an offset behind its end.
    let report = read(&console(size + 0x80, size, " [mydrv]"), &files);
    assert!(
        report.stacks[0]
            .frames
            .iter()
            .all(|it| it.file_line.is_none())
    );
}

#[cfg(target_arch = "x86_64")]
#[test]
fn a_kernels_frame_has_its_line_wherever_the_kernel_was_moved() {
    let dir = tempfile::tempdir().expect("a directory");
    let how = ["-nostdlib", "-static", "-no-pie", "-Wl,-Ttext=0x81000000"];
    let Some(path) = compile(dir.path(), "vmlinux", &how) else {
        return;
    };
    let files = Files::find(Some(&path), &[]).expect("it is there");
    let (_, size) = function(&path, "dk0_show");
    let offset = after_call(&path, "dk0_show");
    let log = console(offset, size, "");
    let log = format!("{log}Kernel Offset: 0x1a000000 from 0xffffffff81000000\n");
    assert_eq!(
        lines(&read(&log, &files))[0],
        ("dk0_show".into(), Some("dk.c:9".into()), false)
    );
}

#[cfg(target_arch = "x86_64")]
#[test]
fn code_of_a_module_that_is_gone_has_name_and_line() {
    let dir = tempfile::tempdir().expect("a directory");
    let Some(path) = compile(dir.path(), "mydrv.ko", &["-c"]) else {
        return;
    };
    let files = Files::find(None, std::slice::from_ref(&path)).expect("it is there");
    let (start, _) = function(&path, "dk0_show");
    let at = 0xffff_ffff_c020_0000u64 + start;
    let log = format!(
        "[   11.000000][   T60] knobrig: loaded mydrv .text=0xffffffffc0200000+0x4000\n\
         [   12.000000][   T60] knobrig: unloaded mydrv\n\
         [   12.003000][   T71] BUG: unable to handle page fault for address: {at:016x}\n\
         [   12.003000][   T71] #PF: supervisor instruction fetch in kernel mode\n\
         [   12.003000][   T71] Oops: 0010 [#1] PREEMPT SMP KASAN\n\
         [   12.003000][   T71] CPU: 1 UID: 0 PID: 71 Comm: reader Tainted: G           O        7.2.0 #1 PREEMPT\n\
         [   12.003000][   T71] RIP: 0010:{at:#x}\n\
         [   12.003000][   T71] Call Trace:\n\
         [   12.003000][   T71]  kobject_put+0x165/0x1c0\n\
         [   12.003000][   T71] ---[ end trace 0000000000000000 ]---\n"
    );
    let report = read(&log, &files);
    let place = report.place.as_ref().expect("a place").to_string();
    assert!(
        place.starts_with(&format!(
            "generation 1 of mydrv, .text+{start:#x} = dk0_show+0x0 ("
        )),
        "{place}"
    );
    assert!(
        place.ends_with("dk.c:8), unloaded 3.0 ms before"),
        "{place}"
    );
    assert!(
        report.title.ends_with(" in unloaded module mydrv"),
        "{}",
        report.title
    );
    assert_eq!(report.stacks[0].frames[0].function, "dk0_show");
    // What is no function is none.
    let image = Image::open(&path).expect("a symbol table");
    assert!(image.symbol_at(".text", 1 << 20).is_none());
    assert!(image.symbol_at(".nothing", 0).is_none());
}

#[test]
fn what_is_missing_is_told() {
    let dir = tempfile::tempdir().expect("a directory");
    let none = Files::find(None, &[dir.path().to_path_buf()]).expect_err("no module");
    assert!(
        none.to_string()
            .contains("no module (NAME.ko, uncompressed) is in"),
        "{none}"
    );
    let none = Files::find(Some(&dir.path().join("vmlinux")), &[]).expect_err("no kernel");
    assert!(none.to_string().contains("can't open the kernel"), "{none}");
    std::fs::write(dir.path().join("m.ko"), "no ELF").expect("writes");
    let files = Files::find(None, &[dir.path().join("m.ko")]).expect("it is there");
    let mut report = knobrig_klog::parse(console(1, 2, " [m]").as_bytes()).remove(0);
    let mut symbolizer = Symbolizer::new(files);
    symbolizer.symbolize(&mut report);
    assert!(symbolizer.failures()[0].contains("no ELF file"));
}
