//! Invalid options and files: the error quotes the bad value. A VMM that never gets to a check is no verdict.

use std::fs;

use super::{Folder, Outcome, program};

#[test]
fn bad_options_are_named() -> Outcome {
    let folder = Folder::new("errors")?;
    let path = |name: &str| folder.0.join(name).display().to_string();
    fs::write(path("kernel"), b"\x7fELF")?;
    fs::write(path("text"), "hello")?;
    let (kernel, text, none) = (path("kernel"), path("text"), path("none"));
    for (arguments, words) in [
        (vec![], "--vmm"),
        (vec!["--vmm", "quemu", "--kernel", &kernel], "`quemu`"),
        (vec!["--vmm", "vmm {kernel}", "--kernel", &kernel], "{cmdline}"),
        (vec!["--vmm", "qemu", "--kernel", &none], &none),
        (vec!["--vmm", "qemu", "--kernel", &text], "not an ELF file"),
        (vec!["--vmm", "qemu", "--kernel", &kernel, "--checks", "nonsense"], "`nonsense`"),
        (vec!["--vmm", "qemu", "--kernel", &kernel, "--timeout", "soon"], "`soon`"),
        (vec!["--vmm", "qemu", "--kernel", &kernel, "--memory", "3"], "3"),
        (vec!["--vmm", "qemu", "--kernel", &kernel, "--format", "xml"], "xml"),
        (vec!["--vmm", "qemu", "--kernel", &kernel, "-j", "3"], "--isolate"),
        (vec!["--vmm", "qemu", "--kernel", &kernel, "--baseline", &none], &none),
        (vec!["--vmm", "qemu", "--kernel", &kernel, "--baseline", &text], "not JSON"),
        (vec!["--vmm", "qemu", "--kernel", &kernel, "--output", "/nowhere/x"], "/nowhere/x"),
        (vec!["--vmm", "qemu", "--kernel", &kernel, "--kernel-arg", "irq"], "`irq`"),
        (vec!["--vmm", "qemu", "--kernel", &kernel, "--kernel-arg", "checks=x"], "`checks`"),
    ] {
        let output = program().args(&arguments).output()?;
        let text = String::from_utf8(output.stderr)?;
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {text}");
        assert!(text.contains(words), "{arguments:?}: {text}");
    }
    Ok(())
}

#[test]
fn a_vmm_that_does_not_start_is_no_verdict() -> Outcome {
    let folder = Folder::new("no-start")?;
    let kernel = folder.0.join("kernel");
    fs::write(&kernel, b"\x7fELF")?;
    for (vmm, words) in [
        ("/nowhere/vmm {kernel} {cmdline}", "/nowhere/vmm"),
        ("sh -c 'echo no such device >&2; exit 3' {kernel} {cmdline}", "no such device"),
        ("sh -c 'sleep 60' {kernel} {cmdline}", "no check began"),
    ] {
        let output = program().args(["--boot-timeout", "1", "--vmm", vmm, "--kernel"]).arg(&kernel).output()?;
        let text = String::from_utf8(output.stderr)?;
        assert_eq!(output.status.code(), Some(3), "{vmm}: {text}");
        assert!(text.contains(words), "{vmm}: {text}");
    }
    Ok(())
}

#[test]
fn help_and_list_say_what_there_is() -> Outcome {
    let text = |argument: &str| {
        Ok::<_, Box<dyn std::error::Error + Send + Sync>>(String::from_utf8(program().arg(argument).output()?.stdout)?)
    };
    let help = text("--help")?;
    assert!(help.contains("untested") && help.contains("Exit status:"), "{help}");
    assert!(text("--list")?.lines().any(|line| line.starts_with("inflate-completes ") && line.contains("must")));
    Ok(())
}
