//! The verbs mount, umount, sync and status on a real mount: background, signals, use by others, control socket.
#![allow(clippy::unwrap_used)]

mod support;

use rustix::process::Signal;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use support::{World, mountinfo, said, wait_until};

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
            wait_until("the background process ends", || !self.process().exists());
        }
        let _ = fs::remove_file(&self.log);
    }
}

/// A process that keeps a file of a mount open until it is dropped.
struct Reader(Child);

impl Reader {
    fn of(path: &Path) -> Self {
        let child = Command::new("tail")
            .args(["-f", "--"])
            .arg(path)
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let fds = PathBuf::from(format!("/proc/{}/fd", child.id()));
        wait_until("the reader has the file open", || {
            let open = fs::read_dir(&fds).into_iter().flatten().flatten();
            open.filter_map(|fd| fs::read_link(fd.path()).ok())
                .any(|target| target == path)
        });
        Self(child)
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn record(world: &World) {
    fs::write(world.source("default/OUTPUT.json"), "{\"a\":1}").unwrap();
}

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
    assert!(
        !mount.process().exists(),
        "umount returns before its daemon has ended"
    );
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
fn the_helper_of_mount_8_mounts_and_accepts_its_options() {
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

#[test]
fn umount_of_a_busy_mount_names_the_processes_and_leaves_it() {
    let world = World::new();
    record(&world);
    let mount = world.mount(&[]);
    let reader = Reader::of(&mount.path("default/OUTPUT"));
    let busy = said(&mut mount.storefs(&["umount"]));
    assert_eq!(busy.code, Some(1), "{busy:?}");
    assert!(
        busy.err
            .contains(&format!("tail (pid {}: default/OUTPUT)", reader.0.id())),
        "{busy:?}"
    );
    assert!(busy.err.contains("--lazy"), "{busy:?}");
    assert!(mount.path("default/OUTPUT").exists());
    drop(reader);
    mount.unmount();
}

#[test]
fn umount_of_a_mount_that_is_somebodys_working_directory_says_so() {
    let world = World::new();
    let mount = world.mount(&[]);
    let mut sleeper = Command::new("sleep")
        .arg("600")
        .current_dir(mount.path("default"))
        .spawn()
        .unwrap();
    let busy = said(&mut mount.storefs(&["umount"]));
    let _ = sleeper.kill();
    let _ = sleeper.wait();
    assert_eq!(busy.code, Some(1), "{busy:?}");
    assert!(
        busy.err.contains("sleep (pid") && busy.err.contains("working directory"),
        "{busy:?}"
    );
}

#[test]
fn umount_with_a_timeout_waits_until_the_mount_is_free() {
    let world = World::new();
    record(&world);
    let mut command = world.storefs(&["mount", "--foreground", "storage", "mnt"]);
    command.env("STOREFS_LOG", "debug");
    let mut mount = support::Mount::start(command, &world.root().join("mnt"), &world.storage());
    let reader = Reader::of(&mount.path("default/OUTPUT"));
    let umount = mount
        .storefs(&["umount", "--timeout", "60s"])
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    wait_until("the daemon was asked in vain", || {
        mount.log().contains("refused over the control socket")
    });
    drop(reader);
    let output = umount.wait_with_output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert!(mount.wait().success());
}

#[test]
fn a_lazy_umount_detaches_at_once_and_the_open_file_stays_readable() {
    let world = World::new();
    record(&world);
    let mut mount = world.mount(&[]);
    let file = fs::File::open(mount.path("default/OUTPUT")).unwrap();
    let lazy = said(&mut mount.storefs(&["umount", "--lazy"]));
    assert_eq!(lazy.code, Some(0), "{lazy:?}");
    assert_eq!(mountinfo(&world.root().join("mnt")), None);
    assert_eq!(std::io::read_to_string(&file).unwrap(), "{\"a\":1}");
    // The place is free for the next mount while the old one still ends.
    let next = world.mount(&[]);
    assert!(next.path("default/OUTPUT").exists());
    drop(file);
    assert!(mount.wait().success(), "{}", mount.log());
    next.sync();
    next.unmount();
}

#[test]
fn umount_8_ends_the_process_well() {
    let world = World::new();
    let mut mount = world.mount(&[]);
    mount.sh("umount \"$MNT\"");
    assert!(mount.wait().success(), "{}", mount.log());
    assert!(!world.root().join("mnt").exists());
}

#[test]
fn what_was_written_is_in_the_folder_after_unmount() {
    let world = World::new();
    let mount = world.mount(&["-o", "layout=plain"]);
    for number in 0..50 {
        fs::write(
            mount.path(&format!("default/R{number}")),
            number.to_string(),
        )
        .unwrap();
    }
    mount.unmount();
    for number in 0..50 {
        assert_eq!(
            fs::read_to_string(world.source(&format!("default/R{number}"))).unwrap(),
            number.to_string()
        );
    }
}

#[test]
fn sync_waits_for_a_store_and_refuses_one_that_is_not_there() {
    let world = World::new();
    let mount = world.mount(&[]);
    let known = said(mount.storefs(&["sync"]).arg("default"));
    assert_eq!(known.code, Some(0), "{known:?}");
    let unknown = said(mount.storefs(&["sync"]).arg("nowhere"));
    assert_eq!(unknown.code, Some(1), "{unknown:?}");
    assert!(unknown.err.contains("nowhere"), "{unknown:?}");
}

#[test]
fn sync_makes_changes_by_others_visible() {
    let world = World::new();
    let mount = world.mount(&["-o", "layout=plain"]);
    assert!(!mount.path("default/NEW").exists());
    fs::write(world.source("default/NEW"), "1").unwrap();
    mount.sync();
    assert!(mount.path("default/NEW").exists());
    fs::remove_file(world.source("default/NEW")).unwrap();
    mount.sync();
    assert!(!mount.path("default/NEW").exists());
}

#[test]
fn status_shows_the_mount_as_lines_json_and_in_the_list() {
    let world = World::new();
    let mount = world.mount(&[]);
    let status = mount.status();
    assert_eq!(
        status["mountpoint"],
        world.root().join("mnt").to_str().unwrap()
    );
    assert_eq!(status["source"], world.storage().to_str().unwrap());
    assert_eq!(status["state"], "mounted");
    assert_eq!(status["pid"], mount.pid());
    let lines = said(&mut mount.storefs(&["status"]));
    assert!(lines.out.contains("state: mounted\n"), "{lines:?}");
    let list = said(&mut world.storefs(&["status"]));
    let row = list
        .out
        .lines()
        .find(|line| line.starts_with(world.root().join("mnt").to_str().unwrap()));
    assert!(row.is_some_and(|row| row.contains("mounted")), "{list:?}");
    let all: serde_json::Value =
        serde_json::from_str(&said(&mut world.storefs(&["status", "--json"])).out).unwrap();
    let pid = u64::from(mount.pid());
    assert!(all.as_array().unwrap().iter().any(|one| one["pid"] == pid));
}

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
