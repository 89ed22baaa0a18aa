//! The configuration of a virtual machine that is not started yet.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::image;
use super::trace;
use super::version::Version;

/// Bytes in a MiB.
pub(crate) const MIB: u64 = 1 << 20;

/// A test's default time limit: generous, since the machine may be busy.
const PATIENCE: Duration = Duration::from_secs(60);

/// What a machine boots from.
#[derive(Debug, Clone)]
enum Boot {
    /// QEMU loads a kernel.
    Kernel(PathBuf),
    /// A USB stick; boots by UEFI if there is firmware (code and variables).
    Stick(PathBuf, Option<[PathBuf; 2]>),
    /// The same as a CD.
    Disc(PathBuf, Option<[PathBuf; 2]>),
}

/// The configuration of a virtual machine. Default: a q35 with 512 MiB, a balloon, and our kernel with `log=json`.
#[derive(Debug, Clone)]
pub(crate) struct Qemu {
    pub(crate) version: Version,
    pub(crate) patience: Duration,
    pub(crate) memory: u64,
    pub(crate) early_target: Option<u64>,
    boot: Boot,
    initramfs: Option<PathBuf>,
    machine: String,
    cpu: String,
    cpus: u32,
    preallocated: bool,
    sparse: bool,
    pub(crate) huge_pages: bool,
    shared: bool,
    hugetlb: bool,
    counting: bool,
    traced: bool,
    incoming: bool,
    objects: Vec<String>,
    balloon: Option<String>,
    /// The balloon's QEMU device name, which implies its bus.
    balloon_driver: &'static str,
    before_balloon: Vec<String>,
    globals: Vec<String>,
    /// Whether the kernel can end QEMU with an exit status.
    debug_exit: bool,
    /// Other options, with their values.
    others: Vec<[String; 2]>,
    command_line: String,
    has_serial: bool,
    has_screen: bool,
    stays: bool,
}

impl Qemu {
    /// The default machine on this version of QEMU.
    pub(crate) fn new(version: Version) -> Self {
        Self {
            version,
            patience: PATIENCE,
            memory: 512 * MIB,
            early_target: None,
            boot: Boot::Kernel(image::kernel()),
            initramfs: None,
            machine: "q35".into(),
            cpu: "max".into(),
            cpus: 1,
            preallocated: false,
            sparse: false,
            huge_pages: true,
            shared: false,
            hugetlb: false,
            counting: false,
            traced: false,
            incoming: false,
            objects: Vec::new(),
            balloon: Some(String::new()),
            balloon_driver: "virtio-balloon-pci",
            before_balloon: Vec::new(),
            globals: Vec::new(),
            debug_exit: true,
            others: Vec::new(),
            command_line: "log=json".into(),
            has_serial: true,
            has_screen: true,
            stays: false,
        }
    }

    /// Boots another image.
    pub(crate) fn image(mut self, image: PathBuf) -> Self {
        self.boot = Boot::Kernel(image);
        self
    }

    /// Boots from a USB stick with this image; by UEFI if there is firmware.
    pub(crate) fn stick(mut self, image: PathBuf, firmware: Option<[PathBuf; 2]>) -> Self {
        self.boot = Boot::Stick(image, firmware);
        self
    }

    /// Boots from a CD with this image; by UEFI if there is firmware.
    pub(crate) fn disc(mut self, image: PathBuf, firmware: Option<[PathBuf; 2]>) -> Self {
        self.boot = Boot::Disc(image, firmware);
        self
    }

    /// A file system in memory, for a guest that uses one.
    pub(crate) fn initramfs(mut self, archive: PathBuf) -> Self {
        self.initramfs = Some(archive);
        self
    }

    /// The machine type, with properties: `microvm,pcie=on`.
    pub(crate) fn machine(mut self, machine: &str) -> Self {
        self.machine = machine.into();
        self
    }

    /// The CPU model, with properties.
    pub(crate) fn cpu(mut self, cpu: &str) -> Self {
        self.cpu = cpu.into();
        self
    }

    /// How many CPUs.
    pub(crate) fn cpus(mut self, number: u32) -> Self {
        self.cpus = number;
        self
    }

    /// Bytes of RAM.
    pub(crate) fn memory(mut self, bytes: u64) -> Self {
        self.memory = bytes;
        self
    }

    /// Makes QEMU touch all RAM at the start, so that memory returned by the guest shows in QEMU's resident size.
    pub(crate) fn preallocated(mut self) -> Self {
        self.preallocated = true;
        self
    }

    /// Makes QEMU reserve nothing for the guest's RAM, which may then exceed the host's: the host backs only pages
    /// that the guest touches. The RAM is not backed by a file.
    pub(crate) fn sparse(mut self) -> Self {
        self.sparse = true;
        self.huge_pages = false;
        self
    }

    /// Backs the guest's RAM with the host's huge pages, all allocated at the start.
    pub(crate) fn hugetlb(mut self) -> Self {
        self.hugetlb = true;
        self
    }

    /// Keeps the host from backing the guest's RAM with huge pages, which QEMU asks for by default.
    pub(crate) fn without_huge_pages(mut self) -> Self {
        self.huge_pages = false;
        self
    }

    /// Backs the guest's RAM with a file beside the QMP socket, so that the test can access it. Use less than 2 GiB:
    /// then all of it lies below the device hole.
    pub(crate) fn shared_memory(mut self) -> Self {
        self.shared = true;
        self
    }

    /// Makes the CPU's clock count instructions: one per tick, and none while the CPU sleeps.
    pub(crate) fn counting(mut self) -> Self {
        self.counting = true;
        // QEMU 10.0 aborts with `Bad icount read` when x2APIC registers are read while it counts instructions.
        self.cpu = "max,x2apic=off".into();
        self
    }

    /// Makes QEMU trace what the guest accesses that is not memory.
    pub(crate) fn traced(mut self) -> Self {
        self.traced = true;
        self
    }

    /// Properties of the balloon, separated by commas.
    pub(crate) fn balloon(mut self, properties: &str) -> Self {
        self.balloon = Some(properties.into());
        self
    }

    /// The same, for a balloon on virtio-mmio.
    pub(crate) fn balloon_on_mmio(mut self, properties: &str) -> Self {
        self.balloon_driver = "virtio-balloon-device";
        self.balloon(properties)
    }

    /// No balloon at all.
    pub(crate) fn without_balloon(mut self) -> Self {
        self.balloon = None;
        self
    }

    /// Sets the target, in bytes left to the guest, before the guest's first instruction.
    pub(crate) fn early_target(mut self, bytes: u64) -> Self {
        self.early_target = Some(bytes);
        self
    }

    /// Adds a device before the balloon, which may sit behind it.
    pub(crate) fn device(mut self, device: &str) -> Self {
        self.before_balloon.push(device.into());
        self
    }

    /// An object that devices can refer to: `iothread,id=io0`.
    pub(crate) fn object(mut self, object: &str) -> Self {
        self.objects.push(object.into());
        self
    }

    /// The same machine, waiting for an incoming migration.
    pub(crate) fn incoming(mut self) -> Self {
        self.incoming = true;
        self
    }

    /// A property of all devices of one kind: `driver.property=value`.
    pub(crate) fn global(mut self, property: &str) -> Self {
        self.globals.push(property.into());
        self
    }

    /// Without `isa-debug-exit`, like any machine outside tests: the guest can only power off.
    pub(crate) fn without_debug_exit(mut self) -> Self {
        self.debug_exit = false;
        self
    }

    /// Any other QEMU option.
    pub(crate) fn option(mut self, name: &str, value: &str) -> Self {
        self.others.push([name.into(), value.into()]);
        self
    }

    /// The kernel's command line, instead of `log=json`.
    pub(crate) fn command_line(mut self, line: &str) -> Self {
        self.command_line = line.into();
        self
    }

    /// No serial port at all.
    pub(crate) fn without_serial(mut self) -> Self {
        self.has_serial = false;
        self
    }

    /// No screen at all.
    pub(crate) fn without_screen(mut self) -> Self {
        self.has_screen = false;
        self
    }

    /// Keeps QEMU running when the guest powers off or fails, so that its screen can still be read.
    pub(crate) fn staying(mut self) -> Self {
        self.stays = true;
        self
    }

    /// The time limit of the whole test.
    pub(crate) fn patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// Path of the trace.
    pub(crate) fn trace_file(qmp: &Path) -> PathBuf {
        qmp.with_file_name("trace")
    }

    /// Path of the shared memory.
    pub(crate) fn memory_file(qmp: &Path) -> PathBuf {
        qmp.with_file_name("ram")
    }

    /// QEMU's arguments. The serial port is on standard input and output; QMP connects to `qmp`, where the test
    /// listens.
    pub(crate) fn arguments(&self, qmp: &Path) -> Vec<OsString> {
        let mut line: Vec<OsString> = Vec::new();
        let mut option = |name: &str, value: &str| line.extend([name.into(), value.into()]);
        // TCG everywhere: the same instructions on every machine that runs the tests.
        option("-accel", "tcg");
        option("-cpu", &self.cpu);
        if self.counting {
            option("-icount", "shift=0,sleep=off");
        }
        if self.traced {
            trace::EVENTS.iter().for_each(|event| option("-trace", event));
            option("-D", &Self::trace_file(qmp).display().to_string());
        }
        if self.cpus > 1 {
            option("-smp", &self.cpus.to_string());
        }
        option("-m", &format!("{}M", self.memory / MIB));
        if self.sparse {
            let size = self.memory;
            option("-object", &format!("memory-backend-ram,id=ram,size={size},reserve=off"));
            option("-machine", &format!("{},memory-backend=ram", self.machine));
        } else if self.preallocated {
            let size = self.memory;
            option("-object", &format!("memory-backend-ram,id=ram,size={size},prealloc=on"));
            option("-machine", &format!("{},memory-backend=ram", self.machine));
        } else if self.hugetlb {
            let size = self.memory;
            let pages = "hugetlb=on,hugetlbsize=2M,prealloc=on";
            option("-object", &format!("memory-backend-memfd,id=ram,size={size},{pages}"));
            option("-machine", &format!("{},memory-backend=ram", self.machine));
        } else if self.shared {
            let (size, path) = (self.memory, Self::memory_file(qmp));
            let path = path.display();
            option("-object", &format!("memory-backend-file,id=ram,size={size},share=on,mem-path={path}"));
            option("-machine", &format!("{},memory-backend=ram", self.machine));
        } else {
            option("-machine", &self.machine);
        }
        option("-display", "none");
        if !self.has_screen {
            option("-vga", "none");
        }
        option("-nic", "none");
        option("-serial", if self.has_serial { "stdio" } else { "none" });
        option("-monitor", "none");
        option("-chardev", &format!("socket,id=qmp,path={}", qmp.display()));
        option("-mon", "chardev=qmp,mode=control");
        if self.stays {
            option("-action", "shutdown=pause");
        } else if self.debug_exit {
            option("-device", "isa-debug-exit,iobase=0xf4,iosize=0x04");
        }
        for object in &self.objects {
            option("-object", object);
        }
        for [name, value] in &self.others {
            option(name, value);
        }
        for property in &self.globals {
            option("-global", property);
        }
        for device in &self.before_balloon {
            option("-device", device);
        }
        if let Some(properties) = &self.balloon {
            let comma = if properties.is_empty() { "" } else { "," };
            option("-device", &format!("{},id=balloon0{comma}{properties}", self.balloon_driver));
        }
        if self.incoming {
            line.extend(["-incoming".into(), "defer".into()]);
        }
        line.push("-S".into());
        self.boot_arguments(&mut line);
        line
    }

    fn boot_arguments(&self, line: &mut Vec<OsString>) {
        let mut option = |name: &str, value: &str| line.extend([name.into(), value.into()]);
        let (image, firmware) = match &self.boot {
            Boot::Kernel(image) => {
                option("-append", &self.command_line);
                if let Some(archive) = &self.initramfs {
                    line.extend(["-initrd".into(), archive.into()]);
                }
                line.extend(["-kernel".into(), image.clone().into()]);
                return;
            }
            Boot::Stick(image, firmware) => {
                option("-device", "qemu-xhci");
                option("-device", "usb-storage,drive=medium,removable=on,bootindex=0");
                (image, firmware)
            }
            Boot::Disc(image, firmware) => {
                option("-device", "ide-cd,drive=medium,bootindex=0");
                (image, firmware)
            }
        };
        option("-drive", &format!("if=none,id=medium,format=raw,readonly=on,file={}", image.display()));
        if let Some([code, variables]) = firmware {
            option("-drive", &format!("if=pflash,format=raw,readonly=on,file={}", code.display()));
            option("-drive", &format!("if=pflash,format=raw,snapshot=on,file={}", variables.display()));
        }
    }
}
