//! How to start each VMM: its command line with placeholders.
//!
//! QEMU's profile is tested. The others are written from each project's documentation, and say so.

use std::path::{Path, PathBuf};

use crate::control::{Protocol, socket};
use crate::failure::{Context as _, Outcome};
use crate::slot::Card;

/// What is put into a template.
#[derive(Debug, Clone)]
pub(crate) struct Values {
    /// The kernel's file.
    pub(crate) kernel: PathBuf,
    /// Guest memory in MiB.
    pub(crate) memory: u32,
    /// QEMU's `-device`.
    pub(crate) device: String,
}

/// A VMM that we know how to start.
#[derive(Debug)]
pub(crate) struct Profile {
    /// Its name for `--vmm`.
    pub(crate) name: &'static str,
    /// Whether it was run by its authors.
    pub(crate) tested: bool,
    /// The command; the first word is the program.
    template: &'static str,
    /// A configuration file that `{config}` stands for.
    config: Option<fn(&Values, &str) -> String>,
}

/// The profile of QEMU.
const QEMU: &str = "qemu";

/// Every profile.
pub(crate) const PROFILES: &[Profile] = &[
    Profile {
        name: QEMU,
        tested: true,
        template: "qemu-system-x86_64 -machine q35 -accel {accel} -cpu max -m {memory}M -display none -nic none -serial stdio \
                   -monitor none -no-reboot -qmp unix:{qmp},server=on,wait=off -device isa-debug-exit,iobase=0xf4,iosize=4 -device {device} -kernel {kernel} \
                   -append {cmdline}",
        config: None,
    },
    Profile {
        name: "cloud-hypervisor",
        tested: false,
        template: "cloud-hypervisor --api-socket {api} --kernel {kernel} --cmdline {cmdline} --cpus boot=1 --memory size={memory}M \
                   --balloon size=0,deflate_on_oom=on,free_page_reporting=on --serial tty --console off",
        config: None,
    },
    Profile {
        name: "firecracker",
        tested: false,
        template: "firecracker --no-api --enable-pci --config-file {config}",
        config: Some(firecracker),
    },
    Profile {
        name: "crosvm",
        tested: false,
        template: "crosvm run --disable-sandbox --cpus 1 --mem {memory} --serial type=stdout,hardware=serial,num=1 \
                   --params {cmdline} {kernel}",
        config: None,
    },
    Profile { name: "libkrun", tested: false, template: "krun-check {kernel} {cmdline}", config: None },
    Profile {
        name: "alioth",
        tested: false,
        template: "alioth boot --pvh {kernel} --cmdline {cmdline} --memory size={memory}M --cpu count=1 \
                   --balloon free_page_reporting=true",
        config: None,
    },
];

/// Words that stand for values.
const PLACES: [&str; 8] = ["{kernel}", "{cmdline}", "{memory}", "{device}", "{accel}", "{qmp}", "{api}", "{config}"];

/// A command with placeholders.
#[derive(Debug, Clone)]
pub(crate) struct Template {
    words: Vec<String>,
    config: Option<fn(&Values, &str) -> String>,
    /// Whether its VMM is QEMU on a q35, where the device can be in a hot-plug slot.
    has_slot: bool,
    /// The profile's name, or `command`.
    pub(crate) name: String,
    /// Whether its authors ran it.
    pub(crate) tested: bool,
}

impl Template {
    /// The profile or command that `--vmm` names, with `program` instead of the profile's and `more` words after it.
    pub(crate) fn new(vmm: &str, program: Option<&Path>, more: &[String]) -> Outcome<Self> {
        let profile = PROFILES.iter().find(|profile| profile.name == vmm);
        let text = profile.map_or(vmm, |profile| profile.template);
        if profile.is_none() && !text.contains('{') {
            let names: Vec<_> = PROFILES.iter().map(|profile| profile.name).collect();
            return Err(format!(
                "--vmm `{vmm}`: neither a profile ({}) nor a command with {{kernel}} and {{cmdline}}",
                names.join(", ")
            )
            .into());
        }
        let mut words = shell_words::split(text).map_err(|error| format!("--vmm `{vmm}`: {error}"))?;
        words.extend(more.iter().cloned());
        if let (Some(program), Some(first)) = (program, words.first_mut()) {
            *first = program.to_str().ok_or_else(|| format!("--program {}: not UTF-8", program.display()))?.to_owned();
        }
        let template = Self {
            config: profile.and_then(|profile| profile.config),
            name: profile.map_or("command", |profile| profile.name).to_owned(),
            tested: profile.is_none_or(|profile| profile.tested),
            has_slot: vmm == QEMU,
            words,
        };
        template.check(vmm)?;
        Ok(template)
    }

    fn check(&self, vmm: &str) -> Outcome {
        let has = |place: &str| self.words.iter().any(|word| word.contains(place));
        for place in ["{kernel}", "{cmdline}"] {
            if self.config.is_none() && !has(place) {
                return Err(format!("--vmm `{vmm}`: the command has no {place}").into());
            }
        }
        if self.config.is_none() && has("{config}") {
            return Err(format!("--vmm `{vmm}`: only a profile has a {{config}}").into());
        }
        for word in &self.words {
            let known = PLACES.iter().fold(word.clone(), |word, place| word.replace(place, ""));
            let start = known.find('{').filter(|start| known[*start..].contains('}'));
            if let Some(start) = start {
                return Err(format!(
                    "--vmm: `{}` in `{word}` stands for nothing; use {}",
                    &known[start..],
                    PLACES.join(" ")
                )
                .into());
            }
        }
        Ok(())
    }

    /// What the VMM speaks on the control socket that its command makes.
    pub(crate) fn protocol(&self) -> Option<Protocol> {
        let has = |protocol: &Protocol| self.words.iter().any(|word| word.contains(protocol.place()));
        Protocol::ALL.into_iter().find(has)
    }

    /// The device as a card in a hot-plug slot, if this VMM has one for it.
    pub(crate) fn card(&self, values: &Values) -> Option<Card> {
        Card::new(&values.device).filter(|_| self.has_slot)
    }

    /// The command with everything filled in, and the device in a slot.
    pub(crate) fn fill_slot(&self, card: &Card, values: &Values, cmdline: &str, folder: &Path) -> Outcome<Vec<String>> {
        let values = Values { device: card.device.clone(), ..values.clone() };
        self.fill(&values, cmdline, folder).map(Card::behind_port)
    }

    /// The command with everything filled in; a configuration file is written into `folder`.
    pub(crate) fn fill(&self, values: &Values, cmdline: &str, folder: &Path) -> Outcome<Vec<String>> {
        let kernel = values.kernel.display().to_string();
        let config = folder.join("config.json");
        if let Some(write) = self.config {
            std::fs::write(&config, write(values, cmdline)).of(config.display())?;
        }
        let fill = |word: &String| {
            let mut filled = String::new();
            let mut rest = word.as_str();
            // One pass, so that a value with braces in it is left alone.
            while let Some(start) = rest.find('{') {
                let (before, after) = rest.split_at(start);
                filled += before;
                let place = PLACES.into_iter().find(|place| after.starts_with(place));
                match place {
                    Some("{kernel}") => filled += &kernel,
                    Some("{cmdline}") => filled += cmdline,
                    Some("{memory}") => filled += &values.memory.to_string(),
                    Some("{device}") => filled += &values.device,
                    Some("{accel}") => filled += accelerator(),
                    Some("{qmp}" | "{api}") => filled += &socket(folder).display().to_string(),
                    Some("{config}") => filled += &config.display().to_string(),
                    _ => filled.push('{'),
                }
                rest = &after[place.map_or(1, str::len)..];
            }
            filled + rest
        };
        Ok(self.words.iter().map(fill).collect())
    }
}

/// QEMU's accelerator: a `/dev/kvm` that opens without the CPU's support may hang the guest.
fn accelerator() -> &'static str {
    let cpu = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let supported = cpu.split_whitespace().any(|word| word == "vmx" || word == "svm");
    let opens = std::fs::OpenOptions::new().read(true).write(true).open("/dev/kvm").is_ok();
    if supported && opens { "kvm" } else { "tcg" }
}

fn firecracker(values: &Values, cmdline: &str) -> String {
    serde_json::json!({
        "boot-source": { "kernel_image_path": values.kernel, "boot_args": cmdline },
        "machine-config": { "vcpu_count": 1, "mem_size_mib": values.memory },
        "balloon": { "amount_mib": 0, "deflate_on_oom": true, "free_page_reporting": true, "stats_polling_interval_s": 0 },
        "drives": [],
    })
    .to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values() -> Values {
        Values { kernel: "/k/{cmdline}".into(), memory: 256, device: "virtio-balloon-pci".into() }
    }

    #[test]
    fn every_profile_fills_in() {
        let folder = std::env::temp_dir().join(format!("ballonet-check-profile-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a folder");
        for profile in PROFILES {
            let template = Template::new(profile.name, None, &[]).expect(profile.name);
            let words = template.fill(&values(), "mode=check log=json", &folder).expect(profile.name);
            let all = match profile.config {
                Some(_) => std::fs::read_to_string(folder.join("config.json")).expect("a file"),
                None => words.join(" "),
            };
            assert!(all.contains("mode=check log=json") && all.contains("/k/{cmdline}"), "{all}");
        }
        std::fs::remove_dir_all(&folder).expect("it is ours");
    }

    #[test]
    fn commands_are_split_like_a_shell_does() {
        let template =
            Template::new("'my vmm' -k {kernel} -a '{cmdline} quiet'", None, &["-x".into()]).expect("a command");
        let words = template.fill(&values(), "mode=check", Path::new("/tmp")).expect("filled");
        assert_eq!(words, ["my vmm", "-k", "/k/{cmdline}", "-a", "mode=check quiet", "-x"]);
    }

    #[test]
    fn bad_commands_are_named() {
        for (vmm, words) in [
            ("quemu", "`quemu`: neither a profile (qemu,"),
            ("vmm {kernel}", "has no {cmdline}"),
            ("vmm {cmdline}", "has no {kernel}"),
            ("vmm '{kernel} {cmdline}", "vmm '{kernel}"),
            ("vmm {kernel} {cmdline} {mem}", "`{mem}`"),
            ("vmm {kernel} {cmdline} {config}", "only a profile"),
        ] {
            let error = Template::new(vmm, None, &[]).expect_err(vmm).to_string();
            assert!(error.contains(words), "{vmm}: {error}");
        }
    }
}
