//! What programs do with open files: mappings, appends, races, holes, and the file interfaces of Python and Node.
#![allow(clippy::unwrap_used)]

mod kernel;

use kernel::support::World;
use kernel::{DUAL, EVERY, Mount, PLAIN, PLAIN_DAEMON, errno, text};
use rustix::fs::{FallocateFlags, Mode, OFlags, RenameFlags};
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::process::Command;
use std::thread;
use std::time::{Duration, SystemTime};

// README: S62
#[test]
fn python_file_interfaces_work() {
    for way in EVERY {
        let mount = Mount::new(way);
        let said = mount.sh(r#"python3 - <<'PY'
import json, os, pathlib, shutil, tempfile
p = pathlib.Path('data.json')
p.write_text(json.dumps({'n': 1}))
with p.open('r+') as f:
    d = json.load(f); d['n'] += 41
    f.seek(0); json.dump(d, f); f.truncate()
print(json.loads(p.read_text())['n'])
with open('bytes.bin', 'wb') as f:
    f.write(bytes(range(256)) * 100)
with open('bytes.bin', 'rb') as f:
    f.seek(-256, os.SEEK_END); print(f.read() == bytes(range(256)))
with open('log.txt', 'a') as f:
    for i in range(3): print('line', i, file=f, flush=True)
print(sum(1 for _ in open('log.txt')))
os.replace('log.txt', 'log2.txt'); shutil.copy2('log2.txt', 'log3.txt'); shutil.move('log3.txt', 'log4.txt')
os.setxattr('data.json', 'user.mime_type', b'application/x-py'); print(os.getxattr('data.json', 'user.mime_type'))
with tempfile.NamedTemporaryFile('w', dir='.', prefix='young-', suffix='.txt', delete=False) as f:
    f.write('young'); name = f.name
os.rename(name, 'final.txt'); print(pathlib.Path('final.txt').read_text())
fd = os.open('fd.txt', os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600); os.pwrite(fd, b'abcdef', 0); os.ftruncate(fd, 4)
print(os.pread(fd, 10, 0), os.fstat(fd).st_size); os.close(fd)
print(sorted(e.name for e in os.scandir('.') if e.is_file()), oct(os.stat('fd.txt').st_mode & 0o777))
PY"#);
        assert_eq!(
            said,
            "42\nTrue\n3\nb'application/x-py'\nyoung\nb'abcd' 4\n\
             ['bytes.bin', 'data.json', 'fd.txt', 'final.txt', 'log2.txt', 'log4.txt'] 0o600\n",
            "{way}"
        );
    }
}

#[test]
fn node_file_interfaces_work() {
    for way in EVERY {
        let mount = Mount::new(way);
        let said = mount.sh(r#"node --input-type=module - <<'JS'
import fs from 'node:fs'; import { pipeline } from 'node:stream/promises'; import { Readable } from 'node:stream';
fs.writeFileSync('a.json', JSON.stringify({ n: 1 }));
await fs.promises.appendFile('a.json', '\n'); console.log(JSON.parse(await fs.promises.readFile('a.json', 'utf8')).n);
await pipeline(Readable.from(function* () { for (let i = 0; i < 1000; i++) yield `line ${i}\n`; }()), fs.createWriteStream('lines.txt'));
let bytes = 0; for await (const part of fs.createReadStream('lines.txt', { highWaterMark: 100 })) bytes += part.length;
console.log(bytes, fs.statSync('lines.txt').size);
await fs.promises.copyFile('lines.txt', 'copy.txt'); await fs.promises.rename('copy.txt', 'moved.txt');
console.log(fs.readFileSync('moved.txt').equals(fs.readFileSync('lines.txt')));
const f = await fs.promises.open('fd.txt', 'w+'); await f.write('hello'); await f.truncate(4); await f.sync();
console.log((await f.read(Buffer.alloc(10), 0, 10, 0)).bytesRead); await f.close();
try { fs.writeFileSync('a.json', 'x', { flag: 'wx' }); } catch (e) { console.log(e.code); }
try { fs.readFileSync('none'); } catch (e) { console.log(e.code); }
fs.rmSync('moved.txt'); console.log(fs.readdirSync('.').sort().join());
JS"#);
        assert_eq!(
            said, "1\n8890 8890\ntrue\n4\nEEXIST\nENOENT\na.json,fd.txt,lines.txt\n",
            "{way}"
        );
    }
}

// README: S62
#[test]
fn shared_mappings_write_through_and_read_back() {
    for way in EVERY {
        let mount = Mount::new(way);
        let said = mount.sh(r#"head -c 20000 /dev/zero > map.bin; python3 - <<'PY'
import mmap, os
with open('map.bin', 'r+b') as f, mmap.mmap(f.fileno(), 0) as m:
    m[5000:5005] = b'hello'; m[19999] = 33; m.flush()
    with open('map.bin', 'rb') as g: g.seek(5000); print(g.read(5))
with open('map.bin', 'r+b') as f, mmap.mmap(f.fileno(), 0) as m:
    m[0:3] = b'end'
with open('map.bin', 'rb') as f, mmap.mmap(f.fileno(), 0, prot=mmap.PROT_READ) as m:
    print(m[0:3], m[5000:5005], m[19999:20000], len(m))
# A new file, mapped while it is being written.
fd = os.open('new.bin', os.O_RDWR | os.O_CREAT | os.O_TRUNC); os.ftruncate(fd, 8192)
with mmap.mmap(fd, 8192) as m:
    m[4096:4100] = b'page'
os.close(fd); print(open('new.bin', 'rb').read()[4096:4100])
PY
sleep 0.01; dd if="$MNT/default/map.bin" bs=1 count=3 status=none"#);
        assert_eq!(
            said, "b'hello'\nb'end' b'hello' b'!' 20000\nb'page'\nend",
            "{way}"
        );
        let beside = mount.backing("default");
        let file = if way.layout == "plain" {
            "map.bin"
        } else {
            "map.bin.bin"
        };
        let bytes =
            fs::read(beside.join(file)).unwrap_or_else(|_| mount.beside("map.bin").unwrap());
        assert_eq!(
            text(&bytes[5000..5005]),
            "hello",
            "{way}: the folder has what was mapped"
        );
    }
}

// README: S23
#[test]
fn two_processes_appending_lose_no_line() {
    for way in EVERY {
        let mount = Mount::new(way);
        let lines = mount.sh(
            ": > log; : > held
             for p in a b; do ( for i in $(seq 150); do echo \"$p $i\" >> log; done ) & done
             for p in a b; do ( exec 3>> held; for i in $(seq 300); do echo \"$p $i\" >&3; done ) & done
             wait; sort -u log | wc -l; wc -l < log; sort -u held | wc -l; wc -l < held",
        );
        assert_eq!(lines, "300\n300\n600\n600\n", "{way}");
        assert_eq!(
            text(&mount.beside("log").unwrap()).lines().count(),
            300,
            "{way}"
        );
    }
}

// README: S24, S61
#[test]
fn of_many_that_create_exclusively_one_wins() {
    for way in EVERY {
        let mount = Mount::new(way);
        for round in 0..30 {
            let path = mount.path(&format!("default/lock-{round}"));
            let winners: usize = thread::scope(|scope| {
                let tries: Vec<_> = (0..4)
                    .map(|_| scope.spawn(|| usize::from(File::create_new(&path).is_ok())))
                    .collect();
                tries.into_iter().map(|one| one.join().unwrap()).sum()
            });
            assert_eq!(winners, 1, "{way}: round {round}");
        }
        let taken = File::create_new(mount.path("default/lock-0"));
        assert_eq!(errno(taken), libc::EEXIST, "{way}");
    }
}

// README: S63
#[test]
fn holes_truncation_and_allocation_work() {
    for way in EVERY {
        let mount = Mount::new(way);
        let path = mount.path("default/file.bin");
        let file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .open(&path)
            .unwrap();
        file.write_all_at(b"end", 1 << 20).unwrap();
        assert_eq!(file.metadata().unwrap().len(), (1 << 20) + 3, "{way}");
        let mut middle = [1_u8; 16];
        file.read_exact_at(&mut middle, 5000).unwrap();
        assert_eq!(middle, [0; 16], "{way}");
        rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, 2 << 20).unwrap();
        assert_eq!(file.metadata().unwrap().len(), 2 << 20, "{way}");
        file.write_all_at(&[7; 8192], 0).unwrap();
        let hole = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        rustix::fs::fallocate(&file, hole, 4096, 4096).unwrap();
        file.read_exact_at(&mut middle, 4096).unwrap();
        assert_eq!(middle, [0; 16], "{way}");
        file.set_len(4100).unwrap();
        drop(file);
        let value = fs::read(&path).unwrap();
        assert_eq!(
            (value.len(), value[4095], value[4099]),
            (4100, 7, 0),
            "{way}"
        );
        // In place, on the committed record.
        let file = File::options().write(true).open(&path).unwrap();
        file.set_len(10).unwrap();
        drop(file);
        assert_eq!(mount.beside("file.bin").unwrap(), [7; 10], "{way}");
        assert_eq!(fs::metadata(&path).unwrap().len(), 10, "{way}");
    }
}

// README: S71
#[test]
fn times_and_modes_that_are_set_stay() {
    for way in EVERY {
        let mount = Mount::new(way);
        let path = mount.path("default/note");
        fs::write(&path, "text").unwrap();
        let then = SystemTime::UNIX_EPOCH + Duration::from_nanos(981_173_106_123_456_789);
        File::options()
            .write(true)
            .open(&path)
            .unwrap()
            .set_modified(then)
            .unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o604)).unwrap();
        let meta = fs::metadata(&path).unwrap();
        assert_eq!(
            (meta.modified().unwrap(), meta.mode() & 0o7777),
            (then, 0o604),
            "{way}"
        );
        // A replaced record keeps the mode of the one before; a new one has the caller's.
        fs::write(&path, "other").unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o604, "{way}");
        let new = mount.path("default/new");
        File::options()
            .write(true)
            .create_new(true)
            .mode(0o640)
            .open(&new)
            .unwrap();
        assert_eq!(fs::metadata(&new).unwrap().mode() & 0o7777, 0o640, "{way}");
    }
}

// README: S64
#[test]
fn rename_replaces_keeps_or_refuses_as_asked() {
    for way in [PLAIN, DUAL] {
        let mount = Mount::new(way);
        let rename = |from: &str, to: &str, flags| {
            let (from, to) = (
                mount.path("default").join(from),
                mount.path("default").join(to),
            );
            rustix::fs::renameat_with(rustix::fs::CWD, from, rustix::fs::CWD, to, flags)
        };
        mount.sh("echo a > a; echo b > b");
        assert_eq!(
            rename("a", "b", RenameFlags::NOREPLACE),
            Err(rustix::io::Errno::EXIST),
            "{way}"
        );
        assert_eq!(
            rename("a", "b", RenameFlags::EXCHANGE),
            Err(rustix::io::Errno::INVAL),
            "{way}"
        );
        rename("a", "c", RenameFlags::NOREPLACE).unwrap();
        rename("c", "c", RenameFlags::empty()).unwrap();
        assert_eq!(
            rename("none", "c", RenameFlags::empty()),
            Err(rustix::io::Errno::NOENT),
            "{way}"
        );
        assert_eq!(mount.names(), ["b", "c"], "{way}");
        assert_eq!(mount.read("c"), "a\n", "{way}");
    }
}

// README: S69, S73, S74, S75, S76
#[test]
fn a_store_holds_nothing_but_records() {
    for way in [PLAIN, DUAL] {
        let mount = Mount::new(way);
        mount.sh("echo a > a");
        for script in [
            "mkdir folder",
            "mkfifo pipe",
            "mknod device c 1 3",
            "ln a b",
            "ln -s a b",
            "python3 -c \"import socket; socket.socket(socket.AF_UNIX).bind('sock')\"",
        ] {
            let said = mount.sh_fails(script);
            let refused = said.contains("Operation not permitted") || said.contains("Errno 1]");
            assert!(refused, "{way}: {script}: {said}");
        }
        assert_eq!(
            errno(fs::write(mount.path("record"), "x")),
            libc::EPERM,
            "{way}: a file at the root"
        );
        assert_eq!(
            errno(fs::remove_dir(mount.path("default"))),
            libc::ENOTEMPTY,
            "{way}"
        );
        assert_eq!(
            errno(fs::read_dir(mount.path("default/a"))),
            libc::ENOTDIR,
            "{way}"
        );
        assert_eq!(mount.names(), ["a"], "{way}");
    }
}

// README: S70
#[test]
fn a_listing_of_ten_thousand_is_complete_while_it_changes() {
    for way in [PLAIN, DUAL, PLAIN_DAEMON] {
        let mount = Mount::of(way, World::in_memory());
        let folder = mount.backing("default");
        let ending = if way.layout == "plain" { "" } else { ".txt" };
        for n in 0..10_000 {
            fs::write(folder.join(format!("r{n:05}{ending}")), "x").unwrap();
        }
        mount.sync();
        let counted = |args: &str| {
            mount
                .sh(&format!("ls {args} | wc -l"))
                .trim()
                .parse::<usize>()
                .unwrap()
        };
        assert_eq!(counted("-f"), 10_002, "{way}");
        assert_eq!(counted("-l"), 10_001, "{way}");
        assert_eq!(counted("-l"), 10_001, "{way}");
        // Names that stay are listed exactly once however the others come and go.
        let mut listing = fs::read_dir(mount.path("default")).unwrap();
        let mut seen = BTreeSet::new();
        for step in 0.. {
            let Some(entry) = listing.next() else { break };
            let name = entry.unwrap().file_name().into_string().unwrap();
            assert!(seen.insert(name.clone()), "{way}: {name} came twice");
            if step % 100 == 0 {
                let _ =
                    fs::remove_file(mount.path(&format!("default/r{:05}", 9_999 - step / 100 * 2)));
                fs::write(mount.path(&format!("default/new{step}")), "y").unwrap();
            }
        }
        let even = (0..10_000)
            .filter(|n| n % 2 == 0)
            .map(|n| format!("r{n:05}"));
        let missing: Vec<_> = even.filter(|name| !seen.contains(name)).take(5).collect();
        assert_eq!(missing, [""; 0], "{way}: these stayed and were not listed");
    }
}

#[test]
fn files_are_handed_to_the_kernel_where_that_was_not_turned_off() {
    for way in EVERY {
        let mount = Mount::new(way);
        let requests = |kind: &str| mount.status()["requests"][kind].as_u64().unwrap();
        let (reads, writes) = (requests("read"), requests("write"));
        mount.sh("head -c 500000 /dev/urandom > a.bin; cat a.bin a.bin > b.bin; cat b.bin > /dev/null; echo x >> b.bin");
        let (reads, writes) = (requests("read") - reads, requests("write") - writes);
        assert_eq!(writes == 0, way.passthrough, "{way}: {writes} writes");
        assert!(!way.passthrough || reads == 0, "{way}: {reads} reads");
    }
}

// README: S62
#[test]
fn direct_and_synchronous_opens_work() {
    for way in EVERY {
        let mount = Mount::new(way);
        let path = mount.path("default/sync.txt");
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::SYNC;
        let mut file =
            File::from(rustix::fs::open(&path, flags, Mode::from_raw_mode(0o644)).unwrap());
        file.write_all(b"synced").unwrap();
        file.sync_data().unwrap();
        drop(file);
        let mut value = String::new();
        File::open(&path)
            .unwrap()
            .read_to_string(&mut value)
            .unwrap();
        assert_eq!(value, "synced", "{way}");
        let synced = Command::new("sync")
            .arg(mount.path("default"))
            .status()
            .unwrap();
        assert!(synced.success(), "{way}: fsync of a store");
    }
}
