//! Orders of instructions, in real guests: enforced by QEMU's gdbstub.

use knobrig_images::{Cache, KernelRequest, Progress, Variant};
use object::{Object, ObjectSection, ObjectSymbol, RelocationTarget};
use serde_json::{Value, json};

use super::place::Place;

const SAMPLE: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../guest-driver/samples/pointer_race"
);
const KEY: &str =
    "kernel use-after-free of an object, freed in alive_store by an op, touched by an op";

/// Nobody looks.
struct Silent;

impl Progress for Silent {
    fn begin(&self, _step: &str, _estimate: Option<std::time::Duration>) {}
    fn update(&self, _fraction: f64, _detail: &str) {}
    fn end(&self) {}
    fn say(&self, _line: &str) {}
}

/// Where the ends of the race lie in pointer_race's code, wherever the compiler puts them.
struct Race {
    /// The victim has loaded the pointer.
    loaded: u64,
    /// The killer begins.
    begins: u64,
    /// The object is freed.
    gone: u64,
}

impl Race {
    fn find() -> Self {
        let cache = Cache::open(None).expect("a cache");
        let request = KernelRequest::pinned(Variant::Kasan);
        let kernel = knobrig_images::ensure_kernel(&cache, &request, &Silent).expect("a kernel");
        let module = knobrig_images::ensure_module(&cache, &kernel, SAMPLE.as_ref(), &Silent);
        let file = std::fs::read(module.expect("the module").path).expect("a file");
        let file = object::File::parse(&*file).expect("ELF");
        let text = file.section_by_name(".text").expect("code");
        let symbol = |name: &str| file.symbols().find(|it| it.name() == Ok(name));
        let of = |name: &str| {
            let symbol = symbol(name).expect("a function");
            symbol.address()..symbol.address() + symbol.size()
        };
        // What an instruction refers to stands in its last four bytes.
        let behind = |meant: &dyn Fn(u64, &str) -> bool| {
            let mut relocations = text.relocations();
            let found = relocations.find(|(at, it)| match it.target() {
                RelocationTarget::Symbol(index) => {
                    let symbol = file.symbol_by_index(index).expect("a symbol");
                    let section = symbol.section_index().map(|it| file.section_by_index(it));
                    let section = section.and_then(Result::ok);
                    let section = section.as_ref().and_then(|it| it.name().ok());
                    meant(*at, section.unwrap_or(symbol.name().unwrap_or("")))
                }
                _ => false,
            });
            found.expect("an instruction that refers to it").0 + 4
        };
        Self {
            loaded: behind(&|at, of_what| of("value_show").contains(&at) && of_what == ".bss"),
            begins: of("alive_store").start,
            gone: behind(&|_, of_what| of_what == "kfree"),
        }
    }
}

/// The `nth` arrival of an actor at an instruction of pointer_race.
fn point(actor: &str, nth: u32, offset: u64) -> Value {
    let at = json!({ "instruction": { "module": "pointer_race", "offset": offset } });
    json!({ "actor": actor, "op": null, "nth": nth, "at": at })
}

/// An episode of two ops, `victim` reads the value and `killer` frees it ("0") or leaves it ("1"), under an
/// order.
fn reproducer(edges: &[(Value, Value)], alive: &str) -> Value {
    let open = |name: &str, slot: u32, read: bool| {
        let path = format!("/sys/class/misc/pointer_race/{name}");
        json!({ "step": "open", "path": path, "read": read, "write": !read, "slot": slot })
    };
    let load = json!({ "step": "load", "module": "pointer_race", "params": "" });
    let wait = json!({ "step": "wait-signal", "name": "armed", "deadline_ms": 20_000 });
    let write = |data: &str| json!({ "step": "write", "slot": 1, "data": data });
    let actor = |name: &str, cpu: u32, teardown: bool, steps: &[Value]| {
        json!({
            "name": name, "cpu": cpu, "teardown": teardown, "steps": steps, "repeat": "once",
        })
    };
    let edges: Vec<_> = (edges.iter())
        .map(|(before, after)| json!({ "before": before, "after": after }))
        .collect();
    json!({
        "version": 1,
        "title": "KASAN: slab-use-after-free Read in value_show",
        "key": KEY,
        "setting": {
            "target": "pointer_race", "lifetime": "plain", "mutant": null, "seed": 1,
            "kernel": "", "guest": { "variant": "kasan", "cpus": 2, "memory_mib": 512 },
        },
        "episode": {
            "shape": "instructions",
            "checks": [],
            "order": { "edges": edges },
            "reactions": [
                { "when": { "settled": ["first", 1] }, "then": ["arm"] },
                { "when": "armed", "then": [{ "raise": "armed" }] },
            ],
            "episode": {
                "id": 1,
                "deadline_ms": 30_000,
                "before": [load, open("alive", 1, false), open("value", 2, true)],
                "actors": [
                    actor("first", 0, true, &[write("1"), json!({ "step": "spin", "us": 0 })]),
                    actor("victim", 0, false, &[wait.clone(), json!({ "step": "read", "slot": 2, "len": 32 })]),
                    actor("killer", 1, false, &[wait, write(alive)]),
                ],
                "after": [
                    { "step": "close", "slot": 1 },
                    { "step": "close", "slot": 2 },
                    { "step": "unload", "module": "pointer_race" },
                ],
            },
        },
    })
}

/// Runs it by the gdbstub so many times; gives the exit code and what was said.
fn repro(place: &Place, reproducer: &Value, times: &str) -> (Option<i32>, String) {
    let file = place.path().join("reproducer.json");
    std::fs::write(&file, reproducer.to_string()).expect("written");
    let mut command = place.knobrig();
    command.arg("repro").arg(file).arg("--out").arg(place.out());
    command.args(["--target", &format!("{SAMPLE}/pointer_race.toml")]);
    command.args([
        "--accel",
        "tcg",
        "--vcpu",
        "gdb",
        "--keep-going",
        "--times",
        times,
    ]);
    let output = command.output().expect("knobrig runs");
    let said = [output.stdout, output.stderr].concat();
    (
        output.status.code(),
        String::from_utf8_lossy(&said).into_owned(),
    )
}

#[test]
fn the_gdbstub_makes_a_race_between_two_instructions_certain() {
    let (place, race) = (Place::new(), Race::find());
    let window = || point("victim", 1, race.loaded);
    let order = [
        (window(), point("killer", 1, race.begins)),
        (point("killer", 1, race.gone), window()),
    ];
    let (exit, said) = repro(&place, &reproducer(&order, "0"), "2");
    assert_eq!(exit, Some(10), "{said}");
    assert!(said.contains("shown: 2 of 2"), "{said}");
    let finding = place.json("findings/001/finding.json");
    let orders = finding["record"]["orders"].as_array().expect("orders");
    assert_eq!(orders.len(), 2, "{orders:?}");
    for edge in orders {
        assert_eq!(
            (&edge["before"], &edge["after"]),
            (&json!(true), &json!(true)),
            "{edge}"
        );
        assert_eq!(edge["in_vain"], json!(false), "{edge}");
    }
    // It stood there while the other went all his way.
    assert!(orders[1]["waited_us"].as_u64() > Some(0), "{orders:?}");
    place.assert_nothing_left();
}

/// The killer waits for an arrival that doesn't come: it goes on by the deadline, and so does the guest. It
/// frees nothing: what no order keeps from meeting meets in one of some hundred episodes.
#[test]
fn an_order_that_cannot_be_costs_no_guest() {
    let (place, race) = (Place::new(), Race::find());
    let order = [(
        point("victim", 2, race.loaded),
        point("killer", 1, race.begins),
    )];
    let (exit, said) = repro(&place, &reproducer(&order, "1"), "3");
    assert_eq!(exit, Some(0), "{said}");
    assert!(said.contains("not shown: 0 of 3"), "{said}");
    let events = place.json_lines("events.jsonl");
    let boots = events.iter().filter(|it| it["event"] == "guest-up").count();
    assert_eq!(boots, 1, "one guest for all: {events:?}");
    place.assert_nothing_left();
}
