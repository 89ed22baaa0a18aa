//! The table of checks: name, how binding, where it is written, what it asks.

use super::checks::{balloon, configuration_space, features, interrupts, layouts, registers, resets, rings, status};
use super::outcome::{Check, Severity, Verdict};
use super::site::Site;
use super::subject::Subject;
use ballonet::balloon::BalloonPlatform;
use ballonet::platform::Platform;

/// How a check is made.
pub(super) enum Step<P: Platform> {
    /// From configuration space alone.
    Site(fn(&mut Site<'_, P>) -> Verdict),
    /// With the device mapped and reset.
    Device(fn(&mut Subject<'_, P>) -> Verdict),
}

/// One row a check: `Severity "name" "section" Step module::function "what it asks"`.
macro_rules! checks {
    ($($severity:ident $name:literal $section:literal $step:ident $module:ident::$function:ident $asks:literal,)+) => {
        /// Every check, in the order in which they are made.
        pub const CHECKS: &[Check] = &[$(
            Check { name: $name, severity: Severity::$severity, section: $section, asks: $asks },
        )+];

        /// How each is made, in the same order.
        pub(super) fn steps<P: BalloonPlatform>() -> impl Iterator<Item = Step<P>> {
            [$(Step::$step($module::$function::<P>)),+].into_iter()
        }
    };
}

#[rustfmt::skip]
checks! {
    // Configuration space.
    Must   "transitional-subsystem-is-the-device-type" "4.1.2.3"     Site configuration_space::transitional_subsystem_is_the_device_type "a transitional device has the subsystem ID 5",
    Must   "transitional-revision-is-0"                "4.1.2.3"     Site configuration_space::transitional_revision_is_0 "a transitional device has revision 0",
    Should "modern-revision-is-1-or-higher"            "4.1.2.1"     Site configuration_space::modern_revision_is_1_or_higher "a device that is not transitional has revision 1 or higher",
    Should "modern-subsystem-is-0x40-or-higher"        "4.1.2.1"     Site configuration_space::modern_subsystem_is_0x40_or_higher "a device that is not transitional has a subsystem ID of 0x40 or higher",
    Must   "capability-list-is-whole"                  "4.1.4"       Site configuration_space::capability_list_is_whole "the capability list ends, without loops or links out of it",
    Must   "capabilities-are-long-enough"              "4.1.4"       Site configuration_space::capabilities_are_long_enough "cap_len covers the fields of each capability",
    Must   "structures-are-all-there"                  "4.1.4"       Site configuration_space::structures_are_all_there "there are common, notification, ISR and device configuration structures",
    Must   "structures-lie-in-their-bars"              "4.1.4"       Site configuration_space::structures_lie_in_their_bars "each structure lies in a BAR that the function has",
    Must   "structures-are-aligned"                    "4.1.4.3.1"   Site configuration_space::structures_are_aligned "common and device structures are aligned to 4 bytes, doorbells to 2",
    Must   "structures-are-long-enough"                "4.1.4.3.1"   Site configuration_space::structures_are_long_enough "each structure has the length that its type needs",
    Custom "structures-do-not-overlap"                 "4.1.4"       Site configuration_space::structures_do_not_overlap "no two structures share bytes of a BAR",
    Must   "notify-multiplier-is-legal"                "4.1.4.4.1"   Site configuration_space::notify_multiplier_is_legal "notify_off_multiplier is 0 or an even power of two",
    Must   "pci-access-is-there"                       "4.1.4.9.1"   Site configuration_space::pci_access_is_there "there is a PCI configuration access capability",
    Must   "msix-is-usable"                            "4.1.5.1.2"   Site configuration_space::msix_is_usable "the MSI-X table and pending bits lie apart in memory BARs",
    Should "msix-has-two-vectors"                      "4.1.5.1.2.1" Site configuration_space::msix_has_two_vectors "MSI-X has at least two vectors",

    // Status and reset.
    Must   "reset-clears-status"                       "2.4.1"       Device status::reset_clears_status "device_status is 0 after a reset",
    Must   "status-bits-read-back"                     "2.1.2"       Device status::status_bits_read_back "status bits that the driver sets are read back",
    Must   "features-ok-sticks"                        "2.2.2"       Device status::features_ok_sticks "FEATURES_OK stays set with the least features that make sense",
    Must   "driver-ok-sticks"                          "3.1.1"       Device status::driver_ok_sticks "DRIVER_OK stays set",
    Custom "queues-of-declined-features-may-be-left-out" "5.5.2"     Device status::queues_of_declined_features_may_be_left_out "the device starts without the queues of features that were not accepted",
    Must   "reset-works-in-every-state"                "2.4.1"       Device status::reset_works_in_every_state "a reset ends in each state of initialization",
    Must   "reset-disables-queues"                     "4.1.4.3.1"   Device status::reset_disables_queues "queue_enable is 0 after a reset",
    Must   "reset-restores-queue-sizes"                "4.1.4.3.1"   Device status::reset_restores_queue_sizes "queue_size is the most that the device takes after a reset",
    Must   "reset-unmaps-vectors"                      "4.1.5.1.2.1" Device status::reset_unmaps_vectors "no event has a vector after a reset",
    Must   "reset-forgets-features"                    "2.4.1"       Device status::reset_forgets_features "after a reset features are negotiated anew",

    // Features.
    Must   "version-1-is-offered"                      "6.2"         Device features::version_1_is_offered "VERSION_1 is offered",
    Must   "offered-features-hold-still"               "2.2"         Device features::offered_features_hold_still "the offered features do not change",
    Must   "feature-words-beyond-are-0"                "4.1.4.3.1"   Device features::feature_words_beyond_are_0 "device_feature is 0 where no feature is defined",
    Should "reserved-features-are-not-offered"         "2.2"         Device features::reserved_features_are_not_offered "bits that mean nothing on a balloon are not offered",
    Custom "feature-selectors-read-back"               "4.1.4.3"     Device features::feature_selectors_read_back "device_feature_select and driver_feature_select read back",
    Custom "accepted-features-read-back"               "4.1.4.3"     Device features::accepted_features_read_back "driver_feature reads back",
    Must   "features-ok-refuses-unoffered"             "2.2.2"       Device features::features_ok_refuses_unoffered "FEATURES_OK does not stick with a feature that is not offered",
    Should "any-offered-subset-is-taken"               "2.2.2"       Device features::any_offered_subset_is_taken "any valid subset of the offered features is accepted",

    // Queues, doorbells and vectors.
    Must   "absent-queues-have-size-0"                 "4.1.4.3.1"   Device registers::absent_queues_have_size_0 "queue_size is 0 for queues that are not there",
    Must   "queues-of-features-are-there"              "5.5.2"       Device registers::queues_of_features_are_there "each offered feature with a queue has it, below num_queues",
    Must   "queue-sizes-are-legal"                     "4.1.5.1.3"   Device registers::queue_sizes_are_legal "queues have at most 32768 entries, a power of two unless they can be packed",
    Custom "queue-selector-reads-back"                 "4.1.4.3"     Device registers::queue_selector_reads_back "queue_select reads back",
    Must   "smaller-queue-sizes-read-back"             "4.1.5.1.3"   Device registers::smaller_queue_sizes_read_back "a smaller queue_size is taken and reads back",
    Custom "queue-addresses-read-back"                 "4.1.4.3"     Device registers::queue_addresses_read_back "the three addresses of a queue read back, all 64 bits",
    Must   "queue-enable-reads-back"                   "4.1.4.3.1"   Device registers::queue_enable_reads_back "queue_enable is 1 once a queue is enabled",
    Must   "queues-are-apart"                          "4.1.4.3"     Device registers::queues_are_apart "registers of one queue do not show in another's",
    Must   "doorbells-are-in-their-window"             "4.1.4.4.1"   Device registers::doorbells_are_in_their_window "each queue's doorbell lies in the notification structure",
    Must   "common-structure-has-what-is-offered"      "4.1.4.3.1"   Device registers::common_structure_has_what_is_offered "the common structure has the fields of the offered features",
    Must   "vectors-read-back"                         "4.1.5.1.2.1" Device registers::vectors_read_back "a vector reads back as written, or as NO_VECTOR if it is refused",
    Custom "every-vector-is-taken"                     "4.1.5.1.2.1" Device registers::every_vector_is_taken "each entry of the MSI-X table can be any event's",
    Must   "absent-vectors-are-refused"                "4.1.5.1.2.1" Device registers::absent_vectors_are_refused "a vector beyond the MSI-X table reads back as NO_VECTOR",

    // Device configuration, and the window in configuration space.
    Must   "configuration-is-long-enough"              "5.5.4"       Device registers::configuration_is_long_enough "the device configuration has the fields of the offered features",
    Must   "configuration-is-there-before-features-ok" "2.5.2"       Device registers::configuration_is_there_before_features_ok "configuration fields can be read before FEATURES_OK",
    Custom "configuration-reads-the-same-in-parts"     "2.5"         Device registers::configuration_reads_the_same_in_parts "a field is the same read in 8, 16 and 32 bits",
    Custom "generation-holds-still"                    "2.5"         Device registers::generation_holds_still "config_generation does not change while the configuration does not",
    Must   "actual-is-kept"                            "5.5.4"       Device registers::actual_is_kept "actual is stored as written",
    Must   "writing-actual-leaves-the-target"          "5.5.4"       Device registers::writing_actual_leaves_the_target "num_pages is the device's: writing actual does not change it",
    Must   "poison-value-is-kept"                      "5.5.6.6"     Device registers::poison_value_is_kept "poison_val is stored as written",
    Must   "pci-access-reads-registers"                "4.1.4.9.1"   Device registers::pci_access_reads_registers "a read of pci_cfg_data reads the BAR, in 1, 2 and 4 bytes",
    Must   "pci-access-writes-registers"               "4.1.4.9.1"   Device registers::pci_access_writes_registers "a write of pci_cfg_data writes the BAR",

    // Rings.
    Must   "inflate-completes"                         "5.5.6"       Device rings::inflate_completes "inflate requests come back",
    Must   "deflate-completes"                         "5.5.6"       Device rings::deflate_completes "deflate requests come back",
    Must   "used-ids-are-outstanding"                  "2.7.8.2"     Device rings::used_ids_are_outstanding "used entries name requests that the device has",
    Must   "nothing-is-used-twice"                     "2.7.8.2"     Device rings::nothing_is_used_twice "the used ring moves on by what was done, once",
    Must   "buffers-are-used-in-order"                 "2.7.9"       Device rings::buffers_are_used_in_order "with IN_ORDER buffers are used in the order in which they were made available",
    Should "used-length-of-readable-buffers-is-0"      "2.7.8.2"     Device rings::used_length_of_readable_buffers_is_0 "the used length of a buffer that the device only reads is 0",
    Must   "readable-buffers-are-left-alone"           "2.7.5.1"     Device rings::readable_buffers_are_left_alone "memory that the device may only read is not written",
    Must   "driver-areas-are-left-alone"               "2.7"         Device rings::driver_areas_are_left_alone "descriptor tables and available rings are not written",
    Must   "nothing-else-is-written"                   "2.7"         Device rings::nothing_else_is_written "the device writes nothing that it was not given",
    Must   "nothing-is-used-before-driver-ok"          "2.1.2"       Device rings::nothing_is_used_before_driver_ok "buffers posted before DRIVER_OK are not used before it",
    Must   "kicks-before-driver-ok-are-ignored"        "2.1.2"       Device rings::kicks_before_driver_ok_are_ignored "nor are they when the queue is kicked before DRIVER_OK",
    Must   "early-buffers-are-used-after-driver-ok"    "2.1.2"       Device rings::early_buffers_are_used_after_driver_ok "buffers posted before DRIVER_OK are used after a kick that follows it",
    Must   "wanted-kicks-are-enough"                   "2.7.10.2"    Device rings::wanted_kicks_are_enough "the device goes on with only the kicks that it asks for",
    Must   "kicks-for-nothing-do-no-harm"              "2.7.13.4"    Device rings::kicks_for_nothing_do_no_harm "a kick of an empty queue changes nothing",
    Must   "suppression-flags-are-legal"               "2.7.10.2"    Device rings::suppression_flags_are_legal "the device's flags and event positions are ones that exist",
    Must   "kicks-with-data-work"                      "4.1.5.2"     Device layouts::kicks_with_data_work "kicks by NOTIFICATION_DATA and NOTIF_CONFIG_DATA reach their queue",

    // Interrupts.
    Must   "interrupts-arrive-by-queue"                "4.1.5.3.1"   Device interrupts::interrupts_arrive_by_queue "with a vector to each queue used buffers interrupt",
    Must   "interrupts-arrive-shared"                  "4.1.5.3.1"   Device interrupts::interrupts_arrive_shared "with one vector for all queues used buffers interrupt",
    Must   "interrupts-arrive-by-line"                 "4.1.5.3.1"   Device interrupts::interrupts_arrive_by_line "without MSI-X used buffers pull the interrupt line",
    Must   "interrupts-come-on-their-own-vector"       "4.1.5.3.1"   Device interrupts::interrupts_come_on_their_own_vector "used buffers interrupt on their queue's vector and no other",
    Must   "queues-without-vector-do-not-interrupt"    "4.1.5.3.1"   Device interrupts::queues_without_vector_do_not_interrupt "a queue whose vector is NO_VECTOR sends no message",
    Should "suppressed-interrupts-stay-away"           "2.7.7.2"     Device interrupts::suppressed_interrupts_stay_away "no interrupt comes that the driver does not want",
    Should "the-first-interrupt-can-be-suppressed"     "2.7.7.2"     Device interrupts::the_first_interrupt_can_be_suppressed "nor does one for the first buffer after a reset",
    Must   "interrupts-come-at-the-event-index"        "2.7.7.2"     Device interrupts::interrupts_come_at_the_event_index "with EVENT_IDX the buffer that the driver waits for interrupts",
    Should "no-interrupt-before-the-event-index"       "2.7.7.2"     Device interrupts::no_interrupt_before_the_event_index "with EVENT_IDX no earlier one does",
    Should "nothing-interrupts-while-idle"             "4.1.5.3.1"   Device interrupts::nothing_interrupts_while_idle "no interrupt comes with nothing to tell of",
    Must   "isr-tells-of-used-buffers"                 "4.1.4.5.1"   Device interrupts::isr_tells_of_used_buffers "the ISR byte has its queue bit set after buffers were used",
    Must   "isr-is-cleared-by-reading"                 "4.1.4.5.1"   Device interrupts::isr_is_cleared_by_reading "reading the ISR byte clears it",
    Must   "isr-is-0-while-idle"                       "4.1.4.5.1"   Device interrupts::isr_is_0_while_idle "the queue bit of the ISR byte is set for a reason",
    Must   "isr-has-no-undefined-bits"                 "4.1.4.5.1"   Device interrupts::isr_has_no_undefined_bits "undefined bits of the ISR byte are 0",
    Must   "interrupt-status-follows-isr"              "4.1.4.5.1"   Device interrupts::interrupt_status_follows_isr "Interrupt Status in the PCI status register is set while a bit of the ISR byte is",
    Must   "no-interrupt-after-a-reset"                "2.4.1"       Device interrupts::no_interrupt_after_a_reset "no interrupt comes once a reset is done",

    // Layouts.
    Must   "every-split-size-works"                    "4.1.5.1.3"   Device layouts::every_split_size_works "split queues of every power of two work",
    Must   "every-packed-size-works"                   "2.8.10.1"    Device layouts::every_packed_size_works "packed queues of every size work, odd ones too",
    Must   "rings-of-one-descriptor-work"              "2.7"         Device layouts::rings_of_one_descriptor_work "a queue may have one entry",
    Must   "queue-memory-may-lie-anywhere"             "2.7"         Device layouts::queue_memory_may_lie_anywhere "the areas of a queue may lie in any order at the least alignment",
    Must   "chains-work"                               "2.7.4.1"     Device layouts::chains_work "a request may be a chain of descriptors",
    Must   "one-frame-number-a-descriptor-works"       "2.7.4.1"     Device layouts::one_frame_number_a_descriptor_works "each frame number may have a descriptor of its own",
    Must   "frame-numbers-may-be-cut-in-two"           "2.7.4.1"     Device layouts::frame_numbers_may_be_cut_in_two "a frame number may lie in two descriptors",
    Must   "buffers-may-be-unaligned"                  "2.7.4.1"     Device layouts::buffers_may_be_unaligned "buffers may begin at any byte",
    Must   "requests-may-have-one-frame"               "5.5.6"       Device layouts::requests_may_have_one_frame "a request may hold one frame number",
    Must   "requests-may-have-256-frames"              "5.5.6"       Device layouts::requests_may_have_256_frames "a request may hold 256 frame numbers",
    Must   "tables-of-one-descriptor-work"             "2.7.5.3.2"   Device layouts::tables_of_one_descriptor_work "an indirect table may have one descriptor",
    Must   "tables-of-many-descriptors-work"           "2.7.5.3.2"   Device layouts::tables_of_many_descriptors_work "an indirect table may have many descriptors",
    Must   "direct-and-indirect-may-mix"               "2.7.5.3.2"   Device layouts::direct_and_indirect_may_mix "direct and indirect requests may follow each other in one queue",
    Must   "ring-indices-wrap"                         "2.7.13"      Device rings::ring_indices_wrap "indices of 16 bits and wrap counters go round",

    // Features at work.
    Must   "works-with-the-least-features"             "2.2.2"       Device features::works_with_the_least_features "the balloon works with nothing but VERSION_1 and what it cannot do without",
    Must   "works-with-all-features"                   "2.2.2"       Device features::works_with_all_features "it works with all features that are offered",
    Must   "works-with-each-feature-alone"             "2.2.2"       Device features::works_with_each_feature_alone "it works with each offered feature alone",
    Must   "works-with-all-features-but-one"           "2.2.2"       Device features::works_with_all_features_but_one "it works with all offered features but each one",

    // The rest of the balloon.
    Custom "statistics-wait-to-be-asked-for"           "5.5.6.3"     Device balloon::statistics_wait_to_be_asked_for "the statistics buffer comes back when statistics are wanted, not at once",
    Must   "balloon-works-beside-statistics"           "5.5.6.3"     Device balloon::balloon_works_beside_statistics "a statistics buffer in the device's hands keeps up nothing else",
    Must   "telling-the-host-first-works"              "5.5.6"       Device balloon::telling_the_host_first_works "with MUST_TELL_HOST deflate requests come back",
    Must   "reports-of-free-pages-complete"            "5.5.6.7"     Device balloon::reports_of_free_pages_complete "reports of free pages come back",
    Custom "hint-command-holds-still"                  "5.5.6.5"     Device balloon::hint_command_holds_still "free_page_hint_cmd_id changes only when the host wants hints",
    Must   "balloon-works-with-poison"                 "5.5.6.6"     Device balloon::balloon_works_with_poison "the balloon works with PAGE_POISON and a poison_val of 0",

    // Resets at work.
    Must   "reset-ends-in-mid-traffic"                 "2.4.1"       Device resets::reset_ends_in_mid_traffic "a reset ends while requests are in flight",
    Must   "nothing-is-written-after-a-reset"          "2.4.1"       Device resets::nothing_is_written_after_a_reset "once a reset is done the device writes no memory",
    Must   "device-works-after-a-reset-in-mid-traffic" "2.4.1"       Device resets::device_works_after_a_reset_in_mid_traffic "the balloon works after a reset with requests in flight",
    Must   "every-reconfiguration-works"               "3.1.1"       Device resets::every_reconfiguration_works "the device can be set up again with other features, sizes, places and interrupts",
    Must   "a-failed-driver-can-start-over"            "2.4.1"       Device resets::a_failed_driver_can_start_over "after FAILED a reset starts over",
    Must   "queue-reset-is-0-before-it-is-asked-for"   "4.1.4.3.1"   Device resets::queue_reset_is_0_before_it_is_asked_for "queue_reset is 0 before a queue is reset",
    Must   "queue-reset-ends"                          "2.6.1.1.1"   Device resets::queue_reset_ends "a reset of one queue ends, and leaves queue_reset and queue_enable at 0",
    Must   "nothing-is-written-after-a-queue-reset"    "2.6.1.1.1"   Device resets::nothing_is_written_after_a_queue_reset "once a queue is reset the device does not write its memory",
    Must   "queue-reset-leaves-other-queues-alone"     "2.6.1.1.1"   Device resets::queue_reset_leaves_other_queues_alone "other queues go on while one is reset",
    Must   "a-reset-queue-works-again"                 "2.6.1.2.1"   Device resets::a_reset_queue_works_again "a queue that was reset can be enabled again with another size and place",

    // After all that.
    Must   "legal-use-needs-no-reset"                  "2.1.2"       Device layouts::legal_use_needs_no_reset "DEVICE_NEEDS_RESET was not set by anything that is legal",
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_words_and_hyphens_and_all_different() {
        for (place, check) in CHECKS.iter().enumerate() {
            let fine = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
            assert!(check.name.chars().all(fine) && !check.asks.ends_with('.'), "{}", check.name);
            assert!(CHECKS[place + 1..].iter().all(|other| other.name != check.name), "{} twice", check.name);
        }
    }

    /// The list of checks in the documentation matches the table. `BALLONET_WRITE_DOCS=1` rewrites it.
    #[test]
    fn the_documentation_lists_the_checks() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/checks.md");
        let text = std::fs::read_to_string(path).unwrap();
        let (head, rest) = text.split_once("<!-- checks -->\n").expect("a mark where the list begins");
        let (_, tail) = rest.split_once("<!-- end of checks -->").expect("a mark where the list ends");
        let mut list = String::from("\n| check | | section | what it asks of the device |\n|---|---|---|---|\n");
        for Check { name, severity, section, asks } in CHECKS {
            list += &format!("| `{name}` | {severity} | {section} | {asks} |\n");
        }
        let expected = format!("{head}<!-- checks -->\n{list}\n<!-- end of checks -->{tail}");
        if std::env::var_os("BALLONET_WRITE_DOCS").is_some() {
            std::fs::write(path, &expected).unwrap();
        }
        assert!(text == expected || std::env::var_os("BALLONET_WRITE_DOCS").is_some(), "docs/checks.md is out of date");
    }
}
