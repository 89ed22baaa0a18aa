//! Hot-plug by QMP: on real QEMUs; on one that dies in it; and what the host cannot do is no failure of the device.

use std::fs;

use serde_json::Value;

use super::qemu::{checker, on_each};
use super::{Folder, Outcome, count, fake, program, report, verdict};

/// The device of every type is unplugged and comes back as it must. The checks that need no slot, before and after those in
/// their order, have one start without it.
#[test]
fn qemu_unplugs_and_plugs_devices_of_every_type() -> Outcome {
    on_each(|version, qemu| {
        for name in ["balloon", "rng", "blk", "console", "net"] {
            let options = ["--vmm", "qemu", "--program", qemu, "--device-type", name, "--checks"];
            let (status, report) = report(
                &checker(&options)?.arg("requests-complete,hot-plug,hostile-status-all-steps-at-once").output()?,
            )?;
            assert_eq!((status, report["starts"].as_u64()), (0, Some(2)), "{version} {name}: {report}");
            assert_eq!((count(&report, "ok"), report["checks"].as_array().map(Vec::len)), (8, Some(8)), "{report}");
            let address = |name: &str| {
                let checks = report["checks"].as_array()?;
                checks.iter().find(|check| check["name"] == name)?["device"].as_str().map(str::to_owned)
            };
            let places = ["requests-complete", "a-plugged-device-works"].map(address);
            assert!(places.iter().all(Option::is_some) && places[0] != places[1], "{places:?}");
        }
        Ok(())
    })
}

/// With packed rings, an id of its own, and a start for each check.
#[test]
fn isolated_checks_unplug_the_device_that_is_given() -> Outcome {
    on_each(|version, qemu| {
        let device = "virtio-balloon-pci,packed=on,id=mine";
        let options = ["--vmm", "qemu", "--program", qemu, "--device", device, "--isolate", "-j", "2"];
        let (status, report) = report(&checker(&options)?.args(["--checks", "hot-plug"]).output()?)?;
        assert_eq!((status, count(&report, "ok")), (0, 6), "{version}: {report}");
        Ok(())
    })
}

/// A QEMU that dies as the device is plugged in is convicted in that check, and the others run.
#[test]
fn a_qemu_that_dies_in_a_plug_costs_one_check() -> Outcome {
    on_each(|version, qemu| {
        let folder = Folder::new(&format!("plug-dies-{version}"))?;
        let wrapper = folder.0.join("wrapper");
        let script = format!(
            r#"#!/bin/bash
# QEMU is this process; the reader strikes it from outside, once.
exec > >(while IFS= read -r line; do
  case $line in *'"action":"plug"'*) [ -e {mark} ] || {{ touch {mark}; kill -KILL $$; }} ;; esac
  printf '%s\n' "$line"
done)
exec {qemu} "$@"
"#,
            mark = folder.0.join("struck").display()
        );
        fs::write(&wrapper, script)?;
        fs::set_permissions(&wrapper, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
        let checks = "inflate-completes,a-plugged-device-is-reset,a-plugged-device-works";
        let mut command = checker(&["--vmm", "qemu", "--checks", checks])?;
        let (status, report) = report(&command.arg("--program").arg(&wrapper).output()?)?;
        assert_eq!((status, report["starts"].as_u64(), count(&report, "ok")), (4, Some(3), 2), "{report}");
        let (word, detail) = verdict(&report, "a-plugged-device-is-reset")?;
        assert!(word == "died" && detail.contains("SIGKILL"), "{report}");
        Ok(())
    })
}

/// On a PC without PCI Express ACPI does the hot-plug: the checks are skipped, with what the slot says.
#[test]
fn a_slot_of_acpi_is_left_alone() -> Outcome {
    on_each(|version, qemu| {
        let options = ["--vmm", "qemu", "--program", qemu, "--vmm-arg=-machine", "--vmm-arg=pc", "--checks"];
        let (status, report) = report(&checker(&options)?.arg("inflate-completes,hot-plug").output()?)?;
        assert_eq!((status, count(&report, "ok"), count(&report, "skipped")), (0, 1, 6), "{version}: {report}");
        let (_, reason) = verdict(&report, "a-plugged-device-works")?;
        assert!(reason.contains("the slot of the device is not on"), "{reason}");
        Ok(())
    })
}

/// A QEMU that does not start with the port runs the other checks; those of hot-plug have its reason.
#[test]
fn a_qemu_that_does_not_start_with_a_slot_is_trouble() -> Outcome {
    on_each(|version, qemu| {
        // It has the id that the port gets.
        let own = "--vmm-arg=pcie-root-port,id=ballonet-port,chassis=3";
        for isolate in [&[][..], &["--isolate"]] {
            let options = ["--vmm", "qemu", "--program", qemu, "--vmm-arg=-device", own, "--checks"];
            let mut command = checker(&options)?;
            let (status, report) = report(&command.arg("inflate-completes,hot-plug").args(isolate).output()?)?;
            assert_eq!((status, count(&report, "ok"), count(&report, "trouble")), (0, 1, 6), "{version}: {report}");
            let (_, reason) = verdict(&report, "a-plugged-device-works")?;
            assert!(reason.contains("no check began with the device in a hot-plug slot"), "{reason}");
            assert!(reason.contains("uplicate") && reason.contains("ballonet-port"), "{reason}");
        }
        Ok(())
    })
}

/// Runs a check on a fake QEMU, in which it asks the host for an action that nobody performs, and then ends as `end` says.
fn in_vain(check: &str, action: &str, end: &str) -> Outcome<(i32, Value)> {
    let folder = Folder::new(&format!("{action}-refused"))?;
    let script = format!(
        r#"
begin {check}
printf '{{"event":"host","ms":1,"action":"{action}","device":"01:00.0"}}\n'
say check {check} '{end}'
finish
"#
    );
    let [vmm, kernel] = fake::write(&folder, &script)?;
    let mut run = program();
    run.args(["--vmm", "qemu", "--checks", check, "--format", "json", "--timeout", "20"]);
    report(&run.arg("--program").arg(vmm).arg("--kernel").arg(kernel).output()?)
}

/// A host that cannot unplug the device says nothing about it.
#[test]
fn a_refused_unplug_is_trouble() -> Outcome {
    let check = "a-plugged-device-works";
    let (code, report) = in_vain(check, "unplug", r#"true,"trouble":"nobody pressed the button""#)?;
    let (word, reason) = verdict(&report, check)?;
    assert_eq!((code, word), (0, "trouble"), "{report}");
    assert!(reason.contains("could not `unplug`") && reason.contains("control socket /"), "{reason}");
    Ok(())
}

/// A device that does not go has failed, although it cannot be plugged in again then.
#[test]
fn a_failure_stands_if_the_device_cannot_be_plugged_in_afterwards() -> Outcome {
    let check = "an-unplugged-device-is-gone";
    let (_, report) = in_vain(check, "plug", r#"false,"detail":"it still answers""#)?;
    assert_eq!(verdict(&report, check)?, ("failed", "it still answers"), "{report}");
    Ok(())
}
