//! Whether KVM runs 64-bit guest code: by running some and measuring it.
//!
//! That /dev/kvm opens and makes VMs says little: under some hosts it does and a Linux guest
//! never comes up. So a vCPU is put into long mode (Intel SDM vol. 3, 11.8.5) and runs what a
//! kernel needs early: locked 16-byte exchanges, address-space switches, a loop of plain
//! instructions. The probe runs in a process of its own, since a broken KVM may never return.

use std::fmt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use kvm_bindings::{KVM_MAX_CPUID_ENTRIES, kvm_segment, kvm_userspace_memory_region};
use kvm_ioctls::{Kvm as KvmFd, VcpuExit, VcpuFd};
use serde::{Deserialize, Serialize};
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryMmap};

/// Name of the hidden verb that runs the probe.
pub const VERB: &str = "probe-kvm";
/// The probe takes 50 ms where KVM works.
const DEADLINE: Duration = Duration::from_secs(5);
/// Guest code may be so many times slower than the same code outside. With a working KVM the
/// factor is about 1.
const SLOWEST: f64 = 5.0;

/// What the probe found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kvm", rename_all = "kebab-case")]
pub enum Kvm {
    /// There is none.
    Absent {
        /// Why.
        why: String,
    },
    /// It is there and runs guest code.
    Usable {
        /// Time in the guest over time outside for the same loop.
        slowdown: f64,
    },
    /// It is there and doesn't.
    Broken {
        /// What happened to which code.
        why: String,
    },
}

impl fmt::Display for Kvm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Absent { why } => write!(f, "no KVM: {why}"),
            Self::Usable { slowdown } => {
                write!(
                    f,
                    "KVM runs guest code, {slowdown:.1} times the host's time"
                )
            }
            Self::Broken { why } => write!(f, "KVM is there and not usable: {why}"),
        }
    }
}

/// Probes in a child process, with a deadline.
pub fn kvm() -> Kvm {
    let broken = |why: String| Kvm::Broken { why };
    let program = match std::env::current_exe() {
        Ok(program) => program,
        Err(error) => return broken(format!("the probe can't find its program: {error}")),
    };
    let child = Command::new(program)
        .arg(VERB)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn();
    let mut child = match child {
        Ok(child) => child,
        Err(error) => return broken(format!("the probe can't be started: {error}")),
    };
    let end = Instant::now() + DEADLINE;
    while Instant::now() < end {
        match child.try_wait() {
            Ok(Some(_)) => {
                let output = child.wait_with_output();
                let answer = output
                    .ok()
                    .and_then(|out| serde_json::from_slice(&out.stdout).ok());
                return answer.unwrap_or_else(|| broken("the probe died under it".into()));
            }
            Ok(None) => std::thread::sleep(Duration::from_millis(2)),
            Err(error) => return broken(format!("the probe can't be waited for: {error}")),
        }
    }
    // Neither can fail in a way that matters: it is gone, or the kernel keeps it.
    let _ = child.kill();
    let _ = child.wait();
    broken(format!(
        "64-bit guest code did not come back within {DEADLINE:?}"
    ))
}

/// The probe itself.
pub fn probe() -> Kvm {
    let kvm = match KvmFd::new() {
        Ok(kvm) => kvm,
        Err(error) => {
            return Kvm::Absent {
                why: format!("/dev/kvm can't be opened: {error}"),
            };
        }
    };
    let mut slowdown = 0.0;
    for program in PROGRAMS {
        match run(&kvm, program) {
            Ok(time) => {
                if let Some(native) = program.native {
                    slowdown = time.as_secs_f64() / native().as_secs_f64().max(1e-9);
                }
            }
            Err(why) => {
                return Kvm::Broken {
                    why: format!("{}: {why}", program.what),
                };
            }
        }
    }
    if slowdown > SLOWEST {
        let why = format!("guest code takes {slowdown:.0} times the host's time");
        return Kvm::Broken { why };
    }
    Kvm::Usable { slowdown }
}

/// Guest code that ends with `out 0x80, al` where al is 42.
struct Program {
    what: &'static str,
    code: &'static [u8],
    /// The same work outside, where it is to be compared.
    native: Option<fn() -> Duration>,
}

/// Rounds of the loops. Exits of a trapping host would make a million of them take minutes.
const ROUNDS: u32 = 1_000_000;

const PROGRAMS: &[Program] = &[
    Program {
        what: "address-space switches (mov cr3)",
        code: &[
            0xb9, 0x10, 0x27, 0x00, 0x00, // mov ecx, 10000
            0x0f, 0x20, 0xd8, // 1: mov rax, cr3
            0x0f, 0x22, 0xd8, // mov cr3, rax
            0xff, 0xc9, // dec ecx
            0x75, 0xf6, // jnz 1b
            0xb0, 0x2a, 0xe6, 0x80, 0xf4, // mov al, 42; out 0x80, al; hlt
        ],
        native: None,
    },
    Program {
        what: "locked 16-byte exchanges (cmpxchg16b)",
        code: &[
            0xb9, 0x40, 0x42, 0x0f, 0x00, // mov ecx, 1000000
            0xbf, 0x00, 0x00, 0x02, 0x00, // mov edi, 0x20000
            0xf0, 0x48, 0x0f, 0xc7, 0x0f, // 1: lock cmpxchg16b [rdi]
            0xff, 0xc9, // dec ecx
            0x75, 0xf7, // jnz 1b
            0xb0, 0x2a, 0xe6, 0x80, 0xf4, // mov al, 42; out 0x80, al; hlt
        ],
        native: Some(native_exchanges),
    },
];

/// The locked exchange's cost outside: 8 bytes instead of 16, the same order.
fn native_exchanges() -> Duration {
    use std::sync::atomic::{AtomicU64, Ordering};
    let word = AtomicU64::new(0);
    let begun = Instant::now();
    for _ in 0..ROUNDS {
        let seen = word.load(Ordering::Relaxed);
        // Nobody else writes: it succeeds, and its result says nothing.
        let _ = std::hint::black_box(&word).compare_exchange(
            seen,
            seen,
            Ordering::SeqCst,
            Ordering::SeqCst,
        );
    }
    begun.elapsed()
}

const MEMORY: usize = 2 << 20;
const PML4: u64 = 0x1000;
const PDPT: u64 = 0x2000;
const PD: u64 = 0x3000;
const CODE: u64 = 0x10000;
const STACK: u64 = 0x30000;

fn run(kvm: &KvmFd, program: &Program) -> Result<Duration, String> {
    let failed = |what: &'static str| move |error: kvm_ioctls::Error| format!("{what}: {error}");
    let memory = GuestMemoryMmap::<()>::from_ranges(&[(GuestAddress(0), MEMORY)])
        .map_err(|error| format!("no memory for a guest: {error}"))?;
    let put = |value: u64, address: u64| {
        memory
            .write_obj(value, GuestAddress(address))
            .map_err(|error| format!("guest memory can't be written: {error}"))
    };
    // Identity map of the first 2 MiB: present, writable, one large page.
    put(PDPT | 3, PML4)?;
    put(PD | 3, PDPT)?;
    put(0x83, PD)?;
    memory
        .write_slice(program.code, GuestAddress(CODE))
        .map_err(|error| format!("guest memory can't be written: {error}"))?;

    let vm = kvm.create_vm().map_err(failed("no VM can be made"))?;
    let host = memory
        .get_host_address(GuestAddress(0))
        .map_err(|error| format!("guest memory has no address: {error}"))?;
    let region = kvm_userspace_memory_region {
        slot: 0,
        flags: 0,
        guest_phys_addr: 0,
        memory_size: MEMORY as u64,
        userspace_addr: host as u64,
    };
    // SAFETY: the region is the mapping of `memory`, which lives until the end of this
    // function, after `vm` and its vCPU are dropped.
    unsafe { vm.set_user_memory_region(region) }.map_err(failed("memory can't be set"))?;
    let mut vcpu = vm.create_vcpu(0).map_err(failed("no vCPU can be made"))?;
    let cpuid = kvm
        .get_supported_cpuid(KVM_MAX_CPUID_ENTRIES)
        .map_err(failed("CPUID can't be asked"))?;
    vcpu.set_cpuid2(&cpuid)
        .map_err(failed("CPUID can't be set"))?;
    long_mode(&vcpu).map_err(failed("long mode can't be set"))?;

    let begun = Instant::now();
    match vcpu.run().map_err(failed("KVM_RUN failed"))? {
        VcpuExit::IoOut(0x80, [42]) => Ok(begun.elapsed()),
        VcpuExit::InternalError => Err("KVM internal error: it can't emulate the code".into()),
        other => Err(format!("unexpected exit {other:?}")),
    }
}

fn long_mode(vcpu: &VcpuFd) -> Result<(), kvm_ioctls::Error> {
    let mut sregs = vcpu.get_sregs()?;
    let segment = |selector, kind, long: bool| kvm_segment {
        base: 0,
        limit: u32::MAX,
        selector,
        type_: kind,
        present: 1,
        dpl: 0,
        db: u8::from(!long),
        s: 1,
        l: u8::from(long),
        g: 1,
        avl: 0,
        unusable: 0,
        padding: 0,
    };
    sregs.cs = segment(0x08, 0xb, true);
    let data = segment(0x10, 0x3, false);
    (sregs.ds, sregs.es, sregs.fs, sregs.gs, sregs.ss) = (data, data, data, data, data);
    sregs.cr3 = PML4;
    sregs.cr4 = 1 << 5; // PAE
    sregs.cr0 = 1 << 31 | 1 << 16 | 1 << 5 | 1; // PG, WP, NE, PE
    sregs.efer = 1 << 10 | 1 << 8; // LMA, LME
    vcpu.set_sregs(&sregs)?;
    let mut regs = vcpu.get_regs()?;
    regs.rip = CODE;
    regs.rsp = STACK;
    regs.rflags = 2;
    vcpu.set_regs(&regs)
}
