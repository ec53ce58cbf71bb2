//! One name for functions that are one thing: system call wrappers, the flavours of RCU's and the
//! IPI's waits. A title takes the short name, the others become alternatives.

/// Rules, applied one after the other: a name that starts with `.0` continues with `.1` instead.
const PREFIXES: &[(&str, &str)] = &[
    // Clang doesn't inline __se_sys_x into its caller; arm has neither wrapper.
    ("__se_sys_", "sys_"),
    ("__do_sys_", "sys_"),
    ("sys_", ""),
    ("__x64_sys_", "sys_"),
    ("__ia32_sys_", "sys_"),
    ("__ia32_compat_sys_", "sys_"),
    ("__arm64_sys_", "sys_"),
    ("__riscv_sys_", "sys_"),
    ("__s390x_sys_", "sys_"),
    ("SyS_", "sys_"),
    ("SYSC_", "sys_"),
];

/// Whole names that mean another one.
const WHOLE: &[(&str, &str)] = &[
    ("synchronize_rcu_expedited", "synchronize_rcu"),
    ("synchronize_rcu_normal", "synchronize_rcu"),
    ("synchronize_sched", "synchronize_rcu"),
    ("synchronize_sched_expedited", "synchronize_rcu"),
    ("synchronize_srcu", "synchronize_rcu"),
    ("synchronize_srcu_expedited", "synchronize_rcu"),
    ("__synchronize_srcu", "synchronize_rcu"),
    ("synchronize_net", "synchronize_rcu"),
    ("smp_call_function_single", "smp_call_function"),
    ("smp_call_function_many", "smp_call_function"),
    ("smp_call_function_many_cond", "smp_call_function"),
    ("smp_call_function_any", "smp_call_function"),
    ("__flush_work", "flush_work"),
];

/// The name for titles, and the names on the way to it, as printed first.
pub(crate) fn canonical(function: &str) -> (String, Vec<String>) {
    let mut name = function.to_owned();
    let mut earlier = Vec::new();
    for (from, to) in PREFIXES {
        if let Some(rest) = name.strip_prefix(from).filter(|rest| !rest.is_empty()) {
            let next = format!("{to}{rest}");
            earlier.push(std::mem::replace(&mut name, next));
        }
    }
    if let Some((_, to)) = WHOLE.iter().find(|(from, _)| *from == name) {
        earlier.push(std::mem::replace(&mut name, (*to).to_owned()));
    }
    (name, earlier)
}

#[cfg(test)]
mod tests {
    use super::canonical;

    #[test]
    fn wrappers_of_a_system_call_are_one() {
        assert_eq!(
            canonical("__x64_sys_rmdir"),
            ("sys_rmdir".into(), vec!["__x64_sys_rmdir".into()])
        );
        assert_eq!(
            canonical("__se_sys_mremap"),
            (
                "mremap".into(),
                vec!["__se_sys_mremap".into(), "sys_mremap".into()]
            )
        );
        assert_eq!(canonical("vfs_write"), ("vfs_write".into(), vec![]));
    }
}
