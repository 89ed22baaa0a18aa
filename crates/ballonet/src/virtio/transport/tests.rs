//! The table of operations is correct: each exists under the name in the table, and is found by its C name.

use super::Transport;
use crate::platform::Platform;
use crate::virtio::device::{Device, DriverFound, DriverOk, Reset};
use crate::virtio::interrupt::{Interrupts, find_vqs};

/// The operations that a transport must have.
const OPERATIONS: [&str; 17] = [
    "get",
    "set",
    "generation",
    "get_status",
    "set_status",
    "reset",
    "find_vqs",
    "del_vqs",
    "synchronize_cbs",
    "get_features",
    "finalize_features",
    "bus_name",
    "set_vq_affinity",
    "get_vq_affinity",
    "get_shm_region",
    "disable_vq_and_reset",
    "enable_vq_after_reset",
];

const SOURCES: [&str; 4] = [
    include_str!("mod.rs"),
    include_str!("../device.rs"),
    include_str!("../interrupt/mod.rs"),
    include_str!("../interrupt/ladder.rs"),
];

/// The rows of the table in this module's documentation: operation, transports, and the function that the row links to.
fn rows() -> Vec<(&'static str, &'static str, &'static str)> {
    let rows = SOURCES[0].lines().filter_map(|line| line.strip_prefix("//! | `"));
    rows.map(|row| {
        let (operation, rest) = row.split_once("` | ").expect("an operation");
        let (transports, rest) = rest.split_once(" | [`").expect("transports");
        let path = rest.split_once('`').expect("a link").0;
        (operation, transports, path.rsplit("::").next().expect("a name"))
    })
    .collect()
}

/// Whether a function of this name is found by `alias` in one of the sources: by its name, or because it has the alias.
fn has_alias(function: &str, alias: &str) -> bool {
    if function == alias {
        return SOURCES.iter().any(|source| source.contains(&format!("fn {function}")));
    }
    let alias = format!("#[doc(alias = \"{alias}\")]");
    let declared = [format!("fn {function}("), format!("fn {function}<")];
    SOURCES.iter().any(|source| {
        source.match_indices(&alias).any(|(at, _)| {
            let item = source[at..].lines().map(str::trim_start).find(|line| !line.starts_with("#["));
            item.is_some_and(|item| declared.iter().any(|name| item.contains(name)))
        })
    })
}

#[test]
fn every_operation_is_in_the_table_and_found_by_its_c_name() {
    let rows = rows();
    let operations: Vec<_> = rows.iter().map(|row| row.0).collect();
    assert_eq!(operations, OPERATIONS);
    for (operation, transports, function) in rows {
        assert!(["all", "modern", "modern, MMIO version 2"].contains(&transports), "{operation}: {transports}");
        assert!(has_alias(function, operation), "{function} has no alias {operation}");
    }
}

/// Never run: it compiles only if each operation exists, for every platform.
#[allow(dead_code)]
fn all_of_them<P: Platform>() {
    type On<P> = Transport<<P as Platform>::Registers>;
    type Its<P, S> = Device<<P as Platform>::Registers, S>;
    type Raised<P> = Interrupts<<P as Platform>::Registers>;
    let _ = (On::<P>::read_config::<u8>, On::<P>::write_config::<u32>);
    let _ = (On::<P>::generation, On::<P>::status, On::<P>::set_status, On::<P>::features, On::<P>::set_features);
    let _ = (On::<P>::address, On::<P>::shared_memory);
    let _ = (Its::<P, Reset>::new::<P>, Its::<P, DriverOk>::quiesce::<P>, Its::<P, DriverFound>::negotiate);
    let _ = (find_vqs::<P>, Raised::<P>::release::<P>, Raised::<P>::synchronize::<P>);
    let _ = (Raised::<P>::set_queue_affinity::<P>, Raised::<P>::queue_affinity::<P>);
    let _ = (Its::<P, DriverOk>::reset_queue::<P>, Its::<P, DriverOk>::enable_queue_again);
}
