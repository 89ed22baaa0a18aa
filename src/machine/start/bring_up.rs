//! Brings the machine up, from the loader's entry to a machine that drivers can use.

use crate::acpi::{Acpi, BootFlags, Madt, Rsdp, SerialPort, TableInfo, TableState};
use crate::boot::{
    BootInfo, Framebuffer, KernelOptions, LogFormat, Note, PixelFormat, ScreenChoice, Warning, linux, multiboot2, pvh,
};
use crate::console::count;
use crate::machine::cpu::cpuid::{self, Features};
use crate::machine::cpu::memory_types::{self, Mtrrs};
use crate::machine::cpu::stack;
use crate::machine::devices::config_space::MachineConfig;
use crate::machine::interrupts::{io_apic, local_apic, machine_check, pic, traps, vectors};
use crate::machine::memory::boot_frames::BootFrames;
use crate::machine::memory::frames;
use crate::machine::memory::page_frames::MachineFrames;
use crate::machine::smp::trampoline::PAGE_LIMIT;
use crate::machine::smp::{self, registry};
use crate::machine::start::dimms;
use crate::machine::start::entry::ENTRY_TABLES;
use crate::machine::start::firmware::{EarlyMemory, FirmwareMemory};
use crate::machine::start::identity::Identity;
use crate::machine::start::image::Image;
use crate::machine::terminal::{keyboard, log, screen, serial};
use crate::machine::time::calibration;
use crate::machine::time::clock;
use crate::machine::time::timer;
use crate::machine::time::tsc;
use crate::machine::{paging, power};
use crate::mp_table;
use ::log::{debug, info, warn};
use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;
use ballonet::memory::{Counts, FRAME_SIZE, PhysAddr, PhysRange, StorageError};
use ballonet::platform::{Handled, RegisterWindow};
use core::fmt::Write;
use derive_more::Display;

/// What the entry code passes.
#[derive(Debug)]
pub struct Entry {
    image: Image,
    /// Which boot protocol: 0 is PVH.
    magic: u32,
    /// Physical address of the boot information.
    boot_information: u32,
    tsc: u64,
}

/// A machine that has been brought up.
pub(crate) struct Machine {
    /// What the CPU can do.
    pub features: Features,
    /// The contents of the ACPI tables, if there are any.
    pub acpi: Option<Acpi>,
    /// The contents of the MP table, if there is no MADT.
    mp_table: Option<Madt>,
    /// The names of CPU, machine and firmware; empty before [`Machine::identify`].
    pub identity: Identity,
    pub(crate) config: MachineConfig,
    /// The BAR windows that drivers have mapped: no function may map another's.
    pub(crate) claims: Vec<RegisterWindow>,
    pub(crate) frames: MachineFrames,
    boot: BootInfo,
    options: KernelOptions<'static>,
    image: Image,
}

/// Why the machine could not be brought up. Always fatal.
#[derive(Debug, Display)]
enum StartError {
    #[display("{_0}")]
    Pvh(pvh::PvhError),
    #[display("{_0}")]
    Linux(linux::LinuxError),
    #[display("entered as by multiboot2, but with {_0:#x} in eax")]
    UnknownLoader(u32),
    #[display("{_0}")]
    Multiboot2(multiboot2::Multiboot2Error),
    #[display("the memory map has no usable memory where the kernel was loaded: {_0:#x}-{_1:#x}")]
    Overlap(u64, u64),
    #[display("page tables: {_0}")]
    Paging(paging::PagingError),
    #[display("{_0}")]
    Frames(StorageError),
    #[display("local APIC: {_0}")]
    LocalApic(local_apic::setup::LocalApicError),
}

impl Entry {
    /// Entered with the physical address of the boot information: by PVH if the magic number is 0, else
    /// by the protocol whose number it is.
    pub fn new(image: Image, magic: u32, boot_information: u32) -> Self {
        Self { image, magic, boot_information, tsc: tsc::now() }
    }

    /// Brings the boot CPU and the machine up: descriptor tables, page tables, frames, ACPI, interrupts, clock.
    /// Interrupts are on when it returns.
    ///
    /// # Panics
    /// When the machine cannot be used at all.
    pub(crate) fn bring_up(self) -> Machine {
        registry::begin(self.tsc);
        clock::start(self.tsc);
        let features = Features::detect();
        registry::boot().load_segments(&stack::tops(0));
        traps::load();
        cpuid::enable(&features);
        log::initialise();
        match self.continue_with(features) {
            Ok(machine) => machine,
            Err(error) => panic!("cannot start: {error}"),
        }
    }

    fn continue_with(self, mut features: Features) -> Result<Machine, StartError> {
        // Before any page uses PAT entries that the first page tables do not.
        let had_changed = memory_types::set_pat(&features);
        let boot = self.read_boot_info(&features)?;
        if had_changed {
            warn!(
                "firmware had changed the page attribute table for memory or registers: it is reset to its power-up value"
            );
        }
        let (counts, startup_page) = self.set_up_memory(&boot, &features)?;
        attach_framebuffer(&boot);
        report_memory(&boot, &counts);
        machine_check::begin(&features);
        tell_memory_types(&boot, &features);

        let acpi = read_acpi(&boot);
        attach_vga(&boot, acpi.as_ref());
        // A photo of a PC whose start stops shows which PC it is. A virtual machine's names can wait for its balloons.
        let identity = if features.hypervisor { Identity::default() } else { identify(&boot, &features) };
        let mp_table = read_mp_table(acpi.as_ref());
        let madt = acpi.as_ref().and_then(|acpi| acpi.madt.as_ref()).or(mp_table.as_ref());
        pic::mask_all();
        local_apic::setup::initialise(&features, madt).map_err(StartError::LocalApic)?;
        registry::boot().set_apic_id(local_apic::id());
        features.tsc_deadline = features.tsc_deadline && local_apic::accepts_deadlines();
        install_fixed_vectors();
        for entry in madt.map_or(&[][..], |madt| &madt.io_apics) {
            match io_apic::add(entry) {
                Ok(inputs) => debug!(
                    "IOAPIC {} at {}: GSI {}-{}",
                    entry.id,
                    entry.address,
                    entry.gsi_base,
                    entry.gsi_base + inputs - 1
                ),
                Err(error) => warn!("IOAPIC {} at {}: {error}", entry.id, entry.address),
            }
        }
        let rate = calibration::calibrate(&features, acpi.as_ref(), &self.image);
        timer::initialise(&features);
        let mode = if local_apic::is_x2apic() { "x2APIC" } else { "xAPIC" };
        info!("local APIC {} in {mode} mode; TSC at {rate}", local_apic::id());
        calibration::announce(&rate);
        x86_64::instructions::interrupts::enable();
        serial::interrupt::connect(madt);
        keyboard::connect(madt, acpi.as_ref().and_then(|acpi| acpi.fadt.as_ref()));
        // The options borrow the command line for as long as the kernel runs.
        let line: &'static [u8] = Box::leak(boot.command_line.as_bytes().into());
        let options = KernelOptions::parse(line, &mut |_| {});
        let most = options.cpus.unwrap_or(u32::MAX);
        if let Some(madt) = madt {
            // SAFETY: the page was chosen from usable memory below the limit, which is mapped one to one, and reserved.
            unsafe { smp::start::start(&features, madt, &self.image, startup_page, most) };
        }
        let config = MachineConfig::new(acpi.as_ref());
        let (claims, frames, image) = (Vec::new(), MachineFrames, self.image);
        Ok(Machine { features, acpi, mp_table, identity, config, claims, frames, boot, options, image })
    }

    /// Switches to the kernel's own page tables, and sets up the frame allocator. Returns the memory, and the page in
    /// which other CPUs start, if there is one.
    fn set_up_memory(&self, boot: &BootInfo, features: &Features) -> Result<(Counts, Option<PhysRange>), StartError> {
        // A map may claim more than the CPU can address.
        let limit = paging::physical_limit(features);
        let usable = || boot.memory_map.usable().filter_map(move |range| range.below(limit));
        let place = self.image.place();
        if !usable().any(|range| range.start().as_u64() <= place.start && place.end <= range.end()) {
            return Err(StartError::Overlap(place.start, place.end));
        }
        let image = physical(place.start, place.end);
        // Page 0 stays unused so that null pointers fault; modules stay because nothing frees them.
        let kept = boot.areas.iter().filter(|area| area.kind.is_kept()).map(|area| area.range);
        let reserved = physical(0, 4096).into_iter().chain(image).chain(kept);
        let startup_page = ballonet::memory::place(FRAME_SIZE, PAGE_LIMIT, usable(), reserved.clone());
        let reserved = reserved.chain(startup_page);
        let mut boot_frames = BootFrames::new(place.end, usable(), reserved.clone());
        // SAFETY: the memory map's usable memory belongs to the image, is reserved, or is free; the entry code's
        // tables map the first 4 GiB one to one, and boot frames lie there. The image lies where the entry code saw it.
        unsafe { paging::activate(&self.image, usable(), features, &mut boot_frames) }.map_err(StartError::Paging)?;
        screen::suspend();
        let tables = boot_frames.taken();
        // SAFETY: the page tables now active map all usable memory one to one.
        let counts = unsafe { frames::initialise(usable(), reserved.chain(tables)) }.map_err(StartError::Frames)?;
        Ok((counts, startup_page))
    }

    /// Reads the boot information, and chooses the log's format before anything is logged.
    fn read_boot_info(&self, features: &Features) -> Result<BootInfo, StartError> {
        // SAFETY: the entry code's page tables are still in use.
        let memory = unsafe { EarlyMemory::new() };
        // Notes wait here until the log's format is known.
        let mut notes: [Option<Note>; 8] = [None; 8];
        let mut keep = |note| {
            if let Some(slot) = notes.iter_mut().find(|slot| slot.is_none()) {
                *slot = Some(note);
            }
        };
        let address = PhysAddr::new(self.boot_information.into()).unwrap_or_default();
        let mut boot = match self.magic {
            0 => pvh::parse(&memory, address, &mut keep).map_err(StartError::Pvh)?,
            multiboot2::MAGIC => multiboot2::parse(&memory, address, &mut keep).map_err(StartError::Multiboot2)?,
            linux::MAGIC => linux::parse(&memory, address, &mut keep).map_err(StartError::Linux)?,
            magic => return Err(StartError::UnknownLoader(magic)),
        };
        let options = KernelOptions::parse(boot.command_line.as_bytes(), &mut |_| {});
        let rsdp = Rsdp::locate(&memory, boot.rsdp, &mut |_, _| {});
        if let Some(port) = rsdp.and_then(|rsdp| SerialPort::find(&memory, &rsdp)) {
            log::prefer(port);
        }
        log::set_json(options.log == LogFormat::Json);
        log::set_details(options.verbose || !cpuid::has_hypervisor());
        if options.screen == ScreenChoice::Auto {
            begin_screen(&boot, features);
        }
        info!("ballonet {} starts, loaded by {}", env!("CARGO_PKG_VERSION"), boot.protocol);
        for note in notes.into_iter().flatten() {
            warn!("boot information: {note}");
        }
        KernelOptions::parse(boot.command_line.as_bytes(), &mut |warning| warn!("command line: {warning}"));
        dimms::add(&memory, &mut boot);
        Ok(boot)
    }
}

impl Machine {
    /// Finds out the names of CPU, machine and firmware, unless that is done.
    pub(crate) fn identify(&mut self) {
        if self.features.hypervisor {
            self.identity = identify(&self.boot, &self.features);
        }
    }

    /// The kernel command line's options.
    pub(crate) fn options(&self) -> &KernelOptions<'static> {
        &self.options
    }

    /// The word of the command line that prevents the start ([`KernelOptions::refusal`]).
    pub(crate) fn refusal(&self) -> Option<Warning<'_>> {
        KernelOptions::refusal(self.boot.command_line.as_bytes())
    }

    /// Processors, interrupt controllers and ISA interrupt routing: from ACPI, else from the MP table.
    pub(crate) fn madt(&self) -> Option<&Madt> {
        self.acpi.as_ref().and_then(|acpi| acpi.madt.as_ref()).or(self.mp_table.as_ref())
    }

    /// The boot information.
    pub(crate) fn boot_info(&self) -> &BootInfo {
        &self.boot
    }

    /// The ends of the memory below 4 GiB and of all memory.
    pub(crate) fn memory_ends(&self) -> (u64, u64) {
        self.boot.memory_map.ends()
    }

    /// The kernel image.
    pub(crate) fn image(&self) -> &Image {
        &self.image
    }
}

/// Finds out the names of CPU, machine and firmware, and shows them beside the log.
fn identify(boot: &BootInfo, features: &Features) -> Identity {
    let identity = Identity::read(boot, features);
    screen::show_facts(&identity.facts());
    identity
}

fn physical(start: u64, end: u64) -> Option<PhysRange> {
    PhysRange::new(PhysAddr::new(start)?, end.checked_sub(start)?)
}

/// The loader's framebuffer, unless the loader's own map has memory there.
fn framebuffer(boot: &BootInfo) -> Option<&Framebuffer> {
    let is_memory = |range: PhysRange| boot.memory_map.usable().any(|usable| usable.overlaps(range));
    boot.framebuffer.as_ref().filter(|found| found.range().is_some_and(|range| !is_memory(range)))
}

/// Starts to show the log as soon as the screen is known.
fn begin_screen(boot: &BootInfo, features: &Features) {
    let title = format_args!("ballonet {}, loaded by {}", env!("CARGO_PKG_VERSION"), boot.protocol);
    let pixels = framebuffer(boot).filter(|found| found.format != PixelFormat::Text).and_then(Framebuffer::range);
    if let Some(range) = pixels.filter(|_| features.pat) {
        // SAFETY: by the loader there are pixels, and by its own map no memory; the other CPUs have not been started.
        unsafe { ENTRY_TABLES.combine_writes(range.start().as_u64()..range.end()) };
    }
    // SAFETY: the entry code's page tables are in use until the screen is suspended; the framebuffer is no usable
    // memory.
    unsafe { screen::begin(framebuffer(boot), title) };
}

fn attach_framebuffer(boot: &BootInfo) {
    if !screen::is_present() {
        return;
    }
    if let Some(framebuffer) = framebuffer(boot) {
        match screen::attach(framebuffer) {
            Ok(()) => info!("screen: {framebuffer}"),
            Err(error) => warn!("screen: {framebuffer}: {error}"),
        }
    }
}

/// Without a framebuffer, uses a VGA adapter in text mode, unless firmware says that there is none.
fn attach_vga(boot: &BootInfo, acpi: Option<&Acpi>) {
    if !screen::is_present() || framebuffer(boot).is_some() {
        return;
    }
    let flags = acpi.and_then(|acpi| acpi.fadt.as_ref()).and_then(|fadt| fadt.boot_flags);
    if flags.is_some_and(|flags| flags.contains(BootFlags::VGA_ABSENT)) {
        screen::give_up();
    } else if screen::attach_vga() {
        info!("screen: VGA text");
    }
}

fn report_memory(boot: &BootInfo, counts: &Counts) {
    for region in boot.memory_map.regions() {
        debug!("memory {} {}", region.range, region.kind);
    }
    info!("{} MiB of memory, {} MiB free", counts.total / 256, counts.free / 256);
    if counts.beyond > 0 {
        warn!("{} MiB of memory at or above 16 TiB are left unused", counts.beyond / 256);
    }
}

/// Warns of memory that firmware set uncached. Under a hypervisor the MTRRs do not matter.
fn tell_memory_types(boot: &BootInfo, features: &Features) {
    /// Below this address the fixed-range MTRRs apply; the kernel uses hardly any memory there.
    const FIRST: u64 = 1 << 20;
    let Some(mtrrs) = Mtrrs::read(features).filter(|_| !features.hypervisor) else { return };
    for range in boot.memory_map.usable().filter(|range| range.end() > FIRST) {
        if let Some((from, kind)) = mtrrs.first_slow(range.start().as_u64().max(FIRST), range.end()) {
            warn!("memory {range} is {kind} from {from:#x} on, as firmware has set the MTRRs: it will be slow");
        }
    }
}

/// Reads ACPI at the loader's address, or else from the BIOS area.
fn read_acpi(boot: &BootInfo) -> Option<Acpi> {
    let memory = FirmwareMemory;
    let rsdp = Rsdp::locate(&memory, boot.rsdp, &mut |address, error| {
        warn!(
            "ACPI: nothing is at {address}, where the loader has the root pointer ({error}): searching the BIOS area"
        );
    });
    let Some(rsdp) = rsdp else {
        warn!("ACPI: there is no root pointer");
        return None;
    };
    let acpi = Acpi::follow(&memory, rsdp);
    report_tables(&acpi.tables.list);
    for problem in &acpi.problems {
        warn!("{problem}");
    }
    dimms::tell_unused(boot, &acpi);
    power::initialise(&acpi);
    Some(acpi)
}

/// Logs the tables in one line, and each unusable one in a line of its own.
fn report_tables(tables: &[TableInfo]) {
    let mut names = String::new();
    for table in tables {
        if table.state == TableState::Good {
            debug!("ACPI {table}");
            // Writing to a string does not fail.
            let _ = write!(names, " {}", table.signature());
        } else {
            info!("ACPI {table}");
        }
    }
    if !names.is_empty() {
        info!("ACPI{names}");
    }
}

/// Reads the MP table, if ACPI lacks its information.
fn read_mp_table(acpi: Option<&Acpi>) -> Option<Madt> {
    if acpi.is_some_and(|acpi| acpi.madt.is_some()) {
        return None;
    }
    match mp_table::read(&FirmwareMemory)? {
        Ok(madt) => {
            let (processors, io_apics) = (madt.processors.len(), madt.io_apics.len());
            info!("MP table: {}, {}", count(processors, "CPU"), count(io_apics, "IOAPIC"));
            Some(madt)
        }
        Err(error) => {
            warn!("{error}");
            None
        }
    }
}

fn install_fixed_vectors() {
    let error = || {
        local_apic::note_error();
        Handled::Yes
    };
    vectors::install(vectors::APIC_ERROR, String::from("apic-error"), vectors::Handler::new(error));
    vectors::install(vectors::SPURIOUS, String::from("spurious"), vectors::Handler::new(|| Handled::Yes));
}
