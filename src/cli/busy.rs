//! Which processes keep a mount in use. It asks /proc only, never the mount itself, which may not answer.

use super::mounts::Entry;
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// The most processes that are named in a message.
const NAMED: usize = 8;

/// A process that keeps the mount in use.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Holder {
    /// Its number.
    pub pid: u32,
    /// Its name, as `ps` shows it.
    pub name: String,
    /// How it uses the mount: open files, working directory, mapped files.
    pub uses: Vec<String>,
}

/// The processes that use this mount, as far as this user may see; without those of `daemon`.
pub(super) fn holders(mount: &Entry, daemon: Option<u32>) -> Vec<Holder> {
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    let pids = entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok())
        .filter(|pid| Some(*pid) != daemon && *pid != std::process::id());
    let mut found: Vec<Holder> = pids.filter_map(|pid| holder(pid, mount)).collect();
    found.sort_by_key(|holder| holder.pid);
    found
}

fn holder(pid: u32, mount: &Entry) -> Option<Holder> {
    let process = Path::new("/proc").join(pid.to_string());
    let mut uses = BTreeSet::new();
    for (link, how) in [
        ("cwd", "working directory"),
        ("root", "root directory"),
        ("exe", "program"),
    ] {
        let leads_in =
            fs::read_link(process.join(link)).is_ok_and(|to| to.starts_with(&mount.mountpoint));
        if leads_in {
            uses.insert(how.to_owned());
        }
    }
    uses.extend(open_files(&process, mount));
    if maps_a_file(&process, mount) {
        uses.insert("mapped file".to_owned());
    }
    if uses.is_empty() {
        return None;
    }
    let name = fs::read_to_string(process.join("comm")).unwrap_or_default();
    Some(Holder {
        pid,
        name: name.trim().to_owned(),
        uses: uses.into_iter().collect(),
    })
}

/// Names of open files, told by the mount's number, which stays true after a rename or a detach.
fn open_files(process: &Path, mount: &Entry) -> Vec<String> {
    let Ok(descriptors) = fs::read_dir(process.join("fd")) else {
        return Vec::new();
    };
    let mine = mount.id.to_string();
    let is_mine = |info: String| {
        info.lines()
            .filter_map(|line| line.strip_prefix("mnt_id:"))
            .any(|id| id.trim() == mine)
    };
    descriptors
        .flatten()
        .filter(|entry| {
            fs::read_to_string(process.join("fdinfo").join(entry.file_name())).is_ok_and(is_mine)
        })
        .filter_map(|entry| fs::read_link(entry.path()).ok())
        .map(|path| {
            let inside = path.strip_prefix(&mount.mountpoint).unwrap_or(&path);
            match inside.as_os_str().is_empty() {
                true => "the directory itself".to_owned(),
                false => inside.display().to_string(),
            }
        })
        .collect()
}

fn maps_a_file(process: &Path, mount: &Entry) -> bool {
    let Ok(maps) = fs::read_to_string(process.join("maps")) else {
        return false;
    };
    maps.lines().any(|line| {
        let device = line.split_ascii_whitespace().nth(3).unwrap_or_default();
        as_decimal(device).is_some_and(|device| device == mount.device)
    })
}

/// /proc/PID/maps has the device in hexadecimal, mountinfo in decimal.
fn as_decimal(device: &str) -> Option<String> {
    let (major, minor) = device.split_once(':')?;
    let number = |hex| u32::from_str_radix(hex, 16).ok();
    Some(format!("{}:{}", number(major)?, number(minor)?))
}

/// The holders in one line: `in use by vim (pid 12: default/OUTPUT), bash (pid 9: working directory)`.
pub(super) fn describe(holders: &[Holder]) -> String {
    if holders.is_empty() {
        return "in use by a process that cannot be seen from here (try as root)".to_owned();
    }
    let mut named: Vec<String> = holders
        .iter()
        .take(NAMED)
        .map(|holder| {
            format!(
                "{} (pid {}: {})",
                holder.name,
                holder.pid,
                holder.uses.join(", ")
            )
        })
        .collect();
    if holders.len() > NAMED {
        named.push(format!("{} more", holders.len() - NAMED));
    }
    format!("in use by {}", named.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_of_maps_compares_with_one_of_mountinfo() {
        assert_eq!(as_decimal("00:39").as_deref(), Some("0:57"));
        assert_eq!(as_decimal("fd:01").as_deref(), Some("253:1"));
        assert_eq!(as_decimal("x"), None);
    }

    #[test]
    fn many_holders_are_counted_not_listed() {
        let one = |pid| Holder {
            pid,
            name: "cat".to_owned(),
            uses: vec!["default/A".to_owned()],
        };
        let many: Vec<Holder> = (1..=10).map(one).collect();
        let text = describe(&many);
        assert!(text.starts_with("in use by cat (pid 1: default/A), "));
        assert!(text.ends_with("2 more"));
    }
}
