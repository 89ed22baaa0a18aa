//! Fake VMMs: a shell script that reads the checks from its command line and says what a kernel would.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::{Output, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::{Folder, Outcome, count, program, report, verdict};

/// Checks of the fake guest: few, so that each appears by name in `checks=`.
const CHECKS: &str = "inflate-completes,deflate-completes,chains-work,reset-ends-in-mid-traffic";

/// Functions for scripts. `each` calls `on_check NAME` for each check; without another definition all are ok.
const PRELUDE: &str = r#"#!/bin/sh
list=${2##*checks=}
list=${list%% *}
say() { printf '{"event":"%s","ms":1,"name":"%s","severity":"must","section":"2.1","device":"00:02.0","ok":%s}\n' "$1" "$2" "$3"; }
begin() { printf '{"event":"check-started","ms":1,"name":"%s","device":"00:02.0"}\n' "$1"; }
ok() { begin "$1"; say check "$1" true; }
finish() { printf '{"event":"checks","ms":1,"ok":true}\n'; exit 33; }
each() { for name in $(echo "$list" | tr , ' '); do on_check "$name"; done; finish; }
"#;

/// Writes a VMM that is a script with this end, and a kernel for it.
pub(super) fn write(folder: &Folder, script: &str) -> Outcome<[PathBuf; 2]> {
    let vmm = folder.0.join("vmm");
    fs::write(&vmm, format!("{PRELUDE}\nfolder={}\n{script}\n", folder.0.display()))?;
    fs::set_permissions(&vmm, fs::Permissions::from_mode(0o755))?;
    let kernel = folder.0.join("kernel");
    fs::write(&kernel, b"\x7fELF")?;
    Ok([vmm, kernel])
}

/// Runs the program on a script with this end.
fn run(name: &str, script: &str, options: &[&str]) -> Outcome<(Output, Folder)> {
    let folder = Folder::new(name)?;
    let [vmm, kernel] = write(&folder, script)?;
    let command = format!("{} {{kernel}} {{cmdline}}", vmm.display());
    let mut run = program();
    run.args(["--vmm", &command, "--checks", CHECKS, "--format", "json", "--boot-timeout", "5", "--kernel"]);
    run.arg(&kernel).args(options);
    if !options.contains(&"--timeout") {
        run.args(["--timeout", "2"]);
    }
    Ok((run.output()?, folder))
}

fn judged(name: &str, script: &str, options: &[&str]) -> Outcome<(i32, Value)> {
    report(&run(name, script, options)?.0)
}

#[test]
fn a_sound_vmm_passes_in_one_start() -> Outcome {
    let (status, report) = judged("sound", "on_check() { ok $1; }\neach", &[])?;
    assert_eq!((status, count(&report, "ok"), report["starts"].as_u64()), (0, 4, Some(1)), "{report}");
    Ok(())
}

/// The VMM dies in one check: only that one is blamed, and one more start runs the rest.
#[test]
fn a_vmm_that_dies_is_convicted() -> Outcome {
    let script =
        "on_check() { [ $1 != chains-work ] || { begin $1; echo 'last words' >&2; kill -SEGV $$; }; ok $1; }\neach";
    let (status, report) = judged("dies", script, &[])?;
    let (word, detail) = verdict(&report, "chains-work")?;
    assert_eq!((status, word, count(&report, "ok"), report["starts"].as_u64()), (4, "died", 3, Some(2)), "{report}");
    assert!(detail.contains("SIGSEGV") && detail.contains("last words"), "{detail}");
    Ok(())
}

#[test]
fn an_exit_in_mid_check_names_its_status() -> Outcome {
    let script = "on_check() { [ $1 != deflate-completes ] || { begin $1; exit 7; }; ok $1; }\neach";
    let (status, report) = judged("exits", script, &[])?;
    let (word, detail) = verdict(&report, "deflate-completes")?;
    assert_eq!((status, word), (4, "died"), "{report}");
    assert!(detail.contains("exit status 7"), "{detail}");
    Ok(())
}

#[test]
fn idle_and_spinning_vmms_are_told_apart() -> Outcome {
    for (name, hang, words) in [("idle", "sleep 60", "is idle"), ("spins", "while :; do :; done", "CPU time")] {
        let script = format!("on_check() {{ [ $1 != chains-work ] || {{ begin $1; {hang}; }}; ok $1; }}\neach");
        let start = Instant::now();
        let (status, report) = judged(name, &script, &[])?;
        let (word, detail) = verdict(&report, "chains-work")?;
        assert_eq!((status, word, count(&report, "ok")), (4, "hung", 3), "{report}");
        assert!(detail.contains(words), "{detail}");
        assert!(start.elapsed() < Duration::from_secs(30), "bounded");
    }
    Ok(())
}

/// Neither a flood without a line end, nor one of lines, nor one of events passes for progress.
#[test]
fn floods_are_bounded() -> Outcome {
    let floods = [
        ("flood-bytes", "cat /dev/zero"),
        ("flood-lines", "yes garbage"),
        ("flood-events", r#"yes '{"event":"check-started","ms":1,"name":"nonsense"}'"#),
    ];
    for (name, flood) in floods {
        let script = format!("on_check() {{ [ $1 != chains-work ] || {{ begin $1; {flood}; }}; ok $1; }}\neach");
        let (status, report) = judged(name, &script, &[])?;
        assert_eq!(
            (status, verdict(&report, "chains-work")?.0, count(&report, "ok")),
            (4, "hung", 3),
            "{name} {report}"
        );
    }
    Ok(())
}

#[test]
fn garbage_and_slow_bytes_do_no_harm() -> Outcome {
    let script = r#"
slowly() { text=$1; while [ -n "$text" ]; do rest=${text#?}; printf '%s' "${text%"$rest"}"; text=$rest; sleep 0.001; done; echo; }
on_check() {
  head -c 3000 /dev/urandom
  printf '{"event":"chec'
  slowly "$(begin $1)"
  echo '{"event":"check","name":7}{}}}'
  slowly "$(say check $1 true)"
}
each"#;
    let (status, report) = judged("garbage", script, &["--timeout", "20"])?;
    assert_eq!((status, count(&report, "ok"), report["starts"].as_u64()), (0, 4, Some(1)), "{report}");
    Ok(())
}

#[test]
fn a_closed_serial_line_is_noticed() -> Outcome {
    let script = "on_check() { [ $1 != chains-work ] || { begin $1; exec >&-; sleep 60; }; ok $1; }\neach";
    let (status, report) = judged("closed", script, &["--timeout", "25"])?;
    let (word, detail) = verdict(&report, "chains-work")?;
    assert_eq!((status, word, count(&report, "ok")), (4, "hung", 3), "{report}");
    assert!(detail.contains("closed the serial line"), "{detail}");
    Ok(())
}

/// A death between two checks is attributed to the earlier one.
#[test]
fn a_death_between_checks_has_a_culprit() -> Outcome {
    let script = "on_check() { ok $1; [ $1 != chains-work ] || exit 1; }\neach";
    let (status, report) = judged("between", script, &[])?;
    let (word, detail) = verdict(&report, "chains-work")?;
    assert_eq!((status, word), (4, "died"), "{report}");
    assert!(detail.contains("right after"), "{detail}");
    Ok(())
}

#[test]
fn a_sanitizer_is_heard() -> Outcome {
    let script = "on_check() { begin $1; [ $1 != chains-work ] || { \
                  echo '==7==ERROR: AddressSanitizer: heap-use-after-free' >&2; sleep 0.5; }; say check $1 true; }\neach";
    let (status, report) = judged("sanitizer", script, &[])?;
    let (word, detail) = verdict(&report, "chains-work")?;
    assert_eq!((status, word), (4, "sanitizer"), "{report}");
    assert!(detail.contains("heap-use-after-free"), "{detail}");
    Ok(())
}

#[test]
fn a_guest_panic_is_a_crash() -> Outcome {
    let script = r#"on_check() { [ $1 != chains-work ] || { begin $1; echo '{"event":"panic","ms":1,"cpu":0,"message":"boom"}'; exit 35; }; ok $1; }
each"#;
    let (status, report) = judged("panic", script, &[])?;
    let (word, detail) = verdict(&report, "chains-work")?;
    assert_eq!((status, word), (4, "crashed"), "{report}");
    assert!(detail.contains("boom"), "{detail}");
    Ok(())
}

#[test]
fn memory_is_bounded() -> Outcome {
    let script = "on_check() { [ $1 != chains-work ] || { begin $1; head -c 200000000 /dev/zero | tail -c 199999999 | sleep 60; }; ok $1; }\neach";
    let (status, report) = judged("memory", script, &["--max-rss", "60", "--timeout", "20"])?;
    let (word, detail) = verdict(&report, "chains-work")?;
    assert_eq!((status, word), (4, "hung"), "{report}");
    assert!(detail.contains("the limit is 60 MiB"), "{detail}");
    Ok(())
}

#[test]
fn every_check_may_have_its_own_start() -> Outcome {
    let script = "on_check() { [ $1 != chains-work ] || { begin $1; exit 7; }; ok $1; }\neach";
    let (status, report) = judged("isolate", script, &["--isolate", "-j", "3"])?;
    assert_eq!((status, count(&report, "ok"), report["starts"].as_u64()), (4, 3, Some(4)), "{report}");
    Ok(())
}

/// SIGKILL leaves the program no chance to end its VMM, which ends nonetheless.
#[test]
fn a_killed_program_leaves_no_vmm() -> Outcome {
    let folder = Folder::new("killed")?;
    let [vmm, kernel] = write(&folder, "echo $$ > $folder/pid.new; mv $folder/pid.new $folder/pid; sleep 600")?;
    let command = format!("{} {{kernel}} {{cmdline}}", vmm.display());
    let mut run = program().args(["--vmm", &command, "--kernel"]).arg(&kernel).stderr(Stdio::null()).spawn()?;
    let by = |limit: u64| Instant::now() + Duration::from_secs(limit);
    let deadline = by(30);
    let pid = loop {
        match fs::read_to_string(folder.0.join("pid")) {
            Ok(pid) => break pid.trim().to_owned(),
            Err(error) if Instant::now() > deadline => return Err(format!("the VMM did not start: {error}").into()),
            Err(_) => sleep(Duration::from_millis(20)),
        }
    };
    run.kill()?;
    run.wait()?;
    let deadline = by(30);
    // Nobody may collect its status.
    let runs = || fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "));
    while runs() {
        assert!(Instant::now() < deadline, "the VMM {pid} runs on");
        sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// A check that fails every second time is flaky, and the worst verdict counts.
#[test]
fn repeats_find_flaky_checks() -> Outcome {
    let script = r#"on_check() {
  if [ $1 = chains-work ] && ! [ -e $folder/seen ]; then touch $folder/seen; begin $1; say check $1 false; else ok $1; fi
}
each"#;
    let (status, report) = judged("flaky", script, &["--repeat", "2"])?;
    let check = report["checks"].as_array().ok_or("no checks")?.iter().find(|check| check["name"] == "chains-work");
    assert_eq!(status, 1, "{report}");
    assert_eq!(check.ok_or("no check")?["flaky"], "ok 1 of 2, failed 1 of 2", "{report}");
    Ok(())
}

/// A check whose outcome is lost runs once more, and then is reported as lost.
#[test]
fn lost_outcomes_are_no_verdict() -> Outcome {
    let script = "on_check() { [ $1 = chains-work ] || ok $1; }\neach";
    let (status, report) = judged("lost", script, &[])?;
    assert_eq!((status, verdict(&report, "chains-work")?.0, count(&report, "ok")), (3, "lost", 3), "{report}");
    Ok(())
}

#[test]
fn known_failures_pass_and_new_ones_fail() -> Outcome {
    let script = "on_check() { [ $1 != chains-work ] || { begin $1; exit 7; }; ok $1; }\neach";
    let (output, folder) = run("baseline", script, &[])?;
    let baseline = folder.0.join("baseline.json");
    fs::write(&baseline, &output.stdout)?;
    let option = baseline.display().to_string();
    let (status, report) = judged("baseline-known", script, &["--baseline", &option])?;
    assert_eq!((status, verdict(&report, "chains-work")?.0), (0, "died"), "{report}");
    let (status, report) = judged("baseline-gone", "on_check() { ok $1; }\neach", &["--baseline", &option])?;
    assert_eq!((status, report["vanished"][0].as_str()), (0, Some("chains-work")), "{report}");
    let other = script.replace("chains-work", "inflate-completes");
    assert_eq!(judged("baseline-new", &other, &["--baseline", &option])?.0, 4);
    Ok(())
}
