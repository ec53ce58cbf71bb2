//! By what a vCPU shows which thread it runs.

/// arch_prctl's word for asking (arch/x86/include/uapi/asm/prctl.h).
const ARCH_GET_FS: libc::c_long = 0x1003;

/// The calling thread's `FS_BASE`, where its own data begins; 0, which is no thread's, where the
/// kernel doesn't tell it.
pub fn own() -> u64 {
    let mut base = 0u64;
    // SAFETY: with this word the call writes a u64 to the address that it is given, that of
    // `base`, and nothing else.
    match unsafe { libc::syscall(libc::SYS_arch_prctl, ARCH_GET_FS, &raw mut base) } {
        0 => base,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_thread_has_its_own() {
        let mine = own();
        let other = std::thread::spawn(own).join().expect("it ends");
        assert!(mine != 0 && other != 0 && mine != other);
        assert_eq!(own(), mine);
    }
}
