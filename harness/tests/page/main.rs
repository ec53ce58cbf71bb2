//! A run's page in a real browser: nothing is fetched, nothing complained of, nothing cut off on a
//! narrow screen, and all of it is reached by the keyboard.

mod browser;

use std::path::{Path, PathBuf};

use browser::Browser;
use knobrig::judge::finding::{Evidence, Findings, GuestEnd, Met, Setting};
use knobrig::judge::summary::Summary;
use knobrig::judge::timeline::{Bar, BarKind, Lane, LaneKind, Moment, Timeline};
use knobrig::report::picture::html::{self, Shown};
use knobrig::report::picture::links::{Links, SourceUrl};

fn bar(from_ns: u64, to_ns: u64, kind: BarKind, says: &str) -> Bar {
    Bar {
        from_ns,
        to_ns,
        kind,
        says: says.into(),
        result: Some("-ENODEV".into()),
        failed: true,
        open: false,
    }
}

fn timeline() -> Timeline {
    let lane = |name: &str, kind, bars| Lane {
        name: name.into(),
        kind,
        bars,
    };
    let read = "read /sys/devices/pci0000:00/0000:00:1f.0/dk0/myknob0";
    Timeline {
        version: knobrig::judge::timeline::VERSION,
        begin_ns: 7,
        length_ns: 3_000_000,
        lanes: vec![
            lane(
                "holder",
                LaneKind::Actor,
                vec![bar(0, 2_900_000, BarKind::Step, read)],
            ),
            lane(
                "rmmod",
                LaneKind::Teardown,
                vec![bar(900_000, 2_999_000, BarKind::Step, "unload mydrv")],
            ),
            lane(
                "device",
                LaneKind::Device,
                vec![bar(100, 2_000_000, BarKind::Gate, "holds a knob-get")],
            ),
        ],
        faults: vec![Moment {
            at_ns: 2_100_000,
            says: "KASAN: slab-use-after-free".into(),
        }],
    }
}

/// A page of two findings, one of them the kernel's with lines.
fn page(dir: &Path) -> PathBuf {
    let log = std::fs::read_to_string(
        Path::new(env!("CARGO_MANIFEST_DIR")).join("klog/tests/mutants/poll-left.log"),
    );
    // A frame with its line, as a symbolizer leaves it.
    let log = log.expect("a console").replace(
        "remove_wait_queue+0x2b/0x150",
        "remove_wait_queue+0x2b/0x150 kernel/sched/wait.c:69",
    );
    let setting = Setting {
        target: "mydrv".into(),
        lifetime: "drained".into(),
        mutant: Some("poll-left".into()),
        seed: 1,
        kernel: "k".into(),
        ..Setting::default()
    };
    let met = Met {
        guest: 1,
        episode: Some(1),
        guest_ms: 5,
    };
    let report = Box::new(knobrig_klog::parse(log.as_bytes()).remove(0));
    let silent = Evidence::Guest {
        end: GuestEnd::Silent,
        why: "nothing came from it ".repeat(30),
    };
    let mut findings = Findings::default();
    for evidence in [Evidence::Kernel { report }, silent] {
        findings.add(evidence, &[], met.clone(), &setting, None, None);
    }
    let shown: Vec<_> = (findings.all().into_iter())
        .map(|finding| Shown {
            finding,
            timeline: Some(timeline()),
        })
        .collect();
    let links = Links::new(&SourceUrl::default(), "7.2.12");
    let text = html::page(&Summary::default(), "2 findings", &shown, &links);
    let path = dir.join("index.html");
    std::fs::write(&path, text).expect("writes");
    path
}

/// The element that has the focus, as its name and what names it.
const FOCUS: &str = "(() => { const it = document.activeElement; \
    return it.tagName.toLowerCase() + ' ' + (it.getAttribute('aria-label') || it.textContent) })()";

#[test]
fn a_run_s_page_works_in_a_browser() {
    let Some(program) = browser::find() else {
        println!("skipped: no Chromium or Chrome in PATH");
        return;
    };
    let dir = tempfile::tempdir().expect("a temp dir");
    let page = page(dir.path());
    let mut browser = Browser::start(&program, &dir.path().join("home"));
    for (width, dark) in [(1280, false), (360, false), (360, true)] {
        browser.look(width, dark);
        browser.open(&page);
        let shown = browser.value("document.querySelector('svg').getBoundingClientRect().height");
        assert!(
            shown.as_f64().is_some_and(|height| height > 50.0),
            "{shown}"
        );
        // With all that can be unfolded unfolded, too.
        browser.value("document.querySelectorAll('details').forEach(it => it.open = true)");
        let over = "document.documentElement.scrollWidth - document.documentElement.clientWidth";
        assert_eq!(browser.value(over), 0, "at {width} pixels");
        let colour = browser.value("getComputedStyle(document.body).backgroundColor");
        assert_eq!(colour == "rgb(255, 255, 255)", !dark, "{colour}");
    }
    let link = "document.querySelector('a[href^=https]').href";
    assert_eq!(
        browser.value(link),
        "https://elixir.bootlin.com/linux/v7.2.12/source/kernel/sched/wait.c#L69"
    );

    // From one stop to the next by Tab, until it is back at the first.
    browser.open(&page);
    let mut stops = Vec::new();
    for _ in 0..200 {
        browser.press("Tab");
        let stop = browser.value(FOCUS).as_str().expect("a text").to_owned();
        if stops.len() > 1 && stops.first() == Some(&stop) {
            break;
        }
        if stop == "div timeline" && !stops.contains(&stop) {
            // On a narrow screen it is wider than there is room, and the keys move it.
            browser.press("ArrowRight");
            browser.until("document.activeElement.scrollLeft > 0");
        }
        stops.push(stop);
    }
    let stopped = |begin: &str| stops.iter().any(|stop| stop.starts_with(begin));
    for stop in [
        "a KASAN: slab-use-after-free Write in remove_wait_queue",
        "div timeline",
        "g read /sys/devices",
        "g unload mydrv",
        "g holds a knob-get",
        "summary The timeline as a table",
        "summary What happened",
        "summary Where it happened",
        "summary Who had freed it",
        "a kernel/sched/wait.c:69",
        "summary In its own words",
    ] {
        assert!(stopped(stop), "no {stop:?} among {stops:#?}");
    }

    // What is folded is unfolded by Enter.
    let table = "document.querySelector('section details')";
    browser.value(&format!("{table}.querySelector('summary').focus()"));
    assert_eq!(browser.value(&format!("{table}.open")), false);
    browser.press("Enter");
    assert_eq!(browser.value(&format!("{table}.open")), true);

    assert!(
        browser.complaints().is_empty(),
        "{:#?}",
        browser.complaints()
    );
    let own = format!("file://{}", page.display());
    assert!(
        browser.fetched().iter().all(|url| *url == own),
        "{:?}",
        browser.fetched()
    );
    assert!(!browser.fetched().is_empty());
}
