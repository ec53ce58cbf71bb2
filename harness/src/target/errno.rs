//! Errors by their names, as target files write them.

/// The name of each error that a driver's file is likely to give, and its number on x86-64.
const NAMES: &[(&str, i64)] = &[
    ("EPERM", 1),
    ("ENOENT", 2),
    ("EINTR", 4),
    ("EIO", 5),
    ("ENXIO", 6),
    ("E2BIG", 7),
    ("ENOEXEC", 8),
    ("EBADF", 9),
    ("EAGAIN", 11),
    ("EWOULDBLOCK", 11),
    ("ENOMEM", 12),
    ("EACCES", 13),
    ("EFAULT", 14),
    ("EBUSY", 16),
    ("EEXIST", 17),
    ("ENODEV", 19),
    ("ENOTDIR", 20),
    ("EISDIR", 21),
    ("EINVAL", 22),
    ("ENOTTY", 25),
    ("ETXTBSY", 26),
    ("EFBIG", 27),
    ("ENOSPC", 28),
    ("ESPIPE", 29),
    ("EROFS", 30),
    ("EPIPE", 32),
    ("ERANGE", 34),
    ("ENOTEMPTY", 39),
    ("ENODATA", 61),
    ("EPROTO", 71),
    ("EOVERFLOW", 75),
    ("EOPNOTSUPP", 95),
    ("ESHUTDOWN", 108),
    ("ETIMEDOUT", 110),
    ("ECANCELED", 125),
];

/// The result of a call that fails so: `-22` of `EINVAL`.
pub(super) fn errno(name: &str) -> Option<i64> {
    let found = NAMES.iter().find(|(known, _)| *known == name);
    found.map(|(_, number)| -number)
}

/// The results of calls that fail by these names.
pub(super) fn errnos(names: &[String]) -> Vec<i64> {
    names.iter().filter_map(|name| errno(name)).collect()
}

/// All names, for a hint.
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    NAMES.iter().map(|(name, _)| *name)
}

#[cfg(test)]
mod tests {
    #[test]
    fn names_are_results() {
        assert_eq!(super::errno("EINVAL"), Some(-22));
        assert_eq!(super::errno("EWOULDBLOCK"), super::errno("EAGAIN"));
        assert_eq!(super::errno("ENONSENSE"), None);
    }
}
