//! What checks ask of the host: done by QMP on real QEMUs; by Cloud Hypervisor's interface on a server that is ours; and
//! a host that cannot do it is no failure of the device.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use serde_json::Value;

use super::qemu::{checker, on_each};
use super::{Folder, Outcome, count, fake, program, report, verdict};

/// Every check that needs the host runs on QEMU, and its balloon passes: with packed rings too.
#[test]
fn qemu_does_what_checks_ask_for() -> Outcome {
    on_each(|version, qemu| {
        let device = "virtio-balloon-pci,packed=on,free-page-reporting=on,deflate-on-oom=on";
        let options = ["--vmm", "qemu", "--program", qemu, "--device", device, "--checks", "host"];
        let (status, report) = report(&checker(&options)?.output()?)?;
        assert_eq!((status, report["starts"].as_u64()), (0, Some(1)), "{version}: {report}");
        // The balloon of 7.2 has no MSI-X unless told (`vectors=`).
        let skipped = u64::from(version == "7.2");
        assert_eq!((count(&report, "ok"), count(&report, "skipped")), (10 - skipped, skipped), "{version}: {report}");
        Ok(())
    })
}

/// Without a socket they are skipped, with the reason.
#[test]
fn without_a_socket_the_checks_are_skipped() -> Outcome {
    on_each(|_, qemu| {
        let command = format!(
            "{qemu} -machine q35 -accel tcg -cpu max -m 256M -display none -nic none -serial stdio -monitor none \
             -device isa-debug-exit,iobase=0xf4,iosize=4 -device virtio-balloon-pci -kernel {{kernel}} -append {{cmdline}}"
        );
        let (status, report) =
            report(&checker(&["--vmm", &command, "--checks", "a-pause-changes-nothing"])?.output()?)?;
        let (word, reason) = verdict(&report, "a-pause-changes-nothing")?;
        assert_eq!((status, word), (0, "skipped"), "{report}");
        assert!(reason.contains("no host program performs `pause`"), "{reason}");
        Ok(())
    })
}

/// A guest that asks for an action, and is content once the host's server has got `last`.
fn asking(action: &str, last: &str) -> String {
    format!(
        r#"
socket=
for word; do [ "$before" != --api-socket ] || socket=$word; before=$word; done
ln -sf $folder/server $socket
# A word that only the successor has.
case "$*" in *--restore*) until grep -q {last} $folder/served; do sleep 0.05; done; say check {CHECK} true; finish ;; esac
begin {CHECK}
printf '{{"event":"host","ms":1,"action":"{action}","device":"00:02.0","target":1191936}}\n'
until grep -q {last} $folder/served 2>/dev/null; do sleep 0.05; done
say check {CHECK} $(grep -q 500 $folder/served && echo false || echo true)
finish
"#
    )
}

const CHECK: &str = "a-pause-changes-nothing";

/// A server of Cloud Hypervisor's interface that answers every request with `status`, and writes down each.
fn serve(folder: &Path, status: &'static str) -> Outcome<Arc<Mutex<Vec<String>>>> {
    let listener = UnixListener::bind(folder.join("server"))?;
    let (seen, log) = (Arc::new(Mutex::new(Vec::new())), folder.join("served"));
    let requests = Arc::clone(&seen);
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let Ok(request) = answer(stream, status) else { continue };
            let mut requests = requests.lock().unwrap_or_else(PoisonError::into_inner);
            requests.push(request);
            let _ = fs::write(&log, format!("{status} {}\n", requests.join("\n")));
        }
    });
    Ok(seen)
}

/// Reads a request: method, path, and body.
fn answer(stream: UnixStream, status: &str) -> Outcome<String> {
    let mut stream = BufReader::new(stream);
    let mut head = String::new();
    stream.read_line(&mut head)?;
    let (mut line, mut length) = (String::new(), 0);
    while stream.read_line(&mut line)? > 2 {
        if let Some(value) = line.strip_prefix("Content-Length: ") {
            length = value.trim().parse()?;
        }
        line.clear();
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body)?;
    let text = if status.starts_with('2') { "" } else { "the VM is not running" };
    let reply = format!("HTTP/1.1 {status}\r\nServer: fake\r\nContent-Length: {}\r\n\r\n{text}", text.len());
    stream.get_mut().write_all(reply.as_bytes())?;
    let words: Vec<&str> = head.split_whitespace().take(2).collect();
    Ok(format!("{} {}", words.join(" "), String::from_utf8(body)?).trim_end().to_owned())
}

/// Runs the profile of Cloud Hypervisor on a script.
fn judged(folder: &Folder, script: &str) -> Outcome<(i32, Value)> {
    let [vmm, kernel] = fake::write(folder, script)?;
    let mut run = program();
    run.args(["--vmm", "cloud-hypervisor", "--checks", CHECK, "--format", "json", "--timeout", "20"]);
    report(&run.arg("--program").arg(vmm).arg("--kernel").arg(kernel).output()?)
}

/// Runs it on a script that asks for `action`: the exit status, the report, and the requests.
fn ask(name: &str, action: &str, last: &str, status: &'static str) -> Outcome<(i32, Value, Vec<String>)> {
    let folder = Folder::new(name)?;
    let seen = serve(&folder.0, status)?;
    let (code, report) = judged(&folder, &asking(action, last))?;
    let requests = seen.lock().unwrap_or_else(PoisonError::into_inner).clone();
    Ok((code, report, requests))
}

const RESIZE: &str = r#"PUT /api/v1/vm.resize {"desired_balloon":1191936}"#;

#[test]
fn cloud_hypervisor_sets_a_target_and_pauses() -> Outcome {
    let (code, report, requests) = ask("api-target", "target", "vm.resize", "204 No Content")?;
    assert_eq!((code, requests), (0, vec![RESIZE.to_owned()]), "{report}");
    let (code, report, requests) = ask("api-pause", "pause", "vm.resize", "204 No Content")?;
    assert_eq!(
        (code, requests),
        (0, ["PUT /api/v1/vm.pause", "PUT /api/v1/vm.resume", RESIZE].map(str::to_owned).into()),
        "{report}"
    );
    Ok(())
}

/// The VMM that was paused is ended, and another goes on from its state.
#[test]
fn cloud_hypervisor_goes_on_from_a_snapshot() -> Outcome {
    let (code, report, requests) = ask("api-restore", "restore", "vm.resize", "200 OK")?;
    assert_eq!((code, count(&report, "ok"), report["starts"].as_u64()), (0, 1, Some(1)), "{report}");
    let [pause, snapshot, resume, resize] = &requests[..] else { panic!("{requests:?}") };
    assert_eq!((&**pause, &**resume, &**resize), ("PUT /api/v1/vm.pause", "PUT /api/v1/vm.resume", RESIZE));
    assert!(snapshot.starts_with(r#"PUT /api/v1/vm.snapshot {"destination_url":"file:///"#), "{snapshot}");
    Ok(())
}

/// What the host could not do says nothing about the device: the reason names the action, the request and the answer.
#[test]
fn a_refused_action_is_trouble() -> Outcome {
    let (code, report, _) = ask("api-refuses", "pause", "vm.pause", "500 Internal Server Error")?;
    let (word, reason) = verdict(&report, CHECK)?;
    assert_eq!((code, word), (0, "trouble"), "{report}");
    for part in ["could not `pause`", "PUT vm.pause", "500 Internal Server Error", "the VM is not running"] {
        assert!(reason.contains(part), "{part}: {reason}");
    }
    Ok(())
}

/// A socket that nobody made is named too.
#[test]
fn a_missing_socket_is_trouble() -> Outcome {
    let script = format!(
        r#"
begin {CHECK}
printf '{{"event":"host","ms":1,"action":"pause","device":"00:02.0","target":4096}}\n'
say check {CHECK} false
finish
"#
    );
    let folder = Folder::new("api-missing")?;
    let (code, report) = judged(&folder, &script)?;
    let (word, reason) = verdict(&report, CHECK)?;
    assert_eq!((code, word), (0, "trouble"), "{report}");
    assert!(reason.contains("could not `pause`") && reason.contains("control socket /"), "{reason}");
    Ok(())
}
