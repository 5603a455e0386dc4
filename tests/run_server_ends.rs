//! How runs on a server end: with everything sent, without the server, killed, refused.
#![allow(clippy::unwrap_used)]

mod runs;
mod served;
mod shop;
mod support;

use runs::mount_of;
use rustix::io::Errno;
use rustix::process::Signal;
use served::{API, bash, cache, kept, last, nothing_is_left, script, start, unsent};
use shop::Shop;
use std::fs;
use support::{Said, mountinfo, said, wait_until};

/// What a run tells that could not send everything.
#[track_caller]
fn tells_what_is_unsent(said: &Said, shop: &Shop, count: usize) {
    assert_eq!(said.code, Some(3), "{said:?}");
    let told = format!("storefs: send to {}: {count} not sent yet", shop.url());
    assert!(
        said.err.contains(&told)
            && said
                .err
                .contains("next run or mount of this source with the same cache="),
        "{said:?}"
    );
    assert_eq!(unsent(shop), 1);
}

// README: S130
#[test]
fn somebody_at_a_terminal_sees_how_sending_goes() {
    let mut shop = Shop::open();
    let cache = cache(&shop);
    let mut command = std::process::Command::new("python3");
    let script = r#"
import os, pty, sys
pid, fd = pty.fork()
if pid == 0:
    os.execv(os.environ['STOREFS'], ['storefs', 'run', *sys.argv[1:]])
seen = b''
while True:
    try: more = os.read(fd, 4096)
    except OSError: break
    if not more: break
    seen += more
    if b'ready' in seen and not os.path.exists('gone'):
        open('ready', 'w').close()
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), b'1 to be sent' in seen)
"#;
    let child = support::clean(&mut command)
        .args(["-c", script, "-o"])
        .arg(format!(
            "cache={},write=back,debounce=10m,drain=1s",
            cache.display()
        ))
        .args([&shop.url(), "--", "bash", "-c"])
        .arg("echo x >$ACTOR_MOUNT/default/a; echo ready; until [ -e gone ]; do sleep 0.01; done")
        .current_dir(shop.world.root())
        .env("STOREFS", support::STOREFS)
        .env("APIFY_TOKEN", &shop.token)
        .stdin(std::process::Stdio::null())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    wait_until("it has written", || {
        shop.world.root().join("ready").exists()
    });
    shop.close();
    fs::write(shop.world.root().join("gone"), "").unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "3 True\n");
}

// README: S130
#[test]
fn what_could_not_be_sent_stays_and_the_next_run_or_mount_sends_it() {
    let mut shop = Shop::open();
    let later = "write=back,debounce=10m,drain=1s";
    let wait = format!(
        r#"{API}
        for i in $(seq 9); do echo "$i" >"$D/k$i"; done; echo '{{}}' >"$D/OUTPUT"
        echo ready; until [ -e go-$1 ]; do sleep 0.01; done"#
    );
    for round in ["run", "mount"] {
        let command = [&bash(&wait)[..], &["-", round]].concat();
        let running = start(&shop, &["--output"], later, &command);
        wait_until("it has written", || running.err().contains("ready"));
        shop.close();
        fs::write(shop.world.root().join(format!("go-{round}")), "").unwrap();
        let said = running.ended();
        tells_what_is_unsent(&said, &shop, 10);
        assert_eq!(said.out, "", "an OUTPUT that was not sent is not printed");
        assert_eq!(mountinfo(&mount_of(&last(&shop).0)), None);
        let (_, store) = last(&shop);
        shop.start();
        assert_eq!(shop.behind(&store, "k9.json"), None);
        match round {
            "run" => {
                script(&shop, &[], "true");
            }
            _ => {
                let path = shop.world.root().join("mnt");
                let mut command = shop.world.storefs(&[
                    "mount",
                    "--foreground",
                    "-o",
                    &format!("cache={}", cache(&shop).display()),
                    &shop.url(),
                    "mnt",
                ]);
                command.env("APIFY_TOKEN", &shop.token);
                let mount = support::Mount::start(command, &path, &shop.world.storage());
                mount.sync();
                mount.unmount();
            }
        }
        for number in 1..=9 {
            let sent = shop.behind(&store, &format!("k{number}.json")).unwrap();
            assert_eq!(sent, format!("{number}\n").as_bytes());
        }
        assert_eq!(shop.behind(&store, "OUTPUT.json").unwrap(), b"{}\n");
        assert_eq!(unsent(&shop), 0);
    }
}

// README: S130
#[test]
fn an_output_that_was_sent_is_printed_though_others_were_not() {
    let shop = Shop::open();
    let body = format!(
        r#"{API}
        api PUT /records/OUTPUT -H 'Content-Type: application/json' -d '{{"n":7}}'
        mkdir "storage/key_value_stores/$ACTOR_DEFAULT_KEY_VALUE_STORE_ID/waits.txt"
        echo x >"$D/waits""#
    );
    // What lies there keeps the server from storing it.
    let later = "write=back,debounce=10m,drain=1s";
    let said = start(&shop, &["--output"], later, &bash(&body)).ended();
    tells_what_is_unsent(&said, &shop, 1);
    assert_eq!(said.out, "{\"n\":7}", "{said:?}");
    let body = format!(
        r#"{API}
        mkdir "storage/key_value_stores/$ACTOR_DEFAULT_KEY_VALUE_STORE_ID/OUTPUT.txt"
        echo x >"$D/OUTPUT""#
    );
    let said = start(&shop, &["--output"], later, &bash(&body)).ended();
    assert_eq!((said.code, said.out.as_str()), (Some(3), ""), "{said:?}");
    assert!(said.err.contains("not on the server yet"), "{said:?}");
}

// README: S130
#[test]
fn a_run_that_is_asked_to_end_sends_everything_first() {
    let shop = Shop::open();
    let body = r#"trap 'echo last >"$ACTOR_MOUNT/default/OUTPUT"; exit 5' TERM; echo ready; while :; do sleep 0.05; done"#;
    let mut running = start(&shop, &[], "write=back,debounce=10m", &bash(body));
    running.until_out("ready");
    running.signal(Signal::TERM);
    let said = running.ended();
    assert_eq!(said.code, Some(5), "{said:?}");
    assert_eq!(kept(&shop).pop().unwrap()["status"], "ABORTED");
    let (_, store) = last(&shop);
    assert_eq!(shop.behind(&store, "OUTPUT.txt").unwrap(), b"last\n");
    nothing_is_left(&shop);
}

// README: S129, S130
#[test]
fn a_close_fails_without_the_server_and_what_was_written_is_sent_later() {
    let mut shop = Shop::open();
    let body = r#"
import os, sys, time
f = os.open(os.environ["ACTOR_MOUNT"] + "/default/late", os.O_WRONLY | os.O_CREAT)
os.write(f, b"text")
print("ready", flush=True)
while not os.path.exists("go"): time.sleep(0.01)
try:
    os.close(f)
except OSError as why:
    print(why.errno, flush=True)
"#;
    let mut running = start(&shop, &[], "drain=10m", &["python3", "-c", body]);
    running.until_out("ready");
    shop.close();
    fs::write(shop.world.root().join("go"), "").unwrap();
    running.until_out(&Errno::NETUNREACH.raw_os_error().to_string());
    // It would wait long for the server to come back, but for somebody who does not.
    wait_until("the command has ended", || {
        mountinfo(&mount_of(&last(&shop).0)).is_none()
    });
    running.signal(Signal::TERM);
    let said = running.ended();
    tells_what_is_unsent(&said, &shop, 1);
    let (_, store) = last(&shop);
    shop.start();
    script(&shop, &[], "true");
    assert_eq!(shop.behind(&store, "late.txt").unwrap(), b"text");
    nothing_is_left(&shop);
}

// README: S130
#[test]
fn a_run_that_is_killed_leaves_nothing_mounted_and_the_next_one_sends_what_it_wrote() {
    let shop = Shop::open();
    let body =
        format!(r#"{API}for i in $(seq 20); do echo "$i" >"$D/k$i"; done; echo ready; sleep 600"#);
    let mut running = start(&shop, &[], "write=back,debounce=10m", &bash(&body));
    running.until_out("ready");
    let (id, store) = last(&shop);
    running.signal(Signal::KILL);
    let said = running.ended();
    assert_eq!(said.code, None, "{said:?}");
    wait_until("its end is known", || {
        kept(&shop).pop().unwrap()["status"] == "FAILED"
    });
    wait_until("the mount goes", || mountinfo(&mount_of(&id)).is_none());
    assert_eq!(shop.behind(&store, "k1.json"), None);
    script(&shop, &[], "true");
    for number in 1..=20 {
        let sent = shop.behind(&store, &format!("k{number}.json")).unwrap();
        assert_eq!(sent, format!("{number}\n").as_bytes());
    }
    nothing_is_left(&shop);
}

// README: S128
#[test]
fn what_cannot_be_is_refused_before_the_command_starts() {
    let mut shop = Shop::open();
    let refused = |shop: &Shop, arguments: &[&str], token: &str, code: i32, why: &str| {
        let url = shop.url();
        let cache = format!("cache={}", cache(shop).display());
        let arguments: Vec<&str> = arguments
            .iter()
            .map(|argument| match *argument {
                "URL" => url.as_str(),
                "CACHE" => cache.as_str(),
                other => other,
            })
            .collect();
        let all = [&arguments[..], &["--", "touch", "started"]].concat();
        let said = said(runs::command(&shop.world, &all).env("APIFY_TOKEN", token));
        assert_eq!(said.code, Some(code), "{said:?}");
        assert!(said.err.contains(why), "{said:?}");
        assert!(!shop.world.root().join("started").exists());
        assert!(!said.err.contains("s3cr3t"), "{said:?}");
    };
    let token = shop.token.clone();
    refused(&shop, &["-o", "CACHE", "URL"], "s3cr3t", 1, "token");
    refused(&shop, &["-o", "ro", "URL"], &token, 2, "a run decides");
    refused(
        &shop,
        &["-o", "ttl=1s", "storage"],
        &token,
        2,
        "on a server",
    );
    refused(
        &shop,
        &["-o", "CACHE", "--input", "{", "URL"],
        &token,
        2,
        "no JSON",
    );
    assert!(kept(&shop).is_empty());
    script(&shop, &[], "true");
    shop.close();
    refused(
        &shop,
        &["-o", "CACHE", "URL"],
        &token,
        1,
        "cannot be reached",
    );
    let fresh = shop.world.root().join("fresh").display().to_string();
    let fresh = format!("cache={fresh}");
    let never = ["-o", fresh.as_str(), "URL"];
    refused(&shop, &never, &token, 1, "storefs: run on http");
    refused(&shop, &never, &token, 1, "try again when it can");
    assert_eq!((kept(&shop).len(), unsent(&shop)), (1, 0));
}

// README: S130
#[test]
fn scratch_files_of_a_run_leave_nothing_behind() {
    let shop = Shop::open();
    let text = r#"echo s >"$D/OUTPUT~"; rm "$D/OUTPUT~"; echo s >"$D/other~"; cat "$D/other~""#;
    assert_eq!(script(&shop, &[], text), "s\n");
    assert_eq!(unsent(&shop), 0);
}
