// SPDX-License-Identifier: GPL-2.0-only
//! Where ftrace sends a call of a function that can be a point, before the function's first
//! instruction.
//!
//! ftrace replaces the `nop` that a traceable function begins with by `call knobgate_tramp`. So
//! the stack is, from its top: the address to go on at in the function, the function's return
//! address, the caller's stack arguments.
//!
//! While no gate is armed and no trail is kept, the way back is three instructions. Otherwise the
//! registers that hold arguments are kept, and [`crate::pass::knobgate_entered`] decides; it may
//! hold the thread there. If the function's *return* is a point of this call, the trampoline
//! calls the function itself, hands the thread to [`crate::pass::knobgate_returned`] afterwards,
//! and then returns to the function's caller with the function's result. The function must find
//! its stack arguments where its caller put them, above its return address, so they are copied:
//! [`STACK_WORDS`] of them, more than any function has, and all of it stack of the caller, since
//! a thread that is of interest stands below a system call, a worker's or a thread's first
//! function, whose frames are larger.
//!
//! Two frames lead through the trampoline, as through ftrace's own: one with the function's
//! return address, one with the address in the function. So a stack trace through a held thread
//! has its caller, the function, and all below.
//!
//! No instruction here is an indirect jump (`push` and `ret` reach the function), so that
//! retpolines and IBT have nothing to say. objtool can't follow that and is told not to try; an
//! ORC unwinder then goes by the frames.

/// Words of stack arguments that a call may have.
pub(crate) const STACK_WORDS: usize = 16;
const _: () = assert!(STACK_WORDS == 16, "the trampoline below pushes so many");

#[cfg(CONFIG_MITIGATION_RETHUNK)]
macro_rules! ret {
    () => {
        "jmp __x86_return_thunk"
    };
}
#[cfg(not(CONFIG_MITIGATION_RETHUNK))]
macro_rules! ret {
    () => {
        "ret; int3"
    };
}
#[cfg(CONFIG_X86_KERNEL_IBT)]
macro_rules! endbr {
    () => {
        "endbr64"
    };
}
#[cfg(not(CONFIG_X86_KERNEL_IBT))]
macro_rules! endbr {
    () => {
        ""
    };
}

// Below %rbp: rax -8, rdi -16, rsi -24, rdx -32, rcx -40, r8 -48, r9 -56, r10 -64, r11 -72, the
// gates at the return -80. Above: the frame of the caller 0, the address in the function 8, the
// caller's %rbp 16 and 32, the return address 24; then as ftrace left it: the address in the
// function 40, the return address 48, stack arguments 56.
core::arch::global_asm!(
    ".pushsection .text, \"ax\", @progbits",
    ".balign 16",
    ".type knobgate_tramp, @function",
    "knobgate_tramp:",
    endbr!(),
    "cmpl $0, {live}(%rip)",
    "jne 1f",
    ret!(),
    "1: pushq %rbp",
    "pushq 16(%rsp)",
    "pushq %rbp",
    "movq %rsp, %rbp",
    "pushq 24(%rsp)",
    "pushq %rbp",
    "movq %rsp, %rbp",
    "subq $88, %rsp",
    "movq %rax, -8(%rbp)",
    "movq %rdi, -16(%rbp)",
    "movq %rsi, -24(%rbp)",
    "movq %rdx, -32(%rbp)",
    "movq %rcx, -40(%rbp)",
    "movq %r8, -48(%rbp)",
    "movq %r9, -56(%rbp)",
    "movq %r10, -64(%rbp)",
    "movq %r11, -72(%rbp)",
    "movq 40(%rbp), %rdi",
    "movq 48(%rbp), %rsi",
    "movq 32(%rbp), %rdx",
    "call {entered}",
    "movq %rax, -80(%rbp)",
    "testq %rax, %rax",
    "jz 2f",
    // The last first, so that they lie as the caller laid them.
    ".set .Lword, 15",
    ".rept 16",
    "pushq 56 + .Lword * 8(%rbp)",
    ".set .Lword, .Lword - 1",
    ".endr",
    "2: movq -8(%rbp), %rax",
    "movq -16(%rbp), %rdi",
    "movq -24(%rbp), %rsi",
    "movq -32(%rbp), %rdx",
    "movq -40(%rbp), %rcx",
    "movq -48(%rbp), %r8",
    "movq -56(%rbp), %r9",
    "movq -64(%rbp), %r10",
    "movq -72(%rbp), %r11",
    "cmpq $0, -80(%rbp)",
    "jne 3f",
    // On into the function, as if nothing had been.
    "leaq 32(%rbp), %rsp",
    "popq %rbp",
    ret!(),
    // The function, as a call of ours; then out to its caller.
    "3: call knobgate_function",
    "movq %rax, -8(%rbp)",
    "movq %rdx, -32(%rbp)",
    "movq -80(%rbp), %rdi",
    "call {returned}",
    "movq -8(%rbp), %rax",
    "movq -32(%rbp), %rdx",
    "leaq 32(%rbp), %rsp",
    "popq %rbp",
    "addq $8, %rsp",
    ret!(),
    ".size knobgate_tramp, . - knobgate_tramp",
    ".type knobgate_function, @function",
    "knobgate_function:",
    "pushq 40(%rbp)",
    ret!(),
    ".size knobgate_function, . - knobgate_function",
    ".popsection",
    // What STACK_FRAME_NON_STANDARD() of include/linux/objtool.h says.
    ".pushsection .discard.func_stack_frame_non_standard, \"aw\"",
    ".quad knobgate_tramp",
    ".quad knobgate_function",
    ".popsection",
    live = sym crate::pass::LIVE,
    entered = sym crate::pass::knobgate_entered,
    returned = sym crate::pass::knobgate_returned,
    options(att_syntax),
);

extern "C" {
    fn knobgate_tramp();
}

/// The trampoline's address.
pub(crate) fn address() -> usize {
    knobgate_tramp as *const () as usize
}
