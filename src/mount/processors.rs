//! How many processors there are, and whether this process may use them.

use std::fs;
use std::path::Path;

/// How many processors there are.
pub(super) fn online() -> usize {
    let list = fs::read_to_string("/sys/devices/system/cpu/online").unwrap_or_default();
    count(&list).unwrap_or(usize::MAX)
}

/// How many a list such as `0-3,5` has.
fn count(list: &str) -> Option<usize> {
    let ranges = list.trim().split(',').map(|range| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last) = (first.parse::<usize>().ok()?, last.parse::<usize>().ok()?);
        Some(last.checked_sub(first)? + 1)
    });
    ranges.sum()
}

/// Whether a control group limits how much of the processors this process may use.
pub(super) fn is_limited() -> bool {
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    is_limited_by(&groups, Path::new("/sys/fs/cgroup"))
}

fn is_limited_by(groups: &str, root: &Path) -> bool {
    let within = groups.lines().find_map(|line| line.strip_prefix("0::/"));
    let group = root.join(within.unwrap_or_default());
    let limits = |group: &Path| {
        // The first word of version 2 is `max` where there is no limit; version 1 has -1.
        let read = |file: &str| fs::read_to_string(group.join(file)).ok();
        read("cpu.max").is_some_and(|limit| !limit.starts_with("max"))
            || read("cpu.cfs_quota_us").is_some_and(|limit| !limit.starts_with('-'))
    };
    let above = group
        .ancestors()
        .take_while(|above| above.starts_with(root));
    above.into_iter().any(limits) || limits(&root.join("cpu"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_list_of_processors_is_counted() {
        assert_eq!(count("0\n"), Some(1));
        assert_eq!(count("0-3,5,7-8\n"), Some(7));
        assert_eq!(count(""), None);
        assert_eq!(count("3-1"), None);
    }

    #[test]
    fn a_limit_of_any_group_above_counts() {
        let root = tempfile::tempdir().unwrap();
        let group = root.path().join("a/b");
        fs::create_dir_all(&group).unwrap();
        let limited = || is_limited_by("1:cpu:/x\n0::/a/b\n", root.path());
        assert!(!limited());
        fs::write(group.join("cpu.max"), "max 100000\n").unwrap();
        assert!(!limited());
        fs::write(root.path().join("a/cpu.max"), "50000 100000\n").unwrap();
        assert!(limited());
        fs::write(root.path().join("a/cpu.max"), "max 100000\n").unwrap();
        fs::create_dir(root.path().join("cpu")).unwrap();
        fs::write(root.path().join("cpu/cpu.cfs_quota_us"), "-1\n").unwrap();
        assert!(!limited());
        fs::write(root.path().join("cpu/cpu.cfs_quota_us"), "20000\n").unwrap();
        assert!(limited());
    }
}
