//! `knobrig report` on logs from anywhere.

use std::io::Write;
use std::process::{Command, Stdio};

const CRASH: &str = "[    1.000000] BUG: KASAN: slab-use-after-free in show+0x1/0x2 [mydrv]\n\
    [    1.000000] Read of size 8 at addr ffff888100000000 by task a/1\n";

fn report(arguments: &[&str], stdin: &str) -> (Option<i32>, String, String) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_knobrig"))
        .arg("report")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("knobrig starts");
    let mut pipe = child.stdin.take().expect("a pipe");
    pipe.write_all(stdin.as_bytes()).expect("it reads");
    drop(pipe);
    let output = child.wait_with_output().expect("it ends");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (
        output.status.code(),
        text(&output.stdout),
        text(&output.stderr),
    )
}

#[test]
fn a_crash_on_standard_input_ends_10_and_silence_0() {
    let (code, stdout, _) = report(&["-"], CRASH);
    assert_eq!(code, Some(10));
    assert!(stdout.starts_with("1 crash in 1 of 1 log\n"), "{stdout}");
    let (code, stdout, _) = report(&["-", "--format", "json"], "all is well\n");
    assert_eq!(code, Some(0));
    assert_eq!(stdout, "{\"version\":1,\"file\":\"-\",\"reports\":[]}\n");
}

#[test]
fn many_logs_are_told_in_their_order() {
    let dir = tempfile::tempdir().expect("a temp dir");
    let paths: Vec<_> = (0..40)
        .map(|n| {
            let path = dir.path().join(format!("{n:02}.log"));
            let text = if n % 2 == 0 { CRASH } else { "quiet\n" };
            std::fs::write(&path, text).expect("writes");
            path.display().to_string()
        })
        .collect();
    let mut arguments = vec!["--format", "ktap"];
    arguments.extend(paths.iter().map(String::as_str));
    let (code, stdout, _) = report(&arguments, "");
    assert_eq!(code, Some(10));
    let verdicts = stdout.lines().filter(|line| !line.starts_with('#')).skip(2);
    for (n, line) in verdicts.enumerate() {
        let verdict = if n % 2 == 0 { "not ok" } else { "ok" };
        assert!(line.starts_with(&format!("{verdict} {} ", n + 1)), "{line}");
    }
}

#[test]
fn a_log_that_is_not_there_ends_2_and_the_others_are_told() {
    let (code, stdout, stderr) = report(&["-", "/no/such/log"], CRASH);
    assert_eq!(code, Some(2), "{stdout}{stderr}");
    assert!(
        stdout.contains("KASAN: slab-use-after-free Read in show"),
        "{stdout}"
    );
    assert!(
        stderr.contains("can't open the log /no/such/log"),
        "{stderr}"
    );
}

/// The most memory that a process ever had, in KiB (proc(5), `VmHWM`).
fn peak_kib(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = peak.and_then(|line| line.split_whitespace().next()?.parse().ok());
    kib.expect("a peak")
}

#[test]
fn a_log_of_any_size_is_read_in_bounded_memory() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_knobrig"))
        .args(["report", "-", "--format", "json"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("knobrig starts");
    let mut pipe = child.stdin.take().expect("a pipe");
    let quiet = "[    1.000000][    T1] random: crng init done\n".repeat(20_000);
    for _ in 0..64 {
        pipe.write_all(quiet.as_bytes()).expect("it reads");
    }
    pipe.write_all(CRASH.as_bytes()).expect("it reads");
    // What is not read yet is a pipe's fill.
    let peak = peak_kib(child.id());
    drop(pipe);
    let output = child.wait_with_output().expect("it ends");
    assert_eq!(output.status.code(), Some(10));
    assert!(peak < 32 << 10, "{peak} KiB for {} bytes", 64 * quiet.len());
}

#[test]
fn a_report_goes_to_a_file_whole() {
    let dir = tempfile::tempdir().expect("a temp dir");
    let out = dir.path().join("r.xml");
    let path = out.display().to_string();
    let (code, stdout, _) = report(&["-", "--format", "junit", "--out", &path], CRASH);
    assert_eq!((code, stdout.as_str()), (Some(10), ""));
    let text = std::fs::read_to_string(out).expect("it is there");
    assert!(text.contains("failures=\"1\""), "{text}");
}
