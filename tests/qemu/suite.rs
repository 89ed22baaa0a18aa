//! The short suite: a few tests of each module. Together they cover both versions of QEMU, every machine type, each
//! interrupt mode, both interfaces and both ring formats. The other tests repeat that in other combinations, or take
//! long.

use std::collections::BTreeSet;

use crate::support::{Outcome, Trial, ensure};

/// Test names; `*` matches any rest of a name. A module that is not mentioned is in the suite as a whole; `matrix`
/// chooses its own cells, which cover every pair of values.
const SHORT: &[&str] = &[
    "bench::qemu-10.0::legacy",
    "bench::no_balloon_is_a_failure",
    "check::qemu-10.0::two_vectors",
    "check::tap_of_what_is_fine",
    "check::nothing_to_check_*",
    "commands::*",
    "console::a_long_hold_blocks_nothing_and_ends_by_ctrl_c",
    "console::qemu-10.0::random_bytes_come_from_an_entropy_device",
    "console::tab_completes_and_help_explains_one_command",
    "cpus::qemu-7.2::2_run",
    "cpus::qemu-10.0::4_run",
    "cpus::qemu-10.0::a_failing_cpu_stops_all",
    "cpus::qemu-10.0::queues_interrupt_the_chosen_cpu",
    "devices::qemu-7.2::mmio::balloon",
    "devices::qemu-7.2::mmio-legacy::net",
    "devices::qemu-10.0::legacy::rng",
    "devices::qemu-10.0::modern::blk",
    "devices::qemu-10.0::modern::console",
    "dimms::qemu-10.0::q35::*",
    "engine::qemu-7.2::modern::written_memory_goes_first",
    "engine::qemu-10.0::vectors_6::chains_are_found_to_be_read",
    "exits::qemu-10.0::q35::*",
    "exits::qemu-7.2::q35::start",
    "hardware::qemu-7.2::nmi_is_reported_and_survived",
    "hardware::qemu-7.2::pc_without_acpi",
    "hardware::qemu-10.0::cpu_without_optional_features",
    "hardware::qemu-10.0::microvm_without_any_timer",
    "hotplug::qemu-7.2::removed_without_notice",
    "hotplug::qemu-10.0::msix::two_ports_keep_apart",
    "image::bios_stick_serves",
    "image::uefi_disc_serves",
    "input::qemu-7.2::unread_line_blocks_nothing",
    "input::qemu-10.0::com1_with_irq_5",
    "layouts::cpu::qemu64",
    "layouts::bridge::pcie_to_pci",
    "layouts::many_devices::pc",
    "layouts::memory::16_mib::q35",
    "layouts::memory::6_gib::pc",
    "layouts::memory::20_gib::microvm",
    "life::qemu-7.2::reset_in_the_middle_of_an_inflate",
    "life::qemu-10.0::q35::*",
    "life::qemu-10.0::microvm::reboot_starts_afresh",
    "life::absurd_target_stops_short",
    "life::target_set_before_the_kernel_is_up",
    "matrix::qemu-10.0::microvm::legacy_refused",
    "matrix::steps::qemu-7.2::q35::no_msix",
    "matrix::steps::qemu-7.2::pc::forced_poll",
    "matrix::steps::qemu-10.0::q35::six_vectors",
    "matrix::steps::qemu-10.0::pc::legacy_six_vectors",
    "matrix::steps::qemu-10.0::microvm::packed_six_vectors",
    "migration::qemu-7.2::modern::free_memory_is_not_sent",
    "migration::qemu-10.0::under_memory_pressure",
    "oom::qemu-7.2::packed",
    "oom::qemu-10.0::vectors_6",
    "poison::qemu-7.2::reported_zeros_are_discarded",
    "poison::qemu-10.0::free_memory_holds_the_announced_value",
    "power::qemu-7.2::microvm::poweroff_without_a_button",
    "power::qemu-10.0::without_acpi::*",
    "power::qemu-10.0::q35::button_switches_off",
    "reach::qemu-7.2::line",
    "reach::qemu-10.0::two_vectors_packed",
    "recovery::frozen_and_restored",
    "recovery::needs_reset_is_mended_and_given_up_on_in_the_end",
    "registers::qemu-7.2::put_up_by_the_kernel_of_46_bits",
    "registers::qemu-10.0::put_up_by_firmware_on_q35",
    "reporting::qemu-7.2::packed::unused_memory_returns",
    "reporting::beside_a_balloon_that_moves",
    "rings::in_order_packed",
    "rings::one_entry",
    "screen::framebuffer::1280x1024x32",
    "screen::text::qemu-7.2::failure_can_be_read",
    "screen::text::qemu-10.0::keyboard_types_commands",
    "screen::absent",
    "soak::qemu-10.0",
    "terabyte::qemu-10.0::q35",
    "vmms::qemu-7.2::firecracker::pvh",
    "vmms::qemu-10.0::*",
    "work::qemu-10.0::resident_memory_follows_a_sawtooth",
    "work::the_console_starts_and_stops_programs",
];

/// Marks the tests of the short suite, and adds a test that checks the list.
pub(crate) fn choose(trials: Vec<Trial>) -> Vec<Trial> {
    let modules: BTreeSet<_> = SHORT.iter().map(|pattern| module(pattern)).collect();
    let idle: Vec<_> = SHORT.iter().filter(|pattern| !trials.iter().any(|it| matches(pattern, &it.name))).collect();
    let check = Trial::test("suite::every_word_of_the_table_is_a_test", move || Ok(nothing_idle(&idle)?));
    let mark = |trial: Trial| {
        let name = &trial.name;
        let is_short = !modules.contains(module(name)) || SHORT.iter().any(|pattern| matches(pattern, name));
        if is_short { trial.in_short_suite() } else { trial }
    };
    trials.into_iter().chain([check]).map(mark).collect()
}

fn nothing_idle(idle: &[&&str]) -> Outcome {
    ensure!(idle.is_empty(), "there are no tests of these names: {idle:?}");
    Ok(())
}

fn module(name: &str) -> &str {
    name.split("::").next().unwrap_or(name)
}

fn matches(pattern: &str, name: &str) -> bool {
    pattern.strip_suffix('*').map_or(pattern == name, |start| name.starts_with(start))
}
