//! A cached volume behind the real kernel: shells and their tools.
#![allow(clippy::unwrap_used)]

mod cached;

use cached::{World, options, until};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;
use storefs::backend::faulty::Verb;
use storefs::mount::{MountOptions, Mounted};
use storefs::volume::Volume;
use storefs::volume::cached::{Cached, Options};

/// A mount in this process; whatever happens, it does not stay.
struct Kernel {
    mounted: Option<Mounted>,
    volume: Arc<Cached>,
    folder: tempfile::TempDir,
}

impl Kernel {
    /// `None` where nothing can be mounted.
    fn mount(world: &World, options: Options) -> Option<Self> {
        if !rustix::process::geteuid().is_root() || !Path::new("/dev/fuse").exists() {
            // Past what the test harness keeps to itself.
            let said =
                "\n*** NOT TESTED HERE: a mount over the cached volume needs root and /dev/fuse\n";
            let _ = writeln!(std::io::stderr(), "{said}");
            return None;
        }
        let volume = world
            .try_mount(world.behind.clone(), "one", options)
            .unwrap();
        let volume = Arc::new(volume);
        let folder = tempfile::tempdir().unwrap();
        let mount = MountOptions {
            source_label: "memory:".to_owned(),
            ..MountOptions::default()
        };
        let mounted = Mounted::over(
            storefs::mount::runtime().unwrap(),
            volume.clone(),
            folder.path(),
            mount,
        )
        .unwrap();
        Some(Self {
            mounted: Some(mounted),
            volume,
            folder,
        })
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("default")
    }

    /// Runs a script in the store's directory; what it printed.
    fn sh(&self, script: &str) -> String {
        let output = Command::new("timeout")
            .args(["60", "bash", "-euc", script])
            .current_dir(self.path())
            .output()
            .unwrap();
        let printed = String::from_utf8(output.stdout).unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{script}: {printed} {said}");
        printed
    }

    fn sync(&self, world: &World) {
        let sync = self.volume.sync(None);
        world.runtime.block_on(sync.into_wait()).unwrap();
    }
}

impl Drop for Kernel {
    fn drop(&mut self) {
        if let Some(mounted) = self.mounted.take() {
            let _ = mounted.unmount(true);
            let _ = mounted.wait();
        }
    }
}

#[test]
fn a_shell_reads_writes_lists_and_removes() {
    let world = World::new();
    world.put("a.txt", b"first\n");
    let Some(kernel) = Kernel::mount(&world, options()) else {
        return;
    };
    assert_eq!(kernel.sh("cat a.txt; ls"), "first\na.txt\n");
    kernel.sh("echo second > b.txt; echo third >> b.txt; (echo x; echo y) > c.txt; rm a.txt");
    assert_eq!(
        kernel.sh("cat b.txt c.txt; ls"),
        "second\nthird\nx\ny\nb.txt\nc.txt\n"
    );
    kernel.sync(&world);
    assert_eq!(world.there("b.txt").unwrap(), b"second\nthird\n");
    assert_eq!(world.there("c.txt").unwrap(), b"x\ny\n");
    assert_eq!(world.keys_there(), ["b.txt", "c.txt"]);
}

#[test]
fn echo_is_one_put_and_so_are_sed_and_mv() {
    let world = World::new();
    let Some(kernel) = Kernel::mount(&world, options()) else {
        return;
    };
    kernel.sh("echo first > a.txt");
    kernel.sync(&world);
    assert_eq!(world.count(Verb::Put), 1);
    kernel.sh("sed -i s/first/second/ a.txt");
    kernel.sync(&world);
    assert_eq!(world.there("a.txt").unwrap(), b"second\n");
    assert_eq!(world.count(Verb::Put), 2);
    kernel.sh("echo third > .tmp.Ab12Cd; mv .tmp.Ab12Cd a.txt; cat a.txt");
    kernel.sync(&world);
    assert_eq!(world.there("a.txt").unwrap(), b"third\n");
    assert_eq!(world.count(Verb::Put), 3);
    assert_eq!(world.keys_there(), ["a.txt"]);
}

#[test]
fn a_change_by_somebody_else_is_read_at_once() {
    let world = World::new();
    world.put("a.txt", b"first\n");
    let Some(kernel) = Kernel::mount(&world, options()) else {
        return;
    };
    for round in 0..5 {
        let text = format!("round {round} of five\n");
        world.put("a.txt", text.as_bytes());
        world.put(&format!("{round}.txt"), b"new\n");
        until("it is read", || kernel.sh("cat a.txt") == text);
        until("it is listed", || {
            kernel.sh("ls").contains(&format!("{round}.txt"))
        });
    }
}

#[test]
fn long_records_are_copied_compared_and_cut() {
    let world = World::new();
    let bytes: Vec<u8> = (0..20_000_000u32).map(|at| (at / 9 % 253) as u8).collect();
    world.put("big.bin", &bytes);
    let Some(kernel) = Kernel::mount(&world, options()) else {
        return;
    };
    let printed = kernel.sh(
        "tail -c 5 big.bin | wc -c; cp big.bin copy.bin; cmp big.bin copy.bin; stat -c %s copy.bin",
    );
    assert_eq!(printed, "5\n20000000\n");
    kernel.sh("truncate -s 1000 copy.bin; dd if=/dev/zero of=copy.bin bs=10 count=1 conv=notrunc status=none");
    kernel.sync(&world);
    let mut expected = bytes[..1000].to_vec();
    expected[..10].fill(0);
    assert!(world.there("copy.bin").unwrap() == expected);
}

#[test]
fn a_program_that_maps_a_file_and_one_that_keeps_it_open_are_right() {
    let world = World::new();
    let Some(kernel) = Kernel::mount(&world, options()) else {
        return;
    };
    kernel.sh("exec 3>f.txt; echo one >&3; (echo two >&3); echo three >&3; exec 3>&-");
    assert_eq!(kernel.sh("cat f.txt"), "one\ntwo\nthree\n");
    kernel.sh(
        "python3 - <<'E'\nimport mmap\nf = open('m.bin', 'w+b')\nf.truncate(8192)\nm = mmap.mmap(f.fileno(), 8192)\nm[0:5] = b'hello'\nm[8000:8003] = b'end'\nm.flush()\nm.close()\nf.close()\ndata = open('m.bin', 'rb').read()\nassert data[:5] == b'hello' and data[8000:8003] == b'end' and len(data) == 8192\nE",
    );
    kernel.sync(&world);
    assert_eq!(world.there("f.txt").unwrap(), b"one\ntwo\nthree\n");
    assert_eq!(&world.there("m.bin").unwrap()[..5], b"hello");
}

#[test]
fn rsync_skips_what_it_copied_before() {
    let world = World::new();
    let Some(kernel) = Kernel::mount(&world, options()) else {
        return;
    };
    if Command::new("rsync").arg("--version").output().is_err() {
        return;
    }
    let script = "d=$(mktemp -d); echo one > $d/a.txt; echo two > $d/b.txt; touch -d '2020-01-01' $d/*; \
                  rsync -a --no-o --no-g --out-format=%n $d/*.txt .; echo; \
                  rsync -a --no-o --no-g --out-format=%n $d/*.txt .; rm -r $d";
    assert_eq!(kernel.sh(script), "a.txt\nb.txt\n\n");
    kernel.sync(&world);
    assert_eq!(world.count(Verb::Put), 2);
    assert_eq!(world.keys_there(), ["a.txt", "b.txt"]);
}

#[test]
fn while_the_backend_does_not_answer_the_mount_does() {
    let world = World::new();
    world.put("a.txt", b"first\n");
    let patient = Options {
        debounce: Duration::from_millis(1),
        ..options()
    };
    let Some(kernel) = Kernel::mount(&world, patient) else {
        return;
    };
    assert_eq!(kernel.sh("cat a.txt"), "first\n");
    let gate = storefs::backend::faulty::Gate::closed();
    let hang = storefs::backend::faulty::Fault::Hang(gate.clone());
    world.behind.add(storefs::backend::faulty::Rule::any(hang));
    assert_eq!(
        kernel.sh("echo more >> a.txt; cat a.txt; ls"),
        "first\nmore\na.txt\n"
    );
    gate.open();
    world.behind.clear();
    kernel.sync(&world);
    assert_eq!(world.there("a.txt").unwrap(), b"first\nmore\n");
}
