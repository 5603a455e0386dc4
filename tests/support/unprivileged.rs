//! A user without rights, who may mount: in a mount namespace of its own, where /dev/fuse is open to all. The machine's
//! own /dev/fuse stays as it is.

use super::{STOREFS, World, clean};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

/// Runs as root in the new namespace, then the script as `nobody`. fusermount3 is set-uid root, so no_new_privs must
/// stay off.
const PREPARE: &str = r#"
mount --make-rprivate /
mkdir -p "$WORLD/dev"
mount -t tmpfs -o mode=755 none "$WORLD/dev"
mknod -m 0666 "$WORLD/dev/fuse" c 10 229
chmod 0666 "$WORLD/dev/fuse"
mount --bind "$WORLD/dev/fuse" /dev/fuse
exec setpriv --reuid=nobody --regid=nogroup --clear-groups --inh-caps=-all -- bash -euo pipefail -c "$SCRIPT"
"#;

/// Runs a bash script as `nobody` in a world that belongs to `nobody`, in a private mount namespace. It finds `storefs`
/// in its PATH, `SRC` and `MNT` set, and its mounts end with it. Panics when it fails; returns what it printed.
#[track_caller]
pub fn as_nobody(world: &World, script: &str) -> String {
    let root = world.root();
    fs::set_permissions(root, fs::Permissions::from_mode(0o755)).unwrap();
    for folder in ["bin", "state", "run", "home"] {
        fs::create_dir_all(root.join(folder)).unwrap();
    }
    // The build directory may be closed to others. Another program copies: what this one has open for writing, a child of
    // another thread may inherit for a moment, and then the copy cannot be run.
    let copied = Command::new("cp")
        .arg(STOREFS)
        .arg(root.join("bin/storefs"))
        .status();
    assert!(copied.unwrap().success());
    let owned = Command::new("chown")
        .args(["-R", "nobody:nogroup"])
        .arg(root)
        .status();
    assert!(owned.unwrap().success());
    let path = std::env::var("PATH").unwrap_or_default();
    let mut command = Command::new("unshare");
    clean(&mut command)
        // Of a process namespace all processes end with the first, so no mount is left behind by a failure.
        .args([
            "--mount",
            "--pid",
            "--fork",
            "--kill-child",
            "--mount-proc",
            "--",
        ])
        .args(["bash", "-euo", "pipefail", "-c", PREPARE])
        .current_dir(root)
        .env("WORLD", root)
        .env("SCRIPT", script)
        .env("SRC", world.storage())
        .env("MNT", root.join("mnt"))
        .env("HOME", root.join("home"))
        .env("XDG_STATE_HOME", root.join("state"))
        .env("XDG_RUNTIME_DIR", root.join("run"))
        .env("PATH", format!("{}:{path}", root.join("bin").display()))
        .env("LC_ALL", "C")
        .stdin(Stdio::null());
    let output = command.output().unwrap();
    let out = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "as nobody: {script}\n--- {}\n--- stdout\n{out}\n--- stderr\n{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    out
}
