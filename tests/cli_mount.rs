//! The verb mount: in the background, in the foreground, by mount(8), under signals, in an environment.
#![allow(clippy::unwrap_used)]

mod support;

use rustix::process::Signal;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use support::{Reader, World, mountinfo, said, wait_until};

/// A mount in the background, taken away at the end.
struct Background {
    path: PathBuf,
    pid: u32,
    log: PathBuf,
    said: String,
}

impl Background {
    #[track_caller]
    fn start(command: &mut Command, path: &Path) -> Self {
        let said = said(command);
        assert_eq!(said.code, Some(0), "{said:?}");
        let mut background = Self {
            path: path.to_owned(),
            pid: 0,
            log: PathBuf::new(),
            said: said.out,
        };
        let status = background.status();
        background.pid = u32::try_from(status["pid"].as_u64().unwrap()).unwrap();
        background.log = PathBuf::from(status["log"].as_str().unwrap());
        background
    }

    #[track_caller]
    fn status(&self) -> serde_json::Value {
        let said = said(
            Command::new(support::STOREFS)
                .args(["status", "--json"])
                .arg(&self.path),
        );
        assert_eq!(said.code, Some(0), "{said:?}");
        serde_json::from_str(&said.out).unwrap()
    }

    fn process(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{}", self.pid))
    }

    /// Whether the process has ended; nobody may have asked for its exit code yet.
    fn has_ended(&self) -> bool {
        let stat = fs::read_to_string(self.process().join("stat")).unwrap_or_default();
        stat.rsplit_once(") ")
            .is_none_or(|(_, rest)| rest.starts_with('Z'))
    }

    fn kill(&self, signal: Signal) {
        let pid = rustix::process::Pid::from_raw(self.pid as i32).unwrap();
        rustix::process::kill_process(pid, signal).unwrap();
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        if mountinfo(&self.path).is_some() {
            let _ = rustix::mount::unmount(&self.path, rustix::mount::UnmountFlags::DETACH);
        }
        if self.pid != 0 {
            wait_until("the background process ends", || self.has_ended());
        }
        let _ = fs::remove_file(&self.log);
    }
}

fn record(world: &World) {
    fs::write(world.source("default/OUTPUT.json"), "{\"a\":1}").unwrap();
}

// README: S39
#[test]
fn the_background_mount_answers_when_the_command_returns() {
    let world = World::new();
    record(&world);
    let mount = Background::start(
        &mut world.storefs(&["mount", "storage", "mnt"]),
        &world.root().join("mnt"),
    );
    assert_eq!(
        fs::read_to_string(mount.path.join("default/OUTPUT")).unwrap(),
        "{\"a\":1}"
    );
    assert!(
        mount.said.starts_with("mounted ") && mount.said.contains(mount.log.to_str().unwrap()),
        "{}",
        mount.said
    );
    let log = fs::read_to_string(&mount.log).unwrap();
    assert!(log.contains("mounted"), "{log}");
    assert_eq!(
        fs::metadata(&mount.log).unwrap().permissions().mode() & 0o777,
        0o600
    );
    let umount = said(&mut world.storefs(&["umount", "mnt"]));
    assert_eq!(umount.code, Some(0), "{umount:?}");
    wait_until("the process has ended", || mount.has_ended());
    assert!(!mount.path.exists());
}

#[test]
fn the_background_process_keeps_its_command_line_and_nothing_else_of_its_caller() {
    let world = World::new();
    let extra = fs::File::create(world.root().join("extra")).unwrap();
    let mut command = Command::new("bash");
    let line = "exec 7<extra; exec \"$0\" mount storage mnt";
    support::clean(&mut command)
        .args(["-c", line, support::STOREFS])
        .current_dir(world.root());
    let mount = Background::start(&mut command, &world.root().join("mnt"));
    drop(extra);
    let line = fs::read(mount.process().join("cmdline")).unwrap();
    let words: Vec<&[u8]> = line.split(|byte| *byte == 0).collect();
    assert_eq!(&words[1..4], [b"mount".as_slice(), b"storage", b"mnt"]);
    assert_eq!(
        fs::read_link(mount.process().join("cwd")).unwrap(),
        Path::new("/")
    );
    for fd in fs::read_dir(mount.process().join("fd")).unwrap().flatten() {
        let target = fs::read_link(fd.path()).unwrap_or_default();
        assert_ne!(target, world.root().join("extra"));
    }
    let stat = fs::read_to_string(mount.process().join("stat")).unwrap();
    let after_name: Vec<&str> = stat
        .rsplit_once(')')
        .unwrap()
        .1
        .split_ascii_whitespace()
        .collect();
    assert_eq!(
        after_name[3],
        mount.pid.to_string(),
        "it leads a session of its own"
    );
    assert_eq!(after_name[4], "0", "it has no terminal");
}

// README: S39
#[test]
fn a_failure_in_the_background_reaches_the_caller() {
    let world = World::new();
    fs::create_dir(world.root().join("mnt")).unwrap();
    fs::write(world.root().join("mnt/x"), "").unwrap();
    let said = said(&mut world.storefs(&["mount", "storage", "mnt"]));
    assert_eq!(said.code, Some(1));
    assert_eq!(said.err.matches("storefs: ").count(), 1, "{said:?}");
    assert!(said.err.contains("not empty"), "{said:?}");
}

#[test]
fn mount_8_finds_its_program_and_its_options_are_accepted() {
    let world = World::new();
    record(&world);
    let mut command = Command::new(support::STOREFS);
    support::clean(&mut command)
        .arg0("/sbin/mount.fuse.storefs")
        .arg(world.storage())
        .arg(world.root().join("mnt"));
    command.args([
        "-n",
        "-o",
        "ro,noauto,nofail,_netdev,x-systemd.automount",
        "-t",
        "fuse.storefs",
    ]);
    let mount = Background::start(&mut command, &world.root().join("mnt"));
    assert_eq!(
        fs::read_to_string(mount.path.join("default/OUTPUT")).unwrap(),
        "{\"a\":1}"
    );
    let write = fs::write(mount.path.join("default/X"), "").unwrap_err();
    assert_eq!(write.raw_os_error(), Some(libc::EROFS));
}

// README: S44, S46
#[test]
fn term_and_int_unmount_cleanly() {
    for signal in [Signal::TERM, Signal::INT] {
        let world = World::new();
        let mut mount = world.mount(&[]);
        mount.signal(signal);
        let status = mount.wait();
        assert!(status.success(), "{status:?}\n{}", mount.log());
        assert_eq!(mountinfo(&world.root().join("mnt")), None);
        assert!(!world.root().join("mnt").exists());
    }
}

// README: S44
#[test]
fn a_busy_mount_names_who_uses_it_and_a_second_signal_detaches_it() {
    let world = World::new();
    record(&world);
    let mut mount = world.mount(&[]);
    let reader = Reader::of(&mount.path("default/OUTPUT"));
    mount.signal(Signal::TERM);
    wait_until("the log names the reader", || {
        mount.log().contains("in use by tail")
    });
    assert!(mount.log().contains("default/OUTPUT"), "{}", mount.log());
    assert!(mountinfo(&world.root().join("mnt")).is_some());
    mount.signal(Signal::TERM);
    wait_until("the mount is detached", || {
        mountinfo(&world.root().join("mnt")).is_none()
    });
    drop(reader);
    let status = mount.wait();
    assert!(status.success(), "{status:?}\n{}", mount.log());
}

// README: S44
#[test]
fn a_busy_mount_is_detached_when_the_drain_time_is_over() {
    let world = World::new();
    record(&world);
    let mut mount = world.mount(&["-o", "drain=0"]);
    let reader = Reader::of(&mount.path("default/OUTPUT"));
    mount.signal(Signal::TERM);
    wait_until("the mount is detached", || {
        mountinfo(&world.root().join("mnt")).is_none()
    });
    drop(reader);
    assert!(mount.wait().success(), "{}", mount.log());
}

// README: S45
#[test]
fn hangup_opens_the_log_again_and_keeps_the_mount() {
    let world = World::new();
    record(&world);
    let mount = Background::start(
        &mut world.storefs(&["mount", "storage", "mnt"]),
        &world.root().join("mnt"),
    );
    let moved = world.root().join("moved.log");
    fs::copy(&mount.log, &moved).unwrap();
    fs::remove_file(&mount.log).unwrap();
    mount.kill(Signal::HUP);
    wait_until("a new log", || {
        fs::read_to_string(&mount.log).is_ok_and(|text| text.contains("hangup"))
    });
    assert!(mount.path.join("default/OUTPUT").exists());
}

// README: S36, S37
#[test]
fn the_environment_names_default_store_and_input() {
    let world = World::new();
    fs::create_dir_all(world.source("main")).unwrap();
    fs::write(world.source("main/INPUT.json"), "\"old\"").unwrap();
    fs::write(world.source("main/INPUT-METAMORPH-1.json"), "\"new\"").unwrap();
    let mut command = world.storefs(&["mount", "--foreground", "storage", "mnt"]);
    command
        .env("ACTOR_DEFAULT_KEY_VALUE_STORE_ID", "main")
        .env("ACTOR_INPUT_KEY", "INPUT-METAMORPH-1");
    let mount = support::Mount::start(command, &world.root().join("mnt"), &world.storage());
    assert_eq!(
        fs::read_to_string(mount.path("default/INPUT")).unwrap(),
        "\"new\""
    );
    assert_eq!(
        fs::read_to_string(mount.path(".storefs/INPUT")).unwrap(),
        "\"old\""
    );
    // The link belongs to the mount; what it is called after does not change with it.
    for link in ["default", "default/INPUT"] {
        let touched = std::process::Command::new("touch")
            .args(["-h", "-d", "2001-01-01"])
            .arg(mount.path(link))
            .output();
        let said = String::from_utf8(touched.unwrap().stderr).unwrap();
        assert!(said.contains("Operation not permitted"), "{link}: {said}");
    }
    for file in ["main", "main/INPUT.json", "main/INPUT-METAMORPH-1.json"] {
        let modified = fs::metadata(world.source(file)).unwrap().modified();
        assert!(
            modified.unwrap().elapsed().unwrap().as_secs() < 3600,
            "{file}"
        );
    }
}

#[test]
fn systemd_is_told_when_the_mount_is_ready() {
    let world = World::new();
    let name = world.root().join("notify");
    let socket = UnixDatagram::bind(&name).unwrap();
    socket.set_read_timeout(Some(support::PATIENCE)).unwrap();
    let mut command = world.storefs(&["mount", "--foreground", "storage", "mnt"]);
    command.env("NOTIFY_SOCKET", &name);
    let mount = support::Mount::start(command, &world.root().join("mnt"), &world.storage());
    let mut word = [0; 64];
    let length = socket.recv(&mut word).unwrap();
    assert_eq!(&word[..length], b"READY=1");
    mount.unmount();
    let length = socket.recv(&mut word).unwrap();
    assert_eq!(&word[..length], b"STOPPING=1");
}
