//! QEMU's plugin interface (docs/devel/tcg-plugins.rst and qemu-plugin.h of QEMU): the six functions
//! of it that are used, the same in every QEMU from 7.2 to 11, and the two symbols that QEMU looks
//! for. Crates with the whole interface are made for one version of it each, and what they name in
//! addition an older QEMU does not have.
//!
//! Two things differ between the QEMUs. Each takes only plugins whose `qemu_plugin_version` it
//! knows: 0 to 1 before 9.0, from 2 on since, 7 from 11.1 on. It reads that before it tells
//! anything of itself, so the harness, which knows QEMU's version, says which it is to be. And from
//! 7 on a callback of a translation gets its block first and user data second, no longer the
//! plugin's id first and the block second.

use std::ffi::{CStr, c_char, c_int, c_uint, c_void};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicI32, Ordering};

use knobrig_vcpu_proto::{API_VARIABLE, Range};

use crate::armed::Armed;
use crate::link::Link;
use crate::order::Orders;

/// The interface from which on callbacks have no id.
const WITHOUT_ID: i32 = 7;
/// `QEMU_PLUGIN_CB_NO_REGS`: the callback reads no registers.
const NO_REGS: c_int = 0;
/// A block lies within two pages of the guest's; more than so many bytes no block has.
const BLOCK: u64 = 8192;

/// `qemu_info_t`, as far as it is read; it goes on after that.
#[repr(C)]
struct Info {
    _target_name: *const c_char,
    _oldest: c_int,
    newest: c_int,
    system_emulation: bool,
}

/// A block that is being translated.
#[repr(C)]
struct Block {
    _opaque: [u8; 0],
}

/// An instruction of it.
#[repr(C)]
struct Instruction {
    _opaque: [u8; 0],
}

type OnTranslation = extern "C" fn(id: u64, block: *mut Block);
type OnTranslationWithoutId = extern "C" fn(block: *mut Block, data: *mut c_void);
type OnInstruction = extern "C" fn(vcpu: c_uint, data: *mut c_void);

unsafe extern "C" {
    fn qemu_plugin_register_vcpu_tb_trans_cb(id: u64, callback: OnTranslation);
    fn qemu_plugin_tb_n_insns(block: *const Block) -> usize;
    fn qemu_plugin_tb_vaddr(block: *const Block) -> u64;
    fn qemu_plugin_tb_get_insn(block: *const Block, index: usize) -> *mut Instruction;
    fn qemu_plugin_insn_vaddr(instruction: *const Instruction) -> u64;
    fn qemu_plugin_register_vcpu_insn_exec_cb(
        instruction: *mut Instruction,
        callback: OnInstruction,
        flags: c_int,
        data: *mut c_void,
    );
}

/// The interface that this plugin stands for; QEMU reads it as an `int`, which an [`AtomicI32`] has
/// the layout of.
#[unsafe(no_mangle)]
#[allow(non_upper_case_globals, reason = "QEMU looks for it under this name")]
static qemu_plugin_version: AtomicI32 = AtomicI32::new(1);

/// Run by the loader as it loads the plugin, before QEMU reads [`qemu_plugin_version`].
#[used]
#[unsafe(link_section = ".init_array")]
static CHOOSE: extern "C" fn() = choose;

extern "C" fn choose() {
    let asked = std::env::var(API_VARIABLE).ok();
    if let Some(api) = asked.and_then(|text| text.parse().ok()) {
        qemu_plugin_version.store(api, Ordering::Relaxed);
    }
}

static ARMED: Armed = Armed::nothing();
static ORDERS: Orders = Orders::none();
static WATCHED: OnceLock<Vec<Range>> = OnceLock::new();

/// QEMU has loaded the plugin. Not 0 makes QEMU end; what is wrong goes to its stderr.
///
/// # Safety
/// QEMU calls it once, with `info` and the `count` strings of `arguments` as qemu-plugin.h has them.
#[unsafe(no_mangle)]
unsafe extern "C" fn qemu_plugin_install(
    id: u64,
    info: *const c_void,
    count: c_int,
    arguments: *const *const c_char,
) -> c_int {
    // SAFETY: `info` points to a qemu_info_t that lives as long as this call, and begins as Info.
    let info = unsafe { &*info.cast::<Info>() };
    let count = usize::try_from(count).unwrap_or(0);
    let arguments = (0..count).map(|index| {
        // SAFETY: there are `count` strings, each with its end.
        let argument = unsafe { CStr::from_ptr(*arguments.add(index)) };
        argument.to_string_lossy().into_owned()
    });
    match install(id, info, &arguments.collect::<Vec<_>>()) {
        Ok(()) => 0,
        Err(why) => {
            eprintln!("knobrig-vcpu: {why}");
            1
        }
    }
}

fn install(id: u64, info: &Info, arguments: &[String]) -> Result<(), String> {
    if !info.system_emulation {
        return Err("it is for whole machines; use qemu-system-x86_64".into());
    }
    // SAFETY: the harness made the descriptor for this plugin alone.
    let mut link = unsafe { Link::of(arguments) }?;
    let watched = link.greet(info.newest)?;
    let _ = WATCHED.set(watched);
    match qemu_plugin_version.load(Ordering::Relaxed) >= WITHOUT_ID {
        // SAFETY: the id is this plugin's, and the callback lives as long as QEMU.
        false => unsafe { qemu_plugin_register_vcpu_tb_trans_cb(id, on_translation) },
        true => {
            type Old = unsafe extern "C" fn(u64, OnTranslation);
            type New = unsafe extern "C" fn(u64, OnTranslationWithoutId, *mut c_void);
            // SAFETY: a QEMU of this interface has the function under the same name with the type
            // New.
            let register: New =
                unsafe { std::mem::transmute(qemu_plugin_register_vcpu_tb_trans_cb as Old) };
            // SAFETY: as above; the callback doesn't use its data.
            unsafe { register(id, on_translation_without_id, std::ptr::null_mut()) };
        }
    }
    link.serve(&ARMED, &ORDERS)
}

extern "C" fn on_translation(_id: u64, block: *mut Block) {
    translated(block);
}

extern "C" fn on_translation_without_id(block: *mut Block, _data: *mut c_void) {
    translated(block);
}

/// A block is translated: it is to call at each watched instruction.
fn translated(block: *mut Block) {
    let watched = WATCHED.get().map_or(&[][..], Vec::as_slice);
    // SAFETY: QEMU lends the block for this call.
    let start = unsafe { qemu_plugin_tb_vaddr(block) };
    let near = |range: &Range| start < range.end && start.saturating_add(BLOCK) > range.start;
    if !watched.iter().any(near) {
        return;
    }
    // SAFETY: as above.
    let count = unsafe { qemu_plugin_tb_n_insns(block) };
    for index in 0..count {
        // SAFETY: there are so many instructions in the block.
        let instruction = unsafe { qemu_plugin_tb_get_insn(block, index) };
        // SAFETY: the instruction is lent with its block.
        let address = unsafe { qemu_plugin_insn_vaddr(instruction) };
        if watched.iter().any(|range| range.has(address)) {
            // The address itself is the data: nothing must be kept for it.
            let data = std::ptr::without_provenance_mut(address as usize);
            // SAFETY: as above; the callback takes the data for a number.
            unsafe {
                qemu_plugin_register_vcpu_insn_exec_cb(instruction, on_instruction, NO_REGS, data);
            }
        }
    }
}

/// A vCPU is about to run a watched instruction.
extern "C" fn on_instruction(vcpu: c_uint, data: *mut c_void) {
    let address = data.addr() as u64;
    ARMED.pass(vcpu as usize, address);
    ORDERS.pass(vcpu, address);
}
