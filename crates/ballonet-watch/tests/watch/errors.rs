//! Invalid sockets, PIDs and options: the error quotes the bad value and comes within seconds.

use std::fs;
use std::os::unix::net::UnixListener;
use std::process::Stdio;

use super::machine::{Kind, Machine};
use super::{Outcome, program};

/// Runs the program and returns its error message.
fn complaint(arguments: &[&str]) -> Outcome<String> {
    let output = program().args(arguments).stdin(Stdio::null()).output()?;
    assert!(!output.status.success(), "{arguments:?} should fail");
    Ok(String::from_utf8(output.stderr)?)
}

#[test]
fn bad_sockets() -> Outcome {
    let folder = std::env::temp_dir().join(format!("watch-test-errors-{}", std::process::id()));
    fs::create_dir_all(&folder)?;
    let path = |name: &str| folder.join(name).display().to_string();
    fs::write(path("file"), "")?;
    // A listener that never answers, like a QEMU that hangs or serves another client.
    let _mute = UnixListener::bind(path("mute"))?;
    let gone = UnixListener::bind(path("gone"))?;
    drop(gone);
    for (name, words) in [
        ("missing", "no such socket"),
        ("file", "nothing listens there"),
        ("gone", "nothing listens there"),
        ("mute", "no QMP greeting within 3 s"),
    ] {
        let text = complaint(&["attach", &path(name)])?;
        assert!(text.contains(&path(name)) && text.contains(words), "{name}: {text}");
    }
    let both = complaint(&["attach", &path("missing"), &path("gone")])?;
    assert!(both.contains("missing") && both.contains("gone"), "{both}");
    fs::remove_dir_all(&folder)?;
    Ok(())
}

#[test]
fn bad_pids_and_serial_lines() -> Outcome {
    let Some(machine) = Machine::start("7.2", Kind::Ballonet, "")? else { return Ok(()) };
    let socket = machine.socket().display().to_string();
    // The largest PID is 2^22.
    let text = complaint(&["attach", &socket, "--pid", "99999999", "--once"])?;
    assert!(text.contains("PID 99999999: no such process"), "{text}");
    let own = std::process::id().to_string();
    let text = complaint(&["attach", &socket, "--pid", &own, "--once"])?;
    assert!(text.contains(&format!("PID {own}: that is ")) && text.contains("not a QEMU"), "{text}");
    let text = complaint(&["attach", &socket, "--pid", "1", "--pid", "2"])?;
    assert!(text.contains("--pid: given 2 times for 1 socket"), "{text}");
    let text = complaint(&["attach", &socket, "--serial", "/nowhere"])?;
    assert!(text.contains("--serial /nowhere"), "{text}");
    let serial = machine.serial().display().to_string();
    let text = complaint(&["attach", &serial])?;
    assert!(text.contains(&serial), "{text}");
    Ok(())
}

#[test]
fn invalid_options() -> Outcome {
    for (arguments, words) in [
        (&["attach", "x", "--interval", "1ms"][..], "`1ms`"),
        (&["policy", "x", "--budget", "lots"], "`lots`"),
        (&["policy", "x", "--budget", "1G", "--guest", "web=2G:1G"], "`web=2G:1G`"),
        (&["attach", "x", "--listen", "here"], "here"),
        (&["plot", "/nowhere.csv"], "/nowhere.csv"),
        (&["run", "--root", "/nowhere"], "/nowhere/run.sh"),
        (&["run", "--kernel", "/nowhere/kernel"], "/nowhere/kernel"),
        (&["attach", concat!(env!("CARGO_MANIFEST_DIR"), "/src")], "src: no socket in this folder"),
    ] {
        let text = complaint(arguments)?;
        assert!(text.contains(words), "{arguments:?}: {text}");
    }
    Ok(())
}
